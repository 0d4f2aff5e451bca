"""Drivers that lack functions, or know older structs only: what is lost is what there is no other
source for.

A process has one library for as long as it lives, so that each one without some function is read by
a child, which a process that has no library yet forks.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from esnode.collectors.nvidia.readings import PIPES
from tests.fakenvml import ROOT, Fake, library

from .node import Node
from .scripted import script
from .test_values import rows

FUNCTIONS = re.findall(r"(REQUIRED|OPTIONAL)\((nvml\w+),", (ROOT / "csrc/nvml_abi.h").read_text())
OPTIONAL = [name for kind, name in FUNCTIONS if kind == "OPTIONAL"]

RATIOS = ("sm_active", "sm_occupancy", "tensor_active", "dram_active")
MIG_GPM = {"mig_utilization_percent", *(f"mig_{name}_ratio" for name in RATIOS)}
GPM = {
    *(f"gpu_{name}_ratio" for name in (*RATIOS, "graphics_active", "pipe_active")),
    *(f"gpu_gpm_{b}_{w}_bytes_per_second" for b in ("pcie", "nvlink") for w in ("tx", "rx")),
    "gpu_gpm_cycles_total",
}
MIG = {
    *("mig_info", "mig_multiprocessors", "mig_ecc_errors_total"),
    *(f"mig_memory_{name}_bytes" for name in ("total", "used", "free")),
    *(f"mig_bar1_{name}_bytes" for name in ("total", "used")),
    *MIG_GPM,
}
#: Families whose rows are others when a function is missing; where one is not named, none is.
#: Newer functions have an older one behind them, and fields have calls.
LOST = {
    "nvmlSystemGetDriverVersion": {"gpu_info"},
    "nvmlDeviceGetSerial": {"gpu_info"},
    "nvmlDeviceGetBoardPartNumber": {"gpu_info"},
    "nvmlDeviceGetVbiosVersion": {"gpu_info"},
    "nvmlDeviceGetModuleId": {"gpu_info"},
    "nvmlDeviceGetMinorNumber": {"gpu_info"},
    "nvmlDeviceGetNumaNodeId": {"gpu_info"},
    "nvmlDeviceGetArchitecture": {"gpu_info"},
    "nvmlDeviceGetCudaComputeCapability": {"gpu_info"},
    "nvmlDeviceGetPciInfo_v3": {"gpu_info"},
    "nvmlDeviceGetName": {"gpu_info", "mig_info"},
    "nvmlSystemGetConfComputeState": {"gpu_mode"},
    "nvmlDeviceGetUtilizationRates": {
        "gpu_utilization_percent",
        "gpu_memory_utilization_percent",
    },
    "nvmlDeviceGetEncoderUtilization": {"gpu_encoder_utilization_percent"},
    "nvmlDeviceGetDecoderUtilization": {"gpu_decoder_utilization_percent"},
    "nvmlDeviceGetJpgUtilization": {"gpu_jpeg_utilization_percent"},
    "nvmlDeviceGetOfaUtilization": {"gpu_ofa_utilization_percent"},
    # What is reserved is told by the newer one only, the older one has it in what is used.
    "nvmlDeviceGetMemoryInfo_v2": {
        *("gpu_memory_used_bytes", "gpu_memory_reserved_bytes"),
    },
    "nvmlDeviceGetBAR1MemoryInfo": {
        f"{of}_bar1_{name}_bytes" for of in ("gpu", "mig") for name in ("total", "used")
    },
    "nvmlDeviceGetMarginTemperature": {"gpu_temperature_margin_celsius"},
    "nvmlDeviceGetTemperatureThreshold": {"gpu_temperature_threshold_celsius"},
    "nvmlDeviceGetFieldValues": {
        *("gpu_power_average_watts", "gpu_memory_temperature_celsius", "gpu_recovery_action"),
        *("gpu_temperature_threshold_celsius", "gpu_throttle_seconds_total"),
        *(f"gpu_pcie_{name}_total" for name in ("tx_bytes", "rx_bytes", "errors")),
        *(f"gpu_nvlink_{name}_total" for name in ("tx_bytes", "rx_bytes", "errors")),
        "gpu_nvlink_speed_bytes",
    },
    # Of T4, which has no such fields.
    "nvmlDeviceGetPowerUsage": {"gpu_power_watts"},
    "nvmlDeviceGetEnforcedPowerLimit": {"gpu_power_limit_watts"},
    "nvmlDeviceGetPowerManagementDefaultLimit": {"gpu_power_limit_watts"},
    "nvmlDeviceGetPowerManagementLimitConstraints": {"gpu_power_limit_watts"},
    "nvmlDeviceGetTotalEnergyConsumption": {"gpu_energy_joules_total"},
    "nvmlDeviceGetSamples": {
        f"gpu_{of}_{name}_{unit}"
        for of, unit in (("power", "watts"), ("utilization", "percent"))
        for name in ("min", "mean", "max")
    },
    "nvmlDeviceGetClockInfo": {"gpu_clock_hertz"},
    "nvmlDeviceGetMaxClockInfo": {"gpu_clock_max_hertz"},
    "nvmlDeviceGetPerformanceState": {"gpu_pstate"},
    # The first fan is all that can be told of then.
    "nvmlDeviceGetNumFans": {"gpu_fan_speed_percent"},
    "nvmlDeviceGetFanSpeed_v2": {"gpu_fan_speed_percent"},
    "nvmlDeviceGetTotalEccErrors": {"mig_ecc_errors_total"},
    "nvmlDeviceGetMemoryErrorCounter": {"gpu_ecc_errors_total"},
    "nvmlDeviceGetSramEccErrorStatus": {
        "gpu_ecc_errors_total",  # of SRAM, which its places add up to
        "gpu_ecc_sram_threshold_exceeded",
    },
    "nvmlDeviceGetRemappedRows": {
        *("gpu_remapped_rows_total", "gpu_remap_pending", "gpu_remap_failure"),
    },
    "nvmlDeviceGetRowRemapperHistogram": {"gpu_remap_banks"},
    "nvmlDeviceGetCurrPcieLinkGeneration": {"gpu_pcie_link_generation"},
    "nvmlDeviceGetMaxPcieLinkGeneration": {"gpu_pcie_link_generation"},
    "nvmlDeviceGetCurrPcieLinkWidth": {"gpu_pcie_link_width"},
    "nvmlDeviceGetMaxPcieLinkWidth": {"gpu_pcie_link_width"},
    "nvmlDeviceGetGpuFabricInfoV": {"gpu_fabric_health"},
    "nvmlDeviceGetPersistenceMode": {"gpu_mode"},
    "nvmlDeviceGetComputeMode": {"gpu_mode"},
    "nvmlDeviceGetComputeRunningProcesses_v3": {
        *("gpu_processes", "gpu_process_memory_bytes"),
    },
    "nvmlDeviceGetGraphicsRunningProcesses_v3": {
        *("gpu_processes", "gpu_process_memory_bytes"),
    },
    "nvmlDeviceGetMigMode": MIG | {"gpu_mode"},
    "nvmlDeviceGetMigDeviceHandleByIndex": MIG,
    "nvmlDeviceGetGpuInstanceId": MIG,
    "nvmlDeviceGetComputeInstanceId": MIG,
    "nvmlDeviceGetAttributes_v2": {"mig_multiprocessors"},
    "nvmlDeviceGetGpuInstanceById": {"mig_info"},
    "nvmlGpuInstanceGetInfo": {"mig_info"},
    "nvmlGpmQueryDeviceSupport": GPM | MIG_GPM,
    "nvmlGpmSampleAlloc": GPM | MIG_GPM,
    "nvmlGpmSampleFree": GPM | MIG_GPM,
    "nvmlGpmSampleGet": GPM | MIG_GPM,
    "nvmlGpmMigSampleGet": MIG_GPM,
    "nvmlGpmMetricsGet": GPM | MIG_GPM,
}

#: Reads lines with the path of a library, a directory and an option of the fake, and answers each
#: with the rows that a child has read from four GPUs, or with what it has died of.
PROGRAM = """
import ctypes, json, os, sys, tempfile, time
from pathlib import Path
import pynvml as nv
from tests.fakenvml import Fake, Mig
from tests.nvml.node import Node
from tests.nvml.scripted import samples, script, script_instance
from tests.nvml.test_values import rows

