"""Sets of metrics: ``esnode-core profiles``, ``enable-metric-set`` and ``disable-metric-set``."""

from __future__ import annotations

import os
from enum import Enum

import typer

from .. import config
from ..config import Arguments
from ..sets import SETS, WITH, switches

Name = Enum("Name", {name: name for name in (*SETS, "all")})  # type: ignore[misc]

SET = typer.Argument(..., metavar="SET", help=f"One of {', '.join(SETS)}; all: every one.")


def add(app: typer.Typer, arguments: Arguments) -> None:
    def turn(name: Name, on: bool) -> None:
        from .configure import write

        write(arguments, switches(name.value, on))

    @app.command()
    def profiles() -> None:
        """List the sets of metrics, whether each is on, and where that is from."""
        from .server import decided

        settings = decided(arguments, config.load(arguments, os.environ))
        typer.echo(listing(settings), nl=False)

    @app.command("enable-metric-set")
    def enable(name: Name = SET) -> None:
        """Turn a set of metrics on, in the configuration's file."""
        turn(name, True)

    @app.command("disable-metric-set")
    def disable(name: Name = SET) -> None:
        """Turn a set of metrics off, in the configuration's file."""
        turn(name, False)


def listing(settings: config.Settings) -> str:
    """One line for each key of each set."""
    rows = [("set", "key", "value", "from")]
    for name, keys in SETS.items():
        for key in (*keys, *WITH.get(name, ())):
            value = config.spell(settings.value(key))
            rows.append((name, key, value, settings.origins.get(key, "default")))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "".join("  ".join(map(str.ljust, row, widths)).rstrip() + "\n" for row in rows)
