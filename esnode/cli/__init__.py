"""Sub-commands. Only here typer is loaded; the daemon does without."""

from __future__ import annotations

import os
import sys

from ..config import Arguments, ConfigError

#: The module of this package that has each sub-command; no other is loaded to run one. Its function
#: `add(app, arguments)` adds what it has to the tree.
COMMANDS = {
    "cli": "console",
    "status": "status",
    "metrics": "metrics",
    "events": "events",
    "check": "check",
    "diagnostics": "diagnostics",
    "profiles": "profiles",
    "enable-metric-set": "profiles",
    "disable-metric-set": "profiles",
    "config": "configure",
    "gpu": "gpu",
    "server": "server",
    "disconnect": "server",
    "tsdb": "history",
    "xid": "xid",
    "completion": "completion",
}


def run(arguments: Arguments) -> int:
    """Runs the sub-command that the flags were followed by; returns the exit code."""
    words = list(arguments.command)
    if sys.stdout is None:  # it was closed: nobody wants to know more than the exit code
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123
    if "no-color" in arguments.options:
        os.environ["NO_COLOR"] = "1"
    if words[0] not in COMMANDS:
        known = ", ".join(COMMANDS)
        raise ConfigError(f"{words[0]}: unknown command, allowed is {known}")
    from .app import build

    tree = build(arguments, COMMANDS[words[0]])
    try:
        code = tree.main(words, prog_name="esnode-core", standalone_mode=False)
    except Exception as error:  # typer has a click of its own, so its errors have no name
        message = getattr(error, "format_message", None)
        if message is None:
            raise
        text = message()
        if text.startswith("Usage:"):  # where a word is missing
            print(text, file=sys.stderr)
        else:
            path = getattr(getattr(error, "ctx", None), "command_path", "esnode-core")
            text = " ".join(text.split()).rstrip(".,")
            print(f"esnode-core: {text}; see {path} --help", file=sys.stderr)
        return 2
    return code if isinstance(code, int) else 0
