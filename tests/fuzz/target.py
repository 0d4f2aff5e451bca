"""Something that the fuzzer feeds with bytes, and how they are taken apart.

Most targets take a series of texts for one reader. Two bytes stand before each but the first: how
it takes the place of the one before.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

#: How a text takes its place: it is written over the one before, it is that of another file, or
#: there is no file.
ACTS = WRITTEN, REPLACED, REMOVED = b"\xff\xff", b"\xff\xfe", b"\xff\xfd"
MOST = 10  # texts of a series


class Target:
    """Something that is fed with bytes."""

    #: What may well stand in them, besides ACTS.
    words: Sequence[bytes] = ()
    #: How many there are at most.
    longest = 2000

    def seeds(self) -> Iterable[bytes]:
        """Bytes to begin with."""
        raise NotImplementedError

    def __call__(self, data: bytes, path: Path) -> None:
        """Has them read, from a file of that path or another way. Raises where the reader does not
        say what the oracle says."""
        raise NotImplementedError


def series(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(how, text) of each text."""
    parts = [WRITTEN, *re.split(rb"(\xff[\xfd-\xff])", data)]
    return islice(zip(parts[::2], parts[1::2], strict=True), MOST)


def put(path: Path, how: bytes, text: bytes) -> bool:
    """Whether there is a file then."""
    if how == REMOVED:
        path.unlink(missing_ok=True)
    elif how == REPLACED:
        fresh = path.with_name("fresh")
        fresh.write_bytes(text)
        fresh.rename(path)
    else:
        path.write_bytes(text)
    return how != REMOVED


def same(a: float, b: float) -> bool:
    return a == b or (math.isnan(a) and math.isnan(b))
