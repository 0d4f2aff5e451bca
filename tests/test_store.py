"""store.py: pages, and the scrapes that wait for a reading."""

from __future__ import annotations

import gzip
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import zstandard

from esnode._fast.table import OWNER, Snapshot, Table
from esnode.collectors.base import Collector
from esnode.dialects import OPENMETRICS, TEXT
from esnode.host import Host
from esnode.metrics import Metric, gauge
from esnode.sampler import Lane, Sampler, stale
from esnode.store import Store

from .hosts import config
from .running import PATIENCE, series, wait_for

OWN = gauge("own", "The agent's own row.")
NAMES = ("quick", "slow")


class Counting(Collector):
    """Counts its readings; each waits until the gate is open."""

    switch = "enable_cpu"
    metric: Metric

    def __init__(self, name: str) -> None:
        super().__init__(Host(), config(Path("/")))
        self.name = name  # type: ignore[misc]
        self.metrics = (gauge(f"{name}_readings", "Readings."),)  # type: ignore[misc]
        self.gate = threading.Event()
        self.gate.set()
        self.readings = 0

    def bind(self) -> None:
        self.slot = self.table.add(self.metrics[0])

    def sample(self, tick: bool) -> None:
        self.gate.wait()
        self.readings += 1
        self.table.set(self.slot, self.readings)


class Alarm:
    """Stands for the event loop's timer: remembers what it was set to."""

    seconds = 0.0

    def __call__(self, seconds: float) -> None:
        self.seconds = seconds


class House:
    """A store with two lanes on threads of their own that tick once an hour."""

    def __init__(self, max_age: float, wait: float) -> None:
        self.alarm = Alarm()
        self.store = Store(max_age, wait, self.alarm)
        self.own = Table([("own", [OWN])])
        self.own.set(self.own.add(OWN, (), OWNER), 7)
        self.store.own = lambda: self.own.freeze(0, 0)
        self.collectors = {name: Counting(name) for name in NAMES}
        self.lanes = {name: Lane(name, [self.collectors[name]], 3600) for name in NAMES}
        self.store.arrange(self.lanes.values())
        self.samplers = [Sampler([lane], 3600, self.store.publish) for lane in self.lanes.values()]

    def start(self) -> None:
        for sampler in self.samplers:
            sampler.start()
        wait_for(lambda: all(e.snapshot for e in self.store.lanes.values()), "the first readings")

    def stop(self) -> None:
        for collector in self.collectors.values():
            collector.gate.set()
        for sampler in self.samplers:
            sampler.stop(5)

    def readings(self) -> list[int]:
        return [collector.readings for collector in self.collectors.values()]

    def scrape(self, limit: float = PATIENCE, names: list[str] | None = None) -> threading.Event:
        """Starts a scrape; the event is set when it is answered."""
        answered = threading.Event()
        self.store.fresh(answered.set, limit, names)
        return answered

    def hang(self, name: str) -> None:
        """Has a lane's reading hang from now on, and begins it."""
        self.collectors[name].gate.clear()
        self.lanes[name].request()
        wait_for(lambda: self.lanes[name].reading_since is not None, "the lane reads")


@pytest.fixture
def house() -> Iterator[House]:
    """Every scrape wants a fresh reading, and waits for it as long as it takes."""
    house = House(max_age=0, wait=PATIENCE)
    house.start()
    yield house
    house.stop()


def test_a_scrape_within_the_maximum_age_costs_no_reading(house: House) -> None:
    house.store.max_age = 3600
    for _ in range(10):
        assert house.scrape().is_set()
    assert house.readings() == [1, 1]


def test_a_scrape_of_old_readings_waits_for_fresh_ones(house: House) -> None:
    start = time.monotonic()
    assert house.scrape().wait(PATIENCE)
    assert house.readings() == [2, 2]
    for entry in house.store.lanes.values():
        assert entry.snapshot is not None
        assert entry.snapshot.monotonic >= start
    assert house.alarm.seconds == 0, "nobody waits any more"


def test_a_scrape_of_one_collector_reads_its_lane_only(house: House) -> None:
    assert house.scrape(names=["quick"]).wait(PATIENCE)
    assert house.readings() == [2, 1]


def test_many_waiters_cost_one_reading(house: House) -> None:
    house.hang("slow")
    scrapes = [house.scrape() for _ in range(100)]
    assert not any(answered.is_set() for answered in scrapes)
    house.collectors["slow"].gate.set()
    for answered in scrapes:
        assert answered.wait(PATIENCE)
    quick, slow = house.readings()
    assert slow == 2
    assert quick <= 3, "one reading, and one more for those who came while it ran"


def test_a_hung_lane_is_not_waited_for_longer_than_wait(house: House) -> None:
    house.store.wait = 0.2
    house.hang("slow")
    answered = house.scrape()
    assert not answered.is_set()
    assert 0 < house.alarm.seconds <= 0.2
    house.store.expire()
    assert not answered.is_set(), "not yet"
    time.sleep(0.2)
    house.store.expire()
    assert answered.is_set()
    assert house.alarm.seconds == 0
    assert house.readings()[1] == 1


