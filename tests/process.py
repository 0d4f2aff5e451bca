"""What a process holds, to show that nothing is leaked; this one, unless another is named."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

#: The address sanitizer keeps what was freed for a while, so that memory is not flat under it.
SANITIZED = "libasan" in Path("/proc/self/maps").read_text()

Pid = int | str


def descriptors(pid: Pid = "self") -> int:
    return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())


def threads(pid: Pid = "self") -> int:
    return sum(1 for _ in Path(f"/proc/{pid}/task").iterdir())


def resident(pid: Pid = "self") -> int:
    """Bytes of memory."""
    pages = Path(f"/proc/{pid}/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def end(process: subprocess.Popen[Any], patience: float = 5) -> None:
    """Ends a process, by force where it takes longer than that."""
    process.terminate()
    try:
        process.wait(patience)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
