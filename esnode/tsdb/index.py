"""A block's index: what is in it and, once it is sealed, where."""

from __future__ import annotations

import os
import zlib
from pathlib import Path
from typing import NamedTuple

import msgspec

from .._fast.jsonl import Scan, series_hash
from .layout import INDEX, NEW, WINDOW, metric_name

VERSION = 1


#: How a sealed file begins: a frame that zstd skips, with the eight bytes of its id.
HEAD = b"\x50\x2a\x4d\x18\x08\0\0\0"
HEAD_SIZE = len(HEAD) + 8
#: How an index ends: with the sum of what stands before it.
SUM = b',"crc":%d}'


def identity(descriptor: int) -> str:
    """The id at the head of a sealed file; empty where there is none. Raises OSError."""
    head = os.pread(descriptor, HEAD_SIZE, 0)
    return head[len(HEAD) :].hex() if head.startswith(HEAD) and len(head) == HEAD_SIZE else ""


class Frame(NamedTuple):
    """A zstd frame of a sealed file: where it is, and its length once decompressed."""

    offset: int
    length: int
    text: int


class Family(msgspec.Struct):
    """A metric in a block. Its lines are in ``frames[first]`` up to ``frames[end - 1]``."""

    samples: int = 0
    series: int = 0
    frames: tuple[int, int] | None = None


class Index(msgspec.Struct, omit_defaults=True):
    """``index.json``. Times are in milliseconds.

    bytes: the length of the file of samples that it describes; of an open block, which may have
    grown since, up to where. id: of a sealed block, what its file has at its head, so that the
    index of another sealing of the block is not taken for its own. labels: the metric objects by
    their hash in 16 hexadecimal digits.
    """

    version: int
    start: int
    end: int
    sealed: bool
    bytes: int
    samples: int
    series: int
    id: str = ""
    min_time: int | None = None
    max_time: int | None = None
    metrics: dict[str, Family] = {}
    labels: dict[str, msgspec.Raw] = {}
    frames: list[Frame] = []


def describe(start: int, scan: Scan) -> Index:
    """The index of an open block whose text was scanned."""
    index = Index(
        version=VERSION,
        start=start,
        end=start + WINDOW,
        sealed=False,
        bytes=scan.end,
        samples=scan.samples,
        series=0,
        min_time=scan.low if scan.lines else None,
        max_time=scan.high if scan.lines else None,
    )
    for metric, samples, _ in filter(None, scan.summary()):
        enter(index, metric, samples, True)
    return index


def enter(index: Index, metric: bytes, samples: int, fresh: bool) -> Family:
    """Counts samples of a series, by its metric object; ``fresh``: the first ones. Its metric."""
    family = index.metrics.setdefault(metric_name(metric), Family())
    family.samples += samples
    if fresh:
        family.series += 1
        index.series += 1
        index.labels[f"{series_hash(metric):016x}"] = msgspec.Raw(metric)
    return family


def write(block: Path, index: Index) -> None:
    """Replaces a block's index. Raises OSError."""
    text = msgspec.json.encode(index)[:-1]
    replace(block / INDEX, text + SUM % zlib.crc32(text))


def read(block: Path) -> Index | None:
    """A block's index; None where there is none, or it has changed since it was written: whoever
    believed it would miss samples and not know."""
    try:
        data = (block / INDEX).read_bytes()
        text = data[: data.rfind(SUM[:-3])]
        if data != text + SUM % zlib.crc32(text):
            return None
        index = msgspec.json.decode(data, type=Index)
    except (OSError, ValueError):
        return None
    return index if index.version == VERSION else None


def describes(index: Index | None, descriptor: int) -> bool:
    """Whether an index is that of a sealed file. Raises OSError."""
    return (
        index is not None
        and index.sealed
        and index.bytes == os.fstat(descriptor).st_size
        and index.id == identity(descriptor)
    )


def replace(path: Path, data: bytes) -> None:
    """Writes a file aside, syncs it and gives it its name. Raises OSError."""
    aside = path.with_name(path.name + NEW)
    try:
        with aside.open("wb") as file:
            file.write(data)
            file.flush()
            os.fdatasync(file.fileno())
        aside.rename(path)
    except OSError:
        aside.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Makes what was created and renamed in a directory last."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
