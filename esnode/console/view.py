"""What the operator has chosen, and what a key makes of it. No terminal, no clock, no document."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from msgspec import Struct, structs

MENU = "0"
SCREENS = "123456789"
#: Screens with a form, and its fields; the last place of Tab is the selection line.
FIELDS = {"7": ("address", "token", "ca_file")}
#: What the table of GPUs may be sorted by.
SORTS = ("gpu", "util", "memory", "temperature", "power", "health")
#: Letters that do what a function key does, for terminals that lack those.
LETTERS = {
    "?": "f1",
    "q": "f3",
    "r": "f5",
    "s": "f6",
    "o": "f7",
    "d": "f9",
    "b": "f12",
    "k": "up",
    "j": "down",
    " ": "space",
}
LONGEST = 512


class View(Struct, frozen=True):
    """Where the operator is. ``top`` is the first row shown, ``at`` the one that is chosen, and
    ``pick`` what that stands for, once somebody has chosen it: it is followed when rows are sorted
    anew."""

    screen: str = MENU
    #: The screens that F12 leads back to.
    back: tuple[str, ...] = ()
    top: int = 0
    at: int = 0
    pick: str | None = None
    width: int = 80
    height: int = 24
    help: bool = False
    detail: bool = False
    #: Whether what is typed is the filter.
    filtering: bool = False
    filter: str = ""
    sort: str = "gpu"
    descending: bool = False
    #: The GPU of screen 9; None: the first.
    gpu: str | None = None
    typed: str = ""
    field: int = 0
    address: str = ""
    token: str = ""
    ca_file: str = ""
    message: str = ""
    #: What is under way, on another thread.
    busy: str = ""
    ascii: bool = False

    def to(self, **changes: object) -> View:
        return structs.replace(self, **changes)

    def first(self, **changes: object) -> View:
        """At the first row."""
        return self.to(top=0, at=0, pick=None, **changes)

    @property
    def fields(self) -> tuple[str, ...]:
        return () if self.help else FIELDS.get(self.screen, ())

    @property
    def focus(self) -> str | None:
        """The field that is typed into."""
        return self.fields[self.field] if self.field < len(self.fields) else None

    def __repr__(self) -> str:  # the token is never shown
        return f"View(screen={self.screen!r})"


class Act(NamedTuple):
    """What is to be done: exit, refresh, pick, connect."""

    what: str
    pick: str = ""
    address: str = ""
    token: str = ""
    ca_file: str = ""

    def __repr__(self) -> str:
        return f"Act({self.what!r})"


class Extent(NamedTuple):
    """What of a screen its keys depend on: which rows can be chosen, how many fit, the GPUs."""

    picks: tuple[str | None, ...]
    room: int
    gpus: tuple[str, ...] = ()
    details: bool = True
    #: Why its form cannot be filled in.
    locked: str = ""


def press(view: View, key: str, page: Extent) -> tuple[View, Act | None]:
    """What a key does; ``key`` is a letter, or a name such as "f3", "up" or "enter"."""
    view = followed(view.to(message=""), page)
    if key == "f3":
        return view, Act("exit")
    if page.locked and view.focus:  # its form is not there: keys are those of any screen
        view = view.to(field=len(view.fields))
    if view.filtering or view.focus:
        edited = edit(view, key)
        if edited is not None:
            return edited, None
    elif len(key) == 1:
        if key.isdigit():
            return view.to(typed=(view.typed + key)[-2:]), None
        if key == "/":
            return view.first(filtering=True), None
        key = LETTERS.get(key, key)
        if key == "f3":
            return view, Act("exit")
    if key == "enter":
        return enter(view, page)
    if key == "backspace":
        return view.to(typed=view.typed[:-1]), None
    return DOES.get(key, unknown)(view, page)


def edit(view: View, key: str) -> View | None:
    """The filter or a field of a form after a key; None for a key that is not for it."""
    name = "filter" if view.filtering else str(view.focus)
    text: str = getattr(view, name)
    if len(key) == 1:
        return view.first(**{name: (text + key)[:LONGEST]})
    if key == "backspace":
        return view.first(**{name: text[:-1]})
    if key == "clear":
        return view.first(**{name: ""})
    if view.filtering and key in ("enter", "tab", "f12"):
        kept = "" if key == "f12" else view.filter
        return view.first(filtering=False, filter=kept)
    if not view.filtering and key in ("up", "down"):
        return tab(view, 1 if key == "down" else -1)
    return None


def enter(view: View, page: Extent) -> tuple[View, Act | None]:
    if view.help and not view.typed:
        return leave(view, page)
    if view.typed:
        wanted, view = view.typed, view.to(typed="")
        if wanted == "90":
            return view, Act("exit")
        if wanted in (MENU, *SCREENS):
            return go(view, wanted), None
        return view.to(message=f"There is no option {wanted}: type 0 to 9, or 90 to leave."), None
    if view.fields:
        if page.locked:
            return view.to(message=page.locked), None
        if view.focus == "address" and view.address:
            return tab(view, 1), None
        if not view.address:
            return view.to(message="Type the address of the server as HOST:PORT.", field=0), None
        asked = view.address.strip(), view.token, view.ca_file.strip()
        return view, Act("connect", "", *asked)
    pick = page.picks[view.at] if view.at < len(page.picks) else None
    if pick is None:
        return view, None
    return choose(view, pick)


def choose(view: View, pick: str) -> tuple[View, Act | None]:
    """What Enter does on a row."""
    kind, _, rest = pick.partition(":")
    if kind == "screen":
        return go(view, rest), None
    if kind == "gpu":
        return go(view, "9").to(gpu=rest), None
    return view, Act("pick", pick)


def go(view: View, screen: str) -> View:
    """Another screen."""
    if screen == view.screen:
        return view.to(help=False)
    back = tuple(each for each in view.back if each != screen)
    back = () if screen == MENU else (*back, view.screen)[-8:]
    return view.first(
        screen=screen, back=back, filter="", filtering=False, typed="", field=0,
        token="", help=False, detail=False,
    )  # fmt: skip


def leave(view: View, page: Extent) -> tuple[View, Act | None]:
    """Back to where one came from."""
    if view.help:
        return view.first(help=False), None
    if view.filter:
        return view.first(filter=""), None
    if view.screen == MENU:
        return view.to(message="This is the first screen; F3 leaves the console."), None
    screen = view.back[-1] if view.back else MENU
    pick = f"gpu:{view.gpu}" if view.screen == "9" else f"screen:{view.screen}"
    return go(view, screen).to(back=tuple(view.back[:-1]), pick=pick), None


def tab(view: View, step: int) -> View:
    """The next field, or the selection line."""
    places = len(view.fields) + 1
    return view.to(field=(view.field + step) % places)


def move(view: View, page: Extent, step: int) -> tuple[View, Act | None]:
    """Another row: the next that can be chosen; where none can, the screen scrolls."""
    rows = len(page.picks)
    places = [at for at, pick in enumerate(page.picks) if pick is not None]
    if not places:
        return view.to(top=bounded(view.top + step, rows - page.room)), None
    way = [at for at in places if (at > view.at if step > 0 else at < view.at)]
    if not way:
        top = bounded(view.top + (1 if step > 0 else -1), rows - page.room)  # what is around them
        return view.to(top=top if abs(step) == 1 else view.top), None
    way = way if step > 0 else way[::-1]
    at = next((each for each in way if abs(each - view.at) >= abs(step)), way[-1])
    return show(view.to(at=at, pick=page.picks[at]), page), None


def followed(view: View, page: Extent) -> View:
    """At the row that was chosen, wherever it is now; else at the next one that can be."""
    if view.pick in page.picks and view.pick is not None:
        at = page.picks.index(view.pick)
        return view if at == view.at else show(view.to(at=at), page)
    places = [place for place, pick in enumerate(page.picks) if pick is not None]
    at = next((place for place in places if place >= view.at), places[-1] if places else 0)
    return view.to(at=at)


def show(view: View, page: Extent) -> View:
    """Scrolled so that the chosen row is on the screen."""
    top = min(view.top, view.at)
    top = max(top, view.at - page.room + 1)
    if not any(pick is not None for pick in page.picks[: view.at]):
        top = 0 if view.at < page.room else top
    return view.to(top=bounded(top, len(page.picks) - page.room))


def bounded(value: int, most: int) -> int:
    return max(0, min(value, most))


def turn(view: View, page: Extent, step: int) -> tuple[View, Act | None]:
    """The GPU beside this one."""
    if view.screen != "9" or not page.gpus:
        return view, None
    at = page.gpus.index(view.gpu) if view.gpu in page.gpus else 0
    return view.first(gpu=page.gpus[(at + step) % len(page.gpus)]), None


def detail(view: View, page: Extent) -> tuple[View, Act | None]:
    pick = page.picks[view.at] if view.at < len(page.picks) else None
    if pick and pick.startswith("gpu:"):
        return choose(view, pick)
    if not page.details:
        return view.to(message="There is no more detail here."), None
    return view.to(detail=not view.detail, top=0), None


def sort(view: View, page: Extent) -> tuple[View, Act | None]:
    if view.screen not in ("2", "4"):
        return view.to(message="F6 sorts GPUs, on screens 2 and 4."), None
    name = SORTS[(SORTS.index(view.sort) + 1) % len(SORTS)]
    return view.first(sort=name, descending=name != "gpu"), None


def order(view: View, page: Extent) -> tuple[View, Act | None]:
    return view.first(descending=not view.descending), None


def space(view: View, page: Extent) -> tuple[View, Act | None]:
    pick = page.picks[view.at] if view.at < len(page.picks) else None
    return (view, None) if pick is None else choose(view, pick)


def unknown(view: View, page: Extent) -> tuple[View, Act | None]:
    return view, None


Does = Callable[[View, Extent], tuple[View, Act | None]]

DOES: dict[str, Does] = {
    "f1": lambda view, page: (view.first(help=not view.help), None),
    "f5": lambda view, page: (view.to(message="Asking the agent."), Act("refresh")),
    "f6": sort,
    "f7": order,
    "f9": detail,
    "f12": leave,
    "up": lambda view, page: move(view, page, -1),
    "down": lambda view, page: move(view, page, 1),
    "pageup": lambda view, page: scroll(view, page, -page.room),
    "pagedown": lambda view, page: scroll(view, page, page.room),
    "home": lambda view, page: scroll(view, page, -len(page.picks)),
    "end": lambda view, page: scroll(view, page, len(page.picks)),
    "left": lambda view, page: turn(view, page, -1),
    "right": lambda view, page: turn(view, page, 1),
    "tab": lambda view, page: (tab(view, 1), None),
    "backtab": lambda view, page: (tab(view, -1), None),
    "space": space,
    "clear": lambda view, page: (view.to(typed=""), None),
}


def scroll(view: View, page: Extent, step: int) -> tuple[View, Act | None]:
    """A screenful, with the chosen row on it."""
    top = bounded(view.top + step, len(page.picks) - page.room)
    places = [at for at, pick in enumerate(page.picks) if pick is not None]
    if not places:
        return view.to(top=top), None
    if top == view.top:  # there is no more: the first or the last row
        at = places[-1 if step > 0 else 0]
    else:
        within = [at for at in places if top <= at < top + page.room]
        at = min(within or places, key=lambda each: abs(each - (view.at + step)))
    return view.to(top=top, at=at, pick=page.picks[at]), None
