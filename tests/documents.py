"""Status documents, made by hand, for the commands that show and judge them.

python -m tests.documents writes the golden screens anew; look at the difference.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import msgspec
from msgspec.structs import replace

from esnode import status
from esnode.cli import screen

SCREENS = Path(__file__).parent / "golden" / "screens"

#: 2026-11-18T11:06:40Z, at which the screens are drawn.
NOW = 1_795_000_000_000
GIB = 1 << 30

T = TypeVar("T")


def unknown(struct: type[T], **values: Any) -> T:
    """A struct in which nothing is known but the values: null, or what is least where null may not
    be."""
    about = msgspec.inspect.type_info(struct)
    assert isinstance(about, msgspec.inspect.StructType)
    for field in about.fields:
        if field.name not in values:
            values[field.name] = _least(field.type)
    return struct(**values)


def _least(kind: msgspec.inspect.Type) -> Any:
    if isinstance(kind, msgspec.inspect.UnionType):
        return None  # all unions in the document are with null
    if isinstance(kind, msgspec.inspect.StructType):
        return unknown(kind.cls)
    if isinstance(kind, msgspec.inspect.LiteralType):
        return kind.values[-1]
    if isinstance(kind, msgspec.inspect.ListType):
        return []
    return {"str": "", "int": 0, "float": 0.0, "bool": False}[
        type(kind).__name__.removesuffix("Type").lower()
    ]


def gpu(index: int, health: dict[str, Any] | None = None, **values: Any) -> status.Gpu:
    """An H100 at work; with ``health`` in its health, and the other values in itself."""
    about = {
        "gpu": str(index),
        "uuid": f"GPU-00000000-0000-0000-0000-00000000000{index}",
        "vendor": "Nvidia",
        "name": "NVIDIA H100 80GB HBM3",
        "up": True,
        "stuck": False,
        "util_percent": 98.0 - 5 * index,
        "memory_total_bytes": 80 * GIB,
        "memory_used_bytes": (10 + 4 * index) * GIB,
        "temperature_celsius": 60.0 + index,
        "memory_temperature_celsius": 70.0 + index,
        "power_watts": 612.3 - 10 * index,
        "power_limit_watts": 700.0,
        "clock_sm_mhz": 1980.0,
        "thermal_throttle": False,
        "power_throttle": False,
        "identity": unknown(
            status.Identity, driver_version="550.54.15", cuda_driver_version="12.4"
        ),
        "topo": status.Topology(5, 16, 5, 16),
        "health": unknown(
            status.Health,
            **{
                "throttle_reasons": [],
                "recovery_action": "none",
                "ecc_uncorrected_aggregate": 0,
                **(health or {}),
            },
        ),
    }
    return unknown(status.Gpu, **{**about, **values})


def collectors(**reasons: str) -> list[status.Collector]:
    """The agent's collectors, down for some reasons."""
    names = ("node", "cpu", "numa", "memory", "disk", "network", "power", "gpu", "degradation")
    return [status.Collector(n, True, n not in reasons, reasons.get(n)) for n in names]


WELL = unknown(
    status.Status,
    schema_version=status.VERSION,
    agent=unknown(
        status.Agent,
        version="0.1.0",
        python="3.11.7",
        uptime_seconds=300_000.0,
        cpu_percent=0.31,
        resident_bytes=62 << 20,
        collectors=collectors(),
    ),
    hostname="dgx-h100-07",
    kernel="5.15.0-1053-nvidia",
    mode="standalone",
    healthy=True,
    load_avg_1m=20.13,
    load_avg_5m=18.3,
    load_avg_15m=17.0,
    uptime_seconds=1_048_000.0,
    last_scrape_unix_ms=NOW - 2000,
    cpu_cores=224,
    cpu_util_percent=12.34,
    mem_total_bytes=2014 * GIB,
    mem_used_bytes=512 * GIB,
    mem_free_bytes=900 * GIB,
    mem_available_bytes=1502 * GIB,
    swap_total_bytes=8 * GIB,
    swap_used_bytes=0,
    disks=[
        unknown(
            status.Disk,
            device="sda1",
            mount="/boot/efi",
            total_bytes=512 << 20,
            used_bytes=6 << 20,
        ),
        unknown(
            status.Disk,
            device="md0",
            mount="/",
            total_bytes=1800 * GIB,
            used_bytes=400 * GIB,
            read_bytes_per_sec=1.2e6,
            written_bytes_per_sec=3.4e6,
            busy_percent=3.2,
        ),
        unknown(
            status.Disk,
            device="md1",
            mount="/raid",
            total_bytes=28_000 * GIB,
            used_bytes=14_000 * GIB,
            read_bytes_per_sec=12.2e9,
            written_bytes_per_sec=0.0,
            busy_percent=87.0,
        ),
    ],
    primary_nic="enp29s0f0",
    interfaces=[
        status.Interface("ibp24s0", True, 50e9, 0.0, 0.0, 0.0),
        status.Interface("enp29s0f1", False, None, 0.0, 0.0, 0.0),
        status.Interface("enp29s0f0", True, 12.5e9, 1.5e6, 2.25e9, 0.0),
    ],
    node_power_watts=6432.0,
    cpu_package_power_watts=[status.PackagePower("0", 201.2), status.PackagePower("1", 210.9)],
    cpu_temperatures=[
        status.CpuTemperature("Package id 0", 62.0, "0"),
        status.CpuTemperature("Package id 1", 59.0, "1"),
    ],
    disk_degraded=False,
    network_degraded=False,
    swap_degraded=False,
    gpu_degraded=False,
    degradation_score=0.0,
    tsdb=unknown(status.Tsdb, enabled=True, bytes=512 << 20),
    gpus=[gpu(index) for index in range(8)],
)

