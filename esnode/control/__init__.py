"""Managed mode: a controller, such as ESNODE-Pulse, that this node answers to."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from ..config import Config
from ..state import state_directory
from . import managed
from .managed import Unusable


def refusal(config: Config | None = None, directory: Path | None = None) -> str | None:
    """Why tuning this agent by hand is refused, and the way out, in one line; None where it is
    not, because the node is standalone.

    ``config`` and ``directory``, of its state, are the agent's where that is another process;
    without ``directory`` it is that of this process.
    """
    try:
        state = managed.load(directory or state_directory(os.environ, make=False))
    except Unusable as error:
        # A damaged one does not count for the agent either.
        return None if error.is_damage else f"{error}: run this as root, or as the agent's user"
    except OSError:  # no directory at all
        state = None
    found = managed.attached(state, config)
    if found is None:
        return None
    return (
        f"this node is managed by ESNODE-Pulse on {found.shown}: change it there, or detach the"
        " node with `esnode-core disconnect`"
    )


def hide(secret: str) -> None:
    """Writes over a word of this process's command line, which every user of the machine may read;
    where the kernel does not let us, it stays."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        # proc_pid_stat(5): arg_start and arg_end are fields 48 and 49; the third follows the name.
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        start, end = int(fields[45]), int(fields[46])
        with Path("/proc/self/mem").open("r+b", buffering=0) as memory:
            memory.seek(start)
            line = memory.read(end - start)
            word = secret.encode(errors="surrogateescape")
            at = line.find(word) if word else -1
            while at >= 0:
                memory.seek(start + at)
                memory.write(b"*" * len(word))
                at = line.find(word, at + len(word))
