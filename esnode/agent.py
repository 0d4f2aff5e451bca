"""The composition root: lanes, store and server put together; start, stop, signals."""

from __future__ import annotations

import asyncio
import gc
import logging
import math
import os
import platform
import resource
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from . import __version__, catalog, logs
from ._fast import values
from ._fast.alarm import Alarm
from ._fast.table import Snapshot
from .collectors import COLLECTORS
from .collectors import agent as own
from .collectors.base import Collector
from .collectors.nvidia.gpus import Gpus
from .config import SECRETS, Config, Settings, parse_address
from .control import hide
from .control.attachment import Control
from .derive import Degradation
from .dialects import TEXT
from .host import Host
from .http import server
from .http.app import Application
from .recent import Recent
from .reload import Reload
from .rounds import Rounds
from .sampler import Lane, Part, Sampler
from .store import Entry, Store
from .tsdb import layout
from .tsdb.export import Export
from .tsdb.recorder import Locked, Recorder
from .tsdb.select import Selection
from .view import Facts, View

if TYPE_CHECKING:
    from .http.watch import Watch

log = logging.getLogger("esnode")

#: The signals that end the agent.
ENDS = (signal.SIGTERM, signal.SIGINT)

#: Says to a new process for which driver it was started, so that it does not start another one.
RESTARTED = "NVIDIA_DRIVER_RESTARTED_FOR"

#: Descriptors that connections and the files of /proc, some 50, should have at least.
OTHERS = 128

#: The lanes that share a thread, in the order in which it reads them.
THREADS = (("host", "mounts"), ("devices",), ("infiniband",), ("sensors",), ("gpu",))