ILL = replace(
    WELL,
    agent=replace(
        WELL.agent,
        collectors=collectors(
            power="/sys/class/powercap/intel-rapl:0/energy_uj: Permission denied",
        ),
    ),
    last_errors=[
        status.Failure(
            "infiniband", "/sys/class/infiniband/mlx5_3/ports/1/rate: EIO", NOW - 600_000
        ),
        status.Failure("network", "/sys/class/net/\x1b[2Jeth9/speed: EINVAL", NOW - 3_600_000),
    ],
    disks=[
        replace(each, used_bytes=27_500 * GIB) if each.mount == "/raid" else each
        for each in WELL.disks or ()
    ],
    gpu_degraded=True,
    disk_degraded=True,
    degradation_score=3.5,
    degradation_reasons=[
        "GPU 3: Xid 79, 4 minutes ago: the GPU has fallen off the bus",
        "GPU 5: slowed down by heat for 12 % of the last minute",
        "md1: busy for 87 % of the last minute",
    ],
    gpus=[
        gpu(0, power_throttle=True, health={"throttle_reasons": ["sw_power_cap"]}),
        gpu(
            1,
            health={"last_xid": status.LastXid(43, "The application", "Nothing.", NOW - 7_200_000)},
        ),
        gpu(2, health={"ecc_uncorrected_aggregate": 2, "remapped_rows": 2}),
        gpu(
            3,
            up=False,
            util_percent=None,
            memory_used_bytes=None,
            temperature_celsius=None,
            power_watts=None,
            health={
                "recovery_action": "reset",
                "last_xid": status.LastXid(
                    79, "The GPU is off the bus.", "Reboot the node.", NOW - 240_000
                ),
            },
        ),
        gpu(4, stuck=True, up=False),
        gpu(5, thermal_throttle=True, health={"throttle_reasons": ["hw_thermal_slowdown"]}),
        gpu(6, mig_tree=status.MigTree(True, True, [unknown(status.MigDevice)] * 7)),
        gpu(7, util_percent=0.0, memory_used_bytes=0, power_watts=0.0, temperature_celsius=0.0),
    ],
)

#: No GPUs and why; little else.
DOWN = unknown(
    status.Status,
    hostname="gpu-node-01",
    mode="managed",
    agent=unknown(
        status.Agent,
        version="0.1.0",
        collectors=collectors(gpu="libnvidia-ml.so.1: neither the loader nor /usr/lib64 has it"),
    ),
    last_scrape_unix_ms=NOW - 600_000,
    cpu_util_percent=0.0,
    load_avg_1m=0.0,
    swap_total_bytes=0,
    gpus=[],
)

MANY = replace(
    ILL,
    gpus=[gpu(index) for index in range(14)] + [gpu(14, up=False), gpu(15)],
    degradation_reasons=[f"reason {number}" for number in range(20)],
)

NOTHING = unknown(status.Status)


class Drawn(NamedTuple):
    """A golden screen: a document on a terminal of some size, or piped."""

    name: str
    document: status.Status
    width: int | None = None
    height: int | None = None
    color: bool = False


DRAWN = (
    Drawn("well-80x23", WELL, 80, 23),
    Drawn("well-piped", WELL),
    Drawn("ill-80x23", ILL, 80, 23),
    Drawn("ill-120x40", ILL, 120, 40),
    Drawn("ill-piped", ILL),
    Drawn("ill-color", ILL, 80, 23, True),
    Drawn("down-80x23", DOWN, 80, 23),
    Drawn("many-80x23", MANY, 80, 23),
    Drawn("nothing-80x23", NOTHING, 80, 23),
)


def drawn(each: Drawn) -> str:
    """The text of a screen."""
    lines = screen.screen(each.document, NOW, each.width, each.height)
    return "".join(f"{screen.text(line, each.width, each.color)}\n" for line in lines)


def screens() -> Iterator[tuple[Path, str]]:
    for each in DRAWN:
        yield SCREENS / f"{each.name}.txt", drawn(each)


def main() -> int:
    SCREENS.mkdir(exist_ok=True)
    for path, text in screens():
        path.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
