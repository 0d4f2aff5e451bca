"""Space and inodes of mounted file systems, from mountinfo and statvfs."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Mapping, Sequence
from errno import ENODEV, ETIMEDOUT
from pathlib import Path
from typing import NamedTuple

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

#: File systems that answer statvfs, and look up names, without a disk, a network or a daemon.
MEMORY = frozenset((b"ext2", b"ext3", b"ext4", b"tmpfs", b"devtmpfs", b"rootfs"))
#: What makes ext4's answer depend on its disk all the same.
QUOTA = b"prjquota"

#: What the reader's errors mean, where strerror would not say it.
REASONS = {ENODEV: "the mount is not to be seen there", ETIMEDOUT: "the mount does not answer"}

#: How long one mount may hold up the others of a reading, in seconds.
PATIENCE = 0.02

_DEVICE = re.compile(rb"(\d{1,8}):(\d{1,8})")
_OCTAL = re.compile(rb"\\([0-7]{3})")


def unescape(field: bytes) -> bytes:
    """A field of mountinfo with blanks, newlines and backslashes put back."""
    return _OCTAL.sub(lambda match: bytes([int(match[1], 8) & 0xFF]), field)


class Entry(NamedTuple):
    """A line of mountinfo."""

    point: bytes
    number: int  #: st_dev
    device: bytes
    fstype: bytes
    options: bytes


def parse(text: bytes) -> list[Entry]:
    """The whole lines of mountinfo; see proc(5)."""
    entries = []
    for line in text.split(b"\n")[:-1]:
        head, separator, tail = line.partition(b" - ")
        before, after = head.split(b" "), tail.split(b" ")
        if separator and len(before) >= 6 and len(after) >= 2 and before[4].startswith(b"/"):
            number = _DEVICE.fullmatch(before[2])
            entries.append(
                Entry(
                    unescape(before[4]),
                    os.makedev(int(number[1]), int(number[2])) if number else 0,
                    unescape(after[1]),
                    unescape(after[0]),
                    b" ".join(after[2:]),
                )
            )
    return entries


def way_to(point: bytes, on: Mapping[bytes, Entry]) -> list[Entry]:
    """The mount at a point and those that it stands on, down to the root."""
    way = []
    while True:
        if point in on:
            way.append(on[point])
        if point == b"/":
            return way
        point = point.rpartition(b"/")[0] or b"/"


def answers_from_memory(way: Sequence[Entry]) -> bool:
    """Whether neither a mount nor the way to it can make statvfs wait."""
    return way[-1].point == b"/" and all(
        entry.fstype in MEMORY and QUOTA not in entry.options for entry in way
    )


class Bound(NamedTuple):
    """A mount that is shown, as it is bound."""

    labels: tuple[str, str, str]
    quick: bool
    others: tuple[int, ...]


class Mount(Collector):
    name = "disk"
    switch = "enable_disk"
    keys = (
        *("disk_mount_include", "disk_mount_exclude", "disk_fstype_include", "disk_fstype_exclude"),
        "mount_timeout_seconds",
    )
    lane = "mounts"
    metrics = FAMILIES

    def bind(self) -> None:
        config = self.config
        self.mount_shown = Filter(config.disk_mount_include, config.disk_mount_exclude)
        self.type_shown = Filter(config.disk_fstype_include, config.disk_fstype_exclude)
        self.file = File(self.host.process("mountinfo"))
        self.text = b""
        # Where we see the host's root below another path, the way there is our own matter.
        self.base = os.fsencode(Path(os.fsdecode(self.host.root(b"/"))).resolve()).rstrip(b"/")
        self.own = File("/proc/self/mountinfo") if self.base else None
        self.own_text = b""
        self.mounts: dict[bytes, Bound] = {}
        self.reader = Reader(self.table, config.mount_timeout_seconds, PATIENCE)

    def start(self, tick: bool) -> None:
        if self.file.changed() or (self.own and self.own.changed()):
            self.look()
        self.reader.start()

    def look(self) -> None:
        """Reads mountinfo and follows it."""
        before = self.text, self.own_text
        self.text = self.own_text = b""
        if self.own:
            with contextlib.suppress(OSError):  # then no mount is known to answer from memory
                self.own_text = self.own.read()
        try:
            self.text = self.file.read()
        except OSError as error:
            self.report(f"{self.file.path}: {error.strerror}")
        else:
            if not self.text.endswith(b"\n"):
                self.report_malformed(self.file)
        if (self.text, self.own_text) != before:
            self.follow_mounts(self.text)

    def sample(self, tick: bool) -> None:
        for path, code in self.reader.read().items():
            self.report(f"{label(path)}: {REASONS.get(code) or os.strerror(code)}")

    def follow_mounts(self, text: bytes) -> None:
        """Binds the mounts that have appeared and lets go of those that have gone."""
        on = {self.strip(entry.point): entry for entry in parse(text)}  # the last one is on top
        seen = {entry.point: entry for entry in parse(self.own_text)} if self.own else on
        now = {}
        for point, entry in on.items():
            labels = label(point), label(entry.device), label(entry.fstype)
            if self.shown(labels[0], labels[2]):
                path = self.host.root(point)
                quick = answers_from_memory(way_to((self.base + point).rstrip(b"/") or b"/", seen))
                others = tuple({below.number for below in way_to(point, on)} - {entry.number})
                now[path] = Bound(labels, quick, others)
        for path, bound in list(self.mounts.items()):
            if now.get(path) != bound:
                self.drop(path)
        for path, bound in now.items():
            if path not in self.mounts:
                self.add(path, bound)

    def strip(self, point: bytes) -> bytes:
        """A mount point as the host names it, where we see the host's root below another path."""
        root = self.host.root(b"")
        if root and (point == root or point.startswith(root + b"/")):
            return point[len(root) :] or b"/"
        return point

    def shown(self, mount: str, fstype: str) -> bool:
        return self.mount_shown(mount) and (self.type_shown(fstype) or (fstype, mount) in SHOWN)

    def add(self, path: bytes, bound: Bound) -> None:
        slots: list[int] = []
        try:
            for family in FAMILIES:
                slots.append(self.table.add(family, bound.labels))
            self.reader.bind(path, slots, bound.quick, bound.others)
        except ValueError as error:
            for family in FAMILIES[: len(slots)]:
                self.table.remove(family, bound.labels)
            self.report(f"{label(path)}: {error}")
            return
        self.mounts[path] = bound

    def drop(self, path: bytes) -> None:
        self.reader.drop(path)
        bound = self.mounts.pop(path)
        for family in FAMILIES:
            self.table.remove(family, bound.labels)
