"""Lines of styled text, measured in a terminal's cells.

Text of the document may be hostile: only what :func:`clean` leaves reaches a terminal.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from math import isfinite
from typing import Any, NamedTuple

from prompt_toolkit.utils import get_cwidth

from ..cli.screen import Line

#: From nothing to all.
BARS = "▁▂▃▄▅▆▇█"
PLAIN_BARS = "_.-=+*%#"
#: For terminals that have ASCII only.
ASCII = str.maketrans(
    {"…": "~", "°": " ", "─": "-", "·": "-", **dict(zip(BARS, PLAIN_BARS, strict=True))}
)


def clean(text: str) -> str:
    """Without what would move the cursor, change the direction of text or take up no cell."""
    if text.isascii() and text.isprintable():
        return text
    text = unicodedata.normalize("NFC", text)
    letters = (letter if letter.isprintable() else "?" for letter in text)
    return "".join(letter for letter in letters if get_cwidth(letter) > 0)


def ascii_only(text: str) -> str:
    """A text for a terminal that has nothing else, with as many cells."""
    if text.isascii():
        return text
    text = text.translate(ASCII)
    return "".join(each if each.isascii() else "?" * get_cwidth(each) for each in text)


def width(text: str) -> int:
    """Its cells."""
    return len(text) if text.isascii() else get_cwidth(text)


def cut(text: str, cells: int) -> str:
    """A text of no more cells than that; one that is cut ends in an ellipsis."""
    if width(text) <= cells:
        return text
    kept, left = [], cells - 1
    for letter in text:
        left -= width(letter)
        if left < 0:
            break
        kept.append(letter)
    return "".join(kept) + "…" if cells > 0 else ""


def fit(text: str, cells: int, align: str = "<") -> str:
    """A text of just so many cells."""
    text = cut(text, cells)
    space = " " * (cells - width(text))
    return space + text if align == ">" else text + space


def line_width(line: Line) -> int:
    return sum(width(text) for text, _ in line)


def cut_line(line: Line, cells: int) -> Line:
    """A clean line of no more cells than that."""
    found: Line = []
    for text, style in line:
        text = clean(text)
        if width(text) > cells:
            found.append((cut(text, cells), style))
            return found
        found.append((text, style))
        cells -= width(text)
    return found


def plain(line: Line) -> str:
    return "".join(text for text, _ in line)


def ends(left: Line, right: Line, cells: int) -> Line:
    """Two lines at the two ends of one; the left one gives way."""
    right = cut_line(right, cells)
    left = cut_line(left, max(cells - line_width(right) - 1, 0))
    return [*left, (" " * max(cells - line_width(left) - line_width(right), 0), ""), *right]


def folded(text: str, cells: int) -> list[str]:
    """A text as lines, broken between words where that can be."""
    lines, line = [], ""
    for word in clean(text).split():
        while width(word) > cells > 0:
            if line:
                lines.append(line)
                line = ""
            head = cut(word, cells)[:-1] or word[0]
            lines.append(head)
            word = word[len(head) :]
        if line and width(line) + 1 + width(word) > cells:
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}" if line else word
    return [*lines, line] if line or not lines else lines


def trend(values: Sequence[float | None], cells: int, most: float | None = None) -> str:
    """The newest values, a cell each, from 0 to ``most`` or to the largest of them; what is unknown
    is left free."""
    shown = list(values)[-cells:] if cells > 0 else []
    known = [value for value in shown if value is not None and isfinite(value)]
    top = most if most is not None else max(known, default=0.0)
    bars = []
    for value in shown:
        if value is None or not isfinite(value):
            bars.append(" ")
        else:
            part = min(max(value / top, 0.0), 1.0) if top > 0 else 0.0
            bars.append(BARS[min(int(part * len(BARS)), len(BARS) - 1)])
    return "".join(bars).rjust(max(cells, 0))


class Column(NamedTuple):
    """A column of a table; ``least``: the terminal's width from which it is shown. One without a
    width has what is left, and is the last."""

    title: str
    cells: int
    text: Callable[[Any], str]
    style: Callable[[Any], str] = lambda item: ""
    least: int = 0
    align: str = ">"


def table(columns: Sequence[Column], items: Sequence[Any], cells: int) -> tuple[Line, list[Line]]:
    """The line of titles, and a line for each item."""
    shown = [column for column in columns if column.least <= cells]
    fixed = sum(column.cells + 1 for column in shown)
    rest = max(cells - fixed, 0)
    sizes = [column.cells or rest for column in shown]
    head: Line = []
    lines: list[Line] = [[] for _ in items]
    for column, size in zip(shown, sizes, strict=True):
        head += [(fit(column.title, size, column.align), "dim"), (" ", "")]
        for item, line in zip(items, lines, strict=True):
            text = fit(clean(column.text(item)), size, column.align)
            line += [(text, column.style(item)), (" ", "")]
    return head, lines