def test_a_scraper_in_a_hurry_waits_for_less(house: House) -> None:
    house.hang("slow")
    house.scrape(limit=0.1)
    assert 0 < house.alarm.seconds <= 0.1
    house.scrape(limit=0.05)
    assert 0 < house.alarm.seconds <= 0.05, "the nearest deadline counts"
    assert house.scrape(limit=0).is_set(), "one without patience is answered at once"


def test_a_lane_that_hung_before_is_not_waited_for_at_all(house: House) -> None:
    house.store.wait = 0.05
    house.hang("slow")
    time.sleep(0.1)
    assert house.scrape(names=["slow"]).is_set()
    answered = house.scrape()
    house.store.wait = PATIENCE
    assert answered.wait(PATIENCE), "the other lane is fresh all the same"
    assert house.readings() == [2, 1]


def test_a_page_is_put_together_once_for_each_publication(house: House) -> None:
    house.store.max_age = 3600
    page = house.store.page(TEXT)
    assert page is house.store.page(TEXT)
    assert page is not house.store.page(OPENMETRICS)
    assert series(page.body) == {"quick_readings": 1, "slow_readings": 1, "own": 7}
    house.store.max_age = 0
    assert house.scrape().wait(PATIENCE)
    house.store.max_age = 3600
    assert series(house.store.page(TEXT).body) == {
        "quick_readings": 2,
        "slow_readings": 2,
        "own": 7,
    }
    assert house.store.page(TEXT) is house.store.page(TEXT)


def test_a_page_is_no_older_than_the_maximum_age(house: House) -> None:
    house.store.max_age = 0.05
    page = house.store.page(TEXT)
    time.sleep(0.1)
    assert page is not house.store.page(TEXT), "the agent's own rows are of that moment"


def test_a_page_is_compressed_once_for_each_encoding(house: House) -> None:
    house.store.max_age = 3600
    page = house.store.page(TEXT)
    assert page.encoded("identity") is page.body
    assert page.encoded("gzip") is page.encoded("gzip")
    assert gzip.decompress(page.encoded("gzip")) == page.body
    assert page.encoded("zstd") is page.encoded("zstd")
    assert zstandard.ZstdDecompressor().decompress(page.encoded("zstd")) == page.body


def test_a_page_of_some_collectors(house: House) -> None:
    assert series(house.store.page(TEXT, {"quick", "own"}).body) == {"quick_readings": 1, "own": 7}
    assert house.store.page(TEXT, set()).body == b""
    assert house.store.page(OPENMETRICS, {"slow"}).body.endswith(b"slow_readings 1\n# EOF\n")


def test_a_lane_that_misses_three_intervals_vanishes_from_the_page(house: House) -> None:
    entry = house.store.lanes["slow"]
    assert entry.snapshot is not None
    read = entry.snapshot.monotonic
    limit = stale(entry.lane.interval)
    assert not entry.missing(read + limit - 1)
    assert entry.missing(read + limit + 1)
    entry.lane.interval = 0
    assert not entry.missing(read + 1), "ticks of less than a second may be late by more"

    old = entry.lane.table.freeze(time.monotonic() - 3 - 1, 0)
    house.store.publish("slow", old)
    assert series(house.store.page(TEXT).body) == {"quick_readings": 1, "own": 7}
    house.store.publish("slow", entry.lane.table.freeze(time.monotonic(), 0))
    assert series(house.store.page(TEXT).body) == {
        "quick_readings": 1,
        "slow_readings": 1,
        "own": 7,
    }


def test_before_the_first_reading_the_page_has_the_agents_rows_only() -> None:
    house = House(max_age=1, wait=1)
    assert series(house.store.page(TEXT).body) == {"own": 7}
    assert house.store.lanes["quick"].missing(time.monotonic())


def test_series_counts_the_rows_of_the_full_page(house: House) -> None:
    house.store.page(TEXT, {"quick"})
    assert house.store.series == 0, "a part of the page is not counted"
    house.store.page(TEXT)
    assert house.store.series == 3


def test_an_answer_may_ask_again(house: House) -> None:
    """A handler runs on the lane's thread, outside the lock."""
    answered = threading.Event()
    house.store.fresh(lambda: house.store.fresh(answered.set, PATIENCE), PATIENCE)
    assert answered.wait(PATIENCE)


def test_publications_and_scrapes_of_many_threads(house: House) -> None:
    """Every scrape is answered, and no page is torn."""
    pages: list[bytes] = []

    def scrape() -> None:
        for _ in range(50):
            assert house.scrape().wait(PATIENCE)
            pages.append(house.store.page(TEXT).body)

    threads = [threading.Thread(target=scrape) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(pages) == 8 * 50
    assert all(series(page).keys() == {"quick_readings", "slow_readings", "own"} for page in pages)
    assert isinstance(house.store.lanes["quick"].snapshot, Snapshot)
    assert max(house.readings()) <= 1 + 8 * 50
