"""The document of /status, made of one tick's snapshots and the one before it, and kept encoded.

Nothing is read here, and nothing is built on a request's thread.
"""

from __future__ import annotations

import logging
import math
import platform
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol, TypeVar

import msgspec

from . import status
from ._fast.table import Layout, Snapshot
from .config import Config
from .derive import Degradation, Flag
from .recent import Point
from .sampler import Part
from .store import Store
from .xids import ACTIONS, XIDS

log = logging.getLogger(__name__)

#: Failures that are shown.
NEWEST = 10

_PARTITION = re.compile(r"(.*\d)p\d+|([a-z]+)\d+")

T = TypeVar("T")
Labels = tuple[str | None, ...]
#: Labels of a family's rows, and where these are in the snapshot.
Family = dict[Labels, int]


class History(Protocol):
    """What the local history tells of itself."""

    path: Any
    blocks: float
    bytes: float
    oldest: float
    errors: int


class Indexes:
    """Where the rows of a layout are, by family; layouts are shared by snapshots until they
    change."""

    def __init__(self) -> None:
        #: The last two layouts of each lane: a tick and the one before it may differ.
        self._known: dict[str, list[tuple[Layout, dict[str, Family]]]] = {}

    def of(self, lane: str, layout: Layout) -> dict[str, Family]:
        """The families of a lane's layout."""
        known = self._known.setdefault(lane, [])
        for each, families in known:
            if each is layout:
                return families
        families = {
            metric.name: {layout.rows[row][1]: row for row in range(first, end)}
            for metric, _, first, end in layout.families
        }
        known[:] = [*known[-1:], (layout, families)]
        return families


class Tick:
    """A tick's rows by family and labels; absent is None."""

    def __init__(self, snapshots: Mapping[str, Snapshot], indexes: Indexes) -> None:
        self.snapshots = snapshots
        self._homes: dict[str, tuple[Snapshot, Family]] = {}
        for lane, snapshot in snapshots.items():
            for name, family in indexes.of(lane, snapshot.layout).items():
                self._homes[name] = snapshot, family

    def get(self, name: str, *labels: str | None) -> float | None:
        """The value of a row."""
        snapshot, family = self._homes.get(name, NOWHERE)
        row = family.get(labels)
        if snapshot is None or row is None:
            return None
        value = snapshot[row]
        return None if value != value else value

    def keys(self, name: str) -> Iterable[Labels]:
        """The labels of a family's rows, also of those that have no value now."""
        return self._homes.get(name, NOWHERE)[1]

    def rows(self, name: str) -> Iterator[tuple[Labels, float]]:
        """Labels and values of the rows that have one."""
        snapshot, family = self._homes.get(name, NOWHERE)
        if snapshot is not None:
            for labels, row in family.items():
                value = snapshot[row]
                if value == value:
                    yield labels, value

    def time(self, name: str) -> float:
        """When the lane of a family was read, in monotonic seconds; NaN when it was not."""
        snapshot, _ = self._homes.get(name, NOWHERE)
        return math.nan if snapshot is None else snapshot.monotonic


NOWHERE: tuple[None, Family] = (None, {})


class Pair:
    """A tick, and the one before it for what is a rate."""

    def __init__(self, now: Tick, before: Tick) -> None:
        self.now = now
        self.before = before

    def rate(self, name: str, *labels: str | None) -> float | None:
        """How fast a counter rose, a second; None where it was reset or not read twice."""
        value, old = self.now.get(name, *labels), self.before.get(name, *labels)
        seconds = self.now.time(name) - self.before.time(name)
        if value is None or old is None or value < old or not seconds > 0:
            return None
        return (value - old) / seconds


STANDALONE = status.Managed(None, None, None, None, None)


class Facts(NamedTuple):
    """What is known besides the snapshots. ``own`` reads the agent's own rows; ``up`` says whether
    a collector is; ``xid_time`` when a GPU had an Xid the last time, in Unix seconds; ``managed``
    by whom the node is managed."""

    version: str
    #: Collectors by name, with the key that turns each on and whether it does.
    collectors: Mapping[str, tuple[str, bool]]
    own: Callable[[], Snapshot]
    up: Callable[[str], bool]
    xid_time: Callable[[str, int], float | None]
    nvml_version: Callable[[], str | None]
    history: History | None = None
    managed: Callable[[], status.Managed] = lambda: STANDALONE


