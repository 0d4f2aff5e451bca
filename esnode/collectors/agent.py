"""The agent's own state: what it costs, how its lanes and collectors fare."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Iterable, Mapping

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
UP = gauge(
    "esnode_agent_collector_up", "Whether a collector could read its sources.", COLLECTOR
)
DISABLED = gauge(
    "esnode_agent_collector_disabled", "Whether a collector is turned off.", COLLECTOR
)
AGE = gauge("esnode_agent_snapshot_age_seconds", "Age of a lane's newest reading.", ("lane",))
SCRAPES = counter("esnode_agent_scrapes_total", "Pages of metrics served.")
CPU = counter("esnode_agent_cpu_seconds_total", "CPU time of the agent.")
RELOADS = counter("esnode_agent_config_reloads_total", "Reloads of the configuration.")
RESIDENT = gauge("esnode_agent_resident_memory_bytes", "Memory of the agent.")
SERIES = gauge("esnode_agent_series", "Series of the last full page.")

Feed = Callable[[], Iterable[tuple[tuple[str | None, ...], float]]]


class Agent(Collector):
    """``feeds`` give what other parts count, as (label values, value) of a metric."""

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
        RESIDENT,
        SERIES,
    )

    def __init__(self, host: Host, config: Config, feeds: Mapping[Metric, Feed]) -> None:
        super().__init__(host, config)
        self.feeds = [(metric, feed, {}) for metric, feed in feeds.items()]

    def bind(self) -> None:
        self.table.set(self.table.add(START_TIME, (), OWNER), time.time())
        self.cpu = self.table.add(CPU)
        # Our own file, in our own /proc: the injected one may be another machine's.
        self.statm = Line(
            self.table,
            "/proc/self/statm",
            (1, self.table.add(RESIDENT), resource.getpagesize()),
        )

    def sample(self, tick: bool) -> None:
        self.table.set(self.cpu, time.process_time())
        self.read(self.statm)
        for metric, feed, slots in self.feeds:
            for labels, value in feed():
                slot = slots.get(labels)
                if slot is None:
                    slot = slots[labels] = self.table.add(metric, labels)
                self.table.set(slot, value)
