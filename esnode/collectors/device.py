"""Devices of /sys: directories that come and go, whose files are values."""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Iterable, Mapping
from errno import EMFILE, ENFILE, ETIMEDOUT
from pathlib import Path
from typing import ClassVar, NamedTuple

from .._fast.procfs import File
from .._fast.table import OWNER, READING
from .._fast.values import MALFORMED, Values, limited
from ..metrics import Metric
from .base import Collector, Unavailable, label

log = logging.getLogger(__name__)

Labels = tuple[str | None, ...]

#: Seconds after which a device that is being read has no values, and how long it may hold up the
#: others of a reading.
TIMEOUT = 2.0
PATIENCE = 0.02
#: Seconds between two looks at what the devices have; which ones there are is seen at each tick.
LOOK = 60.0
#: Errors of who has too many files open.
SHORT = (EMFILE, ENFILE)


class Value(NamedTuple):
    """A row: a file's number times ``num`` over ``den``; below zero it is absent unless signed."""

    metric: Metric
    labels: Labels
    file: str
    num: float = 1
    den: float = 1
    signed: bool = False


class State(NamedTuple):
    """A row for each word, last in its labels: 1 where the file has the word's number, else 0."""

    metric: Metric
    labels: Labels
    file: str
    words: Mapping[int, str]


class Constant(NamedTuple):
    """A row whose value is known from the description."""

    metric: Metric
    labels: Labels
    value: float = 1


class Text(NamedTuple):
    """A file that the description depends on: it is made anew when the text changes."""

    file: str


class Own(NamedTuple):
    """A row that the collector fills itself, see :meth:`Devices.joined`."""

    metric: Metric
    labels: Labels
    keep: int = READING


Row = Value | State | Constant | Text | Own


class Device:
    """A device that is there, with its rows as they are bound."""

    def __init__(self, name: str, path: str, rows: list[Row]) -> None:
        self.name = name
        self.path = path
        self.folder = os.fsencode(path)
        #: Descriptors follow a device of the kernel that is renamed, and two may swap their names.
        self.inode = inode(path)
        self.rows = rows
        self.slots: dict[tuple[Metric, Labels], int] = {}
        #: Whether it has files to read.
        self.read = False


