"""Reads the configuration again: when asked to, and when its file has changed."""

from __future__ import annotations

import contextlib
import logging
import os
import stat
import threading
from collections.abc import Callable

import msgspec

from . import config
from .config import KEYS, Config, ConfigError, Settings

log = logging.getLogger(__name__)

#: Seconds between two looks at the file, and until a changed one is taken for complete: who writes
#: it in place first empties it.
PERIOD = 2.0
SETTLED = 0.25
#: Bytes of a file that is looked at.
SIZE = 1 << 20


class Reload:
    """``change`` gets the new configuration, on this thread.

    count: reloads that were taken up. good: whether the last one was.
    """

    def __init__(self, settings: Settings, change: Callable[[Config], None]) -> None:
        self.settings = settings
        self.change = change
        self.count = 0
        self.good = True
        self.arguments = settings.arguments
        self._asked = threading.Lock()  # released: somebody has asked
        self._asked.acquire()
        self._told = False
        self._gone = False
        self._stopping = False
        self._seen = (settings.file, content(settings.file))
        self._thread = threading.Thread(target=self._run, name="reload", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread; one that hangs in reading the file is left behind."""
        self._stopping = True
        self._wake()
        self._thread.join(timeout=0.2)

    def ask(self) -> None:
        """Asks for a reload now; any thread and any handler of a signal may."""
        self._told = True
        self._wake()

    def _wake(self) -> None:
        with contextlib.suppress(RuntimeError):  # awake already
            self._asked.release()

    def _run(self) -> None:
        while not self._stopping:
            try:
                self._look()
            except Exception:
                log.exception("the configuration could not be read again")
            self._asked.acquire(timeout=PERIOD)

    def _look(self) -> None:
        told, self._told = self._told, False
        now = self._read()
        if not told:
            if now == self._seen:
                self._gone = False
                return
            self._asked.acquire(timeout=SETTLED)
            if self._stopping or self._read() != now:
                return
            if now[1] is None:  # it may come back
                if not self._gone:
                    log.warning(
                        "%s cannot be read: the configuration stays as it was",
                        now[0] or self._seen[0],
                    )
                self._gone = True
                return
        self._seen = now
        self.read()

    def _read(self) -> tuple[str | None, bytes | None]:
        """The file of the configuration, and what is in it."""
        try:
            path = config.find_file(self.arguments.config, os.environ)
        except ConfigError:
            path = None
        return path, content(path)

    def read(self) -> bool:
        """Reads the configuration again, and takes up what can change; whether it is valid."""
        before = self.settings.config
        try:
            settings = config.load(self.arguments, os.environ)
        except ConfigError as error:
            self.good = False
            log.error("the configuration stays as it was: %s", error)
            return False
        changed = [key for key in KEYS.values() if key.of(before) != key.of(settings.config)]
        late = [key.name for key in changed if key.at_start]
        live = [key.name for key in changed if not key.at_start]
        kept = {name: getattr(before, name) for name in {name.partition(".")[0] for name in late}}
        self.settings = msgspec.structs.replace(
            settings, config=msgspec.structs.replace(settings.config, **kept)
        )
        if live:
            self.change(self.settings.config)
        self.count += 1
        self.good = True
        where = settings.file or "defaults"
        log.info("read again from %s: %s", where, ", ".join(live) or "nothing has changed")
        if late:
            log.warning("counts when the agent is started anew: %s", ", ".join(late))
        return True


def content(path: str | None) -> bytes | None:
    """What is in a regular file; None where it cannot be read. A pipe is not waited for."""
    if path is None:
        return None
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return None
        return os.read(descriptor, SIZE)
    except OSError:
        return None
    finally:
        os.close(descriptor)
