"""The tree of sub-commands."""

from __future__ import annotations

import os
from typing import Any

import typer

from .. import config
from ..config import Arguments


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
