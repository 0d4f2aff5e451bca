"""What the commands that ask a running agent share: which agent, and how to write to a terminal."""

from __future__ import annotations

import os
import sys
from typing import Any

import msgspec
import typer

from .. import config
from ..client import URL as VARIABLE
from ..client import Client, NoAnswer, local, target
from ..config import Arguments
from ..status import Status

URL = typer.Option(
    None, "--url", help=f"Which agent to ask, such as https://node:9100; else {VARIABLE}."
)


def agent(arguments: Arguments, url: str | None) -> Client:
    """The agent that is meant: of a URL, else of the configuration. Raises ConfigError."""
    named = url or os.environ.get(VARIABLE)
    if named:
        return Client(target(named))
    return local(config.load(arguments, os.environ).config)


def status(found: bytes, client: Client) -> Status:
    """A document of /status. Raises NoAnswer."""
    try:
        return msgspec.json.decode(found, type=Status)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        said = "".join(letter for letter in str(error) if letter.isprintable())[:160]
        raise NoAnswer(
            f"what {client.agent.shown} answers is no status document of this version ({said}):"
            " is its agent as new as this command?"
        ) from None


def is_terminal() -> bool:
    """Whether standard output is a terminal that can move its cursor."""
    return sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"


def is_colored() -> bool:
    """Whether colours are wanted; see no-color.org. ``--no-color`` sets NO_COLOR."""
    return is_terminal() and not os.environ.get("NO_COLOR")


def write(text: str) -> None:
    """Writes a text, with a question mark for what the terminal's encoding lacks."""
    out: Any = sys.stdout
    out.reconfigure(errors="replace")
    out.write(text)
    out.flush()
