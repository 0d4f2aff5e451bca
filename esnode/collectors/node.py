"""Who the node is, since when it runs, and what its clock says."""

from __future__ import annotations

import os
import shlex
import time
from pathlib import Path

from .._fast.procfs import File, Rows
from .._fast.table import OWNER
from ..metrics import gauge
from .base import Collector

INFO = gauge(
    "esnode_node_info", "The node's identity; always 1.", ("hostname", "kernel", "os", "arch")
)
BOOT_TIME = gauge("esnode_node_boot_time_seconds", "When the kernel started, in Unix time.")
TIME = gauge("esnode_node_time_seconds", "The node's clock, in Unix time.")

#: Seconds between two looks at what hardly ever changes.
SLOW = 60.0


class Node(Collector):
    name = "node"
    switch = "enable_cpu"
    metrics = (INFO, BOOT_TIME, TIME)

    def bind(self) -> None:
        self.stat = Rows(self.table, self.host.proc("stat"))
        self.boot_time = self.table.add(BOOT_TIME, (), OWNER)
        self.stat.bind(b"btime", (1, self.boot_time))
        self.time = self.table.add(TIME)
        self.info: tuple[str | None, ...] | None = None
        self.due = 0.0

    def sample(self, tick: bool) -> None:
        self.table.set(self.time, time.time())
        if time.monotonic() >= self.due:
            self.due = time.monotonic() + SLOW
            self.table.set(self.boot_time, float("nan"))
            if self.read(self.stat) is None:
                self.due = 0.0
            self.identify()

    def identify(self) -> None:
        """Renews the info row; a hostname is often set after the agent has started."""
        uname = os.uname()
        ours = self.host.procfs == "/proc"
        info = (
            self.kernel("hostname") or (uname.nodename if ours else None),
            self.kernel("osrelease") or (uname.release if ours else None),
            self.os_release(),
            self.kernel("arch") or uname.machine,
        )
        if info != self.info:
            if self.info is not None:
                self.table.remove(INFO, self.info)
            self.table.set(self.table.add(INFO, info, OWNER), 1)
            self.info = info

    def kernel(self, name: str) -> str | None:
        """A word of /proc/sys/kernel."""
        return contents(self.host.proc("sys/kernel/" + name))[:256].strip() or None

    def os_release(self) -> str | None:
        """The distribution's name for itself; see os-release(5)."""
        for name in (b"/etc/os-release", b"/usr/lib/os-release"):
            path = Path(os.fsdecode(self.host.root(name)))
            if path.is_symlink() and path.readlink().is_absolute():
                # The link means a path of the host's root, not of ours.
                path = Path(os.fsdecode(self.host.root(os.fsencode(path.readlink()))))
            for line in contents(path).splitlines():
                key, equals, value = line.partition("=")
                if key == "PRETTY_NAME" and equals:
                    try:
                        return " ".join(shlex.split(value)) or None
                    except ValueError:
                        return None
        return None


def contents(path: str | Path) -> str:
    """The text of a small file; empty when there is none."""
    try:
        return File(path).read().decode("utf-8", "replace")
    except OSError:
        return ""
