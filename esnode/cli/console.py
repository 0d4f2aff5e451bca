"""``esnode-core cli``: the full-screen console."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import typer

from .. import config
from ..client import URL as VARIABLE
from ..config import KEYS, Arguments, ConfigError
from . import ask

if TYPE_CHECKING:
    from ..client import Client, Message
    from ..console.seen import Entry, Profile
    from ..status import Status

#: Seconds that connecting to a controller may take.
PATIENCE = 60.0
#: This program; nothing of the directory that we happen to be in, which may be anybody's.
PROGRAM = (
    "import sys; sys.path[:] = filter(None, sys.path);"
    " from esnode.__main__ import main; sys.exit(main())"
)
EVENTS = "/events?kinds=gpu,degradation&follow=false"
ELSEWHERE = (
    "The agent was named by a URL: what it collects and who manages it is changed on its own node;"
    " log in there."
)


class Undone(OSError):  # noqa: N818  # says what is the case
    """It was not done; the text says why."""


def add(app: typer.Typer, arguments: Arguments) -> None:
    @app.command("cli")
    def console(url: str = ask.URL) -> int:
        """Open the full-screen console: the node, its GPUs, profiles, the agent."""
        if not (sys.stdin.isatty() and sys.stdout.isatty()):
            raise ConfigError(
                "cli: standard input and output are no terminal; `esnode-core status` needs none"
            )
        from ..console.session import Session

        session = Session(services(arguments, url))
        if not ask.is_terminal():
            from ..console import teletype

            return teletype.run(session)
        from ..console import terminal

        return terminal.run(session)


def services(arguments: Arguments, url: str | None) -> Any:
    """What the console asks for and has done. Raises ConfigError."""
    from ..console.session import Services

    client = ask.agent(arguments, url)
    remote = bool(url or os.environ.get(VARIABLE))
    return Services(
        agent=client.agent.shown,
        ask=lambda: status(client),
        events=lambda: events(client),
        profiles=lambda: ([], ELSEWHERE) if remote else profiles(arguments),
        turn=lambda pick, on: turn(arguments, pick, on),
        connect=lambda *asked: connect(arguments, *asked),
        elsewhere=ELSEWHERE if remote else "",
    )


def status(client: Client) -> Status:
    """The newest document. Raises NoAnswer."""
    return ask.status(client.get("/status"), client)


def events(client: Client) -> list[Entry]:
    """What the agent remembers. Raises NoAnswer."""
    return [found for message in client.events(EVENTS) if (found := entry(message))]


def entry(message: Message) -> Entry | None:
    """An event as the console shows it; None for one that cannot be understood."""
    import msgspec

    from ..console.cells import clean
    from ..console.seen import Entry
    from . import events as shapes

    try:
        data = msgspec.json.decode(message.data)
        pieces = {"gpu": shapes.gpu, "degradation": shapes.degradation}[message.kind](data)
        if message.kind == "degradation":  # the name of a flag, such as gpu_up, is cut off first
            name, word, reason, *score = pieces
            pieces = [word, reason, *score, ("  ", ""), name]
        gpu = data.get("uuid") or data.get("gpu") or (data.get("labels") or {}).get("uuid")
        line = [(clean(text), style) for text, style in pieces]
        return Entry(int(data["unix_ms"]), str(gpu) if gpu is not None else None, line)
    except (msgspec.DecodeError, AttributeError, KeyError, TypeError, ValueError, OverflowError):
        return None


def profiles(arguments: Arguments) -> tuple[list[Profile], str]:
    """The profiles, and why they cannot be changed."""
    from ..console.seen import Profile
    from ..sets import SETS, WITH
    from .server import decided

    try:
        settings = decided(arguments, config.load(arguments, os.environ))
    except ConfigError as error:
        return [], str(error)
    found = [
        Profile(
            *(name, key, bool(settings.value(key)), settings.origins.get(key, "default")),
            turned_on=key in keys,
        )
        for name, keys in SETS.items()
        for key in (*keys, *WITH.get(name, ()))
    ]
    return found, refusal(arguments)


def refusal(arguments: Arguments) -> str:
    """Why tuning by hand is refused; empty where it is not."""
    from . import server

    return server.refusal(arguments) or ""


def turn(arguments: Arguments, pick: str, on: bool) -> str:
    """Turns a set or a key on or off; what came of it. Raises ConfigError, OSError."""
    from ..sets import switches
    from . import configure

    kind, _, name = pick.partition(":")
    values = switches(name, on) if kind == "set" else {name: on}
    said = told(lambda: configure.write(arguments, values))
    notes = [line for line in said if line.startswith("note: ")]
    word = f"{name} is turned {'on' if on else 'off'}"
    return f"{word}; {notes[0]}" if notes else f"{word}. {said[-1] if said else ''}"


def told(act: Callable[[], object]) -> list[str]:
    """The lines that a command prints; the console has its own hold of the terminal."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        act()
    return out.getvalue().splitlines()


def connect(arguments: Arguments, address: str, token: str, ca_file: str) -> str:
    """Has ``server connect`` do it, which gets the token where no list of processes shows it; what
    it says. Raises Undone."""
    words = ["server", "connect", "--address", address]
    words += ["--token-file", "-"] if token else []
    words += ["--ca-file", ca_file] if ca_file else []
    try:
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, *flags(arguments), *words],
            input=token,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=PATIENCE,
            start_new_session=True,  # it does not get our terminal's signals
        )
    except subprocess.TimeoutExpired:
        raise Undone(f"not connected: no end after {PATIENCE:g} s") from None
    lines: Sequence[str] = [
        line.removeprefix("esnode-core: ") for line in done.stdout.splitlines() if line
    ]
    if done.returncode:
        raise Undone(lines[-1] if lines else f"not connected: exit code {done.returncode}")
    return " ".join(lines)


def flags(arguments: Arguments) -> Iterator[str]:
    """The flags that stood before the command."""
    if arguments.config:
        yield f"--config={arguments.config}"
    for name, value in arguments.values.items():
        if value is not None and name not in config.SECRETS:
            text = str(value).lower() if isinstance(value, bool) else str(value)
            yield f"--{KEYS[name].flag}={text}"
