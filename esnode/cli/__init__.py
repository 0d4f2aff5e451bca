"""Sub-commands. Only here typer is loaded; the daemon does without."""

from __future__ import annotations

from ..config import Arguments


def run(arguments: Arguments) -> int:
    """Runs the sub-command that the flags were followed by; returns the exit code."""
    from .app import build

    code: int = build(arguments)(list(arguments.command))
    return code