def read(library, now):
    fake = Fake(Path(library))
    nv.nvmlLib = ctypes.CDLL(library)
    fake.set_gpus(["H100", "A6000", "T4", "H100"])
    nv.nvmlInit()
    fake.gpu(0).feature("NUMA", True)
    fake.gpu(1).set("ecc_mode", 1)
    for slot in range(4):
        script(fake, slot)
        samples(fake, slot, now)
    fake.gpu(3).mig([Mig("1g.10gb", gi=7), Mig("3g.40gb", gi=2, start=4)])
    for index in range(2):
        script_instance(fake, 3, index)
    fake.gpu(0).processes(compute=[(1, 5)], graphics=[(2**22 + 1, 7)])
    with tempfile.TemporaryDirectory() as root:
        node = Node(Path(library), Path(root), enable_gpu_mig=True, gpu_process_metrics=True)
        node.tick()
        time.sleep(0.105)
        page = node.tick()
        up = list(page.of("esnode_gpu_up").values())
        found = {" ".join(map(str, (key[0], *key[1]))): value for key, value in rows(page).items()}
        node.close()
    return {"rows": found, "up": up, "errors": node.errors, "leaked": fake.gpm_samples()}

for line in sys.stdin:
    library, now = json.loads(line)
    child = os.fork()
    if child == 0:
        print(json.dumps(read(library, now)), flush=True)
        os._exit(0)
    code = os.waitpid(child, 0)[1]
    if code:
        print(json.dumps({"died": code}), flush=True)
