"""A kernel's log of our own."""

from __future__ import annotations

import time
from pathlib import Path

from esnode.host import Host

BOOT = "6f0a9d2e-1111-2222-3333-444455556666"


class Kmsg:
    """A host whose kernel's log is a file that grows."""

    def __init__(self, root: Path) -> None:
        self.host = Host(procfs=str(root / "proc"), devfs=str(root / "dev"))
        self.file = root / "dev/kmsg"
        self.boot = root / "proc/sys/kernel/random/boot_id"
        self.boot.parent.mkdir(parents=True)
        self.boot.write_text(BOOT + "\n")
        self.file.parent.mkdir()
        self.file.touch()
        self.sequence = 0

    def add(self, *messages: str | bytes, priority: int = 3, seconds: float | None = None) -> None:
        """Appends records, of now if not told otherwise."""
        if seconds is None:
            seconds = time.monotonic()
        with self.file.open("ab") as file:
            for message in messages:
                raw = message if isinstance(message, bytes) else message.encode()
                head = f"{priority},{self.sequence},{int(seconds * 1e6)},-,caller=T7;"
                file.write(head.encode() + raw + b"\n SUBSYSTEM=pci\n DEVICE=+pci:x\n")
                self.sequence += 1
