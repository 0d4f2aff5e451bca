"""Xids and SXids in the kernel's log, from /dev/kmsg.

A record is ``priority,sequence,microseconds,flags;message`` and lines of its own that begin with a
space; see the kernel's Documentation/ABI/testing/dev-kmsg. Each read() gives one. The driver prints
Xids in krcReportXid of kernel_rc.c, SXids through NVSWITCH_PRINT_SXID of its NVSwitch part.
"""

from __future__ import annotations

import os
import re
import stat
import time
from collections.abc import Iterator
from errno import EACCES, EPERM, errorcode
from pathlib import Path

from ...host import Host
from ..base import Refused, Unavailable, label
from .journal import Event, Position, pci_address

#: What a record is at most, and more than the kernel's own limit.
RECORD = 16384
#: Records, or lines of a file, that one reading takes at most (some 10 ms); the first one, which
#: only looks for the end, takes as many as the largest log may have.
RECORDS = 2048
HISTORY = 1 << 22
#: Letters of an event's text.
TEXT = 400

_HEADER = re.compile(rb"\d{1,5},(\d{1,18}),(\d{1,18})[,;]")
#: Drivers of before 2012 print no ``PCI:``, older ones no domain either.
_XID = re.compile(
    rb"NVRM: Xid \((?:PCI:)?([0-9A-Fa-f:.]{5,16})(?: GPU-I:(\d{1,4}))?(?: GPU-CI:(\d{1,4}))?\):"
    rb" (\d{1,3})(?!\d),? *(.*)",
    re.DOTALL,
)
#: Further lines of the same SXid begin with Severity and Data.
_SXID = re.compile(
    rb"nvidia-nvswitch\d+:? SXid \(PCI:([0-9A-Fa-f:.]{5,16})\): (\d{1,5}),"
    rb" *((?:Non-)?[Ff]atal\b.*)",
    re.DOTALL,
)


class KernelLog:
    """The log from some record on; :meth:`read` gives what has been added since the last time."""

    def __init__(self, host: Host, after: Position | None = None) -> None:
        """``after`` is what :attr:`position` was when the counters were saved: of this boot, the
        log goes on with the next record; of another one, with all of this boot, since none of that
        can have been counted. Without it, with what is new from now on. Raises Unavailable."""
        self.path = host.dev("kmsg")
        #: Whether the last reading stopped before the end of the log.
        self.behind = False
        #: How often records were overwritten before they were read.
        self.lost = 0
        self._boot = boot_id(host)
        self._last = self._seen = -1
        self._rest = b""
        self._skipping = False
        #: When the end was last reached, in Unix time: what is new has been added since.
        self._reached = 0.0
        self._descriptor = _open(self.path)
        if after is not None and after.boot == self._boot != "":
            self._last = self._seen = after.sequence
        elif after is None or not self._boot:
            try:
                for line in self._lines(HISTORY):
                    self._number(line)
            except OSError as error:
                self.close()
                raise Unavailable(f"{self.path}: {errorcode.get(error.errno or 0)}") from None
            self._seen = self._last

    @property
    def position(self) -> Position:
        """This boot, and the last record that has been read."""
        return Position(self._boot, self._last)

    def fileno(self) -> int:
        """For poll(): readable when there is something to read."""
        return self._descriptor

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def read(self) -> list[Event]:
        """The events of up to :data:`RECORDS` new records. Raises OSError."""
        since = self._reached
        now = time.time()
        # The clock of the log stands for CLOCK_MONOTONIC, from which it may drift by seconds a day.
        boot = now - time.monotonic()
        events = []
        for line in self._lines(RECORDS):
            found = self._number(line)
            if found is None or b"Xid (" not in line:
                continue
            sequence, microseconds = found
            if sequence <= self._seen:
                continue
            _, _, message = line.partition(b";")
            when = min(max(boot + microseconds / 1e6, since), now)
            event = parse(message, max(0.0, when))
            if event is not None:
                events.append(event)
        return events

    def _number(self, line: bytes) -> tuple[int, int] | None:
        """Sequence and microseconds of a record; None for a line that begins none."""
        header = _HEADER.match(line)
        if header is None:
            return None
        sequence, microseconds = map(int, header.groups())
        self._last = sequence
        return sequence, microseconds

    def _lines(self, limit: int) -> Iterator[bytes]:
        """The lines of records that are there, some ``limit`` at most."""
        self.behind = False
        count = 0
        while count < limit:
            try:
                chunk = os.read(self._descriptor, RECORD)
            except BlockingIOError:
                chunk = b""
            except BrokenPipeError:  # overwritten before we came; the next read is of what is left
                self.lost += 1
                self._rest = b""
                count += 1
                continue
            if not chunk:
                self._reached = time.time()
                return
            lines = (self._rest + chunk).split(b"\n")
            self._rest = lines.pop()
            if self._skipping and lines:
                del lines[0]
                self._skipping = False
            if len(self._rest) > RECORD:  # no record is that long
                self._rest = b""
                self._skipping = True
            count += 1 + len(lines)
            yield from lines
        self.behind = True


def parse(message: bytes, when: float) -> Event | None:
    """The event that a message of the driver tells; None for any other."""
    match = _XID.match(message)
    if match:
        address, gi, ci, code, text = match.groups()
        pci = pci_address(address.decode())
        if pci is None:
            return None
        return Event(
            when,
            "kernel",
            "xid",
            pci=pci,
            code=int(code),
            gi=int(gi) if gi else None,
            ci=int(ci) if ci else None,
            text=_text(text),
        )
    match = _SXID.match(message)
    if match:
        address, code, text = match.groups()
        pci = pci_address(address.decode())
        if pci is not None:
            return Event(when, "kernel", "sxid", pci=pci, code=int(code), text=_text(text))
    return None


def _text(raw: bytes) -> str:
    return label(raw[: TEXT + 4]).strip()[:TEXT]


def boot_id(host: Host) -> str:
    """What names this boot; empty where the kernel does not tell."""
    try:
        return label(Path(host.proc("sys/kernel/random/boot_id")).read_bytes()[:64]).strip()
    except OSError:
        return ""


def _open(path: str) -> int:
    """The log's descriptor, which never blocks. Raises Unavailable."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        name = errorcode.get(error.errno or 0)
        if error.errno in (EPERM, EACCES):
            raise Refused(
                f"{path}: {name}; the kernel's log is read with the capability CAP_SYSLOG, or with"
                " kernel.dmesg_restrict = 0"
            ) from None
        raise Unavailable(f"{path}: {name}") from None
    if stat.S_ISDIR(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise Unavailable(f"{path}: EISDIR")
    return descriptor
