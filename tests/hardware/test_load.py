"""Under a real load the values rise that should."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pynvml as nv
import pytest

from . import load, oracle
from .lane import Node, Rows
from .test_values import labels_of

#: Seconds that the load lasts at most, until it counts, and a GPU is given to come to rest.
LASTS, WARM = 60, 4
#: Above it somebody else is at work.
IDLE = 10


@pytest.fixture
def node(nvml: None) -> Iterator[Node]:
    node = Node(gpu_process_metrics=True, peak_window_seconds=5)
    yield node
    node.close()


@pytest.fixture
def handle(handles: list[Any]) -> Any:
    """A GPU that is not in MIG mode and at rest."""
    for handle in handles:
        mode = oracle.ask(nv.nvmlDeviceGetMigMode, handle)
        rates = oracle.ask(nv.nvmlDeviceGetUtilizationRates, handle)
        if rates is not None and rates.gpu <= IDLE and not (mode and mode[0]):
            return handle
    pytest.skip("no GPU here is at rest and without MIG")


def of_device(rows: Rows, device: tuple[str, str]) -> dict[tuple[str, ...], float]:
    """The rows of a GPU by family and further labels."""
    return {
        (name.removeprefix("esnode_gpu_"), *(label or "" for label in labels[2:])): value
        for (name, labels), value in rows.items()
        if labels[:2] == device
    }


def test_use_power_and_clocks_rise(node: Node, handle: Any) -> None:
    uuid, pci = nv.nvmlDeviceGetUUID(handle), nv.nvmlDeviceGetPciInfo(handle).busId
    rows = node.pair()
    device = labels_of(rows, uuid)
    rest = of_device(rows, device)
    command = [sys.executable, "-m", load.__name__, pci, str(LASTS)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        said = program.stdout.readline().strip()
        if said != "running":
            program.wait()
            assert program.returncode == 2, "it has ended without a reason"
            pytest.skip(f"no load can be put on this GPU: {said}")
        try:
            time.sleep(WARM)
            node.close()  # what is read every so many seconds is read anew
            node.tick()
            time.sleep(1)
            busy = of_device(node.tick(), device)
        finally:
            program.terminate()
    check(rest, busy)


def check(rest: dict[tuple[str, ...], float], busy: dict[tuple[str, ...], float]) -> None:
    assert busy["utilization_percent",] >= 80
    assert busy["memory_used_bytes",] >= rest["memory_used_bytes",] + load.SIZE
    assert busy["memory_free_bytes",] <= rest["memory_free_bytes",] - load.SIZE
    assert busy["clock_hertz", "sm"] >= rest["clock_hertz", "sm"]
    assert busy["clock_hertz", "sm"] > 0.5 * busy["clock_max_hertz", "sm"]
    assert busy["throttle_reason", "gpu_idle"] == 0
    assert busy["processes",] >= 1
    if ("power_watts",) in busy:
        assert busy["power_watts",] > 1.2 * rest["power_watts",]
        assert busy["power_watts",] < 1.5 * busy.get(("power_limit_watts", "max"), 1e9)
    if ("energy_joules_total",) in busy:
        joules = busy["energy_joules_total",] - rest["energy_joules_total",]
        assert joules > WARM * rest["power_watts",]
    if ("power_max_watts",) in busy:
        assert busy["power_max_watts",] >= busy["power_min_watts",] > 0
        assert busy["power_max_watts",] > rest["power_watts",]
    if ("utilization_max_percent",) in busy:
        assert busy["utilization_max_percent",] >= 80
    if ("sm_active_ratio",) in busy:
        assert 0.8 < busy["sm_active_ratio",] <= 1
        assert 0 < busy["sm_occupancy_ratio",] <= 1
        assert 0.01 < busy["tensor_active_ratio",] <= 1
        assert busy["dram_active_ratio",] < 0.5, "it works in registers"
