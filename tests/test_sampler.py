"""sampler.py: parts, lanes and the thread that reads them."""

from __future__ import annotations

import logging
import math
import threading
import time
from pathlib import Path
from typing import ClassVar

import pytest

from esnode import logs, sampler
from esnode._fast.table import TICK, Snapshot
from esnode.collectors.base import Collector, Refused, Unavailable
from esnode.config import Config
from esnode.host import Host
from esnode.metrics import Metric, gauge
from esnode.sampler import Lane, Sampler

from .hosts import Rows, config, rows
from .running import wait_for

GOOD, FRAGILE, TICKS = (
    gauge("good", "Good."),
    gauge("fragile", "Fragile."),
    gauge("ticks", "Ticks."),
)


class Steady(Collector):
    """Says 1, and with each tick how many there were."""

    name = "steady"
    switch = "enable_cpu"
    metrics: ClassVar[tuple[Metric, ...]] = (GOOD, TICKS)

    def bind(self) -> None:
        self.slot = self.table.add(GOOD)
        self.ticks = self.table.add(TICKS, (), TICK)
        self.count = 0

    def sample(self, tick: bool) -> None:
        self.table.set(self.slot, 1)
        if tick:
            self.count += 1
            self.table.set(self.ticks, self.count)


class Fragile(Collector):
    """Raises at bind or in a reading what it is told to; it has said 2 before."""

    name = "fragile"
    switch = "enable_cpu"
    metrics: ClassVar[tuple[Metric, ...]] = (FRAGILE,)
    at_bind: Exception | None = None
    at_sample: Exception | None = None
    binds = 0

    def bind(self) -> None:
        self.binds += 1
        self.slot = self.table.add(FRAGILE)
        if self.at_bind:
            raise self.at_bind

    def sample(self, tick: bool) -> None:
        if self.at_sample:
            raise self.at_sample
        self.table.set(self.slot, 2)


@pytest.fixture
def settings() -> tuple[Host, Config]:
    return Host(), config(Path("/"))


@pytest.fixture
def fragile(settings: tuple[Host, Config]) -> Fragile:
    return Fragile(*settings)


@pytest.fixture
def lane(settings: tuple[Host, Config], fragile: Fragile) -> Lane:
    return Lane("test", [fragile, Steady(*settings)], 5)


def read(lane: Lane, tick: bool = True) -> Rows:
    return rows(lane.read(tick))


def test_a_collector_that_raises_costs_its_rows_only(lane: Lane, fragile: Fragile) -> None:
    part = lane.parts[0]
    assert read(lane) == {"fragile": 2, "good": 1, "ticks": 1}
    fragile.at_sample = ZeroDivisionError("odd")
    assert read(lane) == {"good": 1, "ticks": 2}
    assert (part.errors, part.up) == (1, False)
    assert part.reason == "ZeroDivisionError: odd"
    fragile.at_sample = None
    assert read(lane) == {"fragile": 2, "good": 1, "ticks": 3}
    assert (part.errors, part.up) == (1, True)
    assert [other.errors for other in lane.parts] == [1, 0]


def test_a_repeating_failure_is_logged_once_and_then_counted(
    lane: Lane, fragile: Fragile, caplog: pytest.LogCaptureFixture
) -> None:
    fragile.at_sample = OSError("the same")
    for _ in range(50):
        read(lane)
    assert lane.parts[0].errors == 50
    assert [record.getMessage() for record in caplog.records] == ["fragile: OSError: the same"]
    for number in range(500):
        fragile.at_sample = OSError(f"number {number}")
        read(lane)
    assert lane.parts[0].errors == 550
    assert len(caplog.records) == logs.MESSAGES


def test_a_failure_that_comes_back_is_logged_again(
    lane: Lane, fragile: Fragile, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "QUIET", 0.05)
    fragile.at_sample = OSError("the same")
    for _ in range(3):
        read(lane)
    time.sleep(0.06)
    read(lane)
    assert len(caplog.records) == 2


@pytest.mark.parametrize(
    ("error", "errors"), [(Unavailable("no such device"), 0), (KeyError("a fault of ours"), 1)]
)
def test_what_cannot_be_bound_is_tried_again_later(
    lane: Lane,
    fragile: Fragile,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    errors: int,
) -> None:
    part = lane.parts[0]
    fragile.at_bind = error
    for _ in range(3):
        assert "fragile" not in read(lane)
    assert fragile.binds == 1, "not before RETRY seconds have passed"
    assert (part.errors, part.up) == (errors, False)
    fragile.at_bind = None
    later = time.monotonic() + sampler.RETRY
    monkeypatch.setattr(time, "monotonic", lambda: later)
    assert read(lane)["fragile"] == 2
    assert fragile.binds == 2
    assert part.up


@pytest.mark.parametrize(
    ("error", "absent", "level"),
    [
        (Unavailable("no such device"), True, logging.INFO),
        (Refused("the device needs CAP_SYS_RAWIO"), False, logging.WARNING),
        (KeyError("a fault of ours"), False, logging.WARNING),
    ],
)
def test_why_a_collector_is_not_bound_is_logged_once(
    lane: Lane,
    fragile: Fragile,
    caplog: pytest.LogCaptureFixture,
    error: Exception,
    absent: bool,
    level: int,
) -> None:
    caplog.set_level(logging.INFO)
    part = lane.parts[0]
    fragile.at_bind = error
    for _ in range(3):
        part.due = 0
        read(lane)
        assert (part.absent, part.up) == (absent, False)
    assert [record.levelno for record in caplog.records] == [level]
    fragile.at_bind = None
    part.due = 0
    read(lane)
    assert (part.absent, part.up) == (False, True)


