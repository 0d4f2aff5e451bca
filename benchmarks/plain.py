"""The files of a tick, read in plain Python as one would write it in an afternoon."""

from __future__ import annotations

import os
from collections.abc import Sequence

Values = dict[tuple[str, str], list[float]]


def read(paths: Sequence[str], mounts: Sequence[str]) -> Values:
    """Every number of some files by path and first word of its line, and statvfs of some mounts.

    A line's other words are left out. What a number means, rates and percentages come on top.
    """
    values: Values = {}
    for path in paths:
        with open(path) as file:
            for line in file:
                words = line.split()
                if words:
                    numbers = [float(word) for word in words if word.isdecimal()]
                    values[path, words[0]] = numbers
    for mount in mounts:
        result = os.statvfs(mount)
        values[mount, ""] = [result.f_blocks, result.f_bfree, result.f_bavail, result.f_files]
    return values
