"""Lanes, and the threads that read them: each tick, and when a scrape asks."""

from __future__ import annotations

import contextlib
import gc
import logging
import threading
import time
from collections.abc import Callable, Sequence

from ._fast.table import Snapshot, Table
from .collectors.base import Collector, Refused, Unavailable
from .logs import Heard
from .metrics import Metric

log = logging.getLogger(__name__)

#: Seconds between two attempts to bind a collector whose source was not there.
RETRY = 60.0
#: Failures of a collector that are remembered.
FAILURES = 10
#: What a lane has read tells nothing any more when it has missed this many intervals, and at least
#: for so many seconds.
MISSED = 3
LEAST = 1.0


def stale(interval: float) -> float:
    """Seconds after which the reading of a lane with that interval tells nothing any more."""
    return max(MISSED * interval, LEAST)


class Part:
    """A collector in its lane, and how it fares."""

    def __init__(self, collector: Collector, errors: int = 0) -> None:
        """``errors``: of those whose place this one takes."""
        self.collector = collector
        self.name = collector.name
        self.bound = False
        self.due = 0.0
        self.failed = False
        #: Whether its source is not on this machine.
        self.absent = False
        #: Whether the last reading could read what it should.
        self.up = False
        self.errors = errors
        self.seconds = 0.0
        self.reason: str | None = None
        #: When each failure was the last time, in Unix seconds; the newest is the last.
        self.failures: dict[str, float] = {}
        self._heard = Heard()

    def report(self, message: str) -> None:
        """Counts a failure of this reading; logs it unless it was logged before."""
        self.errors += 1
        self.failed = True
        if self.failures.pop(message, None) is None and len(self.failures) >= FAILURES:
            del self.failures[next(iter(self.failures))]
        self.failures[message] = time.time()
        self.note(message, logging.WARNING)

    def note(self, message: str, level: int) -> None:
        self.reason = message
        if self._heard.is_news(message):
            log.log(level, "%s: %s", self.name, message)

    def start(self, table: Table, now: float, tick: bool) -> None:
        """The first half of a reading: binds the collector where that is due, and starts it."""
        self.failed = False
        try:
            if not self.bound:
                if now < self.due:
                    return
                self.due = now + RETRY
                self.absent = False
                self.collector.attach(table, self.report)
                self.bound = True
            self.collector.start(tick)
        except Unavailable as error:
            table.clear(self.collector.metrics)
            self._lacks(error)
        except Exception as error:
            self._fault(error)
            if not self.bound:
                table.clear(self.collector.metrics)

    def sample(self, tick: bool) -> None:
        """The second half."""
        if not self.bound:
            self.up = False
            return
        self.absent = False
        try:
            self.collector.sample(tick)
        except Unavailable as error:  # it is bound, and has nothing to read for the moment
            self._lacks(error)
            self.up = False
            return
        except Exception as error:
            self._fault(error)
        self.up = not self.failed

    def end(self, table: Table) -> None:
        """Takes the collector and its rows out of the lane."""
        try:
            if self.bound:
                self.collector.close()
            self.collector.stop()
        except Exception as error:
            self._fault(error)
        table.clear(self.collector.metrics)
        self.collector.report = forget  # a cycle else, which is never found when it was frozen

    def _lacks(self, error: Unavailable) -> None:
        """Its source is not there, or not for us."""
        self.absent = not isinstance(error, Refused)
        self.note(str(error), logging.INFO if self.absent else logging.WARNING)

    def _fault(self, error: Exception) -> None:
        """A fault of ours costs this collector's rows of this reading, not the lane."""
        self.report(f"{type(error).__name__}: {error}")
        log.debug("%s", self.name, exc_info=error)


def forget(message: str) -> None:
    """Nobody wants to know of it any more."""


