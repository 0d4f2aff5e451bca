"""Where a host's kernel files are: the injected roots, also a container's /host/proc."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import msgspec


class Host(msgspec.Struct, frozen=True):
    """The roots under which collectors look for files."""

    procfs: str = "/proc"
    sysfs: str = "/sys"
    rootfs: str = "/"
    devfs: str = "/dev"

    def proc(self, name: str) -> str:
        """The path of a file of /proc."""
        return f"{self.procfs}/{name}"

    def sys(self, name: str) -> str:
        """The path of a file of /sys."""
        return f"{self.sysfs}/{name}"

    def dev(self, name: str) -> str:
        """The path of a device of /dev."""
        return f"{self.devfs}/{name}"

    def process(self, name: str) -> str:
        """A file of the host's first process; our own where that one is hidden from us.

        ``/proc/net`` and ``/proc/mounts`` are links to ``self``, and in a container ``self`` has
        the container's interfaces and mounts. In a tree without processes it is the plain file.
        """
        for directory in ("1/", "self/", ""):
            path = self.proc(directory + name)
            if readable(path):
                return path
        return self.proc("1/" + name)

    def net(self, name: str) -> str:
        """A file of the host's network namespace, under /proc/1/net."""
        return self.process("net/" + name)

    def is_ours(self) -> bool:
        """Whether the roots are those of the namespace that we run in."""
        if (self.procfs, self.sysfs) != ("/proc", "/sys"):
            return False
        try:
            return Path("/proc/1/ns/net").samefile("/proc/self/ns/net")
        except OSError:  # not ours to see; then the tables of the first process are ours, too
            return True

    def root(self, path: bytes) -> bytes:
        """Where we see a path of the host's."""
        return self.rootfs.rstrip("/").encode(errors="surrogateescape") + path


def readable(path: str) -> bool:
    """Whether a path is a regular file that we may read; a FIFO is not waited for."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return stat.S_ISREG(os.fstat(descriptor).st_mode)
    finally:
        os.close(descriptor)