"""

Rows = dict[str, float]


@pytest.fixture(scope="module")
def child() -> subprocess.Popen[str]:
    """What forks the children. `has` of scripted.py asks for fields, which may be missing."""
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield process
        assert process.stdin
        process.stdin.close()


@pytest.fixture(scope="module")
def read(child: subprocess.Popen[str]) -> Callable[[Path], Rows]:
    now = time.time_ns() // 1000

    def read(path: Path) -> Rows:
        assert child.stdin
        assert child.stdout
        print(json.dumps([str(path), now]), file=child.stdin, flush=True)
        said = json.loads(child.stdout.readline())
        assert "died" not in said, said
        assert said["up"] == [1, 1, 1, 1]
        assert (said["errors"], said["leaked"]) == (0, 0)
        return said["rows"]  # type: ignore[no-any-return]

    return read


@pytest.fixture(scope="module")
def whole(read: Callable[[Path], Rows]) -> Rows:
    """What a library has that lacks nothing."""
    return read(library())


def family(row: str) -> str:
    return row.split(" ")[0].removeprefix("esnode_")


@pytest.mark.parametrize("function", OPTIONAL)
def test_without_a_function(function: str, read: Callable[[Path], Rows], whole: Rows) -> None:
    found = read(library(missing=[function]))
    other = {row for row in whole.keys() | found.keys() if whole.get(row) != found.get(row)}
    assert {family(row) for row in other} == LOST.get(function, set())
    new = {row for row in found if row not in whole and "_info" not in row}
    assert new == set()


def test_without_any_of_them(read: Callable[[Path], Rows]) -> None:
    found = read(library(missing=OPTIONAL))
    assert [row.split(" ")[0] for row in found] == ["esnode_gpu_info"] * 4
    assert all(set(row.split(" ")[3:]) <= {"None"} for row in found)


def test_the_table_names_functions_only() -> None:
    assert LOST.keys() <= set(OPTIONAL)


def test_older_structs(fake: Fake, node: Callable[..., Node]) -> None:
    """A driver that refuses the version of a struct is asked for the version before, or by the
    function before."""
    fake.set_gpus(["H100", "A6000"])
    for slot in range(2):
        script(fake, slot)
    before = rows(node().pair())
    fake.option("old_structs", 1)
    a = node()
    found = rows(a.pair())
    other = {key[0].removeprefix("esnode_") for key in before if before[key] != found.get(key)}
    assert other == {
        *GPM,
        *LOST["nvmlDeviceGetMemoryInfo_v2"],
        *LOST["nvmlDeviceGetMarginTemperature"],
        *LOST["nvmlDeviceGetSramEccErrorStatus"],
    }
    assert found.keys() <= before.keys()
    for slot in range(2):
        card, page = fake.gpu(slot), a.tick()
        used = card.get("memory_used") + card.get("memory_reserved")
        assert page.get("esnode_gpu_memory_used_bytes", gpu=slot) == used
    assert a.errors == 0
    fake.forget_calls()
    a.tick()
    assert not {
        name for name, _ in fake.calls() if name.endswith(("_v2", "V")) and "Count" not in name
    }


@pytest.mark.parametrize("known", [1, 9, 13, 21])
def test_a_driver_that_knows_fewer_metrics(
    fake: Fake, node: Callable[..., Node], known: int
) -> None:
    """One that it does not know makes it refuse all; it is found out once."""
    fake.set_gpus(["H100"])
    for metric in (*range(1, 14), 20, 21, 60, 61):
        fake.gpu(0).metric(metric, metric)
    fake.option("known_metrics", known)
    a = node()
    page = a.pair()
    numbers = {
        "esnode_gpu_graphics_active_ratio": 1,
        "esnode_gpu_sm_active_ratio": 2,
        "esnode_gpu_sm_occupancy_ratio": 3,
        "esnode_gpu_tensor_active_ratio": 5,
        "esnode_gpu_dram_active_ratio": 10,
    }
    for name, metric in numbers.items():
        assert page.get(name) == (metric / 100 if metric <= known else None), name
    pipes = {key[-1]: value for key, value in page.of("esnode_gpu_pipe_active_ratio").items()}
    assert pipes == {name: metric / 100 for metric, name in PIPES.items() if metric <= known}
    fake.forget_calls()
    time.sleep(0.11)
    a.tick()
    assert fake.calls()["nvmlGpmMetricsGet", 0] == 1
    assert a.errors == 0
