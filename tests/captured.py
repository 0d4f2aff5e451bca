"""The tree of captured /proc and /sys files that stands beside the checkout, where it is there."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ARCHIVE = Path(__file__).parents[1].parent / "shared/procfs/fixtures.ttar"


class Entry(NamedTuple):
    """A directory, a regular file with its text, or a link with its target."""

    path: str
    text: bytes | None
    target: str | None
    mode: int


def read() -> bytes:
    """The archive; skips the test where there is none."""
    if not ARCHIVE.exists():
        pytest.skip(f"{ARCHIVE.name} is not beside the checkout")
    return ARCHIVE.read_bytes()


def content(lines: list[bytes]) -> bytes:
    """A file of the archive: NULLBYTE is a zero byte, a last EOF means "no newline here"."""
    text = b"".join(line + b"\n" for line in lines)
    text = text.removesuffix(b"EOF\n") if not text.endswith(b"\\EOF\n") else text
    text = text.replace(b"\\EOF", b"EOF")
    return re.sub(rb"(?<!\\)NULLBYTE", b"\0", text).replace(b"\\NULLBYTE", b"NULLBYTE")


def entries(archive: bytes) -> Iterator[Entry]:
    """What the archive holds, in its order: a directory before what is in it."""
    path = ""
    text = target = None
    lines = iter(archive.split(b"\n"))
    for line in lines:
        word, _, rest = line.partition(b": ")
        if word in (b"Path", b"Directory"):
            path, text, target = rest.decode(), None, None
        elif word == b"Lines":
            text = content([next(lines) for _ in range(int(rest))])
        elif word == b"SymlinkTo":
            yield Entry(path, None, rest.decode(), 0)
        elif word == b"Mode":
            yield Entry(path, text, target, int(rest, 8))


def files(archive: bytes) -> dict[str, bytes]:
    """The texts of the regular files, by path."""
    return {entry.path: entry.text for entry in entries(archive) if entry.text is not None}


def write(entries: Iterable[Entry], root: Path) -> None:
    """Writes a whole tree: root/fixtures/proc and root/fixtures/sys."""
    modes = []
    for entry in entries:
        path = root / entry.path
        if entry.target is not None:
            path.symlink_to(entry.target)
            continue
        if entry.text is None:
            path.mkdir()
        else:
            path.write_bytes(entry.text)
        modes.append((path, entry.mode))
    for path, mode in reversed(modes):  # a directory's last, as it may forbid to write below it
        path.chmod(mode)
