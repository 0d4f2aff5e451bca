"""Rounds: the lanes' snapshots of one tick, put together on a thread that no lane waits for."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Mapping

from ._fast.table import Snapshot
from .sampler import stale

log = logging.getLogger(__name__)

#: Seconds that a round waits at most for lanes after its first one.
PATIENCE = 1.0
#: Intervals without any lane after which a round is closed all the same, and seconds before the
#: first one: who asks for the status of an agent that has just started is to get an answer.
SILENCE = 1.5
FIRST = 1.0

#: The newest snapshots of a tick by lane.
Snapshots = Mapping[str, Snapshot]


class Rounds:
    """Closes a round when every lane has delivered its tick, or soon after the first one has.

    A lane that was not heard of in the last round is not waited for; what comes late counts for the
    round after, but a lane's first snapshot has a round of its own then. ``handle`` is called with
    the newest snapshots of the lanes that are still heard of, and ``answer`` after :meth:`ask`;
    both on this thread, never at the same time.
    """

    def __init__(
        self,
        lanes: Collection[str],
        interval: float,
        handle: Callable[[Snapshots], None],
        answer: Callable[[], object] = lambda: None,
    ) -> None:
        self.pace(interval)
        self.handle = handle
        self.answer = answer
        self._newest: dict[str, Snapshot] = {}
        #: Those to wait for, those heard of since the last round, those that are in.
        self._expected = set(lanes)
        self._heard: set[str] = set()
        self._fresh: set[str] = set()
        self._opened: float | None = None
        self._closed = time.monotonic()
        self._begun = False
        #: Whether the round is for a lane alone whose first snapshot was late.
        self._alone = False
        self._asked = False
        self._stopping = False
        self._lock = threading.Lock()
        self._wake = threading.Condition(self._lock)
        self._thread = threading.Thread(target=self._run, name="derived", daemon=True)

    def pace(self, interval: float) -> None:
        """Takes another time between two ticks; any thread may call it."""
        self.interval = interval
        #: Seconds that a round waits for lanes after its first one.
        self.patience = min(interval / 2, PATIENCE)

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout: float) -> None:
        """Ends the thread."""
        with self._lock:
            self._stopping = True
            self._wake.notify()
        self._thread.join(timeout)

    def add(self, lane: str, snapshot: Snapshot) -> None:
        """Takes a lane's snapshot of a tick; any thread may call it."""
        with self._lock:
            is_known = lane in self._newest
            self._newest[lane] = snapshot
            self._heard.add(lane)
            is_first = self._opened is None
            if snapshot.monotonic <= self._closed:  # its round is over
                if is_known:
                    return
                self._alone |= is_first
            self._fresh.add(lane)
            if is_first:
                self._opened = time.monotonic()
            if is_first or self._expected <= self._fresh:
                self._wake.notify()

    def ask(self) -> None:
        """Has ``answer`` called soon; any thread may call it."""
        with self._lock:
            self._asked = True
            self._wake.notify()

    def close(self) -> None:
        """Closes a round now, on this thread: for when the thread does not run."""
        with self._lock:
            snapshots = self._take(time.monotonic())
        self.handle(snapshots)

    def _due(self) -> float:
        """When the round is to be closed, in monotonic seconds. The lock is held."""
        if self._opened is None:
            silence = SILENCE * self.interval + self.patience
            return self._closed + (silence if self._begun else min(silence, FIRST))
        if self._alone or self._expected <= self._fresh:
            return self._opened
        return self._opened + self.patience

    def _take(self, now: float) -> Snapshots:
        """Closes the round. The lock is held."""
        others = self._expected if self._alone or not self._heard else set()
        self._expected, self._heard = self._heard | others, set()
        self._alone = False
        self._fresh.clear()
        self._opened = None
        self._closed = now
        self._begun = True
        oldest = now - stale(self.interval)
        return {
            lane: snapshot
            for lane, snapshot in self._newest.items()
            if snapshot.monotonic >= oldest
        }

    def _run(self) -> None:
        while True:
            snapshots = None
            with self._lock:
                while True:
                    now = time.monotonic()
                    due = self._due()
                    if self._stopping:
                        return
                    if due <= now:
                        snapshots = self._take(now)
                    if snapshots is not None or self._asked:
                        break
                    self._wake.wait(due - now)
                if snapshots is None:
                    self._asked = False
            try:
                if snapshots is None:
                    self.answer()
                else:
                    self.handle(snapshots)
            except Exception:
                log.exception("a round failed")