class Devices(Collector):
    """Reads the devices of a directory of /sys, each described by :meth:`describe`."""

    lane = "devices"
    #: Below the root of sysfs.
    directory: ClassVar[str]
    #: The names of devices, among others in that directory.
    pattern: ClassVar[re.Pattern[str]] = re.compile(".*", re.DOTALL)
    #: A file of the directory whose text changes when devices come or go; without it the directory
    #: is listed at each tick.
    list_file: ClassVar[str] = ""
    #: Whether reading never waits for a device, see Values.
    quick: ClassVar[bool] = False
    #: What the log says of a directory without a device that is shown.
    nothing: ClassVar[str] = "nothing to read"
    #: Seconds between two readings, at a tick; 0: with every reading.
    period: ClassVar[float] = 0

    #: Whether the shortage of descriptors has been told; all readers share them.
    told: ClassVar[bool] = False

    #: The text of the list file, or what the directory lists.
    listed: bytes | tuple[list[str], float]

    def path(self, name: str = "") -> str:
        """The path of a device, or of the directory."""
        return self.host.sys(f"{self.directory}/{name}" if name else self.directory)

    def names(self) -> list[str]:
        """The devices that are there."""
        return [name for name in listing(self.path()) if self.pattern.fullmatch(name)]

    def changed(self) -> bool:
        """Whether devices may have come or gone since the last call."""
        before = self.listed
        try:
            if self.list_file:
                self.listed = self.watched.read()
            else:
                # At each tick. A link that leads elsewhere changes the time of a copy's directory.
                self.listed = os.listdir(self.path()), os.stat(self.path()).st_mtime  # noqa: PTH116, PTH208
        except OSError:
            self.listed = b""  # what comes back may look as it did before
            return True
        return before != self.listed

    def describe(self, name: str, path: str) -> Iterable[Row]:
        """The rows of a device; none for one that is not shown."""
        raise NotImplementedError

    def joined(self, device: Device) -> None:
        """Called when a device's rows have been bound."""

    def left(self, device: Device) -> None:
        """Called before a device's rows are removed."""

    def bind(self) -> None:
        self.values = Values(self.table, TIMEOUT, PATIENCE, self.quick)
        self.devices: dict[str, Device] = {}
        self.watched = File(self.path(self.list_file))
        self.listed = b""
        self.look_due = time.monotonic() + LOOK
        self.due = 0.0
        self.reading = False
        #: Folders in which something was new after their device had been described.
        self.news: set[bytes] = set()
        self.look()
        if not any(device.rows for device in self.devices.values()):
            raise Unavailable(f"{self.path()}: {self.nothing}")

    def look(self) -> None:
        """Follows the devices that come and go, and what each of them has."""
        names = self.names()
        for name in self.devices.keys() - set(names):
            self.remove(name)
        for name in names:
            self.follow_device(name)

    def follow_device(self, name: str) -> bool:
        """Describes a device, and binds it anew if that has changed; whether it has."""
        path = self.path(name)
        before = self.devices.get(name)
        if before is not None and before.read and self.values.busy(before.folder):
            return False  # it may hang, and would hold up a look at it
        rows = list(self.describe(name, path))
        if before is not None:
            if before.rows == rows and before.inode == inode(path):
                return False
            self.unbind(before)
        self.add(Device(name, path, rows))
        return True

    def add(self, device: Device) -> None:
        self.devices[device.name] = device
        keep = OWNER if self.period else READING

        def slot(metric: Metric, labels: Labels, keep: int = keep) -> int:
            device.slots[metric, labels] = self.table.add(metric, labels, keep)
            return device.slots[metric, labels]

        cells: list[tuple[object, ...]] = []
        try:
            for row in device.rows:
                if isinstance(row, Constant):
                    self.table.set(slot(row.metric, row.labels, OWNER), row.value)
                    continue
                if isinstance(row, Own):
                    slot(*row)
                    continue
                file = os.fsencode(row.file)
                if isinstance(row, Value):
                    at = slot(row.metric, row.labels)
                    cells.append((file, at, row.num, row.den, row.signed))
                elif isinstance(row, State):
                    of = {n: slot(row.metric, (*row.labels, w)) for n, w in row.words.items()}
                    cells.append((file, of))
                else:
                    cells.append((file,))
        except ValueError as error:
            self.remove_rows(device)
            self.report(f"{label(device.folder)}: {error}")
            cells = []
        if cells:
            self.values.bind(device.folder, cells)
            device.read = True
        if device.slots:
            self.joined(device)

    def remove_rows(self, device: Device) -> None:
        for metric, labels in device.slots:
            self.table.remove(metric, labels)
        device.slots.clear()

    def unbind(self, device: Device) -> None:
        """Lets go of a device's files and rows."""
        if device.slots:
            self.left(device)
            for other in self.devices.values():
                if not other.slots:
                    other.rows = []  # its rows may have been those of this device: look again
        if device.read:
            self.values.drop(device.folder)
        self.remove_rows(device)

    def remove(self, name: str) -> None:
        """Lets go of a device that has gone; should it come back, all its files are asked again."""
        device = self.devices.pop(name)
        self.unbind(device)
        gone = {path for path in self.values.refused if path.startswith(device.folder + b"/")}
        self.values.refused.difference_update(gone)

    def start(self, tick: bool) -> None:
        now = time.monotonic()
        if tick and (self.changed() or now >= self.look_due):
            self.look_due = now + LOOK
            self.look()
        self.reading = not self.period or (tick and now >= self.due)
        if self.reading:
            # Half a tick less: ticks come a little sooner or later than they should.
            self.due = now + self.period - self.config.scrape_interval_seconds / 2
            self.values.start(tick)

    def sample(self, tick: bool) -> None:
        if not self.reading:
            return
        errors, changed = self.values.read()
        self.news.update(changed)
        if self.news and self.refresh():
            self.values.start(tick)
            errors, changed = self.values.read()
            self.news.update(changed)  # for the next reading
        for path, code in errors.items():
            self.report(f"{label(path)}: {reason(code)}")
        if limited() and not Devices.told:
            Devices.told = True
            log.warning("more files than descriptors: some are opened for each reading")

    def refresh(self) -> bool:
        """Follows devices that have changed while they were read; whether rows have."""
        here = set(self.names())
        names = [name for name, device in self.devices.items() if device.folder in self.news]
        changed = False
        for name in names:
            if name in here:
                changed |= self.follow_device(name)
            else:
                self.remove(name)
                changed = True
        self.news.clear()
        return changed


def reason(code: int) -> str:
    """What an error of Values means."""
    if code == MALFORMED:
        return "not all of it can be understood"
    return "the device does not answer" if code == ETIMEDOUT else os.strerror(code)


def listing(path: str) -> list[str]:
    """The names in a directory, sorted; none where there is no such directory. Raises OSError
    where we are short of descriptors: then there may be one."""
    try:
        with os.scandir(path) as entries:
            return sorted(entry.name for entry in entries)
    except OSError as error:
        if error.errno in SHORT:
            raise
        return []


def text(path: str) -> str | None:
    """The first line of a small file; None when it cannot be read or is empty. Raises OSError
    where we are short of descriptors."""
    try:
        return label(File(path).read().partition(b"\n")[0].strip()) or None
    except OSError as error:
        if error.errno in SHORT:
            raise
        return None


def joules_of(zone: str) -> float:
    """The joules at which a zone of powercap starts over; 0 when that is not known."""
    try:
        return int(text(f"{zone}/max_energy_range_uj") or "0") / 1e6
    except (ValueError, OverflowError):
        return 0


def target(path: str) -> str | None:
    """The name of what a link leads to; None when there is no such link."""
    link = Path(path)
    return label(link.resolve().name) if link.is_symlink() else None


def inode(path: str) -> tuple[int, int] | None:
    """What tells a directory from any other; None when it is not there."""
    try:
        found = Path(path).stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
