"""Space and inodes of mounted file systems, from mountinfo and statvfs."""

from __future__ import annotations

import os
import re

from .._fast.mounts import VALUES
from .._fast.mounts import Mounts as Reader
from .._fast.procfs import File
from ..metrics import gauge
from .base import Collector, Filter, label

LABELS = ("mount", "device", "fstype")
#: In the order of the reader's VALUES.
FAMILIES = (
    gauge("esnode_disk_total_bytes", "Size of the file system.", LABELS),
    gauge("esnode_disk_used_bytes", "Space in use: total less free.", LABELS),
    gauge("esnode_disk_free_bytes", "Space free, what is reserved for root included.", LABELS),
    gauge("esnode_disk_available_bytes", "Space free for users.", LABELS),
    gauge("esnode_disk_inodes", "Inodes of the file system.", LABELS),
    gauge("esnode_disk_inodes_free", "Inodes that are free.", LABELS),
    gauge("esnode_disk_readonly", "Whether the mount is read-only.", LABELS),
    gauge("esnode_disk_mount_timeout", "Whether the mount has stopped answering.", LABELS),
)
assert len(FAMILIES) == len(VALUES)

#: Pseudo file systems that are shown where they hold a node's own data.
SHOWN = {("overlay", "/"), ("tmpfs", "/dev/shm")}

#: How long one mount may hold up the others of a reading, in seconds.
PATIENCE = 0.02

_OCTAL = re.compile(rb"\\([0-7]{3})")


def unescape(field: bytes) -> bytes:
    """A field of mountinfo with blanks, newlines and backslashes put back."""
    return _OCTAL.sub(lambda match: bytes([int(match[1], 8) & 0xFF]), field)


def parse(text: bytes) -> list[tuple[bytes, bytes, bytes]]:
    """(mount point, device, type) of each whole line of mountinfo; see proc(5)."""
    mounts = []
    for line in text.split(b"\n")[:-1]:
        head, separator, tail = line.partition(b" - ")
        before, after = head.split(b" "), tail.split(b" ")
        if separator and len(before) >= 6 and len(after) >= 2 and before[4].startswith(b"/"):
            mounts.append((unescape(before[4]), unescape(after[1]), unescape(after[0])))
    return mounts


class Mount(Collector):
    name = "disk"
    switch = "enable_disk"
    lane = "mounts"
    metrics = FAMILIES

    def bind(self) -> None:
        config = self.config
        self.mount_shown = Filter(config.disk_mount_include, config.disk_mount_exclude)
        self.type_shown = Filter(config.disk_fstype_include, config.disk_fstype_exclude)
        self.file = File(self.host.process("mountinfo"))
        self.text: bytes | None = None
        self.mounts: dict[bytes, tuple[str, str, str]] = {}
        self.reader = Reader(self.table, config.mount_timeout_seconds, PATIENCE)

    def start(self) -> None:
        if self.file.changed() or self.text is None:
            self.look()
        self.reader.start()

    def look(self) -> None:
        """Reads mountinfo and follows it."""
        self.text, before = b"", self.text
        try:
            self.text = self.file.read()
        except OSError as error:
            self.report(f"{self.file.path}: {error.strerror}")
        else:
            if not self.text.endswith(b"\n"):
                self.report(f"{self.file.path}: not all of it can be understood")
        if self.text != before:
            self.follow_mounts(self.text)

    def sample(self, tick: bool) -> None:
        for path, code in self.reader.read().items():
            self.report(f"{label(path)}: {os.strerror(code)}")

    def follow_mounts(self, text: bytes) -> None:
        """Binds the mounts that have appeared and lets go of those that have gone."""
        now = {}
        for point, device, fstype in parse(text):
            point = self.strip(point)
            labels = label(point), label(device), label(fstype)
            if self.shown(labels[0], labels[2]):
                now[self.host.root(point)] = labels  # of mounts on one another, the last
            else:
                now.pop(self.host.root(point), None)
        for path, labels in list(self.mounts.items()):
            if now.get(path) != labels:
                self.drop(path)
        for path, labels in now.items():
            if path not in self.mounts:
                self.add(path, labels)

    def strip(self, point: bytes) -> bytes:
        """A mount point as the host names it, where we see the host's root below another path."""
        root = self.host.root(b"")
        if root and (point == root or point.startswith(root + b"/")):
            return point[len(root) :] or b"/"
        return point

    def shown(self, mount: str, fstype: str) -> bool:
        return self.mount_shown(mount) and (self.type_shown(fstype) or (fstype, mount) in SHOWN)

    def add(self, path: bytes, labels: tuple[str, str, str]) -> None:
        try:
            self.reader.bind(path, [self.table.add(family, labels) for family in FAMILIES])
        except ValueError as error:
            self.report(f"{label(path)}: {error}")
            return
        self.mounts[path] = labels

    def drop(self, path: bytes) -> None:
        self.reader.drop(path)
        for family in FAMILIES:
            self.table.remove(family, self.mounts[path])
        del self.mounts[path]
