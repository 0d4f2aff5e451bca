"""Reads the history: the blocks of a path, and a block's lines series by series.

It works on a path that an agent is writing to, without the lock. What is damaged is left out and
reported. Memory is bounded by the number of a block's series and lines, twelve bytes a line of an
open block, not by their text.
"""

from __future__ import annotations

import heapq
import itertools
import os
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import ExitStack, closing
from operator import itemgetter
from pathlib import Path

import zstandard

from .._fast.jsonl import Scan, merge
from . import index
from .index import Frame, Index
from .layout import OPEN, SEALED, WINDOW, metric_name, name, starts

#: Bytes of lines that are gathered at once.
GROUP = 2 << 20
#: Bytes that are read at once of a file that is scanned.
CHUNK = 1 << 20
#: The text of a frame is smaller than this, however damaged its header is.
LONGEST = 64 << 20
MAGIC = b"\x28\xb5\x2f\xfd"

Wanted = Callable[[bytes], bool]
#: Told what is damaged: the file, and what is wrong with it.
Report = Callable[[Path, str], None]
#: A metric object, and a line or several of its series.
Line = tuple[bytes, bytes]
Lines = Generator[Line, None, None]
#: What is not written yet of one window: its lines of the wanted series, in the order of `lines`.
Unwritten = Callable[[Wanted | None], Lines]


class Block:
    """One window of a path. ``pending``: what is not written of it yet."""

    def __init__(self, path: Path, start: int, pending: Unwritten | None = None) -> None:
        self.start = start
        self.end = start + WINDOW
        self.path = path / name(start)
        self.pending = pending

    @property
    def sealed(self) -> bool:
        """Whether all of it is in its sealed file."""
        return not (self.path / OPEN).exists() and (self.path / SEALED).exists()

    @property
    def index(self) -> Index | None:
        """Its index as it was written last; an open block has more than that."""
        return index.read(self.path)


def blocks(path: Path, pending: Mapping[int, Unwritten] | None = None) -> list[Block]:
    """The blocks below a path in order. ``pending``: what a recorder has not written yet, asked of
    it before; its windows are blocks, too."""
    pending = pending or {}
    return [Block(path, start, pending.get(start)) for start in sorted({*starts(path), *pending})]


def ignore(path: Path, text: str) -> None:
    """Where nobody asks what is damaged."""


def lines(block: Block, wanted: Wanted | None = None, report: Report = ignore) -> Iterator[Line]:
    """(metric object, line) of a block's series in order of the metric objects' bytes, which puts
    those of one metric together.

    A series has one line or several with up to a few thousand samples each, in time order and of
    each millisecond one sample. ``wanted`` says of a metric object whether its series is; it is
    asked at least once. Lines end in a newline and have no sum. Raises OSError.
    """
    with ExitStack() as stack:
        # In this order: what a sealing moves from the one to the other is then in one of them.
        opened = open_file(block.path / OPEN, stack)
        sealed = open_file(block.path / SEALED, stack)
        if opened is None and sealed is None:  # a sealing has come between
            opened = open_file(block.path / OPEN, stack)
        sources = []
        if sealed is not None:
            sources.append(sealed_lines(block, sealed, wanted, report))
        if opened is not None:
            sources.append(open_lines(block.path / OPEN, opened, wanted, report))
        if block.pending is not None:
            sources.append(block.pending(wanted))
        for source in sources:
            stack.enter_context(closing(source))
        if len(sources) == 1 and opened is None and sealed is not None:
            yield from sources[0]
            return
        by_metric = itemgetter(0)
        for metric, group in itertools.groupby(heapq.merge(*sources, key=by_metric), by_metric):
            merged, damaged = merge(b"".join(text for _, text in group))
            if damaged:
                report(block.path / OPEN, f"{damaged} lines have changed")
            for line in merged:
                yield metric, line