def test_a_part_that_is_not_bound_costs_the_others_of_its_name_nothing(
    settings: tuple[Host, Config], fragile: Fragile
) -> None:
    class Same(Steady):
        name = "fragile"

    lane = Lane("test", [Same(*settings), fragile], 5)
    for error in (Unavailable("no such device"), KeyError("a fault of ours")):
        fragile.at_bind = error
        lane.parts[1].due = 0
        assert read(lane)["good"] == 1
    fragile.at_bind = None
    lane.parts[1].due = 0
    assert read(lane) == {"fragile": 2, "good": 1, "ticks": 3}


def test_what_belongs_to_the_tick_is_carried_over(lane: Lane) -> None:
    assert [read(lane, tick)["ticks"] for tick in (True, False, False, True)] == [1, 1, 1, 2]


def test_a_snapshot_is_stamped_when_its_reading_begins(lane: Lane) -> None:
    before = time.monotonic()
    lane.start(True)
    started = time.monotonic()
    assert lane.reading_since is not None
    assert before <= lane.reading_since <= started
    snapshot = lane.read(True)
    assert before <= snapshot.monotonic <= started
    assert lane.reading_since is None
    assert snapshot.unix_ms == pytest.approx(time.time() * 1000, abs=5000)


def test_a_snapshot_does_not_change(lane: Lane, fragile: Fragile) -> None:
    first = lane.read(True)
    fragile.at_sample = OSError("gone")
    second = lane.read(True)
    lane.table.clear(Steady.metrics)
    assert rows(first) == {"fragile": 2, "good": 1, "ticks": 1}
    assert math.isnan(second[0])


def test_a_series_can_be_there_once_only(lane: Lane, settings: tuple[Host, Config]) -> None:
    read(lane)
    for _ in range(2):
        with pytest.raises(ValueError, match="duplicate series: good"):
            lane.table.add(GOOD)
    assert read(lane) == {"fragile": 2, "good": 1, "ticks": 2}
    with pytest.raises(ValueError, match="good is declared twice"):
        Lane("twice", [Steady(*settings), Steady(*settings)], 5)


class Published:
    """Collects what a sampler publishes."""

    def __init__(self) -> None:
        self.snapshots: list[tuple[str, Snapshot]] = []

    def __call__(self, name: str, snapshot: Snapshot) -> None:
        self.snapshots.append((name, snapshot))


def test_the_thread_ticks_and_answers_requests(settings: tuple[Host, Config]) -> None:
    published = Published()
    lane = Lane("test", [Steady(*settings)], 0.1)
    sampler = Sampler([lane], 0.1, published)
    sampler.start()
    try:
        wait_for(lambda: len(published.snapshots) >= 3, "three ticks")
        assert [rows(snapshot)["ticks"] for _, snapshot in published.snapshots[:3]] == [1, 2, 3]
        sampler.interval = 3600  # takes effect after the next tick
        count = len(published.snapshots)
        wait_for(lambda: len(published.snapshots) > count, "one more tick")
        count = len(published.snapshots)
        ticks = rows(published.snapshots[-1][1])["ticks"]
        for _ in range(100):
            lane.request()
        wait_for(lambda: len(published.snapshots) > count, "a reading on request")
        assert rows(published.snapshots[-1][1])["ticks"] == ticks, "which is no tick"
    finally:
        sampler.stop(5)
    assert not sampler._thread.is_alive()


def test_a_tick_does_not_follow_a_late_one_at_once(settings: tuple[Host, Config]) -> None:
    times: list[float] = []

    class Slow(Steady):
        def sample(self, tick: bool) -> None:
            times.append(time.monotonic())
            if len(times) == 1:
                time.sleep(0.78)
            super().sample(tick)

    sampler = Sampler([Lane("test", [Slow(*settings)], 0.4)], 0.4, Published())
    sampler.start()
    wait_for(lambda: len(times) >= 3, "three ticks")
    sampler.stop(5)
    # The second was due at 0.4 s, and the third would be at 0.8.
    assert times[2] - times[1] > 0.1


def test_a_reading_that_fails_whole_does_not_end_the_thread(
    settings: tuple[Host, Config], caplog: pytest.LogCaptureFixture
) -> None:
    published = Published()
    lane = Lane("test", [Steady(*settings)], 0.1)
    failures = [RuntimeError("a fault in publish")]

    def publish(name: str, snapshot: Snapshot) -> None:
        if failures:
            raise failures.pop()
        published(name, snapshot)

    sampler = Sampler([lane], 0.1, publish)
    sampler.start()
    wait_for(lambda: bool(published.snapshots), "a reading after the one that failed")
    sampler.stop(5)
    assert "a reading of test failed" in caplog.text


def test_stop_leaves_a_thread_that_hangs_behind(settings: tuple[Host, Config]) -> None:
    release = threading.Event()

    class Hangs(Steady):
        def sample(self, tick: bool) -> None:
            release.wait()

    sampler = Sampler([Lane("test", [Hangs(*settings)], 5)], 5, Published())
    sampler.start()
    wait_for(lambda: sampler.lanes[0].reading_since is not None, "the reading has begun")
    start = time.monotonic()
    sampler.stop(0.1)
    assert time.monotonic() - start < 5
    assert sampler._thread.is_alive()
    release.set()
    sampler._thread.join(5)
    assert not sampler._thread.is_alive()
