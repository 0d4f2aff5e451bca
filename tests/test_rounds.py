"""Rounds: when they are closed, with which lanes, and who is not waited for."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from esnode._fast.table import Snapshot, Table
from esnode.rounds import Rounds, Snapshots

from .running import wait_for

Made = Callable[..., Rounds]


class Handled:
    """The lanes of each round."""

    def __init__(self) -> None:
        self.rounds: list[set[str]] = []
        self.answers = 0
        self.threads: set[int] = set()

    def handle(self, snapshots: Snapshots) -> None:
        self.threads.add(threading.get_ident())
        self.rounds.append(set(snapshots))

    def answer(self) -> None:
        self.threads.add(threading.get_ident())
        self.answers += 1


@pytest.fixture
def handled() -> Handled:
    return Handled()


@pytest.fixture
def make(handled: Handled, monkeypatch: pytest.MonkeyPatch) -> Iterator[Made]:
    monkeypatch.setattr("esnode.rounds.FIRST", 3600)  # no round but for the lanes
    made: list[Rounds] = []

    def rounds(*lanes: str, interval: float = 3600) -> Rounds:
        made.append(Rounds(lanes, interval, handled.handle, handled.answer))
        made[-1].start()
        return made[-1]

    yield rounds
    for each in made:
        each.stop(5)
        assert not each._thread.is_alive()


def snapshot(monotonic: float | None = None) -> Snapshot:
    return Table([]).freeze(time.monotonic() if monotonic is None else monotonic, 0)


def test_a_round_is_closed_when_the_last_lane_is_in(
    handled: Handled, make: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("esnode.rounds.PATIENCE", 3600)
    rounds = make("a", "b")
    for count in (1, 2, 3):
        rounds.add("a", snapshot())
        rounds.add("b", snapshot())
        wait_for(lambda count=count: len(handled.rounds) == count, "a round")  # type: ignore[misc]
    assert handled.rounds == [{"a", "b"}] * 3
    assert len(handled.threads) == 1
    assert threading.get_ident() not in handled.threads


def test_a_lane_that_hangs_costs_one_wait(
    handled: Handled, make: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("esnode.rounds.PATIENCE", 0.2)
    rounds = make("a", "b")
    start = time.monotonic()
    rounds.add("a", snapshot())
    wait_for(lambda: len(handled.rounds) == 1, "the first round")
    assert time.monotonic() - start >= 0.2
    monkeypatch.setattr("esnode.rounds.PATIENCE", 3600)  # from now on it is not waited for
    rounds.add("a", snapshot())
    wait_for(lambda: len(handled.rounds) == 2, "the second round")
    assert handled.rounds == [{"a"}, {"a"}]
    # It comes back: what it had begun before counts for the next round, and opens none.
    rounds.add("b", snapshot(start))
    rounds.add("a", snapshot())
    wait_for(lambda: len(handled.rounds) == 3, "the third round")
    assert handled.rounds[-1] == {"a", "b"}
    rounds.add("a", snapshot())  # and it is waited for again
    time.sleep(0.05)
    assert len(handled.rounds) == 3
    rounds.add("b", snapshot())
    wait_for(lambda: len(handled.rounds) == 4, "the fourth round")


def test_what_is_too_old_is_left_out(handled: Handled, make: Made) -> None:
    rounds = make("a", "b", interval=1)
    rounds.add("b", snapshot(time.monotonic() - 5))
    rounds.add("a", snapshot())
    wait_for(lambda: {"a"} in handled.rounds, "a round")
    assert not any("b" in each for each in handled.rounds)


def test_rounds_go_on_when_every_lane_hangs(handled: Handled, make: Made) -> None:
    make("a", interval=0.1)
    wait_for(lambda: len(handled.rounds) >= 2, "rounds without a lane")
    assert handled.rounds[0] == set()


def test_the_first_round_is_soon_and_what_was_late_for_it_is_not_left_for_the_next_tick(
    handled: Handled, make: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("esnode.rounds.FIRST", 0.1)
    monkeypatch.setattr("esnode.rounds.PATIENCE", 3600)
    began = time.monotonic()
    rounds = make("host", "gpu")
    wait_for(lambda: len(handled.rounds) == 1, "a round without a lane")
    rounds.add("host", snapshot(began))
    wait_for(lambda: len(handled.rounds) == 2, "a round for one")
    rounds.add("gpu", snapshot(began))
    wait_for(lambda: len(handled.rounds) == 3, "a round for the other")
    assert handled.rounds == [set(), {"host"}, {"host", "gpu"}]
    rounds.add("gpu", snapshot(began))  # now it is of a round that is over
    rounds.add("host", snapshot())  # and both are waited for
    time.sleep(0.05)
    assert len(handled.rounds) == 3
    rounds.add("gpu", snapshot())
    wait_for(lambda: len(handled.rounds) == 4, "the round of the next tick")


def test_answers_do_not_wait_for_a_round(handled: Handled, make: Made) -> None:
    rounds = make("a")
    rounds.ask()
    wait_for(lambda: handled.answers == 1, "an answer")
    assert not handled.rounds


def test_a_round_that_fails_is_not_the_last(make: Made, handled: Handled) -> None:
    rounds = make("a")
    faults = [ValueError("once")]

    def handle(snapshots: Snapshots) -> None:
        if faults:
            raise faults.pop()
        handled.handle(snapshots)

    rounds.handle = handle
    rounds.add("a", snapshot())
    wait_for(lambda: not faults, "the round that fails")
    wait_for(lambda: rounds._opened is None, "its end")
    rounds.add("a", snapshot())
    wait_for(lambda: handled.rounds == [{"a"}], "the next round")
