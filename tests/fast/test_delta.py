"""Ratios of differences, and totals that must not step back."""

from __future__ import annotations

import math

import pytest

from esnode._fast.delta import Ratios, Totals
from esnode._fast.table import Table

NAN = math.nan
WRAP = 2**32 / 1000


class Ratio:
    """One ratio, fed with pairs of readings."""

    def __init__(self, scale: float, limit: float) -> None:
        self.table = Table([])
        self.out, self.over, self.under = (self.table.hidden() for _ in range(3))
        self.ratios = Ratios(self.table, scale, limit)
        self.ratios.add(self.out, self.over, self.under)

    def __call__(self, over: float, under: float) -> float | None:
        self.table.begin(True)
        self.table.set(self.over, over)
        self.table.set(self.under, under)
        self.ratios.update()
        value = self.table.get(self.out)
        return None if math.isnan(value) else value


def total(readings: list[float], glitch: float = 0, modulus: float = 0) -> list[float | None]:
    """What becomes of a slot's readings."""
    table = Table([])
    slot = table.hidden()
    totals = Totals(table, glitch, modulus)
    totals.add(slot)
    values = []
    for reading in readings:
        table.begin(True)
        table.set(slot, reading)
        totals.update()
        values.append(table.get(slot))
    return [None if math.isnan(value) else value for value in values]


def test_a_ratio_is_absent_first_and_without_a_difference() -> None:
    ratio = Ratio(scale=100, limit=100)
    assert ratio(10, 100) is None
    assert ratio(15, 110) == 50
    assert ratio(15, 120) == 0
    assert ratio(15, 120) is None
    assert ratio(15, 119) is None
    assert ratio(16, 120) == 100


def test_a_ratio_is_absent_where_a_reading_was() -> None:
    ratio = Ratio(scale=1, limit=math.inf)
    assert ratio(1, 1) is None
    assert ratio(NAN, 2) is None
    assert ratio(3, 3) is None, "a difference across a gap"
    assert ratio(4, NAN) is None
    assert ratio(5, 5) is None
    assert ratio(8, 6) == 3


def test_a_ratio_outside_its_limit_is_absent() -> None:
    ratio = Ratio(scale=100, limit=100)
    ratio(0, 0)
    assert ratio(11, 10) is None
    assert ratio(21, 20) == 100
    assert ratio(20, 30) is None
    unlimited = Ratio(scale=1, limit=math.inf)
    unlimited(0, 0)
    assert unlimited(1e300, 1) == 1e300


def test_a_dropped_ratio_is_let_alone_and_the_others_go_on() -> None:
    table = Table([])
    over, under = table.hidden(), table.hidden()
    outs = [table.hidden() for _ in range(20)]
    ratios = Ratios(table, 1, math.inf)
    for out in outs:
        ratios.add(out, over, under)
    for out in (*outs[::2], over):  # the last is no ratio
        ratios.drop(out)
    for reading in (0, 1):
        table.begin(True)
        table.set(over, reading * 2)
        table.set(under, reading)
        for out in outs[::2]:
            table.set(out, -7)
        ratios.update()
    assert [table.get(out) for out in outs] == [-7, 2] * 10


def test_a_small_step_back_is_held_until_the_source_has_caught_up() -> None:
    readings = [10, 9, 8.5, 10, 10.5, 8]
    assert total(readings, glitch=2) == [10, 10, 10, 10, 10.5, 8]


def test_a_large_step_back_is_a_reset() -> None:
    assert total([10, 7, 8], glitch=2) == [10, 7, 8]
    assert total([10, 9.5], glitch=0) == [10, 9.5]
    assert total([10, 0, 0, 1], glitch=2) == [10, 0, 0, 1]


def test_an_absent_reading_stays_absent_and_changes_nothing() -> None:
    assert total([NAN, 10, NAN, 9, 11], glitch=2) == [None, 10, None, 10, 11]
    assert total([WRAP - 1, NAN, 1], modulus=WRAP) == [WRAP - 1, None, pytest.approx(WRAP + 1)]


def test_a_wrap_of_32_bits_is_continued() -> None:
    readings = [WRAP - 2, WRAP - 1, 1, 2, WRAP - 1, 0.5]
    expected = [WRAP - 2, WRAP - 1, WRAP + 1, WRAP + 2, 2 * WRAP - 1, 2 * WRAP + 0.5]
    assert total(readings, modulus=WRAP) == pytest.approx(expected)


def test_a_small_fall_of_a_counter_that_wraps_is_a_reset() -> None:
    assert total([WRAP * 0.4, 3, 4], modulus=WRAP) == [WRAP * 0.4, 3, 4]


def test_a_slots_own_modulus_goes_before_that_of_all() -> None:
    table = Table([])
    slots = [table.hidden() for _ in range(3)]
    totals = Totals(table, modulus=100)
    for slot, modulus in zip(slots, (0, 10, 1000), strict=True):
        totals.add(slot, modulus)
    found = []
    for readings in ((95, 9, 95), (2, 1, 2), (94, 7, 994), (3, 3, 3)):
        for slot, reading in zip(slots, readings, strict=True):
            table.set(slot, reading)
        totals.update()
        found.append([table.get(slot) for slot in slots])
    # The second starts over at 10, and its fall from 7 to 3 is none of more than half of that.
    assert found == [[95, 9, 95], [102, 11, 2], [194, 17, 994], [203, 3, 1003]]


def test_after_a_reset_a_value_is_what_the_source_says() -> None:
    """Taking the wraps off again must not leave a trace: the next reading would step back."""
    readings = [WRAP - 1, 1000.001, 0.007, 0.007]
    values = total(readings, modulus=WRAP)
    assert values[2:] == [0.007, 0.007]


def test_a_dropped_total_is_let_alone_and_the_others_go_on() -> None:
    table = Table([])
    slots = [table.hidden() for _ in range(20)]
    totals = Totals(table, glitch=2)
    for slot in slots:
        totals.add(slot)
    for slot in (*slots[::2], 999):
        totals.drop(slot)
    for reading in (10, 9):
        for slot in slots:
            table.set(slot, reading)
        totals.update()
    assert [table.get(slot) for slot in slots] == [9, 10] * 10


def test_the_glitch_can_be_changed() -> None:
    table = Table([])
    slot = table.hidden()
    totals = Totals(table)
    totals.add(slot)
    found = []
    for glitch, reading in ((0, 10), (0, 9), (5, 7)):
        totals.glitch = glitch
        table.set(slot, reading)
        totals.update()
        found.append(table.get(slot))
    assert found == [10, 9, 9]
