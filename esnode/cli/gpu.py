"""``esnode-core gpu``: tells the agent to let go of the GPUs."""

from __future__ import annotations

import os
import signal

import typer

from .. import config
from ..config import Arguments
from . import process


def add(app: typer.Typer, arguments: Arguments) -> None:
    group = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
    app.add_typer(group, name="gpu", help="Tell the agent to let go of the GPUs.")

    def send(number: signal.Signals) -> int:
        address = config.load(arguments, os.environ).config.listen_address
        return process.send(*config.parse_address(address), number)

    @group.command()
    def release() -> None:
        """Let the agent close the driver, for a reset, a MIG change or an upgrade."""
        typer.echo(f"The agent, process {send(signal.SIGUSR1)}, was told to release the GPUs.")

    @group.command()
    def attach() -> None:
        """Let the agent open the driver again."""
        typer.echo(f"The agent, process {send(signal.SIGUSR2)}, was told to attach to the GPUs.")
