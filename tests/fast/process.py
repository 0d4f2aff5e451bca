"""What this process holds, to show that nothing is leaked."""

from __future__ import annotations

import os
from pathlib import Path

#: The address sanitizer keeps what was freed for a while, so that memory is not flat under it.
SANITIZED = "libasan" in Path("/proc/self/maps").read_text()


def descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def threads() -> int:
    return sum(1 for _ in Path("/proc/self/task").iterdir())


def resident() -> int:
    """Bytes of memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
