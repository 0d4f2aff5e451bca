"""Xids and other events of GPUs, from the driver and the kernel's log, as counters."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from ..._fast.table import OWNER, Table
from ...host import Host
from ...metrics import Metric, counter, gauge
from ...state import state_directory
from ...xids import COMMON
from ..base import Unavailable
from .card import Card
from .journal import Event, Journal, pci_address
from .kernel_log import KernelLog
from .readings import GPU
from .watch import Watch

XIDS = counter(
    "esnode_gpu_xid_errors_total", "Errors that the driver tells, by Xid.", (*GPU, "xid")
)
EVENTS = counter("esnode_gpu_events_total", "Events of a GPU.", (*GPU, "event"))
LAST_XID = gauge("esnode_gpu_last_xid", "The last Xid of a GPU.", GPU)
LAST_EVENT = gauge(
    "esnode_gpu_last_event_timestamp_seconds", "When the last event was, in Unix time.", GPU
)
SXIDS = counter(
    "esnode_nvswitch_sxid_errors_total", "Errors of NVSwitches that the driver tells.", ("sxid",)
)

#: By the bit of nvmlEventType*.
KINDS = {
    0x1: "single_bit_ecc_error",
    0x2: "double_bit_ecc_error",
    0x4: "pstate",
    0x8: "xid",
    0x10: "clock",
    0x80: "power_source_change",
    0x100: "mig_config_change",
    0x200: "single_bit_ecc_error_storm",
    0x400: "dram_retirement_event",
    0x800: "dram_retirement_failure",
    0x1000: "non_fatal_poison_error",
    0x2000: "fatal_poison_error",
    0x4000: "gpu_unavailable_error",
    0x8000: "gpu_recovery_action",
}
#: Those whose counters start at 0 where the driver is listened to.
USUAL = tuple(kind for bit, kind in KINDS.items() if bit <= 0x100)
#: Seconds between two attempts to open the kernel's log.
RETRY = 60.0


class Events:
    """Counts what happens to the GPUs, and fills the rows of those that are shown.

    The sources are read with the lane, and at once when one of them has something new, by a thread
    that no GPU can hold up; ``heard`` is called with each new event, on either.
    """

    def __init__(
        self,
        table: Table,
        host: Host,
        report: Callable[[str], None],
        heard: Callable[[Event], None],
    ) -> None:
        self.table = table
        self.host = host
        self.report = report
        self.problem: str | None = None
        directory: Path | None = None
        try:
            directory = state_directory(os.environ, make=False)
        except OSError as error:
            report(f"events are not kept: {error}")
        self.journal = Journal(directory, heard)
        self.tell(self.journal.start())
        self.driver: Any = None
        self.log: KernelLog | None = None
        self.log_due = 0.0
        #: Held while a source is read. What failed then is reported with the lane.
        self.lock = threading.Lock()
        self.problems: list[str] = []
        self.watch = Watch(self.take)
        self.rows: dict[tuple[Metric, tuple[str, ...]], int] = {}
        #: The journal's changes and the places of the cards when it was told these, and how far it
        #: was told that the log has been read.
        self.named: object = None
        self.reached: object = None
        #: What the rows show: the journal's changes, the cards, and the sources that there are.
        self.shown: object = None

    def tell(self, problem: str | None) -> None:
        """Reports what is wrong with the file, once for each time that something else is."""
        if problem and problem != self.problem:
            self.report(problem)
        self.problem = problem

    def move(self, table: Table, report: Callable[[str], None]) -> None:
        """Goes on in a table whose rows were cleared, with a driver that is still to come."""
        self.take()
        with self.lock:
            self.driver = None
        self.table = table
        self.report = report
        self.rows = {}
        self.shown = None

    def close(self, timeout: float) -> None:
        """Lets go of the sources, and writes a last time."""
        self.watch.stop(timeout)
        with self.lock:
            self.driver = None
            if self.log is not None:
                self.log.close()
                self.log = None
        self.journal.close(timeout)

    def read(self, driver: Any, cards: Collection[Card]) -> None:
        """Counts what is new, and fills the rows of the cards."""
        labels = tuple(card.labels for card in cards)
        places = tuple((card.pci, card.uuid) for card in cards)
        if self.named != (self.journal.changes, places):
            names = ((pci_address(pci), uuid) for pci, uuid in places)
            self.journal.name({pci: uuid for pci, uuid in names if pci and uuid})
            self.named = self.journal.changes, places
        if self.driver is None and driver is not None:
            self.driver = driver
            self.watch.follow(driver.bell)
        self.open_log()
        self.take()
        with self.lock:
            problems, self.problems = self.problems, []
        for problem in problems:
            self.report(problem)
        self.tell(self.journal.problem)
        listens = self.driver is not None and self.driver.listens
        state = (self.journal.changes, labels, listens, self.log is not None)
        if state != self.shown:
            self.shown = state
            self.fill(cards, listens)

    def take(self) -> None:
        """Counts what the sources have to tell; any thread may ask."""
        with self.lock:
            self.listen()
            self.read_log()

    def listen(self) -> None:
        """Takes the driver's events."""
        if self.driver is None:
            return
        told, lost = self.driver.events()
        if lost:
            self.problems.append(f"{lost} events of the driver are lost: too many at once")
        if told:
            self.journal.add(
                Event(when, "nvml", KINDS.get(kind, f"event_{kind:x}"), uuid, None, data, gi, ci)
                for when, kind, data, uuid, gi, ci in told
            )

    def open_log(self) -> None:
        """Opens the kernel's log, where that is due."""
        now = time.monotonic()
        if self.log is None and now >= self.log_due:
            self.log_due = now + RETRY
            # One that may not be read is no failure: not every agent is given the right to.
            with contextlib.suppress(Unavailable):
                self.log = KernelLog(self.host, self.journal.position)
                self.watch.follow(self.log.fileno())

    def read_log(self) -> None:
        """Takes the new lines of the kernel's log, where it may be read."""
        if self.log is None:
            return
        end = time.monotonic() + 0.5
        try:
            more = True
            while more:
                events, position = self.log.read(), self.log.position
                if events or position != self.reached:
                    self.journal.add(events, position)
                    self.reached = position
                more = self.log.behind and time.monotonic() < end
        except OSError as error:
            self.problems.append(f"{self.log.path}: {error.strerror}")
            self.log.close()
            self.log = None

    def fill(self, cards: Collection[Card], listens: bool) -> None:
        """Sets the rows to what the journal has counted."""
        counters = self.journal.counters()
        values: dict[tuple[Metric, tuple[str, ...]], float] = {}
        for card in cards:
            if listens or self.log is not None:
                values |= {(XIDS, (*card.labels, str(code))): 0 for code in COMMON}
            if listens:
                values |= {(EVENTS, (*card.labels, kind)): 0 for kind in USUAL}
            if card.uuid in counters.last_xid:
                values[LAST_XID, card.labels] = counters.last_xid[card.uuid]
            if card.uuid in counters.last_time:
                values[LAST_EVENT, card.labels] = counters.last_time[card.uuid]
        labels = {card.uuid: card.labels for card in cards}
        for (uuid, code), number in counters.xids.items():
            if uuid in labels:
                values[XIDS, (*labels[uuid], str(code))] = number
        for (uuid, kind), number in counters.kinds.items():
            if uuid in labels:
                values[EVENTS, (*labels[uuid], kind)] = number
        values |= {(SXIDS, (str(code),)): number for code, number in counters.sxids.items()}
        for key in self.rows.keys() - values.keys():
            self.table.remove(*key)
            del self.rows[key]
        for key, value in values.items():
            if key not in self.rows:
                self.rows[key] = self.table.add(*key, OWNER)
            self.table.set(self.rows[key], value)
