"""Who the node is, since when it runs, what its clock says, and how many files it has open."""

from __future__ import annotations

import os
import shlex
import time
from pathlib import Path

from .._fast.procfs import File, Line, Rows
from .._fast.table import OWNER
from ..metrics import Metric, gauge
from .base import Collector

INFO = gauge(
    "esnode_node_info", "The node's identity; always 1.", ("hostname", "kernel", "os", "arch")
)
DMI_INFO = gauge(
    "esnode_node_dmi_info",
    "The machine's maker and model; always 1.",
    ("vendor", "product", "board", "bios_version"),
)
BOOT_TIME = gauge("esnode_node_boot_time_seconds", "When the kernel started, in Unix time.")
TIME = gauge("esnode_node_time_seconds", "The node's clock, in Unix time.")
#: Families of /proc/sys/fs/file-nr, by column.
FILES = {
    0: gauge("esnode_file_descriptors", "Open file handles of the node."),
    2: gauge("esnode_file_descriptors_limit", "File handles that can be open at once."),
}

#: Files of /sys/class/dmi/id in the order of DMI_INFO's labels.
DMI = ("sys_vendor", "product_name", "board_name", "bios_version")

#: Seconds between two looks at what hardly ever changes.
SLOW = 60.0


class Node(Collector):
    name = "node"
    switch = "enable_cpu"
    metrics = (INFO, DMI_INFO, BOOT_TIME, TIME, *FILES.values())

    def bind(self) -> None:
        self.stat = Rows(self.table, self.host.proc("stat"))
        self.boot_time = self.table.add(BOOT_TIME, (), OWNER)
        self.stat.bind(b"btime", (1, self.boot_time))
        self.time = self.table.add(TIME)
        self.files = Line(
            self.table,
            self.host.proc("sys/fs/file-nr"),
            *((column, self.table.add(metric)) for column, metric in FILES.items()),
        )
        self.infos: dict[Metric, tuple[str | None, ...]] = {}
        self.due = 0.0

    def sample(self, tick: bool) -> None:
        self.table.set(self.time, time.time())
        self.read(self.files)
        if time.monotonic() >= self.due:
            self.due = time.monotonic() + SLOW
            self.table.set(self.boot_time, float("nan"))
            if self.read(self.stat) is None:
                self.due = 0.0
            self.identify()

    def identify(self) -> None:
        """Renews the info rows; a hostname is often set after the agent has started."""
        uname = os.uname()
        ours = self.host.procfs == "/proc"
        info = (
            self.kernel("hostname") or (uname.nodename if ours else None),
            self.kernel("osrelease") or (uname.release if ours else None),
            self.os_release(),
            self.kernel("arch") or uname.machine,
        )
        self.renew(INFO, info)
        self.renew(DMI_INFO, tuple(word(self.host.sys("class/dmi/id/" + name)) for name in DMI))

    def renew(self, metric: Metric, info: tuple[str | None, ...]) -> None:
        """Replaces an info row; there is none where nothing is known."""
        if info == self.infos.get(metric):
            return
        if metric in self.infos:
            self.table.remove(metric, self.infos.pop(metric))
        if any(info):
            self.table.set(self.table.add(metric, info, OWNER), 1)
            self.infos[metric] = info

    def kernel(self, name: str) -> str | None:
        """A word of /proc/sys/kernel."""
        return word(self.host.proc("sys/kernel/" + name))

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


def word(path: str) -> str | None:
    """The text of a small file without blanks around it; None when there is none."""
    return contents(path)[:256].strip() or None


def contents(path: str | Path) -> str:
    """The text of a small file; empty when there is none."""
    try:
        return File(path).read().decode("utf-8", "replace")
    except OSError:
        return ""
