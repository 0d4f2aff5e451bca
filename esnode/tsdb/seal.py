"""Seals a finished block: its lines series by series, compressed in frames of their own.

It is done in small steps, so that whoever does it can do something else in between; memory is
bounded by the reader's and one frame. A block that has a sealed file already, and lines that came
later, is sealed anew with both.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from pathlib import Path

import zstandard

from . import index, reader
from .index import HEAD, HEAD_SIZE, VERSION, Frame, Index
from .layout import NEW, OPEN, SEALED, WINDOW, metric_name, name

#: Bytes of text after which a frame ends. Smaller ones take more bytes, as every frame has the
#: timestamps once, and bigger ones more memory.
FRAME = 1 << 20
#: Of a level's own 11 MB for its tables, less than one is enough, and takes fewer bytes, too: what
#: was met last is found again at a short distance. Shorter matches than of six letters are digits
#: that are alike by chance.
COMPRESSION = zstandard.ZstdCompressionParameters.from_level(
    9,
    source_size=FRAME,
    hash_log=16,
    min_match=6,
    write_checksum=True,
    write_content_size=True,
)


def empty(start: int) -> Index:
    """The index of a sealed block in which there is nothing yet."""
    return Index(VERSION, start, start + WINDOW, sealed=True, bytes=0, samples=0, series=0)


def enter(found: Index, frame: int, metric: bytes, line: bytes, fresh: bool) -> None:
    """Counts a line of a frame."""
    samples, low, high = extent(line)
    family = index.enter(found, metric, samples, fresh)
    family.frames = (family.frames[0] if family.frames else frame, frame + 1)
    found.samples += samples
    found.min_time = low if found.min_time is None else min(low, found.min_time)
    found.max_time = high if found.max_time is None else max(high, found.max_time)


class Writer:
    """A sealed file while it is written, and its index."""

    def __init__(self, path: Path, start: int) -> None:
        self.file = path.open("wb")
        self.index = empty(start)
        # Another one for each sealing: a reader may meet an old file and a new index.
        head = HEAD + os.urandom(HEAD_SIZE - len(HEAD))
        self.file.write(head)
        self.index.bytes = HEAD_SIZE
        self.index.id = head[len(HEAD) :].hex()
        self._compressor = zstandard.ZstdCompressor(compression_params=COMPRESSION)
        self._text: list[bytes] = []
        self._size = 0
        self._name = ""
        self._metric = b""

    def add(self, metric: bytes, line: bytes) -> bool:
        """Takes the next line; whether a frame was written before it."""
        fresh = metric != self._metric
        called = metric_name(metric) if fresh else self._name
        # A metric that begins near the end of a frame begins the next one.
        full = self._size >= (FRAME if called == self._name else FRAME * 7 // 8)
        if full:
            self.flush()
        self._metric, self._name = metric, called
        enter(self.index, len(self.index.frames), metric, line, fresh)
        self._text.append(line)
        self._size += len(line)
        return full

    def flush(self) -> None:
        """Writes the frame that has been gathered."""
        if not self._text:
            return
        text = b"".join(self._text)
        data = self._compressor.compress(text)
        self.file.write(data)
        self.index.frames.append(Frame(self.index.bytes, len(data), len(text)))
        self.index.bytes += len(data)
        self._text, self._size = [], 0

    def sync(self) -> None:
        self.flush()
        self.file.flush()
        os.fdatasync(self.file.fileno())


def extent(line: bytes) -> tuple[int, int, int]:
    """How many samples a merged line has, and its first and last timestamp."""
    begin = line.rindex(b"[") + 1
    end = len(line) - 3
    comma = line.find(b",", begin)
    first = line[begin : end if comma < 0 else comma]
    last = line[max(line.rfind(b",", begin), begin - 1) + 1 : end]
    return line.count(b",", begin) + 1, int(first), int(last)


def seal(
    path: Path, start: int, report: reader.Report = reader.ignore
) -> Generator[int, None, None]:
    """Seals the block of a window in steps; each yields the bytes written up to now.

    A generator that is closed before its end leaves the block as it was. Nobody may append to the
    block meanwhile. Raises OSError.
    """
    block = reader.Block(path, start)
    aside = block.path / (SEALED + NEW)
    writer = Writer(aside, start)
    try:
        with writer.file:
            for metric, line in reader.lines(block, report=report):
                if writer.add(metric, line):
                    yield writer.index.bytes
            writer.sync()
        aside.rename(block.path / SEALED)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    # From here on both files have all samples, which a reader takes once; then only the sealed one.
    index.write(block.path, writer.index)
    (block.path / OPEN).unlink(missing_ok=True)
    index.sync_directory(block.path)


def rebuild(
    path: Path, start: int, report: reader.Report = reader.ignore
) -> Generator[int, None, None]:
    """Writes the index of a sealed block anew, from its frames. Raises OSError."""
    block = path / name(start)
    found = empty(start)
    found.bytes = (block / SEALED).stat().st_size
    with (block / SEALED).open("rb") as file:
        descriptor = file.fileno()
        found.id = index.identity(descriptor)
        last = b""
        frames = reader.find_frames(block / SEALED, descriptor, report)
        for number, frame in enumerate(frames):
            found.frames.append(frame)
            text = reader.read_frame(block / SEALED, descriptor, frame, report)
            for metric, line in reader.select(block / SEALED, frame, text, None, report):
                enter(found, number, metric, line, metric != last)
                last = metric
            yield frame.offset
    index.write(block, found)


def matches(block: Path) -> bool:
    """Whether a sealed block has an index that describes it."""
    with (block / SEALED).open("rb") as file:
        return index.describes(index.read(block), file.fileno())
