"""Text in cells: what hostile text becomes, and that nothing is wider than it should be."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from esnode.console.cells import (
    ascii_only,
    clean,
    cut,
    cut_line,
    ends,
    fit,
    folded,
    line_width,
    trend,
    width,
)

from .scenes import HOSTILE, WIDE


def test_control_characters_never_reach_a_terminal() -> None:
    assert clean(HOSTILE) == "a?[2Jb?]0;title?c??d?e?f?31mg"
    assert clean("e\u0301\u0301") == "é"  # what would be drawn over the letter is left out
    assert clean("plain °C …") == "plain °C …"


@settings(deadline=None)
@given(st.text(), st.integers(0, 30))
def test_any_text_fits(text: str, cells: int) -> None:
    shown = clean(text)
    assert shown.isprintable()
    assert width(cut(shown, cells)) <= cells
    assert width(fit(shown, cells)) == cells
    assert width(ascii_only(shown)) == width(shown)
    assert ascii_only(shown).isascii()
    assert line_width(cut_line([(text, ""), (text, "")], cells)) <= cells
    assert line_width(ends([(text, "")], [(text, "")], cells)) == cells
    if cells > 1:
        assert all(width(line) <= cells for line in folded(text, cells))


@settings(deadline=None)
@given(st.lists(st.none() | st.floats(), max_size=40), st.integers(0, 30))
def test_any_trend_has_its_cells(values: list[float | None], cells: int) -> None:
    shown = trend(values, cells)
    assert len(shown) == cells


def test_folding_keeps_all_of_a_text() -> None:
    text = f"one two {WIDE} {'x' * 50} end"
    assert "".join(folded(text, 12)) == text.replace(" ", "") or "".join(folded(text, 12)).replace(
        " ", ""
    ) == text.replace(" ", "")


@pytest.mark.parametrize(
    ("values", "most", "expected"),
    [
        ([0, 50, 100], 100, "▁▅█"),
        ([0, 0], None, "▁▁"),
        ([1, None, 4], None, "▃ █"),
        ([250], 100, "█"),
    ],
)
def test_a_trend_is_of_what_was_read(
    values: list[float | None], most: float | None, expected: str
) -> None:
    assert trend(values, 3, most) == expected.rjust(3)
