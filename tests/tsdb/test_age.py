"""How old the history is while the clock is set, and after a restart."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from esnode.tsdb.age import Age, Kept
from esnode.tsdb.layout import WINDOW
from esnode.tsdb.recorder import Recorder
from tests.tsdb.history import START, held, many, samples

HOUR = 3600.0
HOLD = 48 * HOUR
NOW = START / 1000
YEARS = 14 * 365 * 24 * HOUR


class Machine:
    """A machine that has been up for a while, whose clock can be set."""

    def __init__(self, path: Path) -> None:
        self.up = 5000.0
        self.time = NOW
        self.path = path
        self.age = self.start()

    def start(self) -> Age:
        age = Age(lambda: self.time, HOLD, self.path, lambda: self.up)
        age.load()
        return age

    def later(self, seconds: float) -> float:
        """Lets time pass, as flushes do; by what time the history is old then."""
        while seconds > 0:
            step = min(600.0, seconds)
            self.up += step
            self.time += step
            seconds -= step
            now = self.age.now()
        return now


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path / "age.json")


def test_time_that_passes_counts(machine: Machine) -> None:
    assert machine.age.now() == NOW
    assert machine.later(100 * HOUR) == NOW + 100 * HOUR


def test_a_step_that_is_undone_counts_for_nothing(machine: Machine) -> None:
    machine.time += YEARS
    assert machine.later(60) == NOW + 60
    assert machine.later(10 * HOUR) == NOW + 60 + 10 * HOUR
    machine.time -= YEARS
    assert machine.later(60) == machine.time


def test_a_step_forward_is_believed_once_it_has_stood(machine: Machine) -> None:
    machine.time += YEARS
    machine.later(1)
    assert machine.later(HOLD - 1) < NOW + HOLD + 1
    assert machine.later(600) == machine.time


def test_a_step_back_is_believed_at_once(machine: Machine) -> None:
    machine.time -= YEARS
    assert machine.later(60) == machine.time
    machine.time += YEARS
    assert machine.later(60) < NOW
    assert machine.later(HOLD) == machine.time


def test_an_agent_that_is_started_in_the_wrong_year_knows_it(machine: Machine) -> None:
    machine.later(HOUR)
    machine.age.save()
    machine.time += YEARS
    machine.age = machine.start()
    assert machine.age.now() == NOW + HOUR


def test_an_agent_that_was_off_goes_by_the_boot_time(machine: Machine) -> None:
    machine.age.save()
    machine.up += 1000 * HOUR
    machine.time += 1000 * HOUR
    assert machine.start().now() == machine.time


def test_a_machine_that_was_off_for_an_unknown_time(machine: Machine) -> None:
    """The clock may be right or wrong: what there is stays until that is known."""
    machine.age.save()
    kept = msgspec.json.decode(machine.path.read_bytes(), type=Kept)
    machine.path.write_bytes(msgspec.json.encode(Kept("another boot", kept.elapsed, kept.time)))
    machine.up = 20
    machine.time += 1000 * HOUR
    machine.age = machine.start()
    assert machine.age.now() == NOW
    assert machine.later(HOLD + 600) == machine.time


@pytest.mark.parametrize("text", [b"", b"{", b"[1]", b'{"boot":"","elapsed":"x","time":1}'])
def test_a_file_that_is_damaged_is_none(machine: Machine, text: bytes) -> None:
    machine.path.write_bytes(text)
    assert machine.start().now() == NOW


def test_a_recorder_keeps_its_history_in_a_wrong_year(tmp_path: Path) -> None:
    source = many(3)
    now = NOW
    wanted = []

    def start() -> Recorder:
        started = Recorder(tmp_path, flush=3600, clock=lambda: now)
        started.start()
        assert started.flush()
        return started

    recorder = start()
    for stamp in [*range(24), 14 * 365 * 12, 24, 25]:
        tick = source.tick(START + stamp * WINDOW, [1, 2, 3])
        now = tick.unix_ms / 1000
        recorder.add(tick)
        wanted += samples(tick)
        assert recorder.flush()
        if stamp > 24:  # a restart in that moment, too
            recorder.stop()
            recorder = start()
    recorder.stop()
    assert sorted(held(tmp_path)) == sorted(wanted)
