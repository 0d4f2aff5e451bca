"""The directory of what outlives the agent's process."""

from __future__ import annotations

import os
import pwd
from collections.abc import Mapping
from pathlib import Path


def state_directory(environ: Mapping[str, str], make: bool = True) -> Path:
    """The directory, made where it is missing, for us alone, unless it is only to be named: that of
    :func:`base`, for XDG_STATE_HOME. Raises OSError."""
    path = base(environ, "XDG_STATE_HOME", ".local/state")
    if "\0" in str(path):
        raise OSError(f"{str(path)!r} is no path")
    if make:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path


def base(environ: Mapping[str, str], variable: str, usual: str) -> Path:
    """The first of: ``$STATE_DIRECTORY``, which systemd sets for ``StateDirectory=`` and where
    several stand between colons; ``esnode`` in the directory that an XDG variable names, or in the
    usual one below the home. Raises OSError where there is not even a home.

    A path that is not absolute counts as unset, as the XDG base directory specification has it.
    """
    first = environ.get("STATE_DIRECTORY", "").partition(":")[0]
    if first.startswith("/"):
        return Path(first)
    named = environ.get(variable, "")
    return Path(named if named.startswith("/") else home(environ) / usual, "esnode")


def home(environ: Mapping[str, str]) -> Path:
    """The user's home directory; services and containers may have no $HOME."""
    home = environ.get("HOME", "")
    if not home.startswith("/"):
        try:
            home = pwd.getpwuid(os.geteuid()).pw_dir
        except KeyError:
            raise FileNotFoundError(
                "no directory for the state: set STATE_DIRECTORY, XDG_STATE_HOME or HOME"
            ) from None
    return Path(home)
