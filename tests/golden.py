"""The golden pages: what the agent makes of each fixture host, without its mounts.

python -m tests.golden writes them anew; look at the difference before you commit it.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from unittest import mock

from esnode._fast.encode import encode
from esnode.dialects import TEXT

from . import hosts

PAGES = Path(__file__).parent / "golden"

#: Families whose values are this machine's or this moment's.
VOLATILE = (
    *("esnode_node_time_seconds", "esnode_clock_offset_seconds", "esnode_cpu_package_power_watts"),
    *("esnode_clock_max_error_seconds", "esnode_clock_synchronized"),
)

#: What a tree without /proc/sys/kernel/arch is answered with; its other words must not show.
UNAME = os.uname_result(("Linux", "not-this-host", "0.0.0", "#1", "x86_64"))


#: The lanes that a page is made of. The figures of mounts are this machine's.
LANES = ("host", "devices")


def pages(name: str, ticks: int = 1) -> list[str]:
    """The page of a host at each of some ticks on unchanged files."""
    with mock.patch("os.uname", return_value=UNAME), hosts.tree(name) as root:
        lanes = [hosts.lane(root, lane) for lane in LANES]
        return [
            stable("".join(encode(lane.read(True), TEXT).decode() for lane in lanes))
            for _ in range(ticks)
        ]


def stable(page: str) -> str:
    """A page without its volatile families."""
    lines = page.splitlines(keepends=True)
    return "".join(
        line for line in lines if not any(name in line.split("{")[0].split() for name in VOLATILE)
    )


def main() -> int:
    PAGES.mkdir(exist_ok=True)
    for name in hosts.HOSTS:
        (PAGES / f"{name}.prom").write_text(pages(name)[0])
    return 0


if __name__ == "__main__":
    sys.exit(main())
