"""What a collector is, and what all of them share."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Protocol

from .._fast.procfs import CHANGED, MALFORMED, File, Rows
from .._fast.table import Table
from ..config import Config
from ..host import Host
from ..metrics import Metric

#: Where a value comes from and goes to: (columns, slot[, num[, den[, less columns]]]); see Rows.
Cell = tuple[Any, ...]


class Unavailable(Exception):  # noqa: N818  # says what is the case
    """The collector's source is not on this machine; the text says which and why."""


class Refused(Unavailable):
    """The source is there, and we may not read it; the text says what permission is missing."""


class Reader(Protocol):
    """A reader of ``_fast.procfs``."""

    @property
    def file(self) -> File: ...
    def read(self) -> int: ...


class Collector:
    """Fills the rows of one subject in its lane's table.

    ``bind`` raises :class:`Unavailable` when there is nothing to read, and is tried again later.
    ``sample`` is called for every reading and tolerates what fails: it reports it and leaves the
    rows absent.
    """

    #: What ``collect[]`` and the agent's own metrics call it. Parts of one subject share a name.
    name: ClassVar[str]
    #: The key that turns it on.
    switch: ClassVar[str]
    #: The keys that it reads when it binds, besides: where one has changed, another one takes its
    #: place. All others it is to read when it needs them.
    keys: ClassVar[tuple[str, ...]] = ()
    lane: ClassVar[str] = "host"
    #: Whether it is read for a scrape, too; else at each tick only.
    fresh: ClassVar[bool] = True
    metrics: ClassVar[tuple[Metric, ...]]

    table: Table
    #: Counts a failure and logs it the first time; the text names the thing and the cause.
    report: Callable[[str], None]

    def __init__(self, host: Host, config: Config) -> None:
        self.host = host
        self.config = config

    def attach(self, table: Table, report: Callable[[str], None]) -> None:
        """Takes a table and binds to it."""
        self.table = table
        self.report = report
        self.bind()

    def bind(self) -> None:
        """Adds rows and binds readers to them."""
        raise NotImplementedError

    def wanted(self) -> bool:
        """Whether a scrape is worth a reading now; any thread may ask."""
        return self.fresh

    def start(self, tick: bool) -> None:
        """Starts what other threads do for the reading that follows; none by default."""

    def sample(self, tick: bool) -> None:
        """Reads once. ``tick``: what belongs to the tick, such as percentages, is due as well."""
        raise NotImplementedError

    def succeed(self, before: Collector) -> None:
        """Takes from one of its kind, whose place it takes after a reload, what must outlive that.
        Called before it binds, on the lane's thread. Nothing by default."""

    def close(self) -> None:
        """Lets go of what it holds, while the lane goes on without it. Called once it is bound, on
        the lane's thread. Nothing by default."""

    def stop(self) -> None:
        """Called when the agent ends; the lane has ended, too, or hangs. Nothing by default."""

    def read(self, reader: Reader, optional: bool = False) -> int | None:
        """Reads a file, reporting what fails. The reader's flags; None for an unreadable file.
        That one is not there is no failure where it is ``optional``."""
        try:
            flags = reader.read()
        except OSError as error:
            if not (optional and isinstance(error, FileNotFoundError)):
                self.report(f"{reader.file.path}: {error.strerror}")
            return None
        if flags & MALFORMED:
            self.report_malformed(reader.file)
        return flags

    def report_malformed(self, file: File) -> None:
        """Reports a file that is cut short, or not of its kind."""
        self.report(f"{file.path}: not all of it can be understood")

    def follow(self, reader: Rows) -> bool:
        """Reads a file whose keys come and go, through :meth:`admit` and :meth:`drop`. Whether it
        could be read."""
        flags = self.read(reader)
        if flags is None:
            return False
        if flags & CHANGED:
            fresh, gone = reader.changes()
            for key in gone:
                self.drop(key)
                reader.drop(key)
            for key in fresh:
                try:
                    cells = self.admit(key)
                except ValueError as error:
                    self.report(f"{reader.file.path}: {error}")
                    cells = ()
                reader.bind(key, *cells)
            if reader.rescan() & MALFORMED and not flags & MALFORMED:
                self.report_malformed(reader.file)
        return True

    def admit(self, key: bytes) -> Sequence[Cell]:
        """Adds the rows of a new key; its cells, or none for a key that is not shown. Raises
        ValueError, with no row added, when its rows are those of another key."""
        raise NotImplementedError

    def drop(self, key: bytes) -> None:
        """Removes the rows of a key that has gone; one that was not shown has none."""
        raise NotImplementedError


class Filter:
    """Which names to show: those that match ``include`` (empty: all) and not ``exclude``."""

    def __init__(self, include: str, exclude: str) -> None:
        self._include = re.compile(include)
        self._exclude = re.compile(exclude) if exclude else None

    def __call__(self, name: str) -> bool:
        return bool(self._include.search(name)) and not (
            self._exclude and self._exclude.search(name)
        )


def label(raw: bytes | str) -> str:
    """A name of the kernel's, or of a file, as a label value. Bytes that are not UTF-8 become
    ``\\\\xNN``, not the same character for all of them, so that different names stay different."""
    return os.fsencode(raw).decode("utf-8", "backslashreplace")