def explained(code: int) -> tuple[str | None, str | None]:
    """What an Xid means and what to do; None for one that is not in the catalogue."""
    known = XIDS.get(code)
    return (known.meaning, ACTIONS[known.action]) if known else (None, None)


class View:
    """Keeps the document while somebody asks for it. ``get`` may be called from any thread,
    everything else from the thread that closes rounds.

    ``ask`` has :meth:`answer` called. ``listened`` says whether the document of each tick is wanted
    by ``publish`` anyway; that is given each document, and each change of a flag.
    """

    def __init__(
        self, config: Config, store: Store, degradation: Degradation, facts: Facts
    ) -> None:
        self.config = config
        self.store = store
        self.degradation = degradation
        self.facts = facts
        self.publish: Callable[[str, bytes], None] = lambda kind, data: None
        self.listened: Callable[[], bool] = lambda: False
        self.ask: Callable[[], None] = lambda: None
        self.started = time.monotonic()
        self.document: bytes | None = None
        self._indexes = Indexes()
        self._snapshots: tuple[Mapping[str, Snapshot], ...] = ()
        #: CPU time of the agent at the last two ticks, with the moment: both in seconds.
        self._cpu: tuple[tuple[float, float], ...] = ()
        self._xid_times: dict[tuple[str, float], tuple[float | None, float | None]] = {}
        #: The PCI addresses of GPUs by their UUIDs, as the document has them.
        self._places: dict[str | None, str | None] = {}
        self._layout: Layout | None = None
        self._asked = False
        #: Who waits for the document: what is called with it, or when it cannot be made.
        self._waiting: list[tuple[Callable[[bytes], None], Callable[[], None]]] = []
        #: Why it could not be made the last time.
        self._fault = ""
        self._lock = threading.Lock()

    def get(self, answer: Callable[[bytes], None], fail: Callable[[], None] = lambda: None) -> None:
        """Calls ``answer`` with the document of the newest tick: now, or as soon as there is one,
        on another thread; ``fail`` when it cannot be made."""
        self._asked = True
        document = self.document
        if document is None:
            with self._lock:  # it is given to all who wait after it has been kept
                self._waiting.append((answer, fail))
            self.ask()
            return
        answer(document)

    def tick(self, snapshots: Mapping[str, Snapshot]) -> None:
        """Takes a tick's snapshots."""
        self._snapshots = (*self._snapshots[-1:], snapshots)
        self._cpu = (*self._cpu[-1:], (time.monotonic(), time.process_time()))
        self.locate(snapshots.get("gpu"))
        for change in self.degradation.changes:
            self.publish("degradation", self.event(change))
        listened = self.listened()
        is_wanted, self._asked = self._asked or listened, False
        with self._lock:
            self.document = None
        if is_wanted or self._waiting:
            document = self.answer()
            if listened and document is not None:
                self.publish("status", document)

    def answer(self) -> bytes | None:
        """Makes the document, unless it is made, and gives it to those who wait for it; None before
        the first tick, and when it cannot be made."""
        if not self._snapshots:
            return None
        document = self.document
        if document is None:
            try:
                document = encoded(self.build())
                self._fault = ""
            except Exception as error:  # who waits is told, and the log once
                if repr(error) != self._fault:
                    log.exception("the status cannot be made")
                self._fault = repr(error)
        with self._lock:
            self.document = document
            waiting, self._waiting = self._waiting, []
        for answer, fail in waiting:
            try:
                fail() if document is None else answer(document)
            except Exception:  # the others wait, too
                log.exception("a request failed")
        return document

    def event(self, change: Any) -> bytes:
        """A change of a flag as the data of an event."""
        return ENCODER.encode(
            {
                "unix_ms": int(time.time() * 1000),
                "flag": change.name,
                "labels": change.labels,
                "degraded": change.degraded,
                "reason": change.reason,
                "score": self.degradation.score,
            }
        )

    def locate(self, gpus: Snapshot | None) -> None:
        """Keeps where GPUs are on the bus; those that have gone stay, for what is told of them."""
        if gpus is None or gpus.layout is self._layout:
            return
        self._layout = gpus.layout
        place = 2 + IDENTITY.index("pci_bus_id")
        for metric, labels in gpus.layout.rows:
            if metric.name == INFO:
                self._places[labels[1]] = labels[place]

    def tell(self, event: Any, gpu: int | None) -> None:
        """Publishes what has happened to a GPU, or a switch; any thread may call it."""
        meaning, action = explained(event.code) if event.kind == "xid" else (None, None)
        self.publish(
            "gpu",
            ENCODER.encode(
                {
                    "unix_ms": int(event.time * 1000),
                    "kind": event.kind,
                    "gpu": None if gpu is None else str(gpu),
                    "uuid": event.uuid,
                    # As the document writes it, or as the kernel does, without the function.
                    "pci_bus_id": self._places.get(event.uuid) or event.pci,
                    "code": event.code,
                    "meaning": meaning,
                    "action": action,
                    "text": event.text or None,
                    "source": event.source,
                }
            ),
        )

    # The document, part by part.

    def build(self) -> status.Status:
        """The document of the newest tick."""
        snapshots = {**self._snapshots[-1], "agent": self.facts.own()}
        pair = self.pair(snapshots)
        now = pair.now
        get = now.get
        info = next((labels for labels, _ in now.rows("esnode_node_info")), (None, None))
        boot, clock = get("esnode_node_boot_time_seconds"), get("esnode_node_time_seconds")
        interfaces = list(interfaces_of(pair))
        nic = primary(now)
        of_nic = [each for each in interfaces if each.iface == nic]
        root = next(
            (key for key in now.keys("esnode_disk_total_bytes") if key[0] == "/"), (None,) * 3
        )
        stamps = self.stamps(snapshots)
        flags = self.degradation.flags
        config = self.config
        managed = self.facts.managed()
        return status.Status(
            schema_version=status.VERSION,
            agent=self.agent(now),
            hostname=info[0],
            kernel=info[1],
            mode="managed" if managed.server is not None else "standalone",
            healthy="host" in snapshots or "host" not in self.store.lanes,
            load_avg_1m=get("esnode_cpu_load_avg_1m"),
            load_avg_5m=get("esnode_cpu_load_avg_5m"),
            load_avg_15m=get("esnode_cpu_load_avg_15m"),
            uptime_seconds=None if boot is None or clock is None else round(clock - boot, 3),
            last_scrape_unix_ms=max(stamps, default=None),
            last_errors=self.failures(),
            cpu_cores=whole(get("esnode_cpu_cores")),
            cpu_util_percent=usage(now),
            mem_total_bytes=whole(get("esnode_memory_total_bytes")),
            mem_used_bytes=whole(get("esnode_memory_used_bytes")),
            mem_free_bytes=whole(get("esnode_memory_free_bytes")),
            mem_available_bytes=whole(get("esnode_memory_available_bytes")),
            swap_total_bytes=whole(get("esnode_swap_total_bytes")),
            swap_used_bytes=whole(get("esnode_swap_used_bytes")),
            disk_root_total_bytes=whole(get("esnode_disk_total_bytes", *root)),
            disk_root_used_bytes=whole(get("esnode_disk_used_bytes", *root)),
            disk_read_bytes_per_sec=in_all(pair, "esnode_disk_read_bytes_total", is_own),
            disk_written_bytes_per_sec=in_all(pair, "esnode_disk_written_bytes_total", is_own),
            disks=self.listed(now, "disk", disks_of(pair)),
            primary_nic=nic,
            net_rx_bytes_per_sec=next((each.rx_bytes_per_sec for each in of_nic), None),
            net_tx_bytes_per_sec=next((each.tx_bytes_per_sec for each in of_nic), None),
            net_drops_per_sec=next((each.drops_per_sec for each in of_nic), None),
            interfaces=self.listed(now, "network", interfaces),
            infiniband_rx_bytes_per_sec=in_all(pair, "esnode_infiniband_rx_bytes_total"),
            infiniband_tx_bytes_per_sec=in_all(pair, "esnode_infiniband_tx_bytes_total"),
            infiniband=self.listed(now, "infiniband", ports_of(pair)),
            node_power_watts=get("esnode_node_power_watts"),
            cpu_package_power_watts=self.listed(
                now,
                "power",
                (
                    status.PackagePower(package, watts)
                    for (package,), watts in now.rows("esnode_cpu_package_power_watts")
                ),
            ),
            cpu_temperatures=self.listed(
                now,
                "hwmon",
                (
                    status.CpuTemperature(sensor, celsius, package)
                    for (package, sensor), celsius in now.rows("esnode_cpu_temperature_celsius")
                ),
            ),
            app_tokens_per_sec=None,
            app_tokens_per_watt=None,
            disk_degraded=degraded(flags, "esnode_disk_"),
            network_degraded=degraded(flags, "esnode_network_"),
            swap_degraded=degraded(flags, "esnode_swap_"),
            gpu_degraded=degraded(flags, "esnode_gpu_"),
            degradation_score=self.degradation.score,
            degradation_reasons=[flag.reason for flag in flags if flag.reason],
            tsdb=self.tsdb(),
            managed=managed,
            orchestrator=status.Orchestrator(
                config.orchestrator.enabled,
                not config.orchestrator.allow_public,
                config.orchestrator.token is not None,
            ),
            gpus=self.gpus(pair),
        )

    def pair(self, snapshots: Mapping[str, Snapshot]) -> Pair:
        """The newest tick's snapshots with those of the tick before."""
        before = self._snapshots[0] if len(self._snapshots) > 1 else {}
        return Pair(Tick(snapshots, self._indexes), Tick(before, self._indexes))

    def point(self) -> Point:
        """What is kept of the newest tick for the charts of the page."""
        snapshots = self._snapshots[-1]
        pair = self.pair(snapshots)
        now = pair.now
        nic = primary(now)
        node = {
            "cpu_util_percent": usage(now),
            "mem_used_bytes": now.get("esnode_memory_used_bytes"),
            "disk_read_bytes_per_sec": in_all(pair, "esnode_disk_read_bytes_total", is_own),
            "disk_written_bytes_per_sec": in_all(pair, "esnode_disk_written_bytes_total", is_own),
            "net_rx_bytes_per_sec": pair.rate("esnode_network_rx_bytes_total", nic),
            "net_tx_bytes_per_sec": pair.rate("esnode_network_tx_bytes_total", nic),
            "infiniband_rx_bytes_per_sec": in_all(pair, "esnode_infiniband_rx_bytes_total"),
            "infiniband_tx_bytes_per_sec": in_all(pair, "esnode_infiniband_tx_bytes_total"),
            "node_power_watts": now.get("esnode_node_power_watts"),
        }
        gpus = {
            (key[0] or "", key[1]): {
                "util_percent": now.get("esnode_gpu_utilization_percent", *key),
                "memory_used_bytes": now.get("esnode_gpu_memory_used_bytes", *key),
                "power_watts": now.get("esnode_gpu_power_watts", *key),
                "temperature_celsius": now.get("esnode_gpu_temperature_celsius", *key),
            }
            for key in now.keys("esnode_gpu_up")
        }
        return Point(max(self.stamps(snapshots), default=0), node, gpus)

    def stamps(self, snapshots: Mapping[str, Snapshot]) -> list[int]:
        """When the lanes were read, in Unix milliseconds."""
        return [each.unix_ms for lane, each in snapshots.items() if lane in self.store.lanes]

    def listed(self, now: Tick, collector: str, found: Iterable[T]) -> list[T] | None:
        """What a collector has found; None rather than nothing unless it could look."""
        items = list(found)
        lanes = [
            lane
            for lane, entry in self.store.lanes.items()
            if any(part.name == collector for part in entry.lane.parts)
        ]
        if not lanes:  # it is turned off
            return None
        could = all(lane in now.snapshots for lane in lanes) and self.facts.up(collector)
        return items if items or could else None

    def agent(self, now: Tick) -> status.Agent:
        percent = None
        if len(self._cpu) > 1:
            (start, spent), (end, more) = self._cpu
            percent = round(100 * (more - spent) / (end - start), 3) if end > start else None
        parts: dict[str, list[Part]] = {}
        for entry in self.store.lanes.values():
            for part in entry.lane.parts:
                parts.setdefault(part.name, []).append(part)
        collectors = []
        for name, (switch, enabled) in self.facts.collectors.items():
            if not enabled:
                collectors.append(status.Collector(name, False, None, f"{switch} is false"))
                continue
            up = self.facts.up(name)
            reason = None if up else self.why(parts.get(name, []))
            collectors.append(status.Collector(name, True, up, reason))
        return status.Agent(
            version=self.facts.version,
            commit=None,
            python=platform.python_version(),
            uptime_seconds=round(time.monotonic() - self.started, 3),
            cpu_percent=percent,
            resident_bytes=whole(now.get("esnode_agent_resident_memory_bytes")),
            collectors=collectors,
        )

    def why(self, parts: list[Part]) -> str:
        """Why a collector is not up: what has failed, else what is not there."""
        for part in sorted((part for part in parts if not part.up), key=lambda part: part.absent):
            if part.reason:
                return part.reason
        now = time.monotonic()
        for entry in self.store.lanes.values():
            if any(part in entry.lane.parts for part in parts) and entry.missing(now):
                age = entry.age(now)
                since = "yet" if math.isinf(age) else f"for {age:.0f} s"
                return f"the lane {entry.lane.name} has not been read {since}"
        return "it has not been read yet"

    def failures(self) -> list[status.Failure]:
        found = [
            status.Failure(part.name, message, int(when * 1000))
            for entry in self.store.lanes.values()
            for part in entry.lane.parts
            for message, when in list(part.failures.items())
        ]
        return sorted(found, key=lambda each: -each.unix_ms)[:NEWEST]

    def tsdb(self) -> status.Tsdb:
        history = self.facts.history
        if history is None:
            return status.Tsdb(False, self.config.local_tsdb_path, None, None, None, None)
        return status.Tsdb(
            True,
            str(history.path),
            whole(history.blocks),
            whole(history.bytes),
            milliseconds(history.oldest),
            history.errors,
        )

    def gpus(self, pair: Pair) -> list[status.Gpu] | None:
        """None where GPUs are not collected, or their lane is not heard of."""
        if not self.config.enable_gpu or "gpu" not in pair.now.snapshots:
            return None
        families = {
            name: grouped(pair.now, name)
            for name in (INFO, REASON, LINK_UP, LINK_ERRORS, FAN, ACTION, MIG_INFO, PROCESS)
        }
        keys = sorted(pair.now.keys("esnode_gpu_up"), key=lambda key: int(key[0] or 0))
        # There may be some of which the driver does not tell, or is not asked for the moment.
        unseen = ("esnode_gpu_pci_devices", "esnode_gpu_driver_released")
        if not keys and any(pair.now.get(name) for name in unseen):
            return None
        return [
            self.gpu(pair, key, {name: rows.get(key, []) for name, rows in families.items()})
            for key in keys
        ]

    def gpu(self, pair: Pair, key: Labels, rows: Mapping[str, list[Row]]) -> status.Gpu:
        """A GPU by its two labels; ``rows`` are those of families with more labels."""
        now = pair.now

        def get(name: str, *labels: str) -> float | None:
            return now.get(f"esnode_gpu_{name}", *key, *labels)

        what = dict(zip(IDENTITY, rows[INFO][0][0], strict=True)) if rows[INFO] else {}
        up = flag(get("up"))
        # What a GPU has not told in two ticks it does not have.
        settled = up is True and pair.before.get("esnode_gpu_up", *key) == 1
        mig_mode = get("mode", "mig")
        has_mig = has(mig_mode is not None, settled)
        has_gpm = has(key in now.keys("esnode_gpu_sm_active_ratio"), settled)
        has_links = has(bool(rows[LINK_UP]), settled)
        reasons = [labels[0] or "" for labels, value in rows[REASON] if value == 1]
        told = {labels[0] for labels, value in rows[REASON] if value is not None}
        fans = [value for _, value in rows[FAN] if value is not None]
        sm, memory_clock = get("clock_hertz", "sm"), get("clock_hertz", "memory")
        return status.Gpu(
            gpu=key[0] or "",
            uuid=key[1],
            name=what.get("name"),
            vendor="Nvidia",
            up=up,
            stuck=flag(get("stuck")),
            last_success_unix_ms=milliseconds(get("last_success_timestamp_seconds")),
            capabilities=status.Capabilities(has_mig, has_links, has_gpm),
            identity=status.Identity(
                pci_bus_id=what.get("pci_bus_id"),
                driver_version=what.get("driver_version"),
                nvml_version=self.facts.nvml_version(),
                cuda_driver_version=what.get("cuda_version"),
                serial=what.get("serial"),
                vbios=what.get("vbios"),
                numa_node=integer(what.get("numa_node")),
                compute_capability=what.get("compute_capability"),
            ),
            topo=status.Topology(
                pci_link_gen=whole(get("pcie_link_generation", "current")),
                pci_link_width=whole(get("pcie_link_width", "current")),
                pci_link_gen_max=whole(get("pcie_link_generation", "max")),
                pci_link_width_max=whole(get("pcie_link_width", "max")),
            ),
            util_percent=get("utilization_percent"),
            memory_util_percent=get("memory_utilization_percent"),
            memory_total_bytes=whole(get("memory_total_bytes")),
            memory_used_bytes=whole(get("memory_used_bytes")),
            temperature_celsius=get("temperature_celsius"),
            memory_temperature_celsius=get("memory_temperature_celsius"),
            power_watts=get("power_watts"),
            power_limit_watts=get("power_limit_watts", "enforced"),
            energy_joules=get("energy_joules_total"),
            fan_percent=max(fans, default=None),
            clock_sm_mhz=None if sm is None else sm / 1e6,
            clock_mem_mhz=None if memory_clock is None else memory_clock / 1e6,
            thermal_throttle=any_of(reasons, told, THERMAL),
            power_throttle=any_of(reasons, told, POWER),
            health=status.Health(
                pstate=whole(get("pstate")),
                throttle_reasons=reasons if told else None,
                ecc_mode=flag(get("ecc_mode")),
                ecc_corrected_aggregate=whole(
                    get("ecc_errors_total", "corrected", "aggregate", "all")
                ),
                ecc_uncorrected_aggregate=whole(
                    get("ecc_errors_total", "uncorrected", "aggregate", "all")
                ),
                retired_pages=together(
                    get("retired_pages_total", "single_bit"),
                    get("retired_pages_total", "double_bit"),
                ),
                remapped_rows=together(
                    get("remapped_rows_total", "correctable"),
                    get("remapped_rows_total", "uncorrectable"),
                ),
                recovery_action=next((labels[0] for labels, v in rows[ACTION] if v == 1), None),
                last_xid=self.last_xid(key[1], get("last_xid"), get(LAST_EVENT)),
                encoder_util_percent=get("encoder_utilization_percent"),
                decoder_util_percent=get("decoder_utilization_percent"),
                bar1_total_bytes=whole(get("bar1_total_bytes")),
                bar1_used_bytes=whole(get("bar1_used_bytes")),
            ),
            nvlink=status.NvLink(links_of(now, key, rows, has_links)),
            mig_tree=status.MigTree(
                has_mig, flag(mig_mode), self.mig(now, key, rows, has_mig, mig_mode)
            ),
            processes=self.processes(rows, get("processes")),
        )

    def last_xid(
        self, uuid: str | None, code: float | None, event: float | None
    ) -> status.LastXid | None:
        """``event`` changes with each event: until then its time need not be looked for again."""
        if code is None or uuid is None:
            return None
        seen, when = self._xid_times.get((uuid, code), (None, None))
        if seen is None or seen != event:
            when = self.facts.xid_time(uuid, int(code))
            self._xid_times[uuid, code] = event, when
        return status.LastXid(int(code), *explained(int(code)), milliseconds(when))

    def mig(
        self,
        now: Tick,
        key: Labels,
        rows: Mapping[str, list[Row]],
        has_mig: bool | None,
        mode: float | None,
    ) -> list[status.MigDevice] | None:
        if has_mig is False or mode == 0:
            return []
        if not self.config.enable_gpu_mig or mode is None:
            return None
        devices = []
        for (gi, ci, uuid, profile, placement, _), _ in rows[MIG_INFO]:
            labels = (*key, gi, ci, uuid)
            devices.append(
                status.MigDevice(
                    gi=gi or "",
                    ci=ci or "",
                    uuid=uuid,
                    profile=profile,
                    placement=placement,
                    memory_total_bytes=whole(now.get("esnode_mig_memory_total_bytes", *labels)),
                    memory_used_bytes=whole(now.get("esnode_mig_memory_used_bytes", *labels)),
                    util_percent=now.get("esnode_mig_utilization_percent", *labels),
                    sm_count=whole(now.get("esnode_mig_multiprocessors", *labels)),
                )
            )
        return devices

    def processes(
        self, rows: Mapping[str, list[Row]], count: float | None
    ) -> list[status.Process] | None:
        if not self.config.gpu_process_metrics or count is None:
            return None
        return [
            status.Process(int(pid or 0), name, whole(memory))
            for (pid, name, _), memory in rows[PROCESS]
        ]


