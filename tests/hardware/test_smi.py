"""The values of the lane are what nvidia-smi shows."""

from __future__ import annotations

import csv
import shutil
import subprocess
from typing import Any

import pytest

from esnode.collectors.nvidia.card import INFO

from .lane import Node
from .test_values import ROUNDS, TOLERANCES, labels_of

#: What nvidia-smi calls a value: our row, and what one of its units is in ours.
NUMBERS: dict[str, tuple[str, tuple[str, ...], float]] = {
    "memory.total": ("memory_total_bytes", (), 1 << 20),
    "memory.reserved": ("memory_reserved_bytes", (), 1 << 20),
    "memory.used": ("memory_used_bytes", (), 1 << 20),
    "memory.free": ("memory_free_bytes", (), 1 << 20),
    "utilization.gpu": ("utilization_percent", (), 1),
    "utilization.memory": ("memory_utilization_percent", (), 1),
    "utilization.encoder": ("encoder_utilization_percent", (), 1),
    "utilization.decoder": ("decoder_utilization_percent", (), 1),
    "temperature.gpu": ("temperature_celsius", (), 1),
    "temperature.gpu.tlimit": ("temperature_margin_celsius", (), 1),
    "temperature.memory": ("memory_temperature_celsius", (), 1),
    "power.draw.instant": ("power_watts", (), 1),
    "power.draw.average": ("power_average_watts", (), 1),
    "enforced.power.limit": ("power_limit_watts", ("enforced",), 1),
    "power.default_limit": ("power_limit_watts", ("default",), 1),
    "power.min_limit": ("power_limit_watts", ("min",), 1),
    "power.max_limit": ("power_limit_watts", ("max",), 1),
    "clocks.current.graphics": ("clock_hertz", ("graphics",), 1e6),
    "clocks.current.sm": ("clock_hertz", ("sm",), 1e6),
    "clocks.current.memory": ("clock_hertz", ("memory",), 1e6),
    "clocks.current.video": ("clock_hertz", ("video",), 1e6),
    "clocks.max.graphics": ("clock_max_hertz", ("graphics",), 1e6),
    "clocks.max.sm": ("clock_max_hertz", ("sm",), 1e6),
    "clocks.max.memory": ("clock_max_hertz", ("memory",), 1e6),
    "fan.speed": ("fan_speed_percent", ("0",), 1),
    "ecc.errors.corrected.volatile.total": (
        *("ecc_errors_total", ("corrected", "volatile", "all")),
        1,
    ),
    "ecc.errors.uncorrected.volatile.total": (
        *("ecc_errors_total", ("uncorrected", "volatile", "all")),
        1,
    ),
    "ecc.errors.corrected.aggregate.total": (
        *("ecc_errors_total", ("corrected", "aggregate", "all")),
        1,
    ),
    "ecc.errors.uncorrected.aggregate.total": (
        *("ecc_errors_total", ("uncorrected", "aggregate", "all")),
        1,
    ),
    "retired_pages.single_bit_ecc.count": ("retired_pages_total", ("single_bit",), 1),
    "retired_pages.double_bit.count": ("retired_pages_total", ("double_bit",), 1),
    "pcie.link.gen.gpucurrent": ("pcie_link_generation", ("current",), 1),
    "pcie.link.gen.max": ("pcie_link_generation", ("max",), 1),
    "pcie.link.width.current": ("pcie_link_width", ("current",), 1),
    "pcie.link.width.max": ("pcie_link_width", ("max",), 1),
}
#: The words that stand for 0 and 1.
WORDS: dict[str, tuple[str, tuple[str, ...]]] = {
    "persistence_mode": ("mode", ("persistence",)),
    "mig.mode.current": ("mode", ("mig",)),
    "ecc.mode.current": ("ecc_mode", ()),
    "clocks_event_reasons.gpu_idle": ("throttle_reason", ("gpu_idle",)),
    "clocks_event_reasons.sw_power_cap": ("throttle_reason", ("sw_power_cap",)),
    "clocks_event_reasons.hw_slowdown": ("throttle_reason", ("hw_slowdown",)),
    "clocks_event_reasons.hw_thermal_slowdown": ("throttle_reason", ("hw_thermal_slowdown",)),
    "clocks_event_reasons.sw_thermal_slowdown": ("throttle_reason", ("sw_thermal_slowdown",)),
}
IDENTITY = {
    "name": "name",
    "serial": "serial",
    "vbios_version": "vbios",
    "pci.bus_id": "pci_bus_id",
    "driver_version": "driver_version",
}
ONE = {"Enabled": 1, "Active": 1, "Disabled": 0, "Not Active": 0}


