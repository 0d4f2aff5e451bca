"""A GPU that is shown: its rows, and those of its MIG instances and processes."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from ..._fast.table import OWNER, READING, Table
from ...config import Config
from ...host import Host
from ...metrics import Metric, gauge
from ..base import label
from .readings import GPU, MIG, PROCESS_MEMORY, PROCESSES, Rows

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
MIG_INFO = gauge(
    "esnode_mig_info",
    "What a MIG instance is; always 1.",
    (*MIG, "profile", "placement", "resource"),
)
MULTIPROCESSORS = gauge("esnode_mig_multiprocessors", "Multiprocessors of the instance.", MIG)

#: In the name that NVML gives an instance.
_PROFILE = re.compile(r"MIG (\S+)$")

Key = tuple[Metric, tuple[str | None, ...]]


class Told(NamedTuple):
    """What the library tells of a MIG instance, see nvml.Gpu.instances."""

    uuid: str
    #: The library's; there may be holes between them.
    place: int
    gi: int
    ci: int
    name: str | None
    placement: tuple[int, int] | None
    multiprocessors: float
    decided: bool
    wanted: bool


class Card:
    """``gpu`` is nvml.Gpu; ``number`` is what stands for it in labels."""

    def __init__(
        self, table: Table, gpu: Any, number: int, gpu_rows: Rows, mig_rows: Rows, config: Config
    ) -> None:
        self.table = table
        self.gpu = gpu
        #: None where the GPU has not told it yet.
        self.uuid: str | None = gpu.uuid
        self.number = number
        self.gpu_rows = gpu_rows
        self.mig_rows = mig_rows
        self.k8s = config.k8s_mode
        self.labels = (str(number), self.uuid)
        #: Its PCI address as NVML has it; empty when unknown.
        self.pci = ""
        self.is_described = False
        self.rows: list[Key] = []
        #: The rows of instances, which come and go together, and the instances' places and labels.
        self.instance_rows: list[Key] = []
        self.instances: list[tuple[int, tuple[str, ...]]] = []
        self.topology: int | None = None
        self.processes: dict[tuple[str | None, ...], int] = {}
        gpu.unbind()
        self.up = self.add(UP)
        self.stuck = self.add(STUCK)
        self.success = self.add(SUCCESS, keep=OWNER)
        if gpu_rows.processes:
            self.process_count = self.add(PROCESSES)
        self.hidden = [table.hidden(PROCESSES) for _ in gpu_rows.processes]
        for position, slot in zip(gpu_rows.processes, self.hidden, strict=True):
            gpu.bind(position, slot)

    def __str__(self) -> str:
        return f"GPU {self.number} ({self.uuid})" if self.uuid else f"GPU {self.number}"

    def add(self, metric: Metric, labels: tuple[str | None, ...] = (), keep: int = READING) -> int:
        key = (*self.labels, *labels)
        self.rows.append((metric, key))
        return self.table.add(metric, key, keep)

    def describe(self) -> None:
        """Adds what the GPU is, once it has told that."""
        self.is_described = True
        self.pci = self.gpu.identity()["pci"] or ""
        self.table.set(self.add(INFO, self.identity(), OWNER), 1)

    def identity(self) -> tuple[str | None, ...]:
        """The labels of INFO after those of every row."""
        known = self.gpu.identity()
        words = {key: None if value is None else str(value) for key, value in known.items()}
        capability = known["capability"]
        return (
            words["name"],
            ARCHITECTURES.get(known["architecture"]),
            *(words[key] for key in ("serial", "part", "module", "minor", "vbios", "pci", "numa")),
            self.gpu.driver.version,
            self.gpu.driver.cuda,
            None if capability is None else "{}.{}".format(*capability),
            "nvidia.com/gpu" if self.k8s else None,
        )

    def remove(self) -> None:
        """Removes every row."""
        self.remove_instances()
        self.gpu.unbind()
        for metric, labels in (*self.rows, *((PROCESS_MEMORY, key) for key in self.processes)):
            self.table.remove(metric, labels)
        for slot in self.hidden:
            self.table.forget(slot)

    def remove_instances(self) -> None:
        for metric, labels in self.instance_rows:
            self.table.remove(metric, labels)
        self.instance_rows.clear()
        self.instances.clear()

    def add_instances(self) -> None:
        """Takes the MIG instances as they are now."""
        self.remove_instances()
        self.topology = self.gpu.topology
        for place, told in enumerate(map(Told._make, self.gpu.instances())):
            self.gpu.unbind(place)
            if not told.wanted:
                continue
            labels = (*self.labels, str(told.gi), str(told.ci), told.uuid)
            self.instances.append((place, labels))
            match = _PROFILE.search(told.name or "")
            profile = match[1] if match else None
            placement = None if told.placement is None else "{}:{}".format(*told.placement)
            resource = None
            if profile and self.k8s:  # as NVIDIA's device plugin calls it
                resource = f"nvidia.com/mig-{profile.replace('+', '.')}"
            keys: tuple[tuple[Key, float], ...] = (
                ((MIG_INFO, (*labels, profile, placement, resource)), 1),
                ((MULTIPROCESSORS, labels), told.multiprocessors),
            )
            for key, value in keys:
                self.table.set(self.table.add(*key, OWNER), value)
                self.instance_rows.append(key)

    def store(self, report: Callable[[str], None], code: Callable[[int], str], host: Host) -> None:
        """Stores what the GPU has told in this reading, and nothing of one that has not answered.

        ``code`` names an error of NVML."""
        gpu = self.gpu
        is_up = gpu.done and gpu.answers and not gpu.stuck and not gpu.lost
        self.table.set(self.up, is_up)
        self.table.set(self.stuck, gpu.stuck)
        if gpu.stuck:
            report(f"{self}: a call has not returned")
        if gpu.stuck or not gpu.done:
            return
        if gpu.described and not self.is_described:
            self.describe()
        if gpu.lost:
            report(f"{self}: {code(gpu.lost)}")
        elif gpu.error:
            report(f"{self}: {gpu.error[0]}: {code(gpu.error[1])}")
        if is_up:
            self.table.set(self.success, round(time.time(), 3))
        if self.topology != gpu.topology:
            self.add_instances()
        self.fill(-1, self.labels, self.gpu_rows, self.rows)
        for place, labels in self.instances:
            self.fill(place, labels, self.mig_rows, self.instance_rows)
        if self.gpu_rows.processes:
            self.store_processes(host)

    def fill(self, place: int, labels: tuple[str, ...], rows: Rows, bound: list[Key]) -> None:
        """Copies values; what has one for the first time gets its row."""
        fresh = self.gpu.store(self.table, place)
        for position in fresh:
            metric, more = rows.rows[position]
            key = (metric, (*labels, *more))
            self.gpu.bind(position, self.table.add(*key), place)
            bound.append(key)
        if fresh:
            self.gpu.store(self.table, place)

    def store_processes(self, host: Host) -> None:
        """The rows of the processes that are on the GPU now."""
        found = {
            (*self.labels, str(pid), name_of(host, pid), KINDS[kind]): memory
            for pid, memory, kind in self.gpu.processes()
        }
        for key in self.processes.keys() - found.keys():
            self.table.remove(PROCESS_MEMORY, key)
            del self.processes[key]
        for key, memory in found.items():
            if key not in self.processes:
                self.processes[key] = self.table.add(PROCESS_MEMORY, key)
            self.table.set(self.processes[key], memory)
        if any(not math.isnan(self.gpu.value(position)) for position in self.gpu_rows.processes):
            self.table.set(self.process_count, len({key[2] for key in found}))


def name_of(host: Host, pid: int) -> str | None:
    """The name of a process; None for one that we do not see."""
    try:
        return label(Path(host.proc(f"{pid}/comm")).read_bytes().rstrip(b"\n")) or None
    except OSError:
        return None
