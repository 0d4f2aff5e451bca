"""A screen as it is drawn: its head, the rows in view, the selection line and the keys below."""

from __future__ import annotations

from typing import NamedTuple

from ..cli import screen as text
from ..cli.screen import Line, span
from .cells import ascii_only, clean, cut, cut_line, ends, fit, folded, line_width, width
from .help import help_page
from .page import Page, Scene, chosen
from .screens import SCREENS
from .seen import ident
from .view import MENU, Extent, bounded, followed

KEYS = ("F1=Help", "F3=Exit", "F5=Refresh", "F9=Detail", "F12=Back")
#: Lines around the rows: title and state; selection and keys, and then the message.
ABOVE, BELOW = 2, 2
#: Lines that a message may have: why something failed is told with the way out.
SAID = 3
PROMPT = " Selection ===> "


class Frame(NamedTuple):
    """Lines for the whole terminal, where the cursor is, and what keys depend on."""

    lines: list[Line]
    cursor: tuple[int, int]
    extent: Extent


def frame(scene: Scene) -> Frame:
    """The whole screen; a terminal that is too small shows the upper left of it."""
    view, cells = scene.view, scene.width
    page = SCREENS[view.screen](scene)
    if view.help:
        page = help_page(scene, page.title)
    rows = page.rows if view.help else chosen(page.rows, scene)
    said = message(scene)
    room = max(view.height - ABOVE - BELOW - len(said) - len(page.head), 1)
    gpus = tuple(map(ident, scene.status.gpus or ())) if scene.status else ()
    picks = tuple(row.pick for row in rows)
    extent = Extent(picks, room, gpus, page.details, page.locked)
    view = followed(view, extent)
    top = bounded(view.top, len(rows) - room)
    if top + room <= view.at < top + room + len(said) - 1:  # the message does not cover it
        top = view.at - room + 1
    body: list[Line] = []
    for place, row in enumerate(rows[top : top + room], top):
        line = cut_line(row.line, cells)
        if row.pick is not None and place == view.at and view.focus is None and not view.help:
            line = [*line, (" " * max(cells - line_width(line), 0), "")]
            line = [(piece, f"{style} chosen".strip()) for piece, style in line]
        body.append(line)
    body += [[]] * (room - len(body))
    typed, column = selection(scene)
    left: Line = [*typed, *counted(page, scene, len(rows))]
    more = "" if len(rows) <= room else "More..." if top + room < len(rows) else "Bottom"
    lines = [
        title(page, scene),
        state(scene),
        *(cut_line(line, cells) for line in page.head),
        *body,
        ends(left, [(more, "bold")], cells),
        keys(page, cells),
        *said,
    ]
    lines = lines[: view.height]
    if view.ascii:
        lines = [[(ascii_only(piece), style) for piece, style in line] for line in lines]
    spot = (view.height - BELOW - len(said), column)
    if page.cursor is not None and not view.help:
        spot = (ABOVE + page.cursor[0], page.cursor[1])
    cursor = (max(min(spot[0], view.height - 1), 0), max(min(spot[1], cells - 1), 0))
    return Frame(lines, cursor, extent)


def title(page: Page, scene: Scene) -> Line:
    """Screen id, title, host."""
    cells = scene.width
    host = clean((scene.status and scene.status.hostname) or text.DASH)
    name = cut(host, max(cells // 3, 8))
    middle = max((cells - width(page.title)) // 2, len(page.name) + 3)
    left = fit(f" {page.name}", middle) + page.title
    return ends([(left, "title")], [(name, "bold"), (" ", "")], cells)


def state(scene: Scene) -> Line:
    """Whether all is well, and how old that is."""
    status, seen = scene.status, scene.seen
    if seen.silent_since is not None:
        since = f"{text.clock(seen.silent_since)}"
        lost = f" NO ANSWER since {since}, trying again"
        age = "no data so far" if status is None else f"data is {old(scene)} old"
        return ends([(lost, "red")], [(age, "red"), (" ", "")], scene.width)
    if status is None:
        return [(" asking the agent ...", "dim")]
    read = f"read {text.clock(status.last_scrape_unix_ms)}"
    left: Line = [(" ", ""), *text.state(status, scene.now_ms)]
    if status.mode == "managed":
        left.append(("   Managed by ESNODE-Pulse", "bold"))
    return ends(left, [(read, ""), (" ", "")], scene.width)


def old(scene: Scene) -> str:
    return span(text.age(scene.status, scene.now_ms)) if scene.status else text.DASH


def selection(scene: Scene) -> tuple[Line, int]:
    """The line where a number or a filter is typed, and the cell of the cursor."""
    view = scene.view
    if view.filtering:
        shown = cut(clean(view.filter), 30)
        return [(" Filter /", "bold"), (fit(shown, 31), "focus")], 9 + width(shown)
    typed = fit(clean(view.typed), 3)
    return [(PROMPT, ""), (typed, "field")], len(PROMPT) + len(view.typed)


def counted(page: Page, scene: Scene, rows: int) -> Line:
    """What is left out, and how it is sorted."""
    view = scene.view
    found: Line = []
    if view.filter and not view.filtering:
        found.append((f"   rows with '{cut(clean(view.filter), 20)}'", "yellow"))
    if "F6=Sort" in page.keys and (view.sort != "gpu" or view.descending):
        found.append((f"   by {view.sort}{', falling' if view.descending else ', rising'}", ""))
    return found


def keys(page: Page, cells: int) -> Line:
    """The keys, as many as there is room for."""
    shown = [*KEYS[:3], *page.keys, *(KEYS[3:] if page.details else KEYS[4:])]
    if page.name == "ESN00":
        shown = [*KEYS[:3], "90=Leave"]
    return cut_line([(" " + "  ".join(shown), "keys")], cells)


def message(scene: Scene) -> list[Line]:
    """What was just done; else why there is no answer. A line at least."""
    view, seen = scene.view, scene.seen
    text, style = view.busy or view.message, "bold"
    if not text and seen.problem and (scene.status is not None or view.screen == MENU):
        text, style = seen.problem, "yellow"
    lines = folded(text, scene.width - 2)
    most = SAID if view.height > 12 else 1
    if len(lines) > most:
        lines[most - 1 :] = [cut(" ".join(lines[most - 1 :]), scene.width - 2)]
    return [[(f" {line}", style)] if line else [] for line in lines]
