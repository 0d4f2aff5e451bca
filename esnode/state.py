"""The directory of what outlives the agent's process."""

from __future__ import annotations

import os
import pwd
from collections.abc import Mapping
from pathlib import Path


def state_directory(environ: Mapping[str, str], make: bool = True) -> Path:
    """The directory, made where it is missing, for us alone, unless it is only to be named. Raises
    OSError.

    The first of: ``$STATE_DIRECTORY``, which systemd sets for ``StateDirectory=`` and where several
    stand between colons; ``$XDG_STATE_HOME/esnode``; ``~/.local/state/esnode``. A path that is not
    absolute counts as unset, as the XDG base directory specification has it.
    """
    first = environ.get("STATE_DIRECTORY", "").partition(":")[0]
    base = environ.get("XDG_STATE_HOME", "")
    if first.startswith("/"):
        path = Path(first)
    elif base.startswith("/"):
        path = Path(base, "esnode")
    else:
        path = home(environ) / ".local/state/esnode"
    if "\0" in str(path):
        raise OSError(f"{str(path)!r} is no path")
    if make:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path


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