class Agent:
    """One agent, built from its settings; nothing runs before :meth:`run` or :meth:`once`."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.control = Control(settings.config, os.environ)
        config = self.config = self.control.over(settings.config)
        self.host = Host(config.path_procfs, config.path_sysfs, config.path_rootfs)
        self.alarm = Alarm()
        self.store = Store(
            config.scrape_max_age_seconds, config.scrape_wait_seconds, self.alarm.set
        )
        #: The version of the driver for which this process is to be replaced by a new one.
        self.restart_for: str | None = None
        self.loop: asyncio.AbstractEventLoop | None = None
        self.recorder = recorder(config) if config.enable_local_tsdb else None
        self.reload = Reload(settings, self.change)
        #: Held while another configuration is taken, on whatever thread.
        self.changing = threading.Lock()
        self.begun = time.time()
        self.started = False
        #: The collectors that are on, and what those counted that are not any more, or are others.
        self.parts: dict[type[Collector], Part] = {}
        self.errors: dict[type[Collector], int] = {}
        self.lanes: dict[str, Lane] = {}
        self.threads: dict[tuple[str, ...], Sampler] = {}
        interval = config.scrape_interval_seconds
        self.degradation = Degradation(self.host, config)
        self.derived = Lane(Degradation.lane, [self.degradation], interval, derived=True)
        self.view = View(config, self.store, self.degradation, self.facts())
        self.arrange()
        self.rounds = Rounds(list(self.lanes), interval, self.derive, self.answer)
        self.view.ask = self.rounds.ask
        self.control.document = self.view.get
        self.control.changed = lambda: self.change(self.reload.settings.config)
        self.recent = Recent(interval)
        self.recent.ask = self.rounds.ask
        self.application = Application(
            self.store,
            config,
            __version__,
            self.collectors,
            partial(export, self.recorder) if self.recorder else None,
        )
        self.application.document = self.view.get
        self.application.recent = self.recent.get
        streams = self.application.streams
        streams.ask = partial(self.view.get, partial(streams.publish, "status"))
        self.view.publish = streams.publish
        self.view.listened = lambda: streams.listened
        # Read with every page, on the thread that puts it together.
        self.own = Own(own.Agent.lane, [own.Agent(self.host, config, self.own_rows())], 0)
        self.store.own = lambda: self.own.read(True)

    @property
    def samplers(self) -> list[Sampler]:
        """The threads that read."""
        return list(self.threads.values())

    @property
    def enabled(self) -> dict[str, bool]:
        """The collectors, and whether each is on."""
        return {cls.name: bool(getattr(self.config, cls.switch)) for cls in COLLECTORS}

    @property
    def collectors(self) -> dict[str, bool]:
        """These, and those that are always on."""
        return {**self.enabled, Degradation.name: True, own.Agent.name: True}

    @property
    def gpus(self) -> Gpus | None:
        """The collector of NVIDIA's GPUs, where it is on."""
        part = self.parts.get(Gpus)
        return part.collector if part and isinstance(part.collector, Gpus) else None

    def facts(self) -> Facts:
        """What the status tells besides the snapshots."""
        switches = {cls.name: cls.switch for cls in COLLECTORS}
        return Facts(
            __version__,
            {name: (switches[name], enabled) for name, enabled in self.enabled.items()},
            lambda: self.own.read(True),
            self.is_up,
            self.xid_time,
            self.nvml_version,
            self.recorder,
            self.control.block,
        )

    def arrange(self) -> None:
        """Gives each lane the collectors that are on, and each thread its lanes. What is to be as
        it was goes on undisturbed; what hangs is not waited for."""
        interval = self.config.scrape_interval_seconds
        now: dict[str, Lane] = {}
        for name in (name for names in THREADS for name in names):
            if lane := self.lane(name):
                now[name] = lane
        for name, lane in self.lanes.items():
            lane.retired = name not in now
        self.lanes = now
        self.store.arrange([*now.values(), self.derived])
        for names in THREADS:
            lanes = [now[name] for name in names if name in now]
            sampler = self.threads.get(names)
            if sampler is not None:
                sampler.change(lanes, interval)
                if not lanes:
                    del self.threads[names]
            elif lanes:
                sampler = Sampler(lanes, interval, self.store.publish, self.take)
                self.threads[names] = sampler
                if self.started:
                    sampler.start()

    def lane(self, name: str) -> Lane | None:
        """A lane with the collectors that are on; None if there are none."""
        interval = self.config.scrape_interval_seconds
        kinds = [cls for cls in COLLECTORS if cls.lane == name]
        parts = [part for cls in kinds if (part := self.part(cls))]
        if not parts:
            return None
        lane = self.lanes.get(name) or Lane(name, [], interval, kinds)
        lane.interval = interval
        if lane.parts != parts:
            lane.parts = parts
        return lane

    def take(self, lane: str, snapshot: Snapshot) -> None:
        """Takes a lane's snapshot of a tick."""
        if self.recorder:
            self.recorder.add(snapshot)
        self.rounds.add(lane, snapshot)

    def derive(self, snapshots: Mapping[str, Snapshot]) -> None:
        """What follows from the snapshots of a tick: the rows that are derived, the status."""
        self.degradation.inputs = snapshots
        derived = self.derived.read(True)
        self.store.publish(self.derived.name, derived)
        if self.recorder:
            self.recorder.add(derived)
            self.recorder.add(self.own.read(True))
        self.view.tick({**snapshots, self.derived.name: derived})
        if self.recent.is_due(derived.unix_ms):
            self.recent.add(self.view.point())
        self.recent.answer()

    def answer(self) -> None:
        """Somebody waits for the status, or for the last 15 minutes."""
        self.view.answer()
        self.recent.answer()

    def is_up(self, name: str) -> bool:
        """Whether a collector is up, as its row says."""
        pairs = [
            (part, entry)
            for entry in self.store.lanes.values()
            for part in entry.lane.parts
            if part.name == name
        ]
        return up([part for part, _ in pairs], [entry for _, entry in pairs])

    def xid_time(self, uuid: str, code: int) -> float | None:
        """When a GPU had an Xid the last time, in Unix seconds; None when that is not known."""
        gpus = self.gpus
        if gpus is not None and gpus.events is not None:
            for event in reversed(gpus.events.journal.events):
                if (event.kind, event.uuid, event.code) == ("xid", uuid, code):
                    return event.time
        return None

    def nvml_version(self) -> str | None:
        """The version of NVIDIA's library; None when that is not known."""
        gpus = self.gpus
        return gpus.driver.library if gpus is not None and gpus.is_open else None

    def read(self) -> None:
        """One tick, on this thread."""
        for sampler in self.samplers:
            sampler.read(True)
        self.rounds.close()

    def part(self, cls: type[Collector]) -> Part | None:
        """A collector, if it is on: the one that there is, unless it was made with other keys."""
        config = self.config
        part = self.parts.get(cls)
        if part is not None:
            known = part.collector.config
            on = bool(getattr(config, cls.switch))
            if on and all(getattr(known, key) == getattr(config, key) for key in cls.keys):
                part.collector.config = config
                return part
            self.errors[cls] = part.errors
            del self.parts[cls]
        if not getattr(config, cls.switch):
            return None
        self.parts[cls] = Part(self.collector(cls), self.errors.get(cls, 0))
        return self.parts[cls]

    def collector(self, cls: type[Collector]) -> Collector:
        collector = cls(self.host, self.config)
        if isinstance(collector, Gpus):
            collector.restart = self.restart
            collector.heard = self.view.tell
        return collector

    def change(self, config: Config) -> None:
        """Takes another configuration, in which what a controller has decided counts more."""
        self.control.configure(config)
        with self.changing:
            self.adopt(self.control.over(config))

    def adopt(self, config: Config) -> None:
        """Goes on with another configuration; of the keys that count from the start on it has what
        was."""
        before, self.config = self.config, config
        if (before.log_level, before.log_format) != (config.log_level, config.log_format):
            logs.setup(config.log_level, config.log_format)
        self.store.max_age = config.scrape_max_age_seconds
        self.store.wait = config.scrape_wait_seconds
        self.degradation.configure(config)
        self.derived.interval = config.scrape_interval_seconds
        self.rounds.pace(config.scrape_interval_seconds)
        self.recent.pace(config.scrape_interval_seconds)
        self.view.config = config
        self.view.facts = self.facts()
        if self.recorder:
            self.recorder.retention = config.local_tsdb_retention_hours * 3600
            self.recorder.budget = config.local_tsdb_max_disk_mb << 20
        self.arrange()
        self.own.replace(own.Agent(self.host, config, self.own_rows()))
        self.application.configure(config, self.collectors)
        if self.loop is not None:
            self.loop.call_soon_threadsafe(self.take_signals)

    def own_rows(self) -> Iterator[own.Row]:
        """What the agent says of itself."""
        row = own.Row
        yield row(own.START_TIME, (), self.begun)
        yield row(own.BUILD_INFO, (__version__, None, platform.python_version()), 1)
        for name, enabled in self.enabled.items():
            yield row(own.DISABLED, (name,), not enabled)
        parts: dict[str, list[Part]] = {}
        entries: dict[str, list[Entry]] = {}
        for name, entry in self.store.lanes.items():
            yield row(own.AGE, (name,), age(entry))
            for part in entry.lane.parts:
                parts.setdefault(part.name, []).append(part)
                entries.setdefault(part.name, []).append(entry)
        for name, group in parts.items():
            yield row(own.DURATION, (name,), over(group, "seconds", sum))
            yield row(own.ERRORS, (name,), over(group, "errors", sum))
            yield row(own.UP, (name,), partial(up, group, entries[name]))
        yield row(own.SCRAPES, (), lambda: self.application.scrapes)
        yield row(own.RELOADS, (), lambda: self.reload.count)
        yield row(own.RELOADED, (), lambda: self.reload.good)
        yield row(own.SERIES, (), lambda: self.store.series)
        if history := self.recorder:
            yield row(own.TSDB_SAMPLES, (), lambda: history.samples)
            yield row(own.TSDB_DROPPED, (), lambda: history.dropped)
            yield row(own.TSDB_ERRORS, (), lambda: history.errors)
            yield row(own.TSDB_BYTES, (), lambda: history.bytes)
            yield row(own.TSDB_BLOCKS, (), lambda: history.blocks)
            yield row(own.TSDB_FLUSH, (), lambda: history.seconds)
            yield row(own.TSDB_OLDEST, (), lambda: history.oldest)

    def once(self) -> bytes:
        """One page, after two readings: what is a rate needs a second one."""
        raise_descriptor_limit()
        for tick in range(2):
            if tick:
                time.sleep(min(self.config.scrape_interval_seconds, 1.0))
            self.read()
        page = self.store.page(TEXT).body
        self.stop_collectors()
        return page

    def run(self) -> int:
        """Collects and serves until a signal says stop; the exit code."""
        raise_descriptor_limit()
        host, port = parse_address(self.config.listen_address)
        watch = None
        if self.config.web_config_file:
            from .http.watch import Watch  # with a megabyte of what only it needs

            watch = Watch(self.config.web_config_file)
        try:
            listener = server.listen(host, port, int(self.config.listen_socket_mode, 8))
        except server.AddressError as error:
            log.error("%s", error)
            return 1
        for warning in self.settings.warnings:
            log.warning("%s", warning)
        for name in SECRETS:
            if self.settings.origins.get(name, "").startswith("--"):
                hide(self.settings.value(name) or "")
        if self.recorder:
            try:
                self.recorder.start()
            except Locked as error:
                log.error("%s", error)
                listener.close()
                return 1
        gc.collect()
        gc.freeze()  # what is here now stays: no later collection need look at it
        asyncio.run(self.serve(listener, watch))
        self.reload.stop()
        self.control.stop()
        for sampler in self.samplers:
            sampler.stop(timeout=0.2)
        self.rounds.stop(timeout=0.2)
        self.stop_collectors()
        if self.recorder:
            self.recorder.stop()
        if self.restart_for is not None:
            log.info("starts anew, with the library of driver %s", self.restart_for)
            os.environ[RESTARTED] = self.restart_for
            os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
        log.info("stopped")
        return 0

    def stop_collectors(self) -> None:
        """Has the collectors keep what they keep."""
        for entry in self.store.lanes.values():
            for part in entry.lane.parts:
                part.collector.stop()

    def restart(self, version: str) -> None:
        """Asks for a new process, for another version of the driver; once for each version."""
        if os.environ.get(RESTARTED) != version and self.restart_for is None:
            self.restart_for = version
            os.kill(os.getpid(), signal.SIGTERM)

    async def serve(self, listener: socket.socket, watch: Watch | None) -> None:
        """Collects and serves until a signal says stop."""
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()

        def end(*_: object) -> None:
            for number in ENDS:  # once is enough; the loop's own handlers would let go at its end
                signal.signal(number, signal.SIG_IGN)
            loop.call_soon_threadsafe(stop.set)

        for number in ENDS:
            signal.signal(number, end)
        self.take_signals()
        if self.recorder:
            # Where nobody handles it, it does no harm: an agent that is starting, or keeps none.
            flush = partial(loop.call_soon_threadsafe, self.recorder.request)
            signal.signal(signal.SIGWINCH, lambda *_: flush())
        self.rounds.start()
        self.started = True
        for sampler in self.samplers:  # which may ask for a new process, by a signal
            sampler.start()
        self.loop = loop
        self.reload.start()
        self.control.start()
        signal.signal(signal.SIGHUP, lambda *_: self.reload.ask())
        loop.add_reader(self.alarm.fileno(), self.ring)
        log.info("version %s listens on %s", __version__, self.config.listen_address)
        await server.serve(self.application, listener, stop, watch)

    def take_signals(self) -> None:
        """Handles the signals that are for the GPUs' collector, where there is one."""
        gpus = self.gpus
        if gpus is not None:
            signal.signal(signal.SIGUSR1, partial(self.ask, gpus.release))
            signal.signal(signal.SIGUSR2, partial(self.ask, gpus.resume))
        else:
            for number in (signal.SIGUSR1, signal.SIGUSR2):
                signal.signal(number, signal.SIG_IGN)

    def ask(self, act: Callable[[], None], *_: object) -> None:
        """Does what a signal asks for, and has the GPUs' lane see to it now."""
        act()
        if entry := self.store.lanes.get(Gpus.lane):
            entry.lane.request()

    def ring(self) -> None:
        """The alarm has rung: some scrape has waited long enough."""
        self.alarm.clear()
        self.store.expire()


