"""NVIDIA GPUs and their MIG instances, through NVML."""

from __future__ import annotations

import logging
import math
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from ..._fast.table import OWNER
from ...metrics import Metric, counter, gauge
from ..base import Collector, Unavailable, label
from . import driver, readings, visible
from .pci import PciDevices
from .readings import GPU, MIG, Rows

log = logging.getLogger(__name__)

#: Seconds between two attempts to find and initialise the library, and two looks at the PCI bus.
RETRY = 10.0
LOOK = 15.0
#: The longest that a reading may take, in seconds, and how long one GPU may hold up the next.
TIMEOUT = 2.0
PATIENCE = 0.02
#: Readings of a tick in which GPUs or instances have come or gone, until all are known.
ROUNDS = 4
#: Of nvmlReturn_t: the library is to be initialised anew.
UNINITIALIZED, DRIVER_NOT_LOADED, LIB_RM_VERSION_MISMATCH = 1, 9, 18
TIMED_OUT = 10

#: By nvmlDeviceArchitecture_t.
ARCHITECTURES = {
    2: "kepler",
    3: "maxwell",
    4: "pascal",
    5: "volta",
    6: "turing",
    7: "ampere",
    8: "ada",
    9: "hopper",
    10: "blackwell",
    13: "rubin",
}
#: The kinds of processes, as readings.Processes numbers them.
KINDS = ("compute", "graphics")

INFO = gauge(
    "esnode_gpu_info",
    "What a GPU is; always 1.",
    (
        *GPU,
        *("name", "architecture", "serial", "board_part_number", "module_id", "minor", "vbios"),
        *("pci_bus_id", "numa_node", "driver_version", "cuda_version", "compute_capability"),
        "resource",
    ),
)
UP = gauge("esnode_gpu_up", "Whether a GPU could be read.", GPU)
STUCK = gauge("esnode_gpu_stuck", "Whether a call to a GPU has not returned.", GPU)
SUCCESS = gauge(
    "esnode_gpu_last_success_timestamp_seconds", "When a GPU was last read, in Unix time.", GPU
)
GPUS = gauge("esnode_gpus", "GPUs that the driver has.")
EXPECTED = gauge("esnode_gpus_expected", "GPUs that the node should have.")
PCI = gauge("esnode_gpu_pci_devices", "NVIDIA GPUs on the PCI bus.")
DRIVER_UP = gauge("esnode_gpu_driver_up", "Whether the NVIDIA driver answers.")
RELEASED = gauge("esnode_gpu_driver_released", "Whether the driver was let go of, as asked for.")
CALLS = counter("esnode_agent_nvml_calls_total", "Calls of NVML by function.", ("call",))
SECONDS = counter("esnode_agent_nvml_call_seconds_total", "Time that they took.", ("call",))
MIG_INFO = gauge(
    "esnode_mig_info", "What a MIG instance is; always 1.", (*MIG, "profile", "placement", "resource")
)
MULTIPROCESSORS = gauge("esnode_mig_multiprocessors", "Multiprocessors of the instance.", MIG)

_PROFILE = re.compile(r"MIG (\S+)$")


def _families() -> Iterator[Metric]:
    """Every family of the readings, in the order of their declaration."""
    for value in vars(readings).values():
        for metric in value.values() if isinstance(value, dict) else (value,):
            if isinstance(metric, Metric):
                yield metric
            elif isinstance(metric, tuple):
                yield from (each for each in metric if type(each) is Metric)


class Instance(NamedTuple):
    """A MIG instance that is shown; its place among those of its GPU, and its labels."""

    place: int
    labels: tuple[str, ...]


