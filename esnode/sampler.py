"""A lane: a thread that reads its collectors into one table, each tick and when a scrape asks."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Sequence

from ._fast.table import Snapshot, Table
from .collectors.base import Collector, Unavailable

log = logging.getLogger(__name__)

#: Seconds between two attempts to bind a collector whose source was not there.
RETRY = 60.0
#: Different messages of a collector that are logged.
MESSAGES = 100


class Part:
    """A collector in its lane, and how it fares."""

    def __init__(self, collector: Collector) -> None:
        self.collector = collector
        self.name = collector.name
        self.bound = False
        self.due = 0.0
        self.failed = False
        self.errors = 0
        self.seconds = 0.0
        self.reason: str | None = None
        self._logged: set[str] = set()

    @property
    def up(self) -> bool:
        return self.bound and not self.failed

    def report(self, message: str) -> None:
        """Counts a failure of this reading; logs it unless it was logged before."""
        self.errors += 1
        self.failed = True
        self.note(message, logging.WARNING)

    def note(self, message: str, level: int) -> None:
        self.reason = message
        if message not in self._logged and len(self._logged) < MESSAGES:
            self._logged.add(message)
            log.log(level, "%s: %s", self.name, message)

    def sample(self, table: Table, tick: bool, now: float) -> None:
        """One reading of the collector, which is bound first where it is due."""
        self.failed = False
        try:
            if not self.bound:
                if now < self.due:
                    return
                self.due = now + RETRY
                self.collector.attach(table, self.report)
                self.bound = True
            self.collector.sample(tick)
        except Unavailable as error:
            table.clear(self.name)
            self.note(str(error), logging.INFO)
        except Exception as error:
            # A fault of ours costs this collector's rows of this reading, not the lane.
            self.report(f"{type(error).__name__}: {error}")
            log.debug("%s", self.name, exc_info=True)
            if not self.bound:
                table.clear(self.name)
        self.seconds = time.monotonic() - now


class Sampler:
    """One lane. ``publish`` is called with each snapshot, on the lane's thread."""

    def __init__(
        self,
        name: str,
        collectors: Sequence[Collector],
        interval: float,
        publish: Callable[[str, Snapshot], None],
    ) -> None:
        self.name = name
        self.parts = [Part(collector) for collector in collectors]
        self.table = Table([(part.name, part.collector.metrics) for part in self.parts])
        self.interval = interval
        self.publish = publish
        #: When the reading that is under way began; None between readings. Monotonic seconds.
        self.reading_since: float | None = None
        self._wake = threading.Lock()  # released: there is a request
        self._wake.acquire()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def read(self, tick: bool) -> Snapshot:
        """One reading of every collector."""
        start, wall = time.monotonic(), time.time()
        self.table.begin(tick)
        now = start
        for part in self.parts:
            part.sample(self.table, tick, now)
            now = time.monotonic()
        return self.table.freeze(start, int(wall * 1000))

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout: float) -> None:
        """Ends the thread; one that hangs in a reading is left behind."""
        self._stopping = True
        self.request()
        self._thread.join(timeout)

    def request(self) -> None:
        """Asks for a fresh reading now."""
        with contextlib.suppress(RuntimeError):  # asked for already
            self._wake.release()

    def _run(self) -> None:
        due = time.monotonic()
        while not self._stopping:
            now = time.monotonic()
            tick = now >= due
            if tick:
                due += self.interval * (1 + (now - due) // self.interval)
            self.reading_since = now
            try:
                snapshot = self.read(tick)
                self.reading_since = None
                self.publish(self.name, snapshot)
            except Exception:
                self.reading_since = None
                log.exception("%s: a reading failed", self.name)
            self._wake.acquire(timeout=max(0.0, due - time.monotonic()))