ENCODER = msgspec.json.Encoder()


def encoded(document: status.Status) -> bytes:
    """The document as JSON. An operator's path may be no UTF-8: its bytes become ``\\udcNN``."""
    try:
        return ENCODER.encode(document)
    except UnicodeEncodeError:
        return ENCODER.encode(legible(msgspec.to_builtins(document)))


def legible(found: Any) -> Any:
    """The same with all of its text as UTF-8."""
    if isinstance(found, str):
        return found.encode(errors="backslashreplace").decode()
    if isinstance(found, dict):
        return {key: legible(value) for key, value in found.items()}
    return [legible(each) for each in found] if isinstance(found, list) else found


#: A row by its labels after those of its GPU; absent is None.
Row = tuple[Labels, float | None]

INFO = "esnode_gpu_info"
#: Its labels after those of every row.
IDENTITY = (
    *("name", "architecture", "serial", "board_part_number", "module_id", "minor", "vbios"),
    *("pci_bus_id", "numa_node", "driver_version", "cuda_version", "compute_capability"),
    "resource",
)
REASON = "esnode_gpu_throttle_reason"
LINK_UP = "esnode_gpu_nvlink_up"
LINK_ERRORS = "esnode_gpu_nvlink_link_errors_total"
FAN = "esnode_gpu_fan_speed_percent"
ACTION = "esnode_gpu_recovery_action"
MIG_INFO = "esnode_mig_info"
PROCESS = "esnode_gpu_process_memory_bytes"
LAST_EVENT = "last_event_timestamp_seconds"
THERMAL = ("sw_thermal_slowdown", "hw_thermal_slowdown")
POWER = ("sw_power_cap", "hw_power_brake_slowdown")


