"""The newest snapshot of each lane, and the pages made of them."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Collection, Iterable

import zstandard
from isal import isal_zlib

from ._fast.encode import encode
from ._fast.table import Snapshot
from .dialects import TEXT, Dialect
from .sampler import Lane, stale

#: ISA-L's cheapest level: a tenth of the time of zlib's level 6 for a fifth more bytes.
GZIP_LEVEL = 0
GZIP_WINDOW = 31
ZSTD_LEVEL = 1


class Page:
    """One page of metrics, compressed at most once for each encoding."""

    def __init__(self, body: bytes, composed: float) -> None:
        self.body = body
        self.composed = composed
        self._encoded = {"identity": body}

    def encoded(self, encoding: str) -> bytes:
        """The page as identity, gzip or zstd."""
        data = self._encoded.get(encoding)
        if data is None:
            if encoding == "gzip":
                data = isal_zlib.compress(self.body, GZIP_LEVEL, GZIP_WINDOW)
            else:
                data = zstandard.ZstdCompressor(level=ZSTD_LEVEL).compress(self.body)
            self._encoded[encoding] = data
        return data


class Entry:
    """A lane, its newest snapshot, and that snapshot's text in each dialect asked for."""

    def __init__(self, lane: Lane) -> None:
        self.lane = lane
        self.snapshot: Snapshot | None = None
        self.texts: dict[str, bytes] = {}

    def age(self, now: float) -> float:
        """Seconds since the newest reading began; infinite before the first."""
        return math.inf if self.snapshot is None else now - self.snapshot.monotonic

    def missing(self, now: float) -> bool:
        """Whether the lane has no reading, or none that still tells anything."""
        return self.age(now) > stale(self.lane.interval)


class Waiter:
    """A scrape that waits for lanes; ``answer`` is called once, by whoever takes it."""

    def __init__(self, lanes: set[str], deadline: float, answer: Callable[[], None]) -> None:
        self.lanes = lanes
        self.deadline = deadline
        self.answer = answer


class Store:
    """What the lanes publish, and the scrapes that wait for it. Any thread may call it.

    ``own`` reads the agent's own lane, which is part of the page and not of the lanes: it says how
    they fare at the moment a page is put together. ``alarm`` is set to ring, in seconds, when
    :meth:`expire` is due; 0 when it is not.
    """

    def __init__(self, max_age: float, wait: float, alarm: Callable[[float], None]) -> None:
        self.lanes: dict[str, Entry] = {}
        self.max_age = max_age
        self.wait = wait
        self.alarm = alarm
        self.series = 0
        self.own: Callable[[], Snapshot]
        self._version = 0
        self._pages: dict[str, tuple[int, Page]] = {}
        self._dialects = {TEXT.name: TEXT}
        self._waiters: list[Waiter] = []
        self._lock = threading.Lock()
        self._composing = threading.Lock()

    def arrange(self, lanes: Iterable[Lane]) -> None:
        """Takes these lanes, in this order, and no other; those that it has keep what they have."""
        entries = {}
        for lane in lanes:
            entry = self.lanes.get(lane.name)
            entries[lane.name] = entry if entry and entry.lane is lane else Entry(lane)
        with self._lock:
            self.lanes = entries  # another one, for others may be looking through it
            self._version += 1

    def publish(self, name: str, snapshot: Snapshot) -> None:
        """A lane's new snapshot, encoded here, on the lane's thread; answers who waited for it."""
        entry = self.lanes.get(name)
        if entry is None:  # it has just left
            return
        texts = {key: encode(snapshot, dialect) for key, dialect in self._dialects.items()}
        with self._lock:
            entry.snapshot, entry.texts = snapshot, texts
            self._version += 1
            if not self._waiters:
                return
            for waiter in self._waiters:
                waiter.lanes.discard(name)
            done = self._take(lambda waiter: not waiter.lanes)
        for waiter in done:
            waiter.answer()

    def expire(self) -> None:
        """Answers the scrapes that have waited long enough."""
        now = time.monotonic()
        with self._lock:
            done = self._take(lambda waiter: waiter.deadline <= now)
        for waiter in done:
            waiter.answer()

    def _take(self, due: Callable[[Waiter], bool]) -> list[Waiter]:
        """Takes the waiters that are due, and sets the alarm for the rest. The lock is held."""
        done = [waiter for waiter in self._waiters if due(waiter)]
        if done:
            self._waiters = [waiter for waiter in self._waiters if waiter not in done]
            self._set_alarm()
        return done

    def _set_alarm(self) -> None:
        """Sets the alarm for the waiter with the nearest deadline. The lock is held."""
        if self._waiters:
            nearest = min(waiter.deadline for waiter in self._waiters)
            self.alarm(max(nearest - time.monotonic(), 0.001))
        else:
            self.alarm(0)

    def fresh(
        self, answer: Callable[[], None], limit: float, names: Collection[str] | None = None
    ) -> None:
        """Calls ``answer`` when the lanes (all, or ``names``) are as fresh as they get in time.

        Lanes whose snapshot is too old are asked to read, and waited for up to ``limit`` seconds,
        but never longer than ``wait``. One that has been reading for longer than that already is
        not waited for. ``answer`` runs at once on this thread, or later on another one.
        """
        now = time.monotonic()
        limit = min(limit, self.wait)
        late: set[str] = set()
        with self._lock:
            for name, entry in self.lanes.items():
                if entry.lane.derived or (names is not None and name not in names):
                    continue
                if self.max_age > 0 and entry.age(now) <= self.max_age:
                    continue
                if entry.snapshot is not None and not entry.lane.wanted:
                    continue
                since = entry.lane.reading_since
                if since is None:
                    entry.lane.request()
                elif now - since > self.wait:
                    continue
                late.add(name)
            if late and limit > 0:
                self._waiters.append(Waiter(late, now + limit, answer))
                self._set_alarm()
                return
        answer()

    def page(self, dialect: Dialect, groups: Collection[str] | None = None) -> Page:
        """The page of the newest snapshots; of some collectors only with ``groups``."""
        with self._composing:
            now = time.monotonic()
            if groups is not None:
                return Page(self._compose(dialect, now, groups), now)
            version, page = self._pages.get(dialect.name, (-1, None))
            if (
                page is None
                or version != self._version
                or now - page.composed > (self.max_age or self.wait)
            ):
                version = self._version
                page = Page(self._compose(dialect, now, None), now)
                self._pages[dialect.name] = version, page
            return page

    def _compose(self, dialect: Dialect, now: float, groups: Collection[str] | None) -> bytes:
        if dialect.name not in self._dialects:
            self._dialects = {**self._dialects, dialect.name: dialect}
        parts = []
        series = 0
        for entry in self.lanes.values():
            with self._lock:
                snapshot, text = entry.snapshot, entry.texts.get(dialect.name)
            if snapshot is None or entry.missing(now):
                continue
            if groups is not None or text is None:
                text = encode(snapshot, dialect, groups)
            parts.append(text)
            series += snapshot.present
        own = self.own()
        if groups is None and self.series != series + own.present:
            self.series = series + own.present
            own = self.own()
        parts.append(encode(own, dialect, groups))
        parts.append(dialect.end)
        return b"".join(parts)
