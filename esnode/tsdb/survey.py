"""What a history holds, block by block."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from .._fast.jsonl import Scan
from .index import Index, describe
from .layout import OPEN, SEALED, size
from .reader import Block, Report, blocks, lines


class Found(NamedTuple):
    """A block, what is in it, and the bytes of its files of samples."""

    block: Block
    sealed: bool
    summary: Index
    bytes: int


def survey(path: Path, report: Report) -> Iterator[Found]:
    """Each block below a path, in order. What has no index that is up to date is read instead.
    Raises OSError."""
    for block in blocks(path):
        sealed = block.sealed
        index = block.index if sealed else None
        if index is None or not index.sealed:
            scan = Scan(None, False)
            for _, line in lines(block, report=report):
                scan.feed(line)
            index = describe(block.start, scan)
        yield Found(block, sealed, index, sum(size(block.path / name) for name in (OPEN, SEALED)))
