"""Values of a GPU that are different for each value, GPU, link and instance."""

from __future__ import annotations

from zlib import crc32

import pynvml as nv

from tests.fakenvml import TOTAL, Fake, Gpu

PLACES = ("total", "l1", "l2", "dram", "register_file", "texture", "texture_shm", "cbu", "sram")
ECC = [
    f"{kind}_{scope}_{place}"
    for kind in ("corrected", "uncorrected")
    for scope in ("volatile", "aggregate")
    for place in PLACES
]
#: The smallest and largest value of a property.
RANGES = {
    **dict.fromkeys((f"utilization_{e}" for e in ("gpu", "memory", "encoder")), (1, 100)),
    **dict.fromkeys((f"utilization_{e}" for e in ("decoder", "jpeg", "ofa")), (1, 100)),
    "memory_used": (1 << 30, 9 << 30),
    "memory_reserved": (1 << 20, 1 << 29),
    "bar1_used": (1 << 20, 1 << 27),
    "temperature": (20, 90),
    "temperature_memory": (20, 90),
    "temperature_margin": (-9, 60),
    **dict.fromkeys((f"tlimit_{t}" for t in ("shutdown", "slowdown", "memory_max")), (-30, 0)),
    "tlimit_gpu_max": (0, 20),
    "power_average": (50_001, 999_999),
    "power_usage": (50_001, 999_999),
    **dict.fromkeys(
        (f"power_limit{p}" for p in ("", "_min", "_max", "_default")), (9_999, 1 << 20)
    ),
    "energy": (1 << 33, 1 << 45),
    **dict.fromkeys((f"clock_{c}" for c in ("graphics", "sm", "memory", "video")), (200, 4000)),
    **dict.fromkeys((f"clock_max_{c}" for c in ("graphics", "sm", "memory", "video")), (200, 4000)),
    "pstate": (0, 15),
    "fan_0": (1, 100),
    "fan_1": (1, 100),
    "clock_reasons": (1, 0x1FF),
    **dict.fromkeys(ECC, (1, 1 << 40)),
    **dict.fromkeys(
        (f"sram_volatile_{p}" for p in ("parity", "secded", "corrected")), (1, 1 << 40)
    ),
    **dict.fromkeys(
        (f"sram_aggregate_{p}" for p in ("parity", "secded", "corrected")), (1, 1 << 40)
    ),
    "sram_threshold": (0, 1),
    **dict.fromkeys(("remapped_corrected", "remapped_uncorrected"), (1, 500)),
    **dict.fromkeys(("remap_pending", "remap_failure"), (0, 1)),
    **dict.fromkeys((f"banks_{b}" for b in ("max", "high", "partial", "low", "none")), (1, 999)),
    **dict.fromkeys(("retired_sbe", "retired_dbe"), (1, 60)),
    "retired_pending": (0, 1),
    **dict.fromkeys(("pcie_generation", "pcie_generation_max"), (1, 6)),
    **dict.fromkeys(("pcie_width", "pcie_width_max"), (1, 16)),
    "pcie_replays": (1, 1 << 31),
    "fabric_state": (1, 3),
    "persistence": (0, 1),
    "compute_mode": (0, 3),
    "recovery_action": (0, 7),
}
OF_INSTANCE = ("memory_used", "bar1_used", *ECC)
#: Those whose values are no property's: in total, and of each link.
FIELDS = (*range(74, 82), *range(173, 184), 197, 198, *range(269, 272))
LINK_FIELDS = (138, 139, 161, 162, 163, 202, 204, *range(206, 213), 214, 215, 219, 221)


def number(low: int, high: int, *what: object) -> int:
    """The same for the same words."""
    return low + crc32(repr(what).encode()) * 2**13 % (high - low + 1)


def has(handle: object, field: int, scope: int) -> bool:
    try:
        (found,) = nv.nvmlDeviceGetFieldValues(handle, [(field, scope)])
    except nv.NVMLError_FunctionNotFound:
        return False
    return bool(found.nvmlReturn == 0)


def script(fake: Fake, slot: int) -> None:
    """Gives the GPU in a slot values of its own; fields only where its model has them."""
    gpu = fake.gpu(slot)
    handle = nv.nvmlDeviceGetHandleByIndex(slot)
    for name, (low, high) in RANGES.items():
        gpu.set(name, number(low, high, name, slot) % 2**64)
    gpu.set("numa_node", slot)
    gpu.set("fans", 2 * gpu.get("fans"))
    gpu.set("fabric_health", 0x155 if slot % 2 else 0x2A6)
    for field in FIELDS:
        if has(handle, field, 0):
            gpu.field(
                field, number(1, 1 << 31 if field in range(173, 184) else 1 << 50, field, slot)
            )
    links = range(gpu.get("links"))
    for link in links:
        gpu.field(165, number(0, 1, "link", slot, link), scope=link)
        for field in LINK_FIELDS:
            if has(handle, field, 0):
                gpu.field(field, number(1, 1 << 48, field, slot, link), scope=link)
        if has(handle, 220, 0):
            gpu.field(
                220, number(1, 15, "ber", slot, link) << 8 | number(8, 20, slot, link), scope=link
            )
    if links and has(handle, 160, TOTAL):
        gpu.field(160, number(1, 1 << 40, 160, slot))
    metrics(gpu, slot)


def metrics(gpu: Gpu, *what: object) -> None:
    for metric in (*range(1, 14), 20, 21, 60, 61, *range(248, 261)):
        if gpu.instance < 0 or metric < 20:
            gpu.metric(metric, number(1, 10_000, metric, *what) / 100)


def script_instance(fake: Fake, slot: int, index: int) -> None:
    gpu = fake.gpu(slot).instance_at(index)
    for name in OF_INSTANCE:
        low, high = RANGES[name] if name != "memory_used" else (1 << 20, 1 << 30)
        gpu.set(name, number(low, high, name, slot, index))
    metrics(gpu, slot, index)


def samples(fake: Fake, slot: int, now: int) -> None:
    """Of power and utilisation, one a second up to ``now`` in microseconds: of the last 55 seconds,
    and of a time that lies outside every window."""
    for ring, high in ((0, 900_000), (1, 100)):
        for age in (*range(90, 65, -1), *range(55, -1, -1)):
            value = number(1, high, "sample", ring, slot, age)
            fake.gpu(slot).sample(ring, now - age * 1_000_000, value)