class Own(Lane):
    """The agent's own lane, which every page reads, and each tick for the history."""

    def __init__(self, name: str, collectors: Sequence[Collector], interval: float) -> None:
        super().__init__(name, collectors, interval)
        self._lock = threading.RLock()

    def start(self, tick: bool) -> None:
        with self._lock:
            super().start(tick)

    def replace(self, collector: Collector) -> None:
        """Puts another one in the place of its collector."""
        with self._lock:
            self.parts = [Part(collector)]
            self.follow()

    def read(self, tick: bool) -> Snapshot:
        with self._lock:
            return super().read(tick)


def export(recorder: Recorder, selection: Selection, form: str, eof: bool) -> Export:
    """What is recorded, with what is not written yet."""
    metrics = {metric.name: metric for _, _, metric in catalog.metrics()}
    return Export(
        recorder.path, selection, form, metrics, recorder.pending(), eof, recorder.damaged
    )


def recorder(config: Config) -> Recorder:
    """What keeps the local history."""
    return Recorder(
        layout.directory(config.local_tsdb_path, os.environ),
        retention=config.local_tsdb_retention_hours * 3600,
        budget=config.local_tsdb_max_disk_mb << 20,
    )


def over(
    parts: list[Part], name: str, combine: Callable[[list[float]], float]
) -> Callable[[], float]:
    """An attribute of a collector's parts; most have only one."""
    if len(parts) == 1:
        return partial(getattr, parts[0], name)
    return lambda: combine([getattr(part, name) for part in parts])


def up(parts: list[Part], entries: Collection[Entry] = ()) -> bool:
    """Whether a collector could read its sources: those that are on this machine, at least one;
    and whether its lanes are still heard of."""
    now = time.monotonic()
    return (
        any(part.up for part in parts)
        and all(part.up or part.absent for part in parts)
        and not any(entry.missing(now) for entry in entries)
    )


def age(entry: Entry) -> Callable[[], float]:
    """The age of a lane's newest snapshot; NaN before the first."""
    return lambda: math.nan if entry.snapshot is None else entry.age(time.monotonic())


def raise_descriptor_limit() -> None:
    """Raises the soft limit of descriptors to the hard one: readers keep their files open.

    The files of devices, of which there may be thousands, get half of them. Where the other half
    would be few for connections and other files, none.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft = hard
    except (OSError, ValueError) as error:
        log.warning("the limit of descriptors stays as it is: %s", error)
    if soft != resource.RLIM_INFINITY:
        half = min(soft // 2, 1 << 30)
        values.limit(half if half >= OTHERS else 0)
