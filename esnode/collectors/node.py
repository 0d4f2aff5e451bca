"""Who the node is, since when it runs, and what its clock says."""

from __future__ import annotations

import os
import time
from pathlib import Path

from .._fast.procfs import Rows
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
        try:
            with Path(self.host.proc("sys/kernel/" + name)).open(errors="replace") as file:
                return file.read(256).strip() or None
        except OSError:
            return None

    def os_release(self) -> str | None:
        """The distribution's name for itself; see os-release(5)."""
        for path in (b"/etc/os-release", b"/usr/lib/os-release"):
            try:
                with Path(os.fsdecode(self.host.root(path))).open(errors="replace") as file:
                    lines = file.read(65536).splitlines()
            except OSError:
                continue
            for line in lines:
                name, _, value = line.partition("=")
                if name == "PRETTY_NAME":
                    return value.strip().strip("\"'") or None
        return None