def grouped(now: Tick, name: str) -> dict[Labels, list[Row]]:
    """A family's rows by GPU."""
    found: dict[Labels, list[Row]] = {}
    for labels in now.keys(name):
        found.setdefault(labels[:2], []).append((labels[2:], now.get(name, *labels)))
    return found


def links_of(
    now: Tick, key: Labels, rows: Mapping[str, list[Row]], has_links: bool | None
) -> list[status.Link] | None:
    """The NVLinks of a GPU in the order of their numbers."""
    if has_links is None:
        return None
    errors: dict[str | None, list[float | None]] = {}
    for (number, _), count in rows[LINK_ERRORS]:
        errors.setdefault(number, []).append(count)
    links = [
        status.Link(
            link=int(number or 0),
            up=flag(value),
            rx_bytes=whole(now.get("esnode_gpu_nvlink_link_rx_bytes_total", *key, number)),
            tx_bytes=whole(now.get("esnode_gpu_nvlink_link_tx_bytes_total", *key, number)),
            errors=together(*errors.get(number, ())),
        )
        for (number, *_), value in rows[LINK_UP]
    ]
    return sorted(links, key=lambda each: each.link)


def usage(now: Tick) -> float | None:
    """The mean over all CPUs, in percent."""
    values = [value for _, value in now.rows("esnode_cpu_usage_percent")]
    return sum(values) / len(values) if values else None


