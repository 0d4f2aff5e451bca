"""Where the local history is, and what its directories and files are called."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec

from ..dialects import Labels
from ..metrics import Metric
from ..state import base

#: Milliseconds of a block's window; windows begin at multiples of it, which are UTC's even hours.
WINDOW = 7_200_000

LOCK = "lock"
AGE = "age.json"
OPEN = "samples.jsonl"
SEALED = "samples.jsonl.zst"
INDEX = "index.json"
#: What a file is called while it is written.
NEW = ".new"
#: All that a block's directory has of ours.
FILES = (OPEN, SEALED, INDEX, OPEN + NEW, SEALED + NEW, INDEX + NEW)

_BLOCK = re.compile(r"(-?\d{1,15})-(-?\d{1,15})")


def directory(named: str | None, environ: Mapping[str, str]) -> Path:
    """The history's directory, which need not exist: the one that the configuration names, else
    ``tsdb`` in that of :func:`state.base` for XDG_DATA_HOME. Raises OSError where there is not even
    a home."""
    if named:
        return Path(named).absolute()
    return base(environ, "XDG_DATA_HOME", ".local/share") / "tsdb"


def window(unix_ms: int) -> int:
    """The start of the window that a time is in."""
    return unix_ms - unix_ms % WINDOW


def name(start: int) -> str:
    """The directory of the block that begins then."""
    return f"{start}-{start + WINDOW}"


def starts(path: Path) -> list[int]:
    """The starts of the blocks below a path, in order; what else is there is not ours."""
    found = []
    try:
        entries: Iterator[os.DirEntry[str]] = os.scandir(path)
    except FileNotFoundError:
        return []
    for entry in entries:
        match = _BLOCK.fullmatch(entry.name)
        if match and entry.is_dir(follow_symlinks=False):
            start = int(match[1])
            if start % WINDOW == 0 and entry.name == name(start):
                found.append(start)
    return sorted(found)


def size(file: Path) -> int:
    """The length of a file; 0 where there is none."""
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0


def metric_object(metric: Metric, labels: Labels) -> bytes:
    """``{"__name__":"…","label":"…"}`` in the order of the declaration, without blanks; a label
    whose value is None is left out."""
    pairs = {"__name__": metric.name}
    for key, value in zip(metric.labels, labels, strict=True):
        if value is not None:
            pairs[key] = value
    return msgspec.json.encode(pairs)


def metric_name(metric: bytes) -> str:
    """The name in a metric object of ours."""
    return metric[13 : metric.index(b'"', 13)].decode()
