"""Every value of the lane is what nvidia-ml-py tells, as far as it can move in between."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pynvml as nv
import pytest

from esnode.collectors.nvidia import card, readings
from esnode.collectors.nvidia.gpus import Gpus

from . import oracle
from .lane import Node, Rows

#: Readings until each value was found where it should be: what swings is met in the end.
ROUNDS = 6
#: How far a value may be from the nearest of two that were told before and after: absolute, and as
#: a part of it. What is not named may not move but from the one to the other.
TOLERANCES = {
    "power_watts": (5, 0.1),
    "power_average_watts": (5, 0.1),
    "temperature_celsius": (2, 0),
    "memory_temperature_celsius": (2, 0),
    "temperature_margin_celsius": (2, 0),
    "utilization_percent": (10, 0),
    "memory_utilization_percent": (10, 0),
    "clock_hertz": (30e6, 0.05),
    "fan_speed_percent": (3, 0),
    "memory_used_bytes": (64 << 20, 0),
    "memory_free_bytes": (64 << 20, 0),
    "bar1_used_bytes": (16 << 20, 0),
    "gpm_pcie_tx_bytes_per_second": (20e6, 0.5),
    "gpm_pcie_rx_bytes_per_second": (20e6, 0.5),
    "gpm_nvlink_tx_bytes_per_second": (20e6, 0.5),
    "gpm_nvlink_rx_bytes_per_second": (20e6, 0.5),
}
#: Rows that another test looks at, or that are the agent's own.
OTHERS = {
    *("up", "stuck", "info", "last_success_timestamp_seconds", "processes"),
    *("xid_errors_total", "events_total", "last_xid", "last_event_timestamp_seconds"),
    *(f"{what}_{kind}" for what in ("power", "utilization") for kind in ("min", "mean", "max")),
    *("gpm_cycles_total", "process_memory_bytes"),
}
COUNTERS = {metric.name for metric in Gpus.metrics if metric.kind == "counter"}


def of(rows: Rows, prefix: str, *device: str) -> oracle.Values:
    """The rows of a device under the oracle's names."""
    return {
        (name.removeprefix(prefix), tuple(label or "" for label in labels[len(device) :])): value
        for (name, labels), value in rows.items()
        if name.startswith(prefix) and labels[: len(device)] == device and is_compared(name)
    }


def is_compared(name: str) -> bool:
    short = name.removeprefix("esnode_gpu_")
    return short not in OTHERS and short.rpartition("_")[0] not in OTHERS


def fits(family: str, is_counter: bool, value: float, before: float, after: float) -> bool:
    """Whether a value is one that a reading between two others can have."""
    low, high = min(before, after), max(before, after)
    if is_counter:
        return before <= value <= after
    if family.endswith("_ratio"):
        return low - 0.1 <= value <= high + 0.1
    absolute, part = TOLERANCES.get(family, (0, 0))
    return low - absolute - part * abs(low) <= value <= high + absolute + part * abs(high)