def in_all(
    pair: Pair, name: str, counts: Callable[[str | None], bool] = lambda first: True
) -> float | None:
    """How fast a family's counters rise together, of the rows whose first label ``counts``; None
    where one of them is not known."""
    rates = [pair.rate(name, *labels) for labels, _ in pair.now.rows(name) if counts(labels[0])]
    known = [rate for rate in rates if rate is not None]
    return sum(known) if known and len(known) == len(rates) else None


def is_own(device: str | None) -> bool:
    """Whether a disk is none that is made of others, whose traffic is theirs as well."""
    return not (device or "").startswith(("dm-", "md"))


def ports_of(pair: Pair) -> Iterator[status.Port]:
    now = pair.now
    states = {labels[:2]: labels[2] for labels, on in now.rows("esnode_infiniband_state") if on}
    errors: dict[Labels, list[float | None]] = {}
    for labels in now.keys("esnode_infiniband_errors_total"):
        rate = pair.rate("esnode_infiniband_errors_total", *labels)
        errors.setdefault(labels[:2], []).append(rate)
    for key in sorted({key[:2] for key in now.keys("esnode_infiniband_state")}, key=str):
        known = [rate for rate in errors.get(key, ()) if rate is not None]
        state = states.get(key)
        yield status.Port(
            device=key[0] or "",
            port=key[1] or "",
            up=None if state is None else state.lower() == "active",
            state=state,
            rate_bytes=now.get("esnode_infiniband_rate_bytes", *key),
            rx_bytes_per_sec=pair.rate("esnode_infiniband_rx_bytes_total", *key),
            tx_bytes_per_sec=pair.rate("esnode_infiniband_tx_bytes_total", *key),
            errors_per_sec=sum(known) if known else None,
        )