class Lane:
    """Some collectors and the table that they fill; a trouble in one lane is no other lane's.

    ``kinds``: of the collectors that it may have one day, in page order. ``derived``: it is made of
    the others' snapshots of a tick, and cannot be asked for more."""

    def __init__(
        self,
        name: str,
        collectors: Sequence[Collector],
        interval: float,
        kinds: Sequence[type[Collector]] = (),
        derived: bool = False,
    ) -> None:
        self.name = name
        self.derived = derived
        self.interval = interval
        #: What it has from the next reading on; another list may be put here by any thread.
        self.parts = [Part(collector) for collector in collectors]
        self._read = self.parts
        #: Whether nobody wants to know of it any more.
        self.retired = False
        groups: dict[str, list[Metric]] = {}
        for each in kinds or collectors:
            groups.setdefault(each.name, []).extend(each.metrics)
        self.table = Table(list(groups.items()))
        #: When the reading that is under way began, in monotonic seconds; None between readings.
        self.reading_since: float | None = None
        #: Asks for a fresh reading now.
        self.request: Callable[[], None] = lambda: None

    @property
    def wanted(self) -> bool:
        """Whether a scrape is worth a reading now; any thread may ask."""
        return any(part.bound and part.collector.wanted() for part in self.parts)

    def start(self, tick: bool) -> None:
        """The first half of a reading; ``tick``: what belongs to the tick is due as well."""
        now = self.reading_since = time.monotonic()
        if self._read is not self.parts:
            self.follow()
        for part in self._read:
            part.start(self.table, now, tick)

    def follow(self) -> None:
        """Ends the parts that have left, and makes way for those that have come."""
        parts = self.parts
        left = [part for part in self._read if part not in parts]
        known = {type(part.collector): part.collector for part in left}
        for part in parts:
            if part not in self._read and (before := known.get(type(part.collector))) is not None:
                part.collector.succeed(before)
        for part in left:
            part.end(self.table)
        self._read = parts
        if left:
            known.clear()
            left.clear()
            gc.collect()  # what they held open is in cycles

    def read(self, tick: bool) -> Snapshot:
        """The second half."""
        start = self.reading_since
        if start is None:
            self.start(tick)
            start = self.reading_since
        assert start is not None
        self.table.begin(tick)
        now = time.monotonic()
        for part in self._read:
            part.sample(tick)
            before, now = now, time.monotonic()
            part.seconds = now - before
        snapshot = self.table.freeze(start, int(time.time() * 1000))
        self.reading_since = None
        return snapshot


class Sampler:
    """A thread that reads its lanes one after the other, and publishes each as soon as it is read.

    What a lane does with threads of its own goes on while the lanes before it are read.
    ``publish`` is called with each snapshot, on this thread, and ``record`` with each tick's. Any
    thread may give it other lanes, which count from the next reading on.
    """

    def __init__(
        self,
        lanes: Sequence[Lane],
        interval: float,
        publish: Callable[[str, Snapshot], None],
        record: Callable[[str, Snapshot], None] | None = None,
    ) -> None:
        self.lanes = lanes
        self._lanes = lanes
        self.interval = interval
        self.publish = publish
        self.record = record
        self._wake = threading.Lock()  # released: there is a request
        self._wake.acquire()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name=lanes[0].name, daemon=True)
        for lane in lanes:
            lane.request = self.request

    def change(self, lanes: Sequence[Lane], interval: float) -> None:
        """Gives it other lanes, and another interval. Without a lane it ends."""
        for lane in lanes:
            lane.request = self.request
        self.interval = interval
        self.lanes = lanes
        self._stopping = not lanes
        self.request()

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

    def read(self, tick: bool) -> None:
        """One reading of every lane."""
        lanes = self._lanes
        if lanes is not self.lanes:
            lanes = self.follow()
        for lane in lanes:
            lane.start(tick)
        for lane in lanes:
            snapshot = lane.read(tick)
            if lane.retired:
                continue
            self.publish(lane.name, snapshot)
            if tick and self.record is not None:
                self.record(lane.name, snapshot)

    def follow(self) -> Sequence[Lane]:
        """Lets go of the lanes that have left; those that it has now."""
        before, self._lanes = self._lanes, self.lanes
        for lane in before:
            if lane not in self._lanes:
                lane.parts = []
                lane.follow()
        return self._lanes

    def _run(self) -> None:
        due = time.monotonic()
        while not self._stopping:
            now = time.monotonic()
            due = min(due, now + self.interval)
            tick = now >= due
            if tick:
                due += self.interval * (1 + (now - due) // self.interval)
                if due - now < self.interval / 2:  # rates of a moment tell nothing
                    due = now + self.interval
            try:
                self.read(tick)
            except Exception:
                log.exception("a reading of %s failed", ", ".join(lane.name for lane in self.lanes))
                for lane in self._lanes:
                    lane.reading_since = None
            self._wake.acquire(timeout=max(0.0, due - time.monotonic()))
        self.follow()