class Card:
    """A GPU that is shown, with its rows as they are bound."""

    def __init__(self, source: Any, uuid: str, number: int) -> None:
        self.source = source
        self.uuid = uuid
        self.number = number
        self.labels = (str(number), uuid)
        #: (metric, labels) of every row; those of instances come and go together.
        self.rows: list[tuple[Metric, tuple[str | None, ...]]] = []
        self.instance_rows: list[tuple[Metric, tuple[str | None, ...]]] = []
        self.instances: list[Instance] = []
        self.topology = -1
        self.slots: dict[Metric, int] = {}
        self.processes: dict[tuple[str | None, ...], int] = {}

    def __str__(self) -> str:
        return f"GPU {self.number} ({self.uuid})"


class Gpus(Collector):
    """Reads every GPU with a worker of its own, see _fast/nvml.pyx."""

    name = "gpu"
    switch = "enable_gpu"
    lane = "gpu"
    metrics = (
        INFO,
        UP,
        STUCK,
        SUCCESS,
        *dict.fromkeys(_families()),
        MIG_INFO,
        MULTIPROCESSORS,
        GPUS,
        EXPECTED,
        PCI,
        DRIVER_UP,
        RELEASED,
        CALLS,
        SECONDS,
    )

    #: Asks for a new process, once the driver was upgraded under this one; set by the agent.
    restart: Callable[[str], None] | None = None

    def bind(self) -> None:
        config = self.config
        add = self.table.add
        self.nvml: ModuleType | None = None
        self.driver: Any = None
        self.reason = ""
        self.due = self.look_due = 0.0
        self.cards: dict[int, Card] = {}  # by the index of the library
        self.numbers: dict[str, int] = {}
        self.visible = visible.Visible(config.gpu_visible_devices)
        self.mig_visible = visible.Visible(config.mig_config_devices)
        self.warned: set[str] = set()
        self.bus = PciDevices(self.host)
        self.on_bus: int | None = None
        self.driver_up = add(DRIVER_UP)
        self.slots: dict[Metric, int] = {}
        self.call_slots: dict[str, tuple[int, int]] = {}
        #: Until when the driver is let go of, in monotonic seconds; 0: it is not.
        self.released_until = 0.0
        self.mismatch: str | None = None
        if config.expected_gpus is not None:
            self.table.set(add(EXPECTED, (), OWNER), config.expected_gpus)

    def row(self, metric: Metric) -> int:
        """The slot of a row without labels, which is added when it is first needed."""
        if metric not in self.slots:
            self.slots[metric] = self.table.add(metric)
        return self.slots[metric]

    # ------------------------------------------------------------------------------ the driver

    def release(self) -> None:
        """Lets go of the driver for a while; any thread may ask."""
        self.released_until = time.monotonic() + self.config.gpu_release_seconds

    def resume(self) -> None:
        """Takes the driver again."""
        self.released_until = 0.0
        self.due = 0.0

    @property
    def released(self) -> bool:
        return time.monotonic() < self.released_until

    def attach_driver(self, now: float) -> bool:
        """Finds and initialises the library, where that is due. Whether it is."""
        if self.driver is not None and self.driver.open:
            return True
        if now < self.due and not (self.driver is not None and self.driver.opening):
            return False
        self.due = now + RETRY - self.config.scrape_interval_seconds / 2
        if self.nvml is None:
            try:
                self.nvml = driver.load(self.config.nvml_library)
            except Unavailable as error:
                self.reason = str(error)
                return False
            self.build(self.nvml)
        if self.driver.attach():
            self.reason = ""
            return True
        code = self.driver.code
        self.reason = (
            f"the driver does not come up: {self.nvml.CODES.get(code, code)}"
            if code
            else "the driver has not answered yet"
        )
        if code == LIB_RM_VERSION_MISMATCH:
            self.upgraded()
        return False

    def build(self, nvml: ModuleType) -> None:
        """Makes the plans and the driver."""
        config = self.config
        queries = readings.gpu_queries(config.gpu_detail, config.gpu_process_metrics)
        self.gpu_rows = Rows(nvml, list(queries))
        self.mig_rows = Rows(nvml, list(readings.mig_queries()))
        self.driver = nvml.Driver(
            self.gpu_rows.plan,
            self.mig_rows.plan,
            min(config.scrape_interval_seconds / 2, TIMEOUT),
            PATIENCE,
            config.peak_window_seconds,
            config.enable_gpu_events,
            config.enable_gpu_mig or self.visible.by_mig,
        )

    def upgraded(self) -> None:
        """The driver is another one than the library that this process has mapped: only a new
        process has the new library. It is asked for once for each version of the driver."""
        version = driver.kernel_version(self.host) or "of unknown version"
        self.reason = f"the driver was replaced by {version} under this process"
        if self.mismatch != version:
            self.mismatch = version
            if self.restart:
                self.restart(version)

    def let_go(self) -> None:
        """Closes the library, when no call is under way, and drops what it has told."""
        for index in list(self.cards):
            if not self.cards[index].source.stuck:
                self.drop(index)
        if self.driver is not None and not self.driver.detach():
            self.report("the driver is still held: a call to it has not returned")

    # ------------------------------------------------------------------------------- a reading

    def start(self, tick: bool) -> None:
        now = time.monotonic()
        if tick and now >= self.look_due:
            self.look_due = now + LOOK - self.config.scrape_interval_seconds / 2
            found = self.bus.look()
            self.on_bus = None if found is None else len(found)
        self.reading = False
        if self.released:
            self.let_go()
        elif tick or (self.driver is not None and self.driver.open):
            self.reading = self.attach_driver(now)
            if self.reading:
                self.driver.start(tick)

    def sample(self, tick: bool) -> None:
        put = self.table.set
        if self.reading:
            code = self.read(tick)
            if code in (UNINITIALIZED, DRIVER_NOT_LOADED, LIB_RM_VERSION_MISMATCH):
                self.reason = f"the driver has gone: {self.nvml and self.nvml.CODES[code]}"
                self.let_go()
                self.due = 0.0
                if code == LIB_RM_VERSION_MISMATCH:
                    self.upgraded()
        is_up = self.driver is not None and self.driver.open
        put(self.driver_up, is_up)
        if is_up:
            put(self.row(GPUS), self.driver.count)
        if self.driver is not None:
            put(self.row(RELEASED), self.released)
            self.store_calls()
        if self.on_bus or (self.on_bus is not None and self.driver is not None):
            put(self.row(PCI), self.on_bus)
        if not is_up and not self.released:
            raise Unavailable(self.reason)

    def read(self, tick: bool) -> int:
        """Waits for the GPUs and stores what they have told; the error of the driver as a whole."""
        code = 0
        for _ in range(ROUNDS):
            code = self.driver.wait()
            if code or not self.follow():
                break
            self.driver.start(tick)
        for card in self.cards.values():
            self.store(card)
        self.warn()
        return int(code)

    def follow(self) -> bool:
        """Follows the GPUs and instances that come and go. Whether some are still to be read."""
        again = bool(self.driver.changed)
        gpus = {gpu.index: gpu for gpu in self.driver.gpus}
        for index, card in list(self.cards.items()):
            gpu = gpus.get(index)
            if gpu is not card.source or (not gpu.stuck and gpu.uuid != card.uuid):
                self.drop(index)
        shown = {card.uuid for card in self.cards.values()}
        for index, gpu in gpus.items():
            if gpu.stuck or not gpu.done or not gpu.uuid:
                continue
            if not gpu.decided or any(not each.decided for each in map(_Told._make, gpu.instances())):
                again |= self.decide(gpu)
            if index not in self.cards and gpu.wanted and gpu.uuid not in shown:
                self.add(gpu)
        return again

    def decide(self, gpu: Any) -> bool:
        """Says what of a GPU is to be read. Whether something is that was not."""
        told = list(map(_Told._make, gpu.instances()))
        migs = tuple(visible.Mig(t.uuid, n, t.gi, t.ci) for n, t in enumerate(told))
        known = visible.Gpu(gpu.index, gpu.uuid, migs)
        wanted = self.visible.gpu(known)
        self.mig_visible.gpu(known)
        again = wanted and not (gpu.decided and gpu.wanted)
        gpu.want(wanted)
        for place, mig in enumerate(migs):
            shown = (
                wanted
                and self.config.enable_gpu_mig
                and self.visible.mig(known, mig)
                and self.mig_visible.mig(known, mig)
            )
            again |= shown and not told[place].decided
            gpu.want(shown, place)
        return again

    def warn(self) -> None:
        """Says once which entries of the lists of devices name nothing that is there."""
        lists = {"gpu_visible_devices": self.visible, "mig_config_devices": self.mig_visible}
        for key, entries in lists.items():
            for entry in entries.unmatched():
                if (key, entry) not in self.warned:
                    self.warned.add((key, entry))
                    log.warning("%s: %s: there is no such device", key, entry)

    # ---------------------------------------------------------------------------------- a card

    def number_of(self, uuid: str, index: int) -> int:
        """The number that stands for a GPU in its labels: its first index, or the next one that no
        other GPU that is there has."""
        taken = {card.number for card in self.cards.values()}
        number = self.numbers.get(uuid, index)
        while number in taken:
            number += 1
        self.numbers[uuid] = number
        return number

    def add(self, gpu: Any) -> None:
        card = Card(gpu, gpu.uuid, self.number_of(gpu.uuid, gpu.index))
        self.cards[gpu.index] = card
        gpu.unbind()
        for metric, keep in ((UP, 0), (STUCK, 0), (SUCCESS, OWNER)):
            card.slots[metric] = self.table.add(metric, card.labels, keep)
            card.rows.append((metric, card.labels))
        labels = (*card.labels, *self.identity(gpu))
        self.table.set(self.table.add(INFO, labels, OWNER), 1)
        card.rows.append((INFO, labels))
        for position in self.gpu_rows.processes.values():
            gpu.bind(position, self.table.hidden())

    def identity(self, gpu: Any) -> tuple[str | None, ...]:
        """The labels of INFO after those of every row."""
        known = gpu.identity()
        capability = known["capability"]
        return (
            known["name"],
            ARCHITECTURES.get(known["architecture"]),
            *(known[key] for key in ("serial", "part")),
            *(None if known[key] is None else str(known[key]) for key in ("module", "minor")),
            known["vbios"],
            known["pci"],
            None if known["numa"] is None else str(known["numa"]),
            self.driver.version,
            self.driver.cuda,
            None if capability is None else "{}.{}".format(*capability),
            "nvidia.com/gpu" if self.config.k8s_mode else None,
        )

    def drop(self, index: int) -> None:
        """Removes the rows of a GPU that has gone."""
        card = self.cards.pop(index)
        self.drop_instances(card)
        card.source.unbind()
        for metric, labels in (*card.rows, *((PROCESS_MEMORY, key) for key in card.processes)):
            self.table.remove(metric, labels)

    def drop_instances(self, card: Card) -> None:
        for metric, labels in card.instance_rows:
            self.table.remove(metric, labels)
        card.instance_rows.clear()
        card.instances.clear()

    def add_instances(self, card: Card) -> None:
        """Takes the MIG instances as they are now."""
        self.drop_instances(card)
        card.topology = card.source.topology
        for place, each in enumerate(map(_Told._make, card.source.instances())):
            card.source.unbind(place)
            if not each.wanted:
                continue
            labels = (*card.labels, str(each.gi), str(each.ci), each.uuid)
            card.instances.append(Instance(place, labels))
            profile = _PROFILE.search(each.name or "")
            name = profile[1] if profile else None
            placement = None if each.placement is None else "{}:{}".format(*each.placement)
            resource = f"nvidia.com/mig-{name}" if name and self.config.k8s_mode else None
            for metric, more, value in (
                (MIG_INFO, (name, placement, resource), 1.0),
                (MULTIPROCESSORS, (), each.multiprocessors),
            ):
                key = (*labels, *more)
                self.table.set(self.table.add(metric, key, OWNER), value)
                card.instance_rows.append((metric, key))

    def store(self, card: Card) -> None:
        """Stores what a card has told in this reading; nothing of one that has not answered."""
        gpu = card.source
        put = self.table.set
        is_up = gpu.done and not gpu.stuck and not gpu.lost
        put(card.slots[UP], is_up)
        put(card.slots[STUCK], gpu.stuck)
        if gpu.stuck:
            self.report(f"{card}: a call has not returned")
        elif gpu.lost:
            assert self.nvml
            self.report(f"{card}: {self.nvml.CODES.get(gpu.lost, gpu.lost)}")
        if gpu.stuck or not gpu.done:
            return
        if gpu.error:
            function, code = gpu.error
            assert self.nvml
            self.report(f"{card}: {function}: {self.nvml.CODES.get(code, code)}")
        if is_up:
            put(card.slots[SUCCESS], round(time.time(), 3))
        if card.topology != gpu.topology:
            self.add_instances(card)
        self.fill(card.source, -1, card.labels, self.gpu_rows, card.rows)
        for instance in card.instances:
            self.fill(
                card.source, instance.place, instance.labels, self.mig_rows, card.instance_rows
            )
        if self.gpu_rows.processes:
            self.store_processes(card)

    def fill(
        self,
        gpu: Any,
        place: int,
        labels: tuple[str, ...],
        rows: Rows,
        bound: list[tuple[Metric, tuple[str | None, ...]]],
    ) -> None:
        """Copies the values of a GPU or instance; what has one for the first time gets its row."""
        fresh = gpu.store(self.table, place)
        for position in fresh:
            row = rows.rows[position]
            assert row
            metric, more = row
            gpu.bind(position, self.table.add(metric, (*labels, *more)), place)
            bound.append((metric, (*labels, *more)))
        if fresh:
            gpu.store(self.table, place)

    def store_processes(self, card: Card) -> None:
        """The rows of the processes that are on a GPU now."""
        found: dict[tuple[str | None, ...], float] = {}
        pids = set()
        for pid, memory, kind in card.source.processes():
            pids.add(pid)
            key = (*card.labels, str(pid), self.name_of(pid), KINDS[kind])
            found[key] = memory
        for key in card.processes.keys() - found.keys():
            self.table.remove(PROCESS_MEMORY, key)
            del card.processes[key]
        for key, memory in found.items():
            if key not in card.processes:
                card.processes[key] = self.table.add(PROCESS_MEMORY, key)
            self.table.set(card.processes[key], memory)
        positions = self.gpu_rows.processes.values()
        if any(not math.isnan(card.source.value(position)) for position in positions):
            if PROCESSES not in card.slots:
                card.slots[PROCESSES] = self.table.add(PROCESSES, card.labels)
                card.rows.append((PROCESSES, card.labels))
            self.table.set(card.slots[PROCESSES], len(pids))

    def name_of(self, pid: int) -> str | None:
        """The name of a process; None for one that we do not see."""
        try:
            return label(Path(self.host.proc(f"{pid}/comm")).read_bytes().rstrip(b"\n")) or None
        except OSError:
            return None

    def store_calls(self) -> None:
        """What the library was asked for, and the time it took."""
        for name, (calls, seconds) in self.driver.calls().items():
            if name not in self.call_slots:
                self.call_slots[name] = tuple(self.table.add(m, (name,)) for m in (CALLS, SECONDS))
            for slot, value in zip(self.call_slots[name], (calls, seconds), strict=True):
                self.table.set(slot, value)


class _Told(NamedTuple):
    """What the library tells of a MIG instance, see nvml.Gpu.instances."""

    uuid: str
    gi: int
    ci: int
    name: str | None
    placement: tuple[int, int] | None
    multiprocessors: float
    decided: bool
    wanted: bool


PROCESSES = readings.PROCESSES
PROCESS_MEMORY = readings.PROCESS_MEMORY