def interfaces_of(pair: Pair) -> Iterator[status.Interface]:
    now = pair.now
    up = operational(now)
    for (iface,) in now.keys("esnode_network_rx_bytes_total"):
        lost = pair.rate("esnode_network_rx_dropped_total", iface)
        unsent = pair.rate("esnode_network_tx_dropped_total", iface)
        yield status.Interface(
            iface=iface or "",
            up=up.get(iface),
            speed_bytes=now.get("esnode_network_speed_bytes", iface),
            rx_bytes_per_sec=pair.rate("esnode_network_rx_bytes_total", iface),
            tx_bytes_per_sec=pair.rate("esnode_network_tx_bytes_total", iface),
            drops_per_sec=None if lost is None or unsent is None else lost + unsent,
        )


def operational(now: Tick) -> dict[str | None, bool | None]:
    """Whether each interface is up. None: its driver tells no state, as that of lo and of tunnels;
    the metric is 0 then, as node_exporter's is."""
    found = {iface: flag(value) for (iface,), value in now.rows("esnode_network_up")}
    for iface, *_, state in now.keys("esnode_network_info"):
        if state == "unknown":
            found[iface] = None
    return found


def primary(now: Tick) -> str | None:
    """The interface that has carried the most, of those that are not known to be down."""
    most: tuple[float, str | None] = (-1, None)
    up = operational(now)
    for (iface,), received in now.rows("esnode_network_rx_bytes_total"):
        sent = now.get("esnode_network_tx_bytes_total", iface)
        if iface == "lo" or sent is None or up.get(iface, False) is False:
            continue
        if received + sent > most[0]:
            most = received + sent, iface
    return most[1]


