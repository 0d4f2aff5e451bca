"""The composition root: lanes, store and server put together; start, stop, signals."""

from __future__ import annotations

import asyncio
import logging
import platform
import resource
import signal
import sys
import time
from collections.abc import Iterable

from ._fast.table import Snapshot
from .collectors import COLLECTORS
from .collectors import agent as own
from .config import Config, Settings, parse_address
from .dialects import TEXT
from .host import Host
from .http import server
from .http.app import Application
from .sampler import Part, Sampler
from .store import Store
from .version import version

log = logging.getLogger("esnode")

Row = tuple[tuple[str | None, ...], float]


class Agent:
    """One agent, built from its settings; nothing runs before :meth:`run` or :meth:`once`."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        config = self.config = settings.config
        self.host = Host(config.path_procfs, config.path_sysfs, config.path_rootfs)
        self.store = Store(config.scrape_max_age_seconds, config.scrape_wait_seconds)
        self.enabled = {cls.name: bool(getattr(config, cls.switch)) for cls in COLLECTORS}
        for lane in dict.fromkeys(cls.lane for cls in COLLECTORS if self.enabled[cls.name]):
            collectors = [
                cls(self.host, config)
                for cls in COLLECTORS
                if cls.lane == lane and self.enabled[cls.name]
            ]
            self.store.add(
                Sampler(lane, collectors, config.scrape_interval_seconds, self.store.publish)
            )
        self.application = Application(
            self.store, config, version(), {**self.enabled, own.Agent.name: True}
        )
        agent = own.Agent(
            self.host,
            config,
            {
                own.BUILD_INFO: lambda: [((version(), None, platform.python_version()), 1)],
                own.DURATION: lambda: self.by_collector("seconds"),
                own.ERRORS: lambda: self.by_collector("errors"),
                own.UP: self.up,
                own.DISABLED: lambda: [((n,), not on) for n, on in self.enabled.items()],
                own.AGE: self.ages,
                own.SCRAPES: lambda: [((), self.application.scrapes)],
                own.RELOADS: lambda: [((), 0)],
                own.SERIES: lambda: [((), self.store.series)],
            },
        )
        self.own = Sampler(own.Agent.lane, [agent], config.scrape_interval_seconds, lambda *_: None)
        self.store.own = lambda: self.own.read(True)

    @property
    def samplers(self) -> list[Sampler]:
        return [lane.sampler for lane in self.store.lanes.values()]

    def parts(self) -> Iterable[Part]:
        """Every collector, the agent's own included."""
        for sampler in (*self.samplers, self.own):
            yield from sampler.parts

    def by_collector(self, what: str) -> list[Row]:
        """A figure summed over the parts of each collector."""
        sums: dict[str, float] = {}
        for part in self.parts():
            sums[part.name] = sums.get(part.name, 0) + getattr(part, what)
        return [((name,), value) for name, value in sums.items()]

    def up(self) -> list[Row]:
        """Whether all parts of each collector are up."""
        state: dict[str, bool] = {}
        for part in self.parts():
            state[part.name] = state.get(part.name, True) and part.up
        return [((name,), value) for name, value in state.items()]

    def ages(self) -> list[Row]:
        now = time.monotonic()
        return [
            ((name,), age)
            for name, lane in self.store.lanes.items()
            if (age := lane.age(now)) is not None
        ]

    def once(self) -> bytes:
        """One page, after two readings: what is a rate needs a second one."""
        for tick in range(2):
            if tick:
                time.sleep(min(self.config.scrape_interval_seconds, 1.0))
            for sampler in self.samplers:
                self.store.publish(sampler.name, sampler.read(True))
        return self.store.page(TEXT).body

    def run(self) -> int:
        """Collects and serves until a signal says stop; the exit code."""
        raise_descriptor_limit()
        host, port = parse_address(self.config.listen_address)
        try:
            address = server.resolve(host, port)
        except server.AddressError as error:
            log.error("%s", error)
            return 1
        for warning in self.settings.warnings:
            log.warning("%s", warning)
        for sampler in self.samplers:
            sampler.start()
        asyncio.run(self.serve(address, port))
        for sampler in self.samplers:
            sampler.stop(timeout=0.2)
        log.info("stopped")
        return 0

    async def serve(self, address: str, port: int) -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        # Until a reload exists, a hangup must not end the agent.
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        log.info("version %s listens on %s", version(), self.config.listen_address)
        await server.serve(self.application, address, port, stop)


def raise_descriptor_limit() -> None:
    """Raises the soft limit of descriptors to the hard one: readers keep their files open."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError) as error:
        log.warning("the limit of descriptors stays as it is: %s", error)
