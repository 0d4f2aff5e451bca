"""The session in a terminal, full-screen, with prompt-toolkit."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from prompt_toolkit.application import Application
from prompt_toolkit.data_structures import Point
from prompt_toolkit.input import Input
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.keys import Keys
from prompt_toolkit.layout import Layout, UIContent, UIControl, Window
from prompt_toolkit.output import ColorDepth, Output
from prompt_toolkit.styles import Style

from .cells import line_width
from .session import Session

#: Seconds between two redraws where nothing happens: ages are shown.
SECONDS = 1.0

STYLE = Style(
    [
        ("", "ansigreen bg:ansiblack"),
        ("bold", "ansibrightgreen bold"),
        ("title", "ansibrightgreen bold"),
        ("dim", "ansigreen"),
        ("green", "ansibrightgreen"),
        ("trend", "ansibrightgreen"),
        ("yellow", "ansiyellow"),
        ("red", "ansibrightred bold"),
        ("keys", "ansibrightcyan"),
        ("field", "underline"),
        ("focus", "ansibrightgreen underline"),
        ("chosen", "reverse"),
    ]
)
#: Terminals without colours, as those that prompt-toolkit knows of itself.
PLAIN = ("vt52", "vt100", "vt102", "vt220", "vt320", "vt420")

NAMES = {
    **{f"f{number}": f"f{number}" for number in (1, 3, 5, 6, 7, 9, 12)},
    **{name: name for name in ("up", "down", "left", "right", "pageup", "pagedown")},
    **{name: name for name in ("home", "end")},
    "escape": "f12",
    "c-m": "enter",
    "c-j": "enter",
    "c-i": "tab",
    "s-tab": "backtab",
    "c-h": "backspace",
    "delete": "backspace",
    "c-u": "clear",
    "c-l": "f5",
    "c-r": "f5",
    "c-c": "f3",
    "c-q": "f3",
    "c-d": "f3",
}


class Screen(UIControl):
    """The frame, as prompt-toolkit wants it."""

    def __init__(self, session: Session) -> None:
        self.session = session

    def is_focusable(self) -> bool:
        return True

    def create_content(self, width: int, height: int) -> UIContent:
        self.session.resize(width, height)
        frame = self.session.frame()
        lines = [
            [(" ".join(f"class:{each}" for each in style.split()), text) for text, style in line]
            for line in frame.lines
        ]
        for line, shown in zip(lines, frame.lines, strict=True):
            line.append(("", " " * (width - line_width(shown))))
        row, column = frame.cursor
        return UIContent(
            get_line=lambda at: [*lines[at]],
            line_count=len(lines),
            cursor_position=Point(column, row),
        )


def bindings(session: Session) -> KeyBindings:
    """All keys are the session's."""
    keys = KeyBindings()

    @keys.add(Keys.Any, eager=True)
    def press(event: KeyPressEvent) -> None:
        for pressed in event.key_sequence:
            key = pressed.key.value if isinstance(pressed.key, Keys) else pressed.key
            if key in NAMES:
                session.press(NAMES[key])
            elif len(key) == 1 and key.isprintable():
                session.press(key)

    for name in (*NAMES, "<sigint>"):
        keys.add(name, eager=True)(press if name in NAMES else lambda event: session.press("f3"))

    @keys.add("c-z", eager=True)
    def suspend(event: KeyPressEvent) -> None:
        event.app.suspend_to_background()

    @keys.add(Keys.BracketedPaste, eager=True)
    def paste(event: KeyPressEvent) -> None:
        if session.is_typing:
            for letter in event.data:
                if letter.isprintable():
                    session.press(letter)

    return keys


def color_depth(environ: Mapping[str, str]) -> ColorDepth | None:
    """No colours where none are wanted, or the terminal has none; None: what it is known to do."""
    if environ.get("NO_COLOR") or environ.get("TERM", "").partition("-")[0] in PLAIN:
        return ColorDepth.MONOCHROME
    return None


def is_unicode(stream: object, environ: Mapping[str, str] | None = None) -> bool:
    """Whether what is written is shown as Unicode: Python writes UTF-8 in the locale C, too, and
    says so in a variable of its own (PEP 538), which we were not started with."""
    known = os.environ if environ is None else environ
    names = [known.get(name) for name in ("LC_ALL", "LC_CTYPE", "LANG")]
    if environ is None and b"LC_CTYPE=" not in Path("/proc/self/environ").read_bytes():
        names[1] = None
    locale = next(filter(None, names), "utf")
    if "utf" not in locale.lower():
        return False
    encoding = str(getattr(stream, "encoding", None) or "ascii").lower().replace("-", "")
    return encoding.startswith("utf")


def application(
    session: Session,
    input: Input | None = None,
    output: Output | None = None,
    environ: Mapping[str, str] = os.environ,
) -> Application[None]:
    """Draws the session, and gives it the keys."""
    app: Application[None] = Application(
        layout=Layout(Window(Screen(session))),
        key_bindings=bindings(session),
        style=STYLE,
        include_default_pygments_style=False,
        full_screen=True,
        color_depth=color_depth(environ),
        refresh_interval=SECONDS,
        input=input,
        output=output,
    )
    # A function key is more than one byte, which a slow line may tear apart; a lone escape is not.
    app.ttimeoutlen = 0.3
    app.timeoutlen = 0.3

    def call(act: Callable[[], None]) -> None:
        def done() -> None:
            act()
            app.invalidate()

        loop = app.loop
        if loop is not None:
            with contextlib.suppress(RuntimeError):  # which has just ended
                loop.call_soon_threadsafe(done)

    session.call = call
    session.leave = partial(leave, app)
    session.redraw = app.renderer.clear
    return app


def leave(app: Application[None]) -> None:
    if app.is_running and not app.is_done:
        app.exit()


def resume(app: Application[None]) -> None:
    """Takes the terminal again, as a shell's fg does not, and draws all of the screen anew."""
    app.input.raw_mode().__enter__()  # how it was at first is known, and is restored at the end
    app.renderer.clear()
    app.invalidate()


def run(session: Session) -> int:
    """Until the operator leaves, or a signal says so; the exit code."""
    session.view = session.view.to(ascii=not is_unicode(sys.stdout))
    app = application(session)
    code = 0

    def end(number: int) -> None:
        nonlocal code
        code = 128 + number
        leave(app)

    def begin() -> None:
        assert app.loop is not None
        for number in (signal.SIGTERM, signal.SIGHUP):
            app.loop.add_signal_handler(number, end, number)
        # Whoever stopped us, the screen is another's since.
        app.loop.add_signal_handler(signal.SIGCONT, resume, app)
        session.start()

    try:
        app.run(pre_run=begin, set_exception_handler=False)
    except EOFError:  # the terminal has gone
        return 1
    finally:
        session.stop()
    return code
