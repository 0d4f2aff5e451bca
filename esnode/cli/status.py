"""``esnode-core status``: a node on one screen."""

from __future__ import annotations

import contextlib
import shutil
import signal
import sys
import time
from collections.abc import Iterator

import typer

from .. import config
from ..client import Client, NoAnswer
from ..config import Arguments
from ..status import Status
from . import ask, screen

PATH = "/status"
SECONDS = 2.0
#: Of a terminal: another screen, without cursor and line wrap, and all of that undone.
ENTER = "\x1b[?1049h\x1b[?25l\x1b[?7l"
LEAVE = "\x1b[?7h\x1b[?25h\x1b[?1049l"
HOME, LINE_END, SCREEN_END = "\x1b[H", "\x1b[K", "\x1b[J"


def add(app: typer.Typer, arguments: Arguments) -> None:
    @app.command("status")
    def show(
        seconds: float | None = typer.Argument(
            None, min=0.1, max=3600, help=f"Between two screens of --watch; {SECONDS:g} by default."
        ),
        watch: bool = typer.Option(False, "--watch", "-w", help="Show it again and again."),
        json: bool = typer.Option(False, "--json", help="Print the document as it is served."),
        url: str = ask.URL,
    ) -> None:
        """Show the node on one screen: load, memory, disks, network, power, GPUs, what is wrong."""
        if seconds is not None and not watch:
            raise config.ConfigError(f"status {seconds:g}: a time goes with --watch")
        client = ask.agent(arguments, url)
        if watch:
            Watch(client, seconds or SECONDS, json).run()
        elif json:
            ask.write(client.get(PATH).decode(errors="replace").rstrip("\n") + "\n")
        else:
            status = ask.status(client.get(PATH), client)
            ask.write("\n".join(lines(status)) + "\n")


def lines(status: Status) -> list[str]:
    """The screen as lines: for the terminal less its last line, or plain and whole."""
    width = height = None
    if ask.is_terminal():
        width, height = shutil.get_terminal_size()
        height -= 1
    found = screen.screen(status, round(time.time() * 1000), width, height)
    return [screen.text(line, width, ask.is_colored()) for line in found]


#: Seconds after which an agent that did not answer is asked again.
AGAIN = 2.0


class Watch:
    """Shows the agent's status until it is interrupted; an agent that is gone is waited for."""

    def __init__(self, client: Client, seconds: float, json: bool) -> None:
        self.client = client
        self.seconds = seconds
        self.json = json
        self.shown: list[str] = []
        #: Since when there is no answer, in monotonic seconds; None while there is.
        self.silent_since: float | None = None

    def run(self) -> None:
        """Returns when it is interrupted."""
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
        resized = {signal.SIGWINCH}
        signal.pthread_sigmask(signal.SIG_BLOCK, resized)  # waited for below
        with (
            contextlib.suppress(KeyboardInterrupt),
            drawing(not self.json and ask.is_terminal()) as draws,
        ):
            while True:
                began = time.monotonic()
                self.show(draws)
                lost = self.silent_since is not None
                due = began + (min(self.seconds, AGAIN) if lost else self.seconds)
                signal.sigtimedwait(resized, max(0.0, due - time.monotonic()))

    def show(self, draws: bool) -> None:
        """Asks once, and writes what is new."""
        problem = None
        try:
            found = self.client.get(PATH)
            if self.json:
                ask.write(found.decode(errors="replace").rstrip("\n") + "\n")
            else:
                self.shown = lines(ask.status(found, self.client))
        except NoAnswer as error:
            problem = str(error)
        now = time.monotonic()
        if draws:
            if problem is None:
                self.silent_since = None
            elif self.silent_since is None:
                self.silent_since = now
            self.draw(problem, now)
        elif problem is not None:
            if self.silent_since is None:  # said once
                self.silent_since = now
                print(f"esnode-core: {problem}", file=sys.stderr)
        else:
            if self.silent_since is not None:
                self.silent_since = None
                print("esnode-core: the agent is back", file=sys.stderr)
            if not self.json:
                ask.write("\n".join([*self.shown, "", ""]))

    def draw(self, problem: str | None, now: float) -> None:
        """Draws over the last screen, whose last line says how things are."""
        width, height = shutil.get_terminal_size()
        last: screen.Line = [(f"every {self.seconds:g} s; ctrl-C ends", "dim")]
        if problem is not None:
            since = screen.span(now - (self.silent_since or now))
            last = [(f"NO ANSWER for {since}, trying again: ", "red"), (problem, "")]
        body = self.shown[: height - 1]
        drawn = [*body, *[""] * (height - 1 - len(body))]
        drawn.append(screen.text(last, width, ask.is_colored()))
        ask.write(HOME + "\r\n".join(f"{line}{LINE_END}" for line in drawn) + SCREEN_END)


@contextlib.contextmanager
def drawing(wanted: bool) -> Iterator[bool]:
    """The terminal's other screen, where it is wanted."""
    if wanted:
        ask.write(ENTER)
    try:
        yield wanted
    finally:
        if wanted:
            ask.write(LEAVE)