class Compared:
    """The rows of one device, over some rounds."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.good: set[oracle.Key] = set()
        self.bad: dict[oracle.Key, object] = {}

    def round(self, before: oracle.Values, rows: oracle.Values, after: oracle.Values) -> None:
        self.bad = {}
        for key in rows.keys() | (before.keys() & after.keys()):
            known = before.get(key, after.get(key)), after.get(key, before.get(key))
            is_counter = self.prefix + key[0] in COUNTERS
            value = rows.get(key)
            if value is None or known[0] is None or known[1] is None:
                self.bad[key] = (value, known)
            elif fits(key[0], is_counter, value, *known):
                self.good.add(key)
            elif key not in self.good:
                self.bad[key] = (value, known)


def labels_of(rows: Rows, uuid: str) -> tuple[str, str]:
    """The labels that every row of a GPU has."""
    (labels,) = (labels for name, labels in rows if name == "esnode_gpu_up" and labels[1] == uuid)
    return str(labels[0]), uuid


@pytest.fixture
def nodes() -> Iterator[Any]:
    """Makes a node that reads all there is; each reads what is due once anew."""
    made = []

    def make() -> Node:
        node = Node(
            gpu_detail=True,
            gpu_process_metrics=True,
            enable_gpu_mig=True,
            gpu_visible_devices="all",
        )
        made.append(node)
        return node

    yield make
    for node in made:
        node.close()


def test_every_value_of_every_gpu(handles: list[Any], nodes: Any) -> None:
    compared: dict[str, Compared] = {}
    for _ in range(ROUNDS):
        before = {nv.nvmlDeviceGetUUID(handle): oracle.gpu(handle) for handle in handles}
        node = nodes()
        rows = node.pair()
        for handle in handles:
            uuid = nv.nvmlDeviceGetUUID(handle)
            device = labels_of(rows, uuid)
            one = compared.setdefault(uuid, Compared("esnode_gpu_"))
            ours = of(rows, "esnode_gpu_", *device)
            theirs = oracle.gpu(handle)
            for known in (before[uuid], theirs):
                known.pop(("processes", ()), None)
            one.round(before[uuid], ours, theirs)
            assert rows["esnode_gpu_up", device] == 1
            assert rows["esnode_gpu_stuck", device] == 0
        (part,) = node.lane.parts
        assert part.errors == 0, part.reason
        if not any(one.bad for one in compared.values()):
            break
    assert {uuid: one.bad for uuid, one in compared.items() if one.bad} == {}
    assert all(len(one.good) > 20 for one in compared.values())


def test_every_value_of_every_instance(handles: list[Any], nodes: Any) -> None:
    found = [
        (handle, labels, mig) for handle in handles for labels, mig in oracle.instances(handle)
    ]
    if not found:
        pytest.skip("no GPU here is in MIG mode with instances")
    compared: dict[str, Compared] = {}
    for _ in range(ROUNDS):
        before = {
            labels[2]: oracle.instance(handle, mig, int(labels[0])) for handle, labels, mig in found
        }
        rows = nodes().pair()
        for handle, labels, mig in found:
            device = (*labels_of(rows, nv.nvmlDeviceGetUUID(handle)), *labels)
            ours = of(rows, "esnode_mig_", *device)
            ours = {key: value for key, value in ours.items() if key[0] != "info"}
            one = compared.setdefault(labels[2], Compared("esnode_mig_"))
            one.round(before[labels[2]], ours, oracle.instance(handle, mig, int(labels[0])))
        if not any(one.bad for one in compared.values()):
            break
    assert {uuid: one.bad for uuid, one in compared.items() if one.bad} == {}


def test_what_a_gpu_is(handles: list[Any], nodes: Any) -> None:
    rows = nodes().tick()
    infos = [
        dict(zip(card.INFO.labels, labels, strict=True))
        for name, labels in rows
        if name == card.INFO.name
    ]
    assert len(infos) == len(handles)
    by_uuid = {info["uuid"]: info for info in infos}
    for handle in handles:
        known = oracle.identity(handle)
        ours = by_uuid[known["uuid"]]
        assert {name: ours[name] for name in known} == {
            name: value or None for name, value in known.items()
        }
        architecture = oracle.ask(nv.nvmlDeviceGetArchitecture, handle)
        assert ours["architecture"] == card.ARCHITECTURES.get(architecture)
    assert rows["esnode_gpus", ()] == len(handles)
    assert rows["esnode_gpu_driver_up", ()] == 1


def test_lowest_mean_and_highest(handles: list[Any], nodes: Any) -> None:
    kinds = {
        nv.NVML_TOTAL_POWER_SAMPLES: (readings.POWER_PEAKS, 1000),
        nv.NVML_GPU_UTILIZATION_SAMPLES: (readings.UTILIZATION_PEAKS, 1),
    }
    told = {
        (i, kind): oracle.ring(handle, kind) for i, handle in enumerate(handles) for kind in kinds
    }
    if not any(told.values()):
        pytest.skip("no GPU here has rings of samples")
    rows = nodes().tick()
    for (i, kind), samples in told.items():
        device = labels_of(rows, nv.nvmlDeviceGetUUID(handles[i]))
        samples += oracle.ring(handles[i], kind)
        families, unit = kinds[kind]
        ours = [rows.get((metric.name, device)) for metric in families]
        if samples:
            low, mean, high = (float(value or -1) for value in ours)
            assert min(samples) / unit <= low <= mean <= high <= max(samples) / unit
        else:
            assert ours == [None, None, None]


def test_processes(handles: list[Any], nodes: Any) -> None:
    def known(handle: Any) -> dict[tuple[str, str], int | None]:
        return {
            (str(process.pid), kind): process.usedGpuMemory
            for kind, call in (
                ("compute", nv.nvmlDeviceGetComputeRunningProcesses_v3),
                ("graphics", nv.nvmlDeviceGetGraphicsRunningProcesses_v3),
            )
            for process in oracle.ask(call, handle) or ()
        }

    before = [known(handle) for handle in handles]
    rows = nodes().tick()
    for handle, earlier in zip(handles, before, strict=True):
        device = labels_of(rows, nv.nvmlDeviceGetUUID(handle))
        later = known(handle)
        ours = {
            (str(labels[2]), str(labels[4])): value
            for (name, labels), value in rows.items()
            if name == "esnode_gpu_process_memory_bytes" and labels[:2] == device
        }
        unchanged = {
            key: used
            for key, used in earlier.items()
            if later.get(key) == used and used not in (None, 2**64 - 1)
        }
        assert {key: ours.get(key) for key in unchanged} == unchanged
        assert ours.keys() <= earlier.keys() | later.keys()
        if earlier.keys() == later.keys() and ("esnode_gpu_processes", device) in rows:
            assert rows["esnode_gpu_processes", device] == len({pid for pid, _ in earlier})
