"""The agent's own state: what it costs, how its lanes and collectors fare."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

from .._fast.procfs import Line
from .._fast.table import OWNER
from ..config import Config
from ..host import Host
from ..metrics import Metric, counter, gauge
from .base import Collector

COLLECTOR = ("collector",)
BUILD_INFO = gauge(
    "esnode_agent_build_info", "The agent's version; always 1.", ("version", "commit", "python")
)
START_TIME = gauge("esnode_agent_start_time_seconds", "When the agent started, in Unix time.")
DURATION = gauge(
    "esnode_agent_scrape_duration_seconds", "Time of a collector's last reading.", COLLECTOR
)
ERRORS = counter("esnode_agent_errors_total", "What a collector could not read.", COLLECTOR)
UP = gauge("esnode_agent_collector_up", "Whether a collector could read its sources.", COLLECTOR)
DISABLED = gauge("esnode_agent_collector_disabled", "Whether a collector is turned off.", COLLECTOR)
AGE = gauge("esnode_agent_snapshot_age_seconds", "Age of a lane's newest reading.", ("lane",))
SCRAPES = counter("esnode_agent_scrapes_total", "Pages of metrics served.")
CPU = counter("esnode_agent_cpu_seconds_total", "CPU time of the agent.")
RELOADS = counter(
    "esnode_agent_config_reloads_total", "Reloads of the configuration that were taken up."
)
RELOADED = gauge(
    "esnode_agent_config_last_reload_successful",
    "Whether the last reload of the configuration was taken up; 1 before the first.",
)
RESIDENT = gauge("esnode_agent_resident_memory_bytes", "Memory of the agent.")
SERIES = gauge("esnode_agent_series", "Series of the last full page.")
TSDB_SAMPLES = counter("esnode_agent_tsdb_samples_total", "Samples written to the local history.")
TSDB_DROPPED = counter(
    "esnode_agent_tsdb_dropped_samples_total", "Samples that the local history had no room for."
)
TSDB_ERRORS = counter(
    "esnode_agent_tsdb_errors_total", "Failed writes of the local history, and damage found in it."
)
TSDB_BYTES = gauge("esnode_agent_tsdb_bytes", "Size of the local history.")
TSDB_BLOCKS = gauge("esnode_agent_tsdb_blocks", "Blocks of the local history.")
TSDB_FLUSH = gauge(
    "esnode_agent_tsdb_flush_duration_seconds", "Time of the local history's last flush."
)
TSDB_OLDEST = gauge(
    "esnode_agent_tsdb_oldest_timestamp_seconds",
    "Unix time of the oldest sample in the local history.",
)


class Row(NamedTuple):
    """One row and its value: a constant, or where it is from. NaN is absent."""

    metric: Metric
    labels: tuple[str | None, ...]
    value: float | Callable[[], float]


class Agent(Collector):
    """``rows`` are what other parts of the agent count."""

    name = "agent"
    lane = "agent"
    metrics = (
        BUILD_INFO,
        START_TIME,
        DURATION,
        ERRORS,
        UP,
        DISABLED,
        AGE,
        SCRAPES,
        CPU,
        RELOADS,
        RELOADED,
        RESIDENT,
        SERIES,
        TSDB_SAMPLES,
        TSDB_DROPPED,
        TSDB_ERRORS,
        TSDB_BYTES,
        TSDB_BLOCKS,
        TSDB_FLUSH,
        TSDB_OLDEST,
    )

    def __init__(self, host: Host, config: Config, rows: Iterable[Row]) -> None:
        super().__init__(host, config)
        self.rows = list(rows)

    def bind(self) -> None:
        add = self.table.add
        self.cpu = add(CPU)
        # Our own file, in our own /proc: the injected one may be another machine's.
        self.statm = Line(
            self.table, "/proc/self/statm", (1, add(RESIDENT), resource.getpagesize())
        )
        self.slots = []
        for row in self.rows:
            if callable(row.value):
                self.slots.append((add(row.metric, row.labels), row.value))
            else:
                self.table.set(add(row.metric, row.labels, OWNER), row.value)

    def sample(self, tick: bool) -> None:
        put = self.table.set
        put(self.cpu, time.process_time())
        self.read(self.statm)
        for slot, value in self.slots:
            put(slot, value())
