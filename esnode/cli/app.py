"""The tree of sub-commands."""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperOption

from ..config import Arguments
from . import COMMANDS


def build(arguments: Arguments, module: str | None = None) -> Any:
    """The command tree, or one module's part of it; ``arguments`` are the flags that stood before
    the sub-command."""
    app = typer.Typer(
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
    app.callback()(lambda: None)
    for name in [module] if module else dict.fromkeys(COMMANDS.values()):
        import_module(f".{name}", __package__).add(app, arguments)
    tree: Any = typer.main.get_command(app)
    # Typer has groups last.
    tree.commands = {name: tree.commands[name] for name in COMMANDS if name in tree.commands}
    for _, command in commands(tree):
        command.params.append(no_color())
    return tree


def commands(tree: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """(words, command) of each command of a tree that does something, in order."""
    for name, each in tree.commands.items():
        if hasattr(each, "commands"):
            yield from commands(each, (*path, name))
        else:
            yield (*path, name), each


def no_color() -> TyperOption:
    """The option that every command has."""

    def plain(context: Any, option: Any, value: bool) -> None:
        if value:
            os.environ["NO_COLOR"] = "1"

    return TyperOption(
        param_decls=["--no-color"],
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=plain,
        help="No colours; so does NO_COLOR in the environment.",
    )
