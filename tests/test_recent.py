"""The last 15 minutes that the page opens with."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest

from esnode.agent import Agent
from esnode.config import Settings
from esnode.recent import GPU, NODE, SPAN, Point, Recent
from esnode.status import Gpu, Status

from . import bighost, fakenvml
from .fakenvml import Fake
from .hosts import config

START = 1_800_000_000_000


def point(tick: int, seconds: float, gpus: int = 1, **values: float) -> Point:
    node = dict.fromkeys(NODE) | {"cpu_util_percent": float(tick)} | values
    cards = {(str(i), f"GPU-{i}"): dict.fromkeys(GPU, float(tick)) for i in range(gpus)}
    return Point(START + int(1000 * seconds), node, cards)


def fill(recent: Recent, ticks: int, interval: float, gpus: int = 1) -> None:
    """Ticks as the agent has them: not all of them are kept."""
    for tick in range(ticks):
        found = point(tick, tick * interval, gpus)
        if recent.is_due(found.unix_ms):
            recent.add(found)


def document(recent: Recent) -> dict[str, object]:
    got: list[bytes] = []
    recent.get(got.append)
    recent.answer()
    found: dict[str, object] = json.loads(got[0])
    return found


@pytest.mark.parametrize(
    ("interval", "step"), [(0.1, 3), (0.7, 3.5), (1, 3), (2, 4), (5, 5), (60, 60)]
)
def test_no_more_is_kept_than_15_minutes(interval: float, step: float) -> None:
    recent = Recent(interval)
    assert recent.step == pytest.approx(step)
    fill(recent, int(1200 / interval), interval)
    times = document(recent)["unix_ms"]
    assert isinstance(times, list)
    assert SPAN - 2 * step < (times[-1] - times[0]) / 1000 <= SPAN
    gaps = {b - a for a, b in pairwise(times)}
    assert gaps and all(abs(gap - 1000 * step) <= 1 for gap in gaps)


def test_the_document_has_the_keys_of_the_status() -> None:
    recent = Recent(5)
    fill(recent, 3, 5, gpus=12)
    found = document(recent)
    assert list(found) == ["step_seconds", "unix_ms", *NODE, "gpus"]
    assert set(NODE) <= set(Status.__struct_fields__) and set(GPU) <= set(Gpu.__struct_fields__)
    assert found["cpu_util_percent"] == [0, 1, 2]
    assert found["node_power_watts"] == [None] * 3
    gpus = found["gpus"]
    assert isinstance(gpus, list)
    assert [gpu["gpu"] for gpu in gpus] == [str(i) for i in range(12)]
    assert gpus[3]["power_watts"] == [0, 1, 2]


def test_a_gpu_that_goes_and_one_that_comes() -> None:
    recent = Recent(60)
    recent.add(point(0, 0, gpus=2))
    recent.add(point(1, 60, gpus=1))
    recent.add(point(2, 120, gpus=3))
    gpus = document(recent)["gpus"]
    assert isinstance(gpus, list)
    assert [gpu["util_percent"] for gpu in gpus] == [[0, 1, 2], [0, None, 2], [None, None, 2]]
    for minute in range(3, 19):
        recent.add(point(minute, 60 * minute, gpus=1))
    gpus = document(recent)["gpus"]
    assert isinstance(gpus, list)
    assert [gpu["gpu"] for gpu in gpus] == ["0"]


def test_a_clock_that_is_put_back() -> None:
    recent = Recent(5)
    fill(recent, 20, 5)
    assert recent.is_due(START)
    recent.add(point(7, 0))
    assert document(recent)["unix_ms"] == [START]
    assert document(recent)["cpu_util_percent"] == [7]


@pytest.mark.parametrize(("before", "after"), [(1, 60), (60, 1), (5, 1)])
def test_ticks_that_are_further_apart_or_closer(before: float, after: float) -> None:
    recent = Recent(before)
    fill(recent, int(1000 / before), before)
    kept = document(recent)["unix_ms"]
    recent.pace(after)
    assert document(recent)["step_seconds"] == recent.step == max(after, 3)
    assert document(recent)["unix_ms"] == kept
    start = 1000
    for tick in range(int(1000 / after)):
        found = point(tick, start + tick * after)
        if recent.is_due(found.unix_ms):
            recent.add(found)
    times = document(recent)["unix_ms"]
    assert isinstance(times, list)
    assert SPAN - 2 * recent.step < (times[-1] - times[0]) / 1000 <= SPAN
    assert {b - a for a, b in pairwise(times)} == {1000 * recent.step}


def test_it_is_made_once_a_tick_and_not_by_who_asks() -> None:
    recent = Recent(5)
    asked: list[int] = []
    recent.ask = lambda: asked.append(1)
    recent.add(point(0, 0))
    got: list[bytes] = []
    recent.get(got.append)
    recent.get(got.append)
    assert got == [] and len(asked) == 2
    recent.answer()
    recent.get(got.append)
    assert len(got) == 3 and got[0] is got[1] is got[2]
    recent.add(point(1, 5))
    recent.get(got.append)
    assert len(got) == 3


def test_it_takes_less_than_2_mb() -> None:
    recent = Recent(1)
    fill(recent, 1000, 1, gpus=16)
    data = msgspec.json.encode(recent.document())
    assert 100_000 < recent.size < 500_000
    assert len(data) < 500_000


@pytest.fixture
def agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Agent]:
    """An agent of a big host with GPUs, that no thread of its own reads."""
    bighost.write(tmp_path)
    fake = Fake(fakenvml.library(), tmp_path / "nvml")
    fake.set_gpus(["H100"] * 4)
    for name, text in fake.environment().items():
        monkeypatch.setenv(name, text)
    values = msgspec.structs.replace(
        config(tmp_path), enable_gpu=True, nvml_library=str(fakenvml.library())
    )
    found = Agent(Settings(values))
    yield found
    found.stop_collectors()
    if found.gpus:
        found.gpus.close()


def test_the_values_are_those_of_the_status(agent: Agent) -> None:
    for _ in range(2):
        agent.recent = Recent(0.001)  # every tick is due
        agent.read()
    got: list[bytes] = []
    agent.view.get(got.append)
    agent.view.answer()
    status, recent = json.loads(got[0]), document(agent.recent)
    assert recent["unix_ms"] == [status["last_scrape_unix_ms"]]
    for key, digits in NODE.items():
        (value,) = recent[key]  # type: ignore[misc]
        expected = status[key]
        assert value == (None if expected is None else round(expected, digits)), key
    assert recent["mem_used_bytes"] != [None] and recent["node_power_watts"] != [None]
    gpus = recent["gpus"]
    assert isinstance(gpus, list) and len(gpus) == len(status["gpus"]) == 4
    for ours, theirs in zip(gpus, status["gpus"], strict=True):
        assert (ours["gpu"], ours["uuid"]) == (theirs["gpu"], theirs["uuid"])
        for key in GPU:
            assert ours[key] == [theirs[key]]


def test_it_goes_on_with_the_ticks_of_another_configuration(agent: Agent) -> None:
    agent.adopt(msgspec.structs.replace(agent.config, scrape_interval_seconds=60))
    agent.read()
    assert agent.recent.step == 60
