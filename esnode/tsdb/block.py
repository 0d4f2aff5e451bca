"""An open block: lines appended to a file, and what a crash leaves of them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

from .._fast.jsonl import Scan
from . import index
from .layout import FILES, INDEX, NEW, OPEN, SEALED, name

#: Bytes that are scanned at once.
CHUNK = 1 << 20


class Open:
    """The block of one window, to append to. All methods raise OSError.

    Its file is open only while it is written: a file system with a file that is open for writing
    cannot be made read-only.
    """

    def __init__(self, path: Path, start: int) -> None:
        self.start = start
        self.path = path / name(start)
        #: The bytes of the file that are known to be good; None before the first append.
        self.size: int | None = None
        self.scan = Scan()

    def append(self, texts: Iterable[bytes]) -> None:
        """Adds texts of whole lines, so that they last. They are all there, or none of them."""
        fresh = not self.path.exists()
        self.path.mkdir(mode=0o700, exist_ok=True)
        if fresh:
            index.sync_directory(self.path.parent)
        file = self.path / OPEN
        fresh = not file.exists()
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            if fresh:
                index.sync_directory(self.path)
            self._append(descriptor, texts)
        finally:
            os.close(descriptor)

    def _append(self, descriptor: int, texts: Iterable[bytes]) -> None:
        length = os.fstat(descriptor).st_size
        if self.size is None or length < self.size:  # the first one, or another file
            self.scan = Scan()
            self.size = last_line(descriptor, length)
        if length != self.size:  # a torn line, or a failed write that was not undone
            os.ftruncate(descriptor, self.size)
        size = self.size
        try:
            for text in texts:
                left = memoryview(text)
                while left:
                    written = os.write(descriptor, left)
                    size += written
                    left = left[written:]
            os.fdatasync(descriptor)
        except BaseException:
            # What a failed sync left in the page cache may never reach the disk: written anew.
            with contextlib.suppress(OSError):
                os.ftruncate(descriptor, self.size)
            raise
        self.size = size

    def describe(self) -> None:
        """Writes the index, for what has been appended up to now."""
        before = self.scan.end
        with (self.path / OPEN).open("rb") as file:
            while self.scan.end < (self.size or 0):
                size = min(CHUNK, (self.size or 0) - self.scan.end)
                if not self.scan.feed(os.pread(file.fileno(), size, self.scan.end)):
                    break
        if self.scan.end > before or not (self.path / INDEX).exists():
            index.write(self.path, index.describe(self.start, self.scan))


def recover(path: Path, start: int) -> int:
    """Puts the block of a window in order after a crash; the bytes that were cut off it.

    Files that were being written go; so does a last line that has no end, and a directory in which
    there is nothing. Raises OSError.
    """
    block = path / name(start)
    for each in FILES:
        if each.endswith(NEW):
            (block / each).unlink(missing_ok=True)
    cut = 0
    samples = block / OPEN
    if samples.exists():
        descriptor = os.open(samples, os.O_RDWR | os.O_CLOEXEC)
        try:
            size = os.fstat(descriptor).st_size
            end = last_line(descriptor, size)
            cut = size - end
            if cut:
                os.ftruncate(descriptor, end)
                os.fdatasync(descriptor)
        finally:
            os.close(descriptor)
        if not end:
            samples.unlink()
    if not samples.exists() and not (block / SEALED).exists():
        (block / INDEX).unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # something is there that is not ours
            block.rmdir()
    return cut


def last_line(descriptor: int, size: int) -> int:
    """The offset behind the last newline of a file."""
    end = size
    while end:
        start = max(0, end - CHUNK)
        at = os.pread(descriptor, end - start, start).rfind(b"\n")
        if at >= 0:
            return start + at + 1
        end = start
    return 0
