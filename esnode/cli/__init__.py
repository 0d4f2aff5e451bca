"""Sub-commands. Only here typer is loaded; the daemon does without."""

from __future__ import annotations

from ..config import Arguments


def run(arguments: Arguments) -> int:
    """Runs the sub-command that the flags were followed by; returns the exit code."""
    from .app import build

    result = build(arguments)(list(arguments.command), standalone_mode=False)
    return result if isinstance(result, int) else 0
