"""Waits for what tells of events, and has it read at once."""

from __future__ import annotations

import contextlib
import logging
import os
import select
import threading
import time
from collections.abc import Callable

log = logging.getLogger(__name__)

#: Seconds between two readings, so that a burst is one; also where a file cannot be waited for.
PAUSE = 0.02
LOOK = 0.05


class Watch:
    """A thread that calls ``take`` when one of some descriptors has something new to read."""

    def __init__(self, take: Callable[[], None]) -> None:
        self._take = take
        self._poll = select.epoll()
        self._timeout: float | None = None
        self._end = os.eventfd(0)
        self._poll.register(self._end, select.EPOLLIN)
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="gpu-watch", daemon=True)
        self._thread.start()

    def follow(self, descriptor: int) -> None:
        """Waits for this one, too, until it is closed. Any thread may call it."""
        # By the edge: one that stays readable, as a pipe does whose writer has gone, wakes once.
        with contextlib.suppress(FileExistsError):
            try:
                self._poll.register(descriptor, select.EPOLLIN | select.EPOLLET)
            except PermissionError:  # a file, which is always readable
                self._timeout = LOOK
                os.eventfd_write(self._end, 1)

    def stop(self, timeout: float) -> None:
        """Ends the thread; once is enough."""
        if self._closing:
            return
        self._closing = True
        os.eventfd_write(self._end, 1)
        self._thread.join(timeout)
        if not self._thread.is_alive():
            self._poll.close()
            os.close(self._end)

    def _run(self) -> None:
        while True:
            if any(fd == self._end for fd, _ in self._poll.poll(self._timeout)):
                os.eventfd_read(self._end)
            if self._closing:
                return
            try:
                self._take()
            except Exception:
                log.exception("events of GPUs cannot be read")
            time.sleep(PAUSE)