def disks_of(pair: Pair) -> Iterator[status.Disk]:
    """The mounts, and then the disks that none of them is on as far as their names tell."""
    now = pair.now
    disks = {device: None for (device,) in now.keys("esnode_disk_read_bytes_total")}
    left = dict(disks)
    for mount, device, fstype in now.keys("esnode_disk_total_bytes"):
        disk = disk_of(device or "", disks)
        left.pop(disk, None)
        sizes = [
            whole(now.get(f"esnode_disk_{size}_bytes", mount, device, fstype))
            for size in ("total", "used")
        ]
        yield status.Disk(device, mount, *sizes, *traffic(pair, disk))
    for device in left:
        yield status.Disk(device, None, None, None, *traffic(pair, device))


def disk_of(device: str, disks: Mapping[str | None, None]) -> str | None:
    """The disk that a mount's device is, or is a partition of; None where that cannot be told."""
    name = device.removeprefix("/dev/")
    match = _PARTITION.fullmatch(name)
    for each in (name, match and (match[1] or match[2])):
        if each in disks:
            return each
    return None


def traffic(pair: Pair, disk: str | None) -> tuple[float | None, ...]:
    """The figures of a disk: bytes read and written a second, percent of time busy, seconds."""
    if disk is None:
        return (None,) * 5
    busy = pair.rate("esnode_disk_io_time_seconds_total", disk)
    return (
        pair.rate("esnode_disk_read_bytes_total", disk),
        pair.rate("esnode_disk_written_bytes_total", disk),
        None if busy is None else min(100 * busy, 100.0),
        pair.now.get("esnode_disk_io_latency_seconds", disk, "read"),
        pair.now.get("esnode_disk_io_latency_seconds", disk, "write"),
    )


def degraded(flags: Iterable[Flag], prefix: str) -> bool | None:
    """Whether one of the flags whose name begins so is raised; None where there is none."""
    found = [flag.reason != "" for flag in flags if flag.name.startswith(prefix)]
    return any(found) if found else None


def has(seen: bool, settled: bool) -> bool | None:
    """Whether a GPU has what was seen of it, or was not in the time that it takes."""
    return True if seen else False if settled else None


def any_of(reasons: Iterable[str], told: Iterable[str | None], names: Iterable[str]) -> bool | None:
    """Whether one of the named reasons is among those that hold; None where none was told of."""
    known = set(names) & set(told)
    return bool(known & set(reasons)) if known else None


def flag(value: float | None) -> bool | None:
    return None if value is None else value != 0


def whole(value: float | None) -> int | None:
    return None if value is None or value != value else int(value)


def together(*values: float | None) -> int | None:
    """The sum of those that are known."""
    known = [value for value in values if value is not None]
    return int(sum(known)) if known else None


def milliseconds(seconds: float | None) -> int | None:
    return None if seconds is None or seconds != seconds else round(seconds * 1000)


def integer(text: str | None) -> int | None:
    return int(text) if text is not None and text.lstrip("-").isdigit() else None
