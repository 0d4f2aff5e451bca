"""What there is to say of each command and flag, for the reference and for shells to complete."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, NamedTuple, get_args, get_origin

from .. import xids
from ..config import KEYS, Arguments, Key
from . import metrics


class Word(NamedTuple):
    """An option with its ``names``, or an argument without; ``value`` is how a value is called, of
    those in ``choices`` where there are any. ``more``: several may follow."""

    names: tuple[str, ...]
    value: str
    help: str
    choices: tuple[str, ...] = ()
    required: bool = False
    more: bool = False


class Command(NamedTuple):
    """A command by its words; ``commands`` are the next ones of a group."""

    path: tuple[str, ...]
    help: str
    arguments: tuple[Word, ...]
    options: tuple[Word, ...]
    commands: tuple[str, ...]

    @property
    def name(self) -> str:
        return " ".join(("esnode-core", *self.path))

    @property
    def usage(self) -> str:
        """How it is called."""
        words = [self.name, *(["[OPTIONS]"] if self.options else [])]
        for each in self.arguments:
            text = each.value if each.value.endswith("...") or not each.more else f"{each.value}..."
            words.append(text if each.required else f"[{text}]")
        return " ".join([*words, *(["COMMAND"] if self.commands else [])])


def commands() -> Iterator[Command]:
    """Every command, in order; a group before what is in it."""
    from .app import build

    yield from _walk(build(Arguments()), ())


def _walk(tree: Any, path: tuple[str, ...]) -> Iterator[Command]:
    for name, each in tree.commands.items():
        here = (*path, name)
        words = [(param, _word(param, here)) for param in each.params]
        yield Command(
            here,
            " ".join((each.help or "").split()),
            tuple(word for param, word in words if param.param_type_name == "argument"),
            tuple(word for param, word in words if param.param_type_name == "option"),
            tuple(getattr(each, "commands", ())),
        )
        if hasattr(each, "commands"):
            yield from _walk(each, here)


def _word(param: Any, path: tuple[str, ...]) -> Word:
    is_option = param.param_type_name == "option"
    is_flag = is_option and param.is_flag
    others = () if is_option else VALUES.get(path, ())
    choices = tuple(getattr(param.type, "choices", ())) or others
    name = "|".join(choices) if choices and len(choices) < 9 else param.name.upper()
    help = param.help or ""
    default = param.default
    if is_option and not is_flag and isinstance(default, (int, float, str)) and default != "":
        help = f"{help} [{getattr(default, 'value', default)}]"
    return Word(
        (*param.opts, *param.secondary_opts) if is_option else (),
        "" if is_flag else param.metavar or name,
        help,
        () if is_flag else choices,
        param.required,
        param.nargs == -1,
    )


#: The argument of a command, where its own declaration does not say.
VALUES = {
    ("config", "set"): tuple(f"{name}=" for name in KEYS),
    ("xid",): tuple(map(str, xids.XIDS)),
    ("metrics",): tuple(metrics.SETS),
}


def flags() -> Iterator[Word]:
    """The flags that stand before a command."""
    yield Word(("--once",), "", "Print one page of metrics and exit.")
    yield Word(("--config",), "FILE", "Read this TOML file.")
    yield Word(("--no-color",), "", "No colours; so does NO_COLOR in the environment.")
    yield Word(("--version", "-V"), "", "Print the version and exit.")
    yield Word(("--help", "-h"), "", "Print what there is and exit.")
    for key in KEYS.values():
        names = (f"--{key.flag}", *([f"--no-{key.flag}"] if key.is_switch else []))
        yield Word(names, "" if key.is_switch else "VALUE", key.description, choices(key))


def choices(key: Key) -> tuple[str, ...]:
    """The values that a key can have, where these are few."""
    words = ["true", "false"] if bool in key.kinds else []
    return (*words, *_literals(key.annotation))


def _literals(annotation: Any) -> Iterator[str]:
    if get_origin(annotation) is Literal:
        yield from map(str, get_args(annotation))
        return
    for part in get_args(annotation):
        yield from _literals(part)
