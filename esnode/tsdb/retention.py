"""Keeps the history within its age and its budget: the oldest block goes first.

Only files that a block has by our names are counted and removed.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable
from pathlib import Path

from . import index
from .block import last_line
from .layout import FILES, INDEX, NEW, OPEN, SEALED, WINDOW, name, size, starts

#: Bytes in which the first timestamp of a file is looked for.
HEAD = 1 << 16
_FIRST = re.compile(rb'"timestamps":\[(-?\d{1,18})')


def sizes(path: Path) -> dict[int, int]:
    """Bytes of the blocks that have files of ours, by their start, in order."""
    return {
        start: sum(size(path / name(start) / each) for each in FILES)
        for start in starts(path)
        if any((path / name(start) / each).exists() for each in FILES)
    }


def remove(path: Path, start: int) -> None:
    """Removes a block; what is not ours stays, with the directory. Raises OSError."""
    block = path / name(start)
    for each in FILES:
        (block / each).unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        block.rmdir()


def expired(found: Iterable[int], now: float, retention: float) -> list[int]:
    """The blocks that ended more than ``retention`` seconds before ``now``, in Unix time."""
    limit = (now - retention) * 1000
    return [start for start in found if start + WINDOW <= limit]


def excess(found: dict[int, int], budget: int, keep: int, ahead: float) -> list[int]:
    """The oldest blocks, of blocks with their bytes, without which the rest fits into a budget;
    never the block ``keep``. Those that begin after ``ahead``, in milliseconds, go before: a clock
    that was wrong has made them, and they would never grow old."""
    total = sum(found.values())
    over = []
    for start in sorted(found, key=lambda start: (start <= ahead, start)):
        if total <= budget:
            break
        if start != keep:
            over.append(start)
            total -= found[start]
    return over


def trim(path: Path, start: int, keep: int) -> int:
    """Leaves about the last ``keep`` bytes of an open block's lines; how many bytes went. Whoever
    has the file open is to open it again. Raises OSError."""
    block = path / name(start)
    aside = block / (OPEN + NEW)
    with (block / OPEN).open("rb") as old:
        length = os.fstat(old.fileno()).st_size
        offset = last_line(old.fileno(), max(0, length - keep))
        if not offset:
            return 0
        try:
            with aside.open("wb") as new:
                at = offset
                while at < length and (
                    copied := os.sendfile(new.fileno(), old.fileno(), at, length - at)
                ):
                    at += copied
                os.fdatasync(new.fileno())
            (block / INDEX).unlink(missing_ok=True)
            aside.rename(block / OPEN)
        except OSError:
            aside.unlink(missing_ok=True)
            raise
    index.sync_directory(block)
    return offset


def oldest(path: Path, start: int) -> float | None:
    """The Unix time of a block's first sample, as its index or its first line has it."""
    found = index.read(path / name(start))
    if found is not None and found.min_time is not None:
        return found.min_time / 1000
    with contextlib.suppress(FileNotFoundError), (path / name(start) / OPEN).open("rb") as file:
        match = _FIRST.search(file.read(HEAD))
        if match:
            return int(match[1]) / 1000
    return None if not (path / name(start) / SEALED).exists() else start / 1000
