"""A screen before it is drawn: its lines, and which of them can be chosen."""

from __future__ import annotations

from typing import NamedTuple

from ..cli.screen import DASH, Line
from ..status import Status
from .cells import clean, cut_line, fit, plain, trend, width
from .seen import Seen
from .view import View


class Scene(NamedTuple):
    """All that a screen is made of. Without an answer so far there is no document."""

    status: Status | None
    view: View
    seen: Seen
    now_ms: int

    @property
    def width(self) -> int:
        return self.view.width


class Row(NamedTuple):
    """A line that scrolls. ``pick``: what Enter does on it; ``fixed``: a filter leaves it."""

    line: Line
    pick: str | None = None
    fixed: bool = False


class Page(NamedTuple):
    """``keys`` are function keys beside those of every screen; ``head`` does not scroll."""

    name: str
    title: str
    head: list[Line]
    rows: list[Row]
    keys: tuple[str, ...] = ()
    details: bool = False
    locked: str = ""
    #: Where the cursor is to be, in a line of the head: of a form.
    cursor: tuple[int, int] | None = None


BLANK: Line = []
#: Cells of a label.
LABEL = 16


def labelled(label: str, *pieces: tuple[str, str] | str) -> Line:
    """A label with dots that lead to its value."""
    dots = label + " " + "".join(" ."[at % 2] for at in range(len(label) + 1, LABEL - 1))
    shown = [(piece, "") if isinstance(piece, str) else piece for piece in pieces]
    return [(f" {dots} ", "dim"), *((clean(text), style) for text, style in shown)]


def section(title: str) -> Row:
    return Row([(f" {title}", "title")], fixed=True)


def spark(scene: Scene, name: str, cells: int, most: float | None = 100) -> tuple[str, str]:
    """The trend of a value, as a piece of a line."""
    return trend(scene.seen.trend(name), cells, most), "trend"


def yes(value: bool | None) -> str:
    return DASH if value is None else "yes" if value else "no"


def chosen(rows: list[Row], scene: Scene) -> list[Row]:
    """The rows that the filter leaves."""
    wanted = scene.view.filter.casefold()
    if not wanted:
        return rows
    return [row for row in rows if row.fixed or wanted in plain(row.line).casefold()]


def input_line(text: str, cells: int, focused: bool) -> tuple[str, str]:
    """A field; of a long text the end is what one sees."""
    text = clean(text)
    while width(text) > cells - 1:
        text = text[1:]
    return fit(text, cells), "field" if not focused else "focus"


def clipped(line: Line, cells: int) -> Line:
    return cut_line(line, cells)
