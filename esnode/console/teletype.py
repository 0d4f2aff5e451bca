"""The session on a terminal that cannot move its cursor: a screen, and a line of input after it."""

from __future__ import annotations

import contextlib
import shutil
import sys
import termios
import threading
from collections.abc import Iterator
from typing import TextIO

from ..cli.screen import Line
from .cells import ascii_only, cut, plain
from .session import Session

#: Words for keys; a number is that of a screen, /TEXT the filter, anything else a key's letter.
WORDS = {"": "enter", "n": "pagedown", "p": "pageup", "b": "f12", "q": "f3", "r": "f5"}
HINT = "number, n/p page, j/k row, /text, Enter, d, b back, r, ? help, q leave: "
FIELD = "text for {}; Enter alone goes on to the next: "
NAMES = {"address": "the server", "token": "the token, not shown", "ca_file": "the CA file"}
#: Seconds that a screen waits for what is under way.
PATIENCE = 5.0


def run(session: Session, into: TextIO | None = None, out: TextIO | None = None) -> int:
    """Until the operator leaves or the input ends; the exit code."""
    into, out = into or sys.stdin, out or sys.stdout
    news = threading.Event()
    lock = threading.Lock()
    going = True

    def call(act: object) -> None:
        with lock:
            act()  # type: ignore[operator]
        news.set()

    def leave() -> None:
        nonlocal going
        going = False

    session.call, session.leave = call, leave
    session.start()
    news.wait(PATIENCE)
    while going:
        width, height = shutil.get_terminal_size()
        with lock:
            session.resize(width, height - 1)
            session.view = session.view.to(ascii=True)
            lines = session.frame().lines
            field = session.view.focus if session.is_typing else None
        hint = FIELD.format(NAMES[field]) if field else HINT
        with hidden(into) if field == "token" else contextlib.nullcontext():
            out.write("\n".join([*map(shown, lines), ascii_only(cut(hint, width - 4))]))
            out.flush()
            line = into.readline()
        if not line:
            break
        word = line.strip()
        news.clear()
        with lock:
            for key in keys(session, word):
                session.press(key)
            waits = bool(session.view.busy) or session.view.screen == "5" or word == "r"
        if going and waits:
            news.wait(PATIENCE)
    session.stop()
    return 0


@contextlib.contextmanager
def hidden(stream: TextIO) -> Iterator[None]:
    """What is typed is not shown, where that is a terminal."""
    try:
        before = termios.tcgetattr(stream)
    except (OSError, ValueError, termios.error):
        yield
        return
    flags = before[3] & ~termios.ECHO | termios.ECHONL
    termios.tcsetattr(stream, termios.TCSADRAIN, [*before[:3], flags, *before[4:]])
    try:
        yield
    finally:
        termios.tcsetattr(stream, termios.TCSADRAIN, before)


def shown(line: Line) -> str:
    """A line; what is chosen has a mark, for there is no other way to see it."""
    text = plain(line)
    if any("chosen" in style for _, style in line):
        text = ">" + text[1:]
    return text.rstrip()


def keys(session: Session, word: str) -> list[str]:
    """What is pressed for a word."""
    if session.is_typing:
        return ["clear", *word, "tab"] if word else ["tab"]
    if word in WORDS:
        return [WORDS[word]]
    if word.startswith("/"):
        return ["/", "clear", *word[1:], "enter"]
    if word.isdigit():
        return [*word[-2:], "enter"]
    return [word[0]] if len(word) == 1 else []