def smi(*words: str) -> str:
    done = subprocess.run(
        ["nvidia-smi", *words], capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout


def ask(keys: list[str]) -> dict[str, dict[str, str]]:
    """What nvidia-smi tells, by UUID and by what it calls a value; what it has not is left out."""
    out = smi(f"--query-gpu={','.join(['uuid', *keys])}", "--format=csv,noheader,nounits")
    found = {}
    for row in csv.reader(out.splitlines(), skipinitialspace=True):
        values = dict(zip(["uuid", *keys], (text.strip() for text in row), strict=True))
        found[values["uuid"]] = {key: t for key, t in values.items() if not t.startswith("[")}
    return found


def known_keys() -> list[str]:
    """Those of ours that this version of nvidia-smi knows."""
    text = smi("--help-query-gpu")
    return [key for key in (*NUMBERS, *WORDS, *IDENTITY) if f'"{key}"' in text]


def is_near(family: str, unit: float, value: float, *told: float) -> bool:
    """Whether a value is between two that are rounded to a unit, or as far away as it may be."""
    absolute, part = TOLERANCES.get(family, (0, 0))
    slack = absolute + part * max(told) + (unit if unit > 1 else 0.01)
    return min(told) - slack <= value <= max(told) + slack


@pytest.mark.skipif(shutil.which("nvidia-smi") is None, reason="there is no nvidia-smi")
def test_every_value_that_nvidia_smi_shows(handles: list[Any]) -> None:
    keys = known_keys()
    assert len(keys) > 2
    good: set[tuple[str, str]] = set()
    bad: dict[tuple[str, str], object] = {}
    for _ in range(ROUNDS):
        bad = {}
        before = ask(keys)
        node = Node()
        rows = node.pair()
        node.close()
        after = ask(keys)
        for uuid, told in before.items():
            device = labels_of(rows, uuid)
            for key in told.keys() & after[uuid].keys() & (NUMBERS.keys() | WORDS.keys()):
                texts = told[key], after[uuid][key]
                if key in WORDS:
                    (family, labels), unit = WORDS[key], 1.0
                    numbers = tuple(float(ONE.get(text, -1)) for text in texts)
                else:
                    family, labels, unit = NUMBERS[key]
                    numbers = tuple(float(text) * unit for text in texts)
                value = rows.get((f"esnode_gpu_{family}", (*device, *labels)))
                if value is not None and is_near(family, unit, value, *numbers):
                    good.add((uuid, key))
                elif (uuid, key) not in good:
                    bad[uuid, key] = (value, texts)
        if not bad:
            break
    assert bad == {}
    assert good


@pytest.mark.skipif(shutil.which("nvidia-smi") is None, reason="there is no nvidia-smi")
def test_what_a_gpu_is(handles: list[Any]) -> None:
    told = ask([key for key in known_keys() if key in IDENTITY])
    node = Node()
    rows = node.tick()
    node.close()
    for name, labels in rows:
        if name == INFO.name:
            ours = dict(zip(INFO.labels, labels, strict=True))
            values = told.pop(ours["uuid"] or "")
            for key, value in values.items():
                if key in IDENTITY:
                    assert ours[IDENTITY[key]] == value, key
    assert told == {}
