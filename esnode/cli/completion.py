"""``esnode-core completion``: scripts with which shells complete what is typed.

They hold all words there are, so that no process is started for a press of a key.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from enum import Enum

import typer

from ..config import KEYS, Arguments
from . import tree


class Shell(str, Enum):
    bash = "bash"
    zsh = "zsh"
    fish = "fish"


def add(app: typer.Typer, arguments: Arguments) -> None:
    @app.command()
    def completion(
        shell: Shell = typer.Argument(..., metavar="SHELL", help="One of bash, zsh, fish."),  # noqa: B008
    ) -> None:
        """Print a script that lets a shell complete commands, flags and keys."""
        write = {"bash": bash, "zsh": zsh, "fish": fish}
        typer.echo(write[shell.value](), nl=False)


def places() -> dict[str, list[str]]:
    """What may come next, by the commands that were typed, as /config/set."""
    first = [command.path[0] for command in tree.commands() if len(command.path) == 1]
    found = {"": [*first, *(name for flag in tree.flags() for name in flag.names)]}
    for command in tree.commands():
        words = [*command.commands, *(w for each in command.arguments for w in each.choices)]
        words += [name for each in command.options for name in each.names]
        found["/" + "/".join(command.path)] = [*words, "--help"]
    return found


def values() -> dict[str, tuple[str, ...]]:
    """What may follow a flag, an option or a key with its =; nothing for any text or path."""
    found: dict[str, tuple[str, ...]] = {}
    for command in tree.commands():
        for each in command.options:
            if each.value:
                found |= {f"/{'/'.join(command.path)} {name}": each.choices for name in each.names}
    for flag in tree.flags():
        if flag.value or flag.choices:
            found[f" {flag.names[0]}"] = flag.choices
    for key in KEYS.values():
        found[f"/config/set {key.name}"] = tree.choices(key)
    return found


def arms() -> Iterator[str]:
    """The branches of two case statements that bash and zsh share: of $at with the words that may
    come next, of "$at $key" with values."""
    yield '    case "$at" in'
    for at, words in places().items():
        yield f"    {shlex.quote(at)}) found=({' '.join(map(shlex.quote, words))});;"
    yield "    esac"
    yield '    case "$at $key" in'
    for place, some in values().items():
        yield f"    {shlex.quote(place)}) found=({' '.join(map(shlex.quote, some))}); open=1;;"
    yield "    esac"


def steps() -> str:
    """The patterns of a case statement: the commands that lead to a place."""
    return "|".join(shlex.quote(at) for at in places() if at)


def bash() -> str:
    """For bash, which splits words at = and :, so that key=value comes as three of them."""
    lines = [
        "# esnode-core for bash: source <(esnode-core completion bash)",
        "_esnode_core() {",
        "    local cur=${COMP_WORDS[COMP_CWORD]} key= at= word open=",
        "    local -a found=()",
        "    local -i i",
        "    COMPREPLY=()",
        "    for ((i = 1; i < COMP_CWORD; i++)); do",
        '        word="$at/${COMP_WORDS[i]}"',
        f'        case "$word" in {steps()}) at=$word;; esac',
        "    done",
        "    key=${COMP_WORDS[COMP_CWORD-1]}",
        "    if [[ $cur == = ]]; then cur=",
        "    elif [[ $key == = ]]; then key=${COMP_WORDS[COMP_CWORD-2]}",
        "    elif [[ $at == /config/set ]]; then key=",
        "    fi",
        *arms(),
        "    [[ -n $open && ${#found[@]} -eq 0 ]] && return 0  # a path, or any text",
        '    COMPREPLY=($(compgen -W "${found[*]}" -- "$cur"))',
        "    [[ ${COMPREPLY[0]} == *= ]] && compopt -o nospace 2>/dev/null",
        "    return 0",
        "}",
        "complete -o bashdefault -o default -F _esnode_core esnode-core",
    ]
    return "\n".join(lines) + "\n"


def zsh() -> str:
    """For zsh, as a file ``_esnode-core`` in one of the directories of $fpath, or sourced."""
    lines = [
        "#compdef esnode-core",
        "# esnode-core for zsh: source <(esnode-core completion zsh)",
        "_esnode-core() {",
        "    local cur=${words[CURRENT]} key=${words[CURRENT-1]} at= word open= typed=",
        "    local -a line=(${words[2,CURRENT-1]})",
        "    local -a found=()",
        "    for word in $line; do",
        f'        case "$at/$word" in {steps()}) at=$at/$word;; esac',
        "    done",
        "    [[ $at == /config/set ]] && key=",
        "    if [[ $cur == *=* ]]; then key=${cur%%=*}; typed=$key=; fi",
        *arms(),
        "    if [[ -n $open && ${#found} -eq 0 ]]; then _files; return; fi",
        "    if [[ -n $typed && -z $open ]]; then return 1; fi",
        '    compadd -P "$typed" -S "" -- ${(M)found:#*=}',
        '    compadd -P "$typed" -- ${found:#*=}',
        "    (( ${compstate[nmatches]:-1} )) || _files",
        "}",
        'if [[ "${funcstack[1]}" == _esnode-core ]]; then _esnode-core "$@"',
        "else compdef _esnode-core esnode-core",
        "fi",
    ]
    return "\n".join(lines) + "\n"


def fish() -> str:
    """For fish, which shows what each word is for."""
    lines = [
        "# esnode-core for fish: esnode-core completion fish | source",
        "function __esnode_core_at",
        "    set -l at ''",
        "    for word in (commandline -opc)[2..]",
        f"        if contains -- $at/$word {' '.join(at for at in places() if at)}",
        "            set at $at/$word",
        "        end",
        "    end",
        '    test "$at" = "$argv[1]"',
        "end",
        "complete -c esnode-core -f",
    ]

    def line(at: str, *words: str) -> None:
        condition = shlex.quote(f"__esnode_core_at '{at}'").replace("'\"'\"'", "\\'")
        lines.append(" ".join(("complete -c esnode-core -n", condition, *words)))

    def quoted(text: str) -> str:
        return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"

    def option(at: str, each: tree.Word) -> None:
        for name in each.names:
            kind = f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}"
            value = []
            if each.value or (each.choices and not name.startswith("--no-")):
                some = quoted(" ".join(each.choices))
                value = [f"-x -a {some}"] if each.choices else ["-r -F"]
            line(at, kind, *value, "-d", quoted(each.help))

    for flag in tree.flags():
        option("", flag)
    for command in tree.commands():
        *above, last = command.path
        line("/".join(("", *above)), "-a", last, "-d", quoted(command.help))
        here = "/" + "/".join(command.path)
        for argument in command.arguments:
            words = list(argument.choices)
            if command.path == ("config", "set"):
                words += [f"{k.name}={word}" for k in KEYS.values() for word in tree.choices(k)]
            if words:
                line(here, "-a", quoted(" ".join(words)))
            elif "FILE" in argument.value.upper():
                line(here, "-F")
        for each in command.options:
            option(here, each)
    return "\n".join(lines) + "\n"
