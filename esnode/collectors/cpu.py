"""CPU time, usage and load, from /proc/stat and /proc/loadavg."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

from .._fast.delta import Ratios, Totals
from .._fast.procfs import Line, Rows
from .._fast.table import TICK
from ..metrics import counter, gauge
from .base import Cell, Collector

LOADS = (
    gauge("esnode_cpu_load_avg_1m", "Tasks that run or wait, mean of one minute."),
    gauge("esnode_cpu_load_avg_5m", "Tasks that run or wait, mean of five minutes."),
    gauge("esnode_cpu_load_avg_15m", "Tasks that run or wait, mean of fifteen minutes."),
)
USAGE = gauge(
    "esnode_cpu_usage_percent",
    "Share of the last tick that a core was neither idle nor waiting for I/O.",
    ("core",),
)
TIME = counter("esnode_cpu_time_seconds_total", "Time of all cores since boot.", ("state",))
CORE_TIME = counter(
    "esnode_cpu_core_time_seconds_total", "Time of a core since boot.", ("core", "state")
)
CORES = gauge("esnode_cpu_cores", "Cores that are online.")
#: Families that are one line of /proc/stat.
LINES = {
    "intr": counter("esnode_cpu_interrupts_total", "Interrupts served."),
    "ctxt": counter("esnode_cpu_context_switches_total", "Context switches."),
    "processes": counter("esnode_cpu_forks_total", "Processes and threads started."),
    "procs_running": gauge("esnode_cpu_procs_running", "Tasks that run or could."),
    "procs_blocked": gauge("esnode_cpu_procs_blocked", "Tasks that wait for I/O."),
}

#: Column of each state. The kernel counts a guest's time as user or nice time, too.
STATES = {
    "user": 1,
    "nice": 2,
    "system": 3,
    "idle": 4,
    "iowait": 5,
    "irq": 6,
    "softirq": 7,
    "steal": 8,
    "guest": 9,
    "guest_nice": 10,
}
GUESTS = {"user": ("guest",), "nice": ("guest_nice",)}
BUSY = tuple(STATES[s] for s in ("user", "nice", "system", "irq", "softirq", "steal"))
ALL = (*BUSY, STATES["idle"], STATES["iowait"])

#: How far a core's idle and iowait may step back before it counts as a reset, in seconds.
GLITCH = 60.0

_CORE = re.compile(rb"cpu(\d+)")


class Cpu(Collector):
    name = "cpu"
    switch = "enable_cpu"
    keys = ("cpu_per_core_detail",)
    metrics = (*LOADS, USAGE, TIME, CORE_TIME, *LINES.values(), CORES)

    def bind(self) -> None:
        add = self.table.add
        self.ticks = os.sysconf("SC_CLK_TCK")
        self.loadavg = Line(
            self.table,
            self.host.proc("loadavg"),
            *((column, add(metric)) for column, metric in enumerate(LOADS)),
        )
        self.stat = Rows(self.table, self.host.proc("stat"), news=b"cpu", shape=range(1, 5))
        for key, metric in LINES.items():
            self.stat.bind(key.encode(), (1, add(metric)), lasting=True)
        slots = {state: add(TIME, (state,)) for state in STATES}
        self.stat.bind(b"cpu", *self.times(slots), lasting=True)
        self.totals = Totals(self.table, glitch=GLITCH)
        self.core_totals = Totals(self.table, glitch=GLITCH)
        for slot in slots.values():
            self.totals.add(slot)
        self.usage = Ratios(self.table, scale=100, limit=100)
        self.cores: dict[bytes, tuple[int, ...]] = {}
        self.count = add(CORES)

    def times(self, slots: dict[str, int]) -> list[Cell]:
        """The cells of a line's states."""
        return [
            (STATES[state], slot, 1, self.ticks, [STATES[g] for g in GUESTS.get(state, ())])
            for state, slot in slots.items()
        ]

    def admit(self, key: bytes) -> Sequence[Cell]:
        match = _CORE.fullmatch(key)
        if not match:
            return ()
        core = match[1].decode()
        usage = self.table.add(USAGE, (core,), TICK)
        busy, everything = self.table.hidden(USAGE), self.table.hidden(USAGE)
        self.usage.add(usage, busy, everything)
        cells: list[Cell] = [(BUSY, busy), (ALL, everything)]
        self.cores[key] = (usage, busy, everything)
        if self.config.cpu_per_core_detail:
            slots = {state: self.table.add(CORE_TIME, (core, state)) for state in STATES}
            for slot in slots.values():
                self.core_totals.add(slot)
            self.cores[key] += tuple(slots.values())
            cells += self.times(slots)
        self.totals.glitch = GLITCH * len(self.cores)
        return cells

    def drop(self, key: bytes) -> None:
        if key not in self.cores:
            return
        core = key.removeprefix(b"cpu").decode()
        usage, busy, everything, *times = self.cores.pop(key)
        self.usage.drop(usage)
        self.table.remove(USAGE, (core,))
        self.table.forget(busy)
        self.table.forget(everything)
        for state, slot in zip(STATES, times, strict=False):
            self.core_totals.drop(slot)
            self.table.remove(CORE_TIME, (core, state))

    def sample(self, tick: bool) -> None:
        self.read(self.loadavg)
        read = self.follow(self.stat)
        self.totals.update()
        self.core_totals.update()
        if tick:
            self.usage.update()
        if read and self.cores:
            self.table.set(self.count, len(self.cores))
