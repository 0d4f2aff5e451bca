"""The tree of sub-commands."""

from __future__ import annotations

import os
import re
import signal
from typing import Any

import typer

from .. import config, xids
from ..config import Arguments
from . import process
from .history import tsdb


def build(arguments: Arguments) -> Any:
    """The command tree; ``arguments`` are the flags that stood before the sub-command."""
    app = typer.Typer(
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
    app.callback()(lambda: None)
    app.add_typer(_config(arguments), name="config", help="Show and check the configuration.")
    app.add_typer(_gpu(arguments), name="gpu", help="Tell the agent to let go of the GPUs.")
    app.add_typer(tsdb(arguments), name="tsdb", help="Look into the local history; send it on.")
    app.command()(xid)
    command: Any = typer.main.get_command(app)

    def invoke(words: list[str]) -> int:
        if words[0] not in command.commands:
            known = ", ".join(command.commands)
            raise config.ConfigError(f"{words[0]}: unknown command, allowed is {known}")
        try:
            command.main(words, prog_name="esnode-core")
        except SystemExit as end:  # typer brings a click of its own, so its errors have no name
            return end.code if isinstance(end.code, int) else 0
        return 0

    return invoke


def _config(arguments: Arguments) -> typer.Typer:
    app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)

    @app.command()
    def show() -> None:
        """Print the effective configuration, and where each value is from."""
        typer.echo(config.show(config.load(arguments, os.environ)), nl=False)

    @app.command()
    def check(file: str) -> None:
        """Say whether FILE is valid; exit code 2 when it is not."""
        config.read_file(file)
        typer.echo(f"{file}: valid")

    return app


def _gpu(arguments: Arguments) -> typer.Typer:
    app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)

    def send(number: signal.Signals) -> int:
        address = config.load(arguments, os.environ).config.listen_address
        return process.send(*config.parse_address(address), number)

    @app.command()
    def release() -> None:
        """Let the agent close the driver, for a reset, a MIG change or an upgrade."""
        typer.echo(f"The agent, process {send(signal.SIGUSR1)}, was told to release the GPUs.")

    @app.command()
    def attach() -> None:
        """Let the agent open the driver again."""
        typer.echo(f"The agent, process {send(signal.SIGUSR2)}, was told to attach to the GPUs.")

    return app


def xid(code: str = typer.Argument("")) -> None:
    """Say what an Xid means and what to do about it; without CODE, list all."""
    if not code:
        typer.echo(xids.listing(), nl=False)
        return
    if not re.fullmatch(r"[0-9]{1,9}", code) or int(code) not in xids.XIDS:
        raise config.ConfigError(
            f"xid {code[:20]}: not in the catalogue; `esnode-core xid` lists what is"
        )
    typer.echo(xids.describe(int(code)), nl=False)
