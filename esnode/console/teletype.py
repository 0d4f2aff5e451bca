"""The session on a terminal that cannot move its cursor: a screen, and a line of input after it."""

from __future__ import annotations

import shutil
import sys
import threading
from typing import TextIO

from ..cli.screen import Line
from .cells import plain
from .session import Session

#: Words for keys; a number is that of a screen, /TEXT the filter, anything else a key's letter.
WORDS = {"": "enter", "n": "pagedown", "p": "pageup", "b": "f12", "q": "f3", "r": "f5"}
HINT = "number, n/p page, j/k row, /text, Enter, d detail, b back, r refresh, ? help, q leave: "
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
        out.write("\n".join([*map(shown, lines), HINT]))
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


def shown(line: Line) -> str:
    """A line; what is chosen has a mark, for there is no other way to see it."""
    text = plain(line)
    if any("chosen" in style for _, style in line):
        text = ">" + text[1:]
    return text.rstrip()


def keys(session: Session, word: str) -> list[str]:
    """What is pressed for a word."""
    if session.is_typing:
        return [*word, "tab"] if word else ["tab"]
    if word in WORDS:
        return [WORDS[word]]
    if word.startswith("/"):
        return ["/", "clear", *word[1:], "enter"]
    if word.isdigit():
        return [*word[-2:], "enter"]
    return [word[0]] if len(word) == 1 else []