def open_file(path: Path, stack: ExitStack) -> int | None:
    """A descriptor to read from; None where there is no such file."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    stack.callback(os.close, descriptor)
    return descriptor


def check(path: Path, report: Report) -> Generator[int, None, None]:
    """Reports what is damaged in a file of lines, in steps. Raises OSError."""
    with path.open("rb") as file:
        yield from scanned(path, file.fileno(), Scan(None, False), report)


def scanned(path: Path, descriptor: int, scan: Scan, report: Report) -> Generator[int, None, None]:
    """Scans a file of lines up to its present end in steps, each of which yields the bytes that
    were scanned; a line that is being written is left out."""
    size = os.fstat(descriptor).st_size
    step = CHUNK
    while scan.end < size:
        data = os.pread(descriptor, min(step, size - scan.end), scan.end)
        used = scan.feed(data)
        if not used:
            if len(data) < step:
                break
            step *= 2  # a line that is longer than that
        else:
            step = CHUNK
        yield scan.end
    for offset, length in scan.damage:
        report(path, f"line at {offset}, {length} bytes: damaged")
    if scan.damaged > len(scan.damage):
        report(path, f"{scan.damaged - len(scan.damage)} more lines: damaged")


def open_lines(path: Path, descriptor: int, wanted: Wanted | None, report: Report) -> Lines:
    """(metric object, all lines of its series as they were written) of an open file."""
    scan = Scan(wanted, True)
    for _ in scanned(path, descriptor, scan, report):
        pass
    found = ((each[0], number, each[2]) for number, each in enumerate(scan.summary()) if each)
    numbers: list[int] = []
    size = 0
    for _, number, length in sorted(found):
        if numbers and size + length > GROUP:
            yield from gathered(scan, descriptor, numbers)
            numbers, size = [], 0
        numbers.append(number)
        size += length
    yield from gathered(scan, descriptor, numbers)


def gathered(scan: Scan, descriptor: int, numbers: list[int]) -> Iterator[Line]:
    texts = scan.gather(descriptor, numbers)
    for number, text in zip(numbers, texts, strict=True):
        yield scan.metrics[number], text


def sealed_lines(block: Block, descriptor: int, wanted: Wanted | None, report: Report) -> Lines:
    """(metric object, line) of a sealed file; of what is not wanted as little as can be is read."""
    path = block.path / SEALED
    found = block.index
    if found is None or not index.describes(found, descriptor):
        frames = find_frames(path, descriptor, report)
    else:
        frames = iter(needed(found, wanted))
    for frame in frames:
        text = read_frame(path, descriptor, frame, report)
        yield from select(path, frame, text, wanted, report)


def needed(found: Index, wanted: Wanted | None) -> list[Frame]:
    """The frames of a sealed file that may have a line of a wanted series."""
    if wanted is None:
        return found.frames
    metrics = {metric_name(bytes(raw)) for raw in found.labels.values() if wanted(bytes(raw))}
    numbers = {
        number
        for metric in metrics
        if (family := found.metrics.get(metric)) and family.frames
        for number in range(*family.frames)
    }
    return [found.frames[number] for number in sorted(numbers) if number < len(found.frames)]


def select(
    path: Path, frame: Frame, text: bytes, wanted: Wanted | None, report: Report
) -> Iterator[Line]:
    """The wanted lines of a frame's text."""
    last, want = b"", False
    for line in text.splitlines(keepends=True):
        end = line.find(b',"values":[')
        if not line.startswith(b'{"metric":') or end < 0:
            report(path, f"frame at {frame.offset}: a line is damaged")
            continue
        metric = line[10:end]
        if metric != last:
            last, want = metric, wanted is None or wanted(metric)
        if want:
            yield metric, line


def read_frame(path: Path, descriptor: int, frame: Frame, report: Report) -> bytes:
    """The text of a frame; empty where it is damaged."""
    data = os.pread(descriptor, frame.length, frame.offset)
    text = decompress(data, frame.text)
    if text is None or len(text) != frame.text:
        report(path, f"frame at {frame.offset}, {frame.length} bytes: damaged")
        return b""
    return text


def decompress(data: bytes, size: int) -> bytes | None:
    """The text of one whole frame and nothing else; None where it is damaged."""
    if size > LONGEST:
        return None
    try:
        return zstandard.ZstdDecompressor().decompress(
            data, max_output_size=size, read_across_frames=False, allow_extra_data=False
        )
    except zstandard.ZstdError:
        return None


def find_frames(path: Path, descriptor: int, report: Report) -> Iterator[Frame]:
    """The frames of a sealed file without its index, told by the number they begin with."""
    size = os.fstat(descriptor).st_size
    offset = index.HEAD_SIZE if index.identity(descriptor) else 0
    while offset < size:
        data = b""
        end = offset
        frame = None
        while end < size and frame is None and len(data) < 4 * CHUNK:
            more = os.pread(descriptor, CHUNK, end)
            if not more:
                break
            data += more
            end += len(more)
            frame = first_frame(data, offset)
        if frame is None:
            at = data.find(MAGIC, 1)
            report(path, f"frame at {offset}: damaged")
            if at < 0:
                return
            offset += at
            continue
        yield frame
        offset += frame.length


def first_frame(data: bytes, offset: int) -> Frame | None:
    """The whole frame that data begins with; None where there is none."""
    try:
        size = zstandard.frame_content_size(data)
        if not 0 <= size <= LONGEST:
            return None
        reader = zstandard.ZstdDecompressor().decompressobj()
        text = reader.decompress(data)
    except zstandard.ZstdError:
        return None
    if not reader.eof:
        return None
    return Frame(offset, len(data) - len(reader.unused_data), len(text))
