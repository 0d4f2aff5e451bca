"""``esnode-core config``: shows, checks and changes the configuration."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import typer

from .. import config
from ..config import KEYS, MASK, SECRETS, Arguments, ConfigError


def add(app: typer.Typer, arguments: Arguments) -> None:
    group = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
    app.add_typer(group, name="config", help="Show, check and change the configuration.")

    @group.command()
    def show() -> None:
        """Print the effective configuration, and where each value is from."""
        from .server import decided

        settings = decided(arguments, config.load(arguments, os.environ))
        typer.echo(config.show(settings), nl=False)

    @group.command()
    def check(
        file: str = typer.Argument("", help="A file; without it, the configuration in use."),
    ) -> None:
        """Say whether the configuration is valid; exit code 2 when it is not."""
        if file:
            values = config.read_file(file)
            check_web(values.get("web_config_file"))
            typer.echo(f"{file}: valid")
            return
        settings = config.load(arguments, os.environ)
        for warning in settings.warnings:
            typer.echo(warning, err=True)
        check_web(settings.config.web_config_file)
        typer.echo(f"{settings.file or 'no file, only defaults, flags and environment'}: valid")

    @group.command("set")
    def assign(
        values: list[str] = typer.Argument(  # noqa: B008
            ..., metavar="KEY=VALUE...", help="Written as with a flag; nothing takes a key out."
        ),
    ) -> None:
        """Change keys in the configuration's file, and keep all else of it."""
        write(arguments, dict(map(parse, values)))


def check_web(path: str | None) -> None:
    """Reads the web configuration, where there is one. Raises ConfigError."""
    if path:
        from .. import web

        web.load(path)


def parse(word: str) -> tuple[str, Any]:
    """The key and the value of KEY=VALUE; the value of an optional key with nothing is None. Raises
    ConfigError."""
    name, equals, text = word.partition("=")
    if name not in KEYS:
        raise ConfigError(f"{name}: unknown key; the closest is {config.nearest(name).name}")
    key = KEYS[name]
    if not equals:
        raise ConfigError(
            f"{name}: a value is missing: write {name}=VALUE; allowed is {key.allowed}"
        )
    value = key.parse(text)
    key.accept(value, "config set")
    return name, value  # as it was written: what stands for the home directory stays that


def write(arguments: Arguments, values: Mapping[str, Any]) -> None:
    """Sets keys in the configuration's file, and says what comes of it. Raises ConfigError, and
    OSError where it cannot be written, or the node is managed."""
    from . import edit, server

    if reason := server.refusal(arguments):
        raise edit.NotWritten(reason)
    path = edit.target(arguments.config, os.environ)
    agent = running(arguments)
    edit.change(path, values)
    for name, value in values.items():
        typer.echo(
            f"{path}: {name} {'is taken out' if value is None else f'= {shown(name, value)}'}"
        )
    for note in dict.fromkeys(notes(arguments, path, values, agent)):
        typer.echo(note, err=True)


def shown(name: str, value: Any) -> str:
    """A value as it may be shown."""
    return config.masked(config.spell(MASK if name in SECRETS else value))


def running(arguments: Arguments) -> Any:
    """How the agent was started that runs here; None where there is none, or we may not see it."""
    from . import process

    key = KEYS["listen_address"]
    try:
        address = config.load(arguments, os.environ).config.listen_address
    except ConfigError:  # of a file that is still to be made, or mended
        named = os.environ.get(key.variable, key.default)
        address = arguments.values.get(key.name, named)
    try:
        return process.started(*config.parse_address(address))
    except (ConfigError, OSError, ValueError):
        return None


def notes(arguments: Arguments, path: Path, values: Mapping[str, Any], agent: Any) -> Iterator[str]:
    """What keeps a value in the file from counting, or from counting now."""
    try:
        settings = config.load(arguments, os.environ)
    except ConfigError as error:
        yield f"note: the configuration as a whole is not valid: {error}"
        return
    for name in values:
        origin = settings.origins.get(name, "default")
        if origin not in ("default", str(path), settings.file):
            value = shown(name, settings.value(name))
            yield f"note: {name} is {value} all the same: {origin} counts more"
        if name in SECRETS and values[name] is not None and path.stat().st_mode & 0o077:
            yield f"note: {path} has a secret and others may read it: chmod 600 {path}"
    late = [name for name in values if KEYS[name].at_start]
    who = f"the agent that runs, process {agent.pid}," if agent else "an agent that runs"
    if agent and not agent.reads(path):
        yield f"note: {who} reads {agent.file or 'no file'}"
        return
    for name in values:
        if agent and (origin := agent.overrides(name)):
            yield f"note: {who} was started with {origin}, which counts more"
    if len(late) < len(values):
        yield f"{who[0].upper()}{who[1:]} takes this up by itself, within seconds"
    if late:
        yield f"note: {', '.join(late)}: counts when the agent is started anew"
