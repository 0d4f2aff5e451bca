"""The newest snapshot of each lane, and the pages made of them."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Collection, Sequence

import zstandard
from isal import isal_zlib

from ._fast.encode import encode
from ._fast.table import Snapshot
from .dialects import TEXT, Dialect
from .sampler import Sampler

#: gzip's cheapest level: ISA-L's is ten times as fast as zlib's and hardly larger.
GZIP_LEVEL = 1
GZIP_WINDOW = 31
ZSTD_LEVEL = 1

#: A lane that has missed this many intervals is not shown any more.
MISSED = 3


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


class Lane:
    """A sampler, its newest snapshot, and that snapshot's text in each dialect asked for."""

    def __init__(self, sampler: Sampler) -> None:
        self.sampler = sampler
        self.snapshot: Snapshot | None = None
        self.texts: dict[str, bytes] = {}

    def age(self, now: float) -> float | None:
        """Seconds since the newest reading began; None before the first."""
        return None if self.snapshot is None else now - self.snapshot.monotonic

    def missing(self, now: float) -> bool:
        """Whether the lane has no reading, or none that still tells anything."""
        age = self.age(now)
        return age is None or age > MISSED * max(self.sampler.interval, 1.0)


class Waiter:
    """A scrape that waits for lanes; woken by the last of them, or by its deadline."""

    def __init__(self, lanes: set[str], future: asyncio.Future[None]) -> None:
        self.lanes = lanes
        self.future = future

    def wake(self) -> None:
        if not self.future.done():
            self.future.set_result(None)


class Store:
    """Lanes publish from their threads; everything else runs on the event loop's.

    ``own`` reads the agent's own lane, which is part of the page and not of the lanes: it says how
    they fare at the moment a page is put together.
    """

    def __init__(self, max_age: float, wait: float) -> None:
        self.lanes: dict[str, Lane] = {}
        self.max_age = max_age
        self.wait = wait
        self.series = 0
        self.own: Callable[[], Snapshot]
        self._version = 0
        self._pages: dict[str, tuple[int, Page]] = {}
        self._dialects = {TEXT.name: TEXT}
        self._lock = threading.Lock()
        self._waiters: list[Waiter] = []

    def add(self, sampler: Sampler) -> None:
        """Takes a lane; its rows come after those of the lanes before it."""
        self.lanes[sampler.name] = Lane(sampler)

    def publish(self, name: str, snapshot: Snapshot) -> None:
        """A lane's new snapshot, encoded here, on the lane's thread."""
        lane = self.lanes[name]
        texts = {key: encode(snapshot, dialect) for key, dialect in self._dialects.items()}
        done = []
        with self._lock:
            lane.snapshot, lane.texts = snapshot, texts
            self._version += 1
            for waiter in self._waiters:
                waiter.lanes.discard(name)
                if not waiter.lanes:
                    done.append(waiter)
            for waiter in done:
                self._waiters.remove(waiter)
        for waiter in done:
            waiter.future.get_loop().call_soon_threadsafe(waiter.wake)

    async def refresh(self, limit: float, names: Collection[str] | None = None) -> None:
        """Has lanes read afresh whose snapshot is too old, and waits for them, at most ``limit``
        seconds. A lane that has been reading for longer than a scrape waits is not waited for."""
        now = time.monotonic()
        limit = min(limit, self.wait)
        late: set[str] = set()
        with self._lock:
            for name, lane in self.lanes.items():
                if names is not None and name not in names:
                    continue
                age = lane.age(now)
                if age is not None and age <= self.max_age and self.max_age > 0:
                    continue
                since = lane.sampler.reading_since
                if since is None:
                    lane.sampler.request()
                elif now - since > self.wait:
                    continue
                late.add(name)
            if not late or limit <= 0:
                return
            loop = asyncio.get_running_loop()
            waiter = Waiter(late, loop.create_future())
            self._waiters.append(waiter)
        deadline = loop.call_later(limit, waiter.wake)
        try:
            await waiter.future
        finally:
            deadline.cancel()
            with self._lock:
                if waiter in self._waiters:
                    self._waiters.remove(waiter)

    def page(self, dialect: Dialect, groups: Collection[str] | None = None) -> Page:
        """The page of the newest snapshots; of some collectors only with ``groups``."""
        now = time.monotonic()
        if groups is not None:
            return Page(self._compose(dialect, now, groups), now)
        version, page = self._pages.get(dialect.name, (-1, None))
        if page is None or version != self._version or now - page.composed > self.max_age:
            version = self._version
            page = Page(self._compose(dialect, now, None), now)
            self._pages[dialect.name] = version, page
        return page

    def _compose(self, dialect: Dialect, now: float, groups: Collection[str] | None) -> bytes:
        self._dialects.setdefault(dialect.name, dialect)
        parts = []
        series = 0
        for lane in self.lanes.values():
            with self._lock:
                snapshot, text = lane.snapshot, lane.texts.get(dialect.name)
            if snapshot is None or lane.missing(now):
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
