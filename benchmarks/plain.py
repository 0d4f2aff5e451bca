"""The files of a tick, read in plain Python as one would write it in an afternoon."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

Values = dict[tuple[Path, str], list[float]]


def read(paths: Sequence[Path], mounts: Sequence[Path]) -> Values:
    """Every number of some files by path and first word of its line, and statvfs of some mounts.

    A line's other words are left out. What a number means, rates and percentages come on top.
    """
    values: Values = {}
    for path in paths:
        for line in path.read_text().splitlines():
            words = line.split()
            if words:
                values[path, words[0]] = [float(word) for word in words if word.isdecimal()]
    for mount in mounts:
        result = os.statvfs(mount)
        values[mount, ""] = [result.f_blocks, result.f_bfree, result.f_bavail, result.f_files]
    return values
