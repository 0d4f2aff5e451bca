"""What the GPU lane must say, by family, as nvidia-ml-py reads it: slow, plain, one by one."""

from __future__ import annotations

import contextlib
import ctypes
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pynvml as nv

from tests.fakenvml import TOTAL

from .node import APART, Key

Handle = Any
#: The labels after those of the device, and the value; None for what there is not.
Row = tuple[tuple[str | None, ...], float | None]
Read = Callable[["Gpu"], Iterator[Row]]

WINDOW = 60


def ask(call: Callable[..., Any], *arguments: object) -> Any:
    """What a call answers; None where the device does not support it."""
    try:
        return call(*arguments)
    except (nv.NVMLError_NotSupported, nv.NVMLError_FunctionNotFound):
        return None


def fill(call: Callable[..., Any], handle: Handle, struct: Any) -> Any:
    """The struct that a call has filled; None where the device does not support it."""
    try:
        call(handle, ctypes.byref(struct))
    except nv.NVMLError_NotSupported:
        return None
    return struct


def constants(prefix: str, skip: str = "$^") -> dict[int, str]:
    """The words of an enumeration in nvidia-ml-py, by number."""
    return {
        number: name[len(prefix) :].lower()
        for name, number in vars(nv).items()
        if name.startswith(prefix) and not re.search(skip, name)
    }


def reasons() -> dict[int, str]:
    """Of the clocks, in snake case by bit."""
    found = {}
    for name, bit in vars(nv).items():
        match = re.match(r"nvmlClocks(?:Event|Throttle)Reason(\w+)", name)
        if match and match[1] not in ("None", "All", "UserDefinedClocks", "sAll"):
            found[bit] = re.sub(r"(?<!^)(?=[A-Z])", "_", match[1]).lower()
    return found


class Gpu:
    """A GPU, or one of its MIG instances, through nvidia-ml-py."""

    def __init__(self, handle: Handle, parent: Handle = None) -> None:
        self.handle = handle
        self.parent = parent
        self.sampled: dict[int, float] = {}

    def ask(self, call: Callable[..., Any], *arguments: object) -> Any:
        return ask(call, self.handle, *arguments)

    def field(self, number: int, scope: int = 0) -> float | None:
        try:
            (field,) = nv.nvmlDeviceGetFieldValues(self.handle, [(number, scope)])
        except nv.NVMLError_InvalidArgument:  # of a driver that does not know it
            return None
        if field.nvmlReturn == nv.NVML_ERROR_NOT_SUPPORTED:
            return None
        assert field.nvmlReturn == 0, f"field {number} of {scope}: {field.nvmlReturn}"
        names = ("dVal", "uiVal", "ulVal", "ullVal", "sllVal", "siVal", "usVal")
        return getattr(field.value, names[field.valueType])  # type: ignore[no-any-return]

    @property
    def links(self) -> range:
        return range(int(self.field(nv.NVML_FI_DEV_NVLINK_LINK_COUNT) or 0))

    def of_links(self, number: int) -> list[float]:
        """A field of every link; empty where it is not supported."""
        found = (self.field(number, link) for link in self.links)
        return [value for value in found if value is not None]


def over(value: float | None, den: float) -> float | None:
    return None if value is None else value / den


def times(value: float | None, num: float) -> float | None:
    return None if value is None else value * num


def flag(value: float | None) -> float | None:
    return None if value is None else float(value != 0)


def first(*values: Any) -> Any:
    return next((value for value in values if value is not None), None)


def one(read: Callable[[Gpu], float | None]) -> Read:
    """A family that has a row for each device."""

    def rows(gpu: Gpu) -> Iterator[Row]:
        yield (), read(gpu)

    return rows


def part(call: Callable[..., Any], name: str | int, *arguments: object) -> Read:
    """A member, or an item, of what a call answers."""

    def read(gpu: Gpu) -> float | None:
        answer = gpu.ask(call, *arguments)
        if answer is None:
            return None
        return getattr(answer, name) if isinstance(name, str) else answer[name]  # type: ignore[no-any-return]

    return one(read)


def by(names: dict[Any, str], read: Callable[[Gpu, Any], float | None]) -> Read:
    """A family with a row for each name of what is read by its key."""

    def rows(gpu: Gpu) -> Iterator[Row]:
        for key, name in names.items():
            yield (name,), read(gpu, key)

    return rows


def state(names: dict[int, str], read: Callable[[Gpu], float | None]) -> Read:
    """A family with a row of 1 for the word that a number stands for."""

    def rows(gpu: Gpu) -> Iterator[Row]:
        number = read(gpu)
        for key, name in names.items():
            yield (name,), 1 if number == key else None

    return rows


def memory(name: str) -> Read:
    return part(nv.nvmlDeviceGetMemoryInfo, name, nv.nvmlMemory_v2)


def metric(number: int, num: float = 1, den: float = 1) -> Read:
    return one(lambda gpu: over(times(gpu.sampled.get(number), num), den))


def ratios(names: dict[int, str]) -> Read:
    return by(names, lambda gpu, number: over(gpu.sampled.get(number), 100))


def ring(kind: int, what: Callable[[list[float]], float], den: float = 1) -> Read:
    """Of the samples of the window."""

    def read(gpu: Gpu) -> float | None:
        try:
            _, samples = nv.nvmlDeviceGetSamples(gpu.handle, kind, 0)
        except (nv.NVMLError_NotFound, nv.NVMLError_NotSupported):
            return None
        newest = max(sample.timeStamp for sample in samples)
        return (
            what([s.sampleValue.uiVal for s in samples if newest - s.timeStamp <= WINDOW * 1e6])
            / den
        )

    return one(read)


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


# --------------------------------------------------------------------------------- the GPU's rows

CLOCKS = {
    nv.NVML_CLOCK_GRAPHICS: "graphics",
    nv.NVML_CLOCK_SM: "sm",
    nv.NVML_CLOCK_MEM: "memory",
    nv.NVML_CLOCK_VIDEO: "video",
}
TYPES = {
    nv.NVML_MEMORY_ERROR_TYPE_CORRECTED: "corrected",
    nv.NVML_MEMORY_ERROR_TYPE_UNCORRECTED: "uncorrected",
}
SCOPES = {nv.NVML_VOLATILE_ECC: "volatile", nv.NVML_AGGREGATE_ECC: "aggregate"}
LOCATIONS = {
    **constants("NVML_MEMORY_LOCATION_", "COUNT|DEVICE_MEMORY|SRAM"),
    nv.NVML_MEMORY_LOCATION_DRAM: "dram",
}
TOTALS = {
    (0, 0): nv.NVML_FI_DEV_ECC_SBE_VOL_TOTAL,
    (1, 0): nv.NVML_FI_DEV_ECC_DBE_VOL_TOTAL,
    (0, 1): nv.NVML_FI_DEV_ECC_SBE_AGG_TOTAL,
    (1, 1): nv.NVML_FI_DEV_ECC_DBE_AGG_TOTAL,
}
LINK_ERRORS = {
    nv.NVML_FI_DEV_NVLINK_ERROR_DL_REPLAY: "replay",
    nv.NVML_FI_DEV_NVLINK_ERROR_DL_RECOVERY: "recovery",
    nv.NVML_FI_DEV_NVLINK_ERROR_DL_CRC: "crc",
    nv.NVML_FI_DEV_NVLINK_COUNT_MALFORMED_PACKET_ERRORS: "malformed_packet",
    nv.NVML_FI_DEV_NVLINK_COUNT_BUFFER_OVERRUN_ERRORS: "buffer_overrun",
    nv.NVML_FI_DEV_NVLINK_COUNT_RCV_ERRORS: "rx",
    nv.NVML_FI_DEV_NVLINK_COUNT_RCV_REMOTE_ERRORS: "rx_remote",
    nv.NVML_FI_DEV_NVLINK_COUNT_RCV_GENERAL_ERRORS: "rx_general",
    nv.NVML_FI_DEV_NVLINK_COUNT_LOCAL_LINK_INTEGRITY_ERRORS: "local_link_integrity",
    nv.NVML_FI_DEV_NVLINK_COUNT_XMIT_DISCARDS: "tx_discards",
    nv.NVML_FI_DEV_NVLINK_COUNT_LINK_RECOVERY_FAILED_EVENTS: "recovery_failed",
    nv.NVML_FI_DEV_NVLINK_COUNT_LINK_RECOVERY_EVENTS: "recovery",
    nv.NVML_FI_DEV_NVLINK_COUNT_EFFECTIVE_ERRORS: "effective",
    nv.NVML_FI_DEV_NVLINK_COUNT_SYMBOL_ERRORS: "symbol",
}
LINKS_ERRORS = {
    nv.NVML_FI_DEV_NVLINK_REPLAY_ERROR_COUNT_TOTAL: "replay",
    nv.NVML_FI_DEV_NVLINK_RECOVERY_ERROR_COUNT_TOTAL: "recovery",
    nv.NVML_FI_DEV_NVLINK_CRC_FLIT_ERROR_COUNT_TOTAL: "crc_flit",
    nv.NVML_FI_DEV_NVLINK_CRC_DATA_ERROR_COUNT_TOTAL: "crc_data",
    nv.NVML_FI_DEV_NVLINK_ECC_DATA_ERROR_COUNT_TOTAL: "ecc_data",
}
THROTTLES = {
    nv.NVML_FI_DEV_PERF_POLICY_POWER: "sw_power_cap",
    nv.NVML_FI_DEV_PERF_POLICY_THERMAL: "thermal",
    nv.NVML_FI_DEV_PERF_POLICY_SYNC_BOOST: "sync_boost",
    nv.NVML_FI_DEV_PERF_POLICY_BOARD_LIMIT: "board_limit",
    nv.NVML_FI_DEV_PERF_POLICY_LOW_UTILIZATION: "low_utilization",
    nv.NVML_FI_DEV_PERF_POLICY_RELIABILITY: "reliability",
    nv.NVML_FI_DEV_PERF_POLICY_TOTAL_APP_CLOCKS: "total_app_clocks",
    nv.NVML_FI_DEV_PERF_POLICY_TOTAL_BASE_CLOCKS: "total_base_clocks",
    nv.NVML_FI_DEV_CLOCKS_EVENT_REASON_SW_THERM_SLOWDOWN: "sw_thermal_slowdown",
    nv.NVML_FI_DEV_CLOCKS_EVENT_REASON_HW_THERM_SLOWDOWN: "hw_thermal_slowdown",
    nv.NVML_FI_DEV_CLOCKS_EVENT_REASON_HW_POWER_BRAKE_SLOWDOWN: "hw_power_brake_slowdown",
}
PCIE_ERRORS = {
    nv.NVML_FI_DEV_PCIE_COUNT_CORRECTABLE_ERRORS: "correctable",
    nv.NVML_FI_DEV_PCIE_COUNT_NON_FATAL_ERROR: "non_fatal",
    nv.NVML_FI_DEV_PCIE_COUNT_FATAL_ERROR: "fatal",
    nv.NVML_FI_DEV_PCIE_COUNT_NAKS_RECEIVED: "naks_received",
    nv.NVML_FI_DEV_PCIE_COUNT_RECEIVER_ERROR: "receiver",
    nv.NVML_FI_DEV_PCIE_COUNT_BAD_TLP: "bad_tlp",
    nv.NVML_FI_DEV_PCIE_COUNT_NAKS_SENT: "naks_sent",
    nv.NVML_FI_DEV_PCIE_COUNT_BAD_DLLP: "bad_dllp",
    nv.NVML_FI_DEV_PCIE_COUNT_UNSUPPORTED_REQ: "unsupported_request",
    nv.NVML_FI_DEV_PCIE_COUNT_LCRC_ERROR: "lcrc",
    nv.NVML_FI_DEV_PCIE_COUNT_LANE_ERROR: "lane",
}
LIMITS = {
    "enforced": (
        nv.NVML_FI_DEV_POWER_CURRENT_LIMIT,
        lambda gpu: gpu.ask(nv.nvmlDeviceGetEnforcedPowerLimit),
    ),
    "default": (
        nv.NVML_FI_DEV_POWER_DEFAULT_LIMIT,
        lambda gpu: gpu.ask(nv.nvmlDeviceGetPowerManagementDefaultLimit),
    ),
    "min": (
        nv.NVML_FI_DEV_POWER_MIN_LIMIT,
        lambda gpu: gpu.ask(nv.nvmlDeviceGetPowerManagementLimitConstraints)[0],
    ),
    "max": (
        nv.NVML_FI_DEV_POWER_MAX_LIMIT,
        lambda gpu: gpu.ask(nv.nvmlDeviceGetPowerManagementLimitConstraints)[1],
    ),
}
CHECKS = {
    "degraded_bandwidth": "DEGRADED_BW",
    "route_recovery": "ROUTE_RECOVERY",
    "route_unhealthy": "ROUTE_UNHEALTHY",
    "access_timeout_recovery": "ACCESS_TIMEOUT_RECOVERY",
    "incorrect_configuration": "INCORRECT_CONFIGURATION",
}
PIPES = {
    nv.NVML_GPM_METRIC_INTEGER_UTIL: "integer",
    nv.NVML_GPM_METRIC_DFMA_TENSOR_UTIL: "tensor_dfma",
    nv.NVML_GPM_METRIC_HMMA_TENSOR_UTIL: "tensor_hmma",
    nv.NVML_GPM_METRIC_DMMA_TENSOR_UTIL: "tensor_dmma",
    nv.NVML_GPM_METRIC_IMMA_TENSOR_UTIL: "tensor_imma",
    nv.NVML_GPM_METRIC_FP64_UTIL: "fp64",
    nv.NVML_GPM_METRIC_FP32_UTIL: "fp32",
    nv.NVML_GPM_METRIC_FP16_UTIL: "fp16",
}
CYCLES = {
    nv.NVML_GPM_METRIC_SM_CYCLES_ELAPSED: "sm_elapsed",
    nv.NVML_GPM_METRIC_SM_CYCLES_ACTIVE: "sm_active",
    nv.NVML_GPM_METRIC_MMA_CYCLES_ACTIVE: "mma",
    nv.NVML_GPM_METRIC_DMMA_CYCLES_ACTIVE: "dmma",
    nv.NVML_GPM_METRIC_HMMA_CYCLES_ACTIVE: "hmma",
    nv.NVML_GPM_METRIC_IMMA_CYCLES_ACTIVE: "imma",
    nv.NVML_GPM_METRIC_DFMA_CYCLES_ACTIVE: "dfma",
    nv.NVML_GPM_METRIC_INTEGER_CYCLES_ACTIVE: "integer",
    nv.NVML_GPM_METRIC_FP64_CYCLES_ACTIVE: "fp64",
    nv.NVML_GPM_METRIC_FP32_CYCLES_ACTIVE: "fp32",
    nv.NVML_GPM_METRIC_FP16_CYCLES_ACTIVE: "fp16",
}
THRESHOLDS = {
    "shutdown": nv.NVML_TEMPERATURE_THRESHOLD_SHUTDOWN,
    "slowdown": nv.NVML_TEMPERATURE_THRESHOLD_SLOWDOWN,
    "memory_max": nv.NVML_TEMPERATURE_THRESHOLD_MEM_MAX,
    "gpu_max": nv.NVML_TEMPERATURE_THRESHOLD_GPU_MAX,
}
MARGINS = {
    "shutdown_margin": nv.NVML_FI_DEV_TEMPERATURE_SHUTDOWN_TLIMIT,
    "slowdown_margin": nv.NVML_FI_DEV_TEMPERATURE_SLOWDOWN_TLIMIT,
    "memory_max_margin": nv.NVML_FI_DEV_TEMPERATURE_MEM_MAX_TLIMIT,
    "gpu_max_margin": nv.NVML_FI_DEV_TEMPERATURE_GPU_MAX_TLIMIT,
}


def info(gpu: Gpu) -> Iterator[Row]:
    capability = gpu.ask(nv.nvmlDeviceGetCudaComputeCapability)
    architecture = gpu.ask(nv.nvmlDeviceGetArchitecture)
    cuda = nv.nvmlSystemGetCudaDriverVersion_v2()
    words = (
        gpu.ask(nv.nvmlDeviceGetName),
        constants("NVML_DEVICE_ARCH_")[architecture],
        gpu.ask(nv.nvmlDeviceGetSerial),
        gpu.ask(nv.nvmlDeviceGetBoardPartNumber),
        gpu.ask(nv.nvmlDeviceGetModuleId),
        gpu.ask(nv.nvmlDeviceGetMinorNumber),
        gpu.ask(nv.nvmlDeviceGetVbiosVersion),
        gpu.ask(nv.nvmlDeviceGetPciInfo).busId,
        gpu.ask(nv.nvmlDeviceGetNumaNodeId),
        nv.nvmlSystemGetDriverVersion(),
        f"{cuda // 1000}.{cuda % 1000 // 10}",
        "{}.{}".format(*capability),
        "nvidia.com/gpu" if Oracle.k8s else None,
    )
    yield tuple(None if word is None else str(word) for word in words), 1


def throttle_reasons(gpu: Gpu) -> Iterator[Row]:
    supported = gpu.ask(nv.nvmlDeviceGetSupportedClocksEventReasons)
    now = gpu.ask(nv.nvmlDeviceGetCurrentClocksEventReasons)
    for bit, name in reasons().items():
        yield (name,), float(bool(now & bit)) if supported & bit else None


def sram_status(gpu: Gpu) -> Any:
    status = nv.c_nvmlEccSramErrorStatus_v1_t()
    return fill(nv.nvmlDeviceGetSramEccErrorStatus, gpu.handle, status)


def ecc_errors(gpu: Gpu) -> Iterator[Row]:
    status = sram_status(gpu)
    for scope, in_scope in SCOPES.items():
        for kind, name in TYPES.items():
            yield (
                (name, in_scope, "all"),
                first(
                    gpu.field(TOTALS[kind, scope]),
                    gpu.ask(nv.nvmlDeviceGetTotalEccErrors, kind, scope),
                ),
            )
            sram = None
            if status and kind == nv.NVML_MEMORY_ERROR_TYPE_CORRECTED:
                sram = getattr(status, f"{in_scope}Cor")
            elif status:
                parts = (f"{in_scope}UncParity", f"{in_scope}UncSecDed")
                sram = sum(getattr(status, name) for name in parts)
            count = nv.nvmlDeviceGetMemoryErrorCounter
            if sram is None:
                sram = gpu.ask(count, kind, scope, nv.NVML_MEMORY_LOCATION_SRAM)
            yield (name, in_scope, "sram"), sram
            for place, location in LOCATIONS.items():
                if Oracle.detail or location == "dram":
                    yield (name, in_scope, location), gpu.ask(count, kind, scope, place)


def banks(gpu: Gpu) -> Iterator[Row]:
    values = gpu.ask(nv.nvmlDeviceGetRowRemapperHistogram)
    for name in ("max", "high", "partial", "low", "none"):
        yield (name,), values and getattr(values, name)


def retired(gpu: Gpu) -> Iterator[Row]:
    for name, number in (
        ("single_bit", nv.NVML_FI_DEV_RETIRED_SBE),
        ("double_bit", nv.NVML_FI_DEV_RETIRED_DBE),
    ):
        yield (name,), gpu.field(number)


def pcie(kind: str) -> Read:
    def rows(gpu: Gpu) -> Iterator[Row]:
        for bound in ("current", "max"):
            name = f"nvmlDeviceGet{bound.title().replace('Current', 'Curr')}PcieLink{kind}"
            yield (bound,), gpu.ask(getattr(nv, name))

    return rows


def pcie_errors(gpu: Gpu) -> Iterator[Row]:
    for number, name in PCIE_ERRORS.items():
        if Oracle.detail or name in ("correctable", "non_fatal", "fatal"):
            yield (name,), gpu.field(number)


def nvlink_bytes(kib: int, plain: int) -> Read:
    def read(gpu: Gpu) -> float | None:
        total = times(gpu.field(kib, TOTAL), 1024)
        return first(total, sum(gpu.of_links(plain)) if gpu.of_links(plain) else None)

    return one(read)


def nvlink_errors(gpu: Gpu) -> Iterator[Row]:
    found: dict[str, float] = {}
    for number, name in LINK_ERRORS.items():
        values = gpu.of_links(number)
        if values:
            found[name] = sum(values)
    for number, name in LINKS_ERRORS.items():
        total = gpu.field(number)
        if total is not None:
            found.setdefault(name, total)
    yield from (((name,), value) for name, value in found.items())


def link_bytes(kib: int, plain: int) -> Read:
    def rows(gpu: Gpu) -> Iterator[Row]:
        for link in gpu.links if Oracle.detail else ():
            yield (str(link),), first(gpu.field(plain, link), times(gpu.field(kib, link), 1024))

    return rows


def link_errors(gpu: Gpu) -> Iterator[Row]:
    for link in gpu.links if Oracle.detail else ():
        for number, name in LINK_ERRORS.items():
            value = gpu.field(number, link)
            if value is not None:
                yield (str(link), name), value


def link_error_rate(gpu: Gpu) -> Iterator[Row]:
    """NVLink's form: a mantissa in bits 8 to 11, the exponent below."""
    for link in gpu.links if Oracle.detail else ():
        value = gpu.field(nv.NVML_FI_DEV_NVLINK_COUNT_EFFECTIVE_BER, link)
        if value is not None:
            raw = int(value)
            yield (str(link),), (raw >> 8 & 15) * 10.0 ** -(raw & 255)


def fabric(gpu: Gpu) -> Any:
    """Where it is not supported, all of it is 0."""
    about = nv.c_nvmlGpuFabricInfo_v3_t()
    about.version = nv.nvmlGpuFabricInfo_v3
    fill(nv.nvmlDeviceGetGpuFabricInfoV, gpu.handle, about)
    return about


def fabric_health(gpu: Gpu) -> Iterator[Row]:
    mask = fabric(gpu).healthMask
    for check, name in CHECKS.items():
        prefix = "NVML_GPU_FABRIC_HEALTH_MASK"
        shift = getattr(nv, f"{prefix}_SHIFT_{name}")
        value = mask >> shift & getattr(nv, f"{prefix}_WIDTH_{name}")
        right = (
            nv.NVML_GPU_FABRIC_HEALTH_MASK_INCORRECT_CONFIGURATION_NONE
            if check == "incorrect_configuration"
            else getattr(nv, f"{prefix}_{name}_FALSE")
        )
        yield (check,), float(value != right) if value else None


def processes(gpu: Gpu) -> dict[tuple[int, str], float]:
    calls = {
        "compute": nv.nvmlDeviceGetComputeRunningProcesses_v3,
        "graphics": nv.nvmlDeviceGetGraphicsRunningProcesses_v3,
    }
    return {
        (process.pid, kind): process.usedGpuMemory
        for kind, call in calls.items()
        for process in gpu.ask(call) or ()
    }


def process_memory(gpu: Gpu) -> Iterator[Row]:
    for (pid, kind), used in processes(gpu).items() if Oracle.processes else ():
        comm = Path(f"/proc/{pid}/comm")
        name = comm.read_text().rstrip("\n") if comm.exists() else None
        yield (str(pid), name, kind), used


def process_count(gpu: Gpu) -> float | None:
    return len({pid for pid, _ in processes(gpu)}) if Oracle.processes else None


def modes(gpu: Gpu) -> Iterator[Row]:
    mig = gpu.ask(nv.nvmlDeviceGetMigMode)
    yield ("persistence",), gpu.ask(nv.nvmlDeviceGetPersistenceMode)
    yield ("compute",), gpu.ask(nv.nvmlDeviceGetComputeMode)
    yield ("mig",), mig and mig[0]
    yield ("cc",), float(nv.nvmlSystemGetConfComputeState().ccFeature != 0)


def fans(gpu: Gpu) -> Iterator[Row]:
    for fan in range(gpu.ask(nv.nvmlDeviceGetNumFans) or 0):
        yield (str(fan),), gpu.ask(nv.nvmlDeviceGetFanSpeed_v2, fan)


def power_limits(gpu: Gpu) -> Iterator[Row]:
    for name, (number, call) in LIMITS.items():
        yield (name,), over(first(gpu.field(number), call(gpu)), 1000)


def temperature_thresholds(gpu: Gpu) -> Iterator[Row]:
    for name, number in THRESHOLDS.items():
        yield (name,), gpu.ask(nv.nvmlDeviceGetTemperatureThreshold, number)
    for name, number in MARGINS.items():
        yield (name,), gpu.field(number)


def link_states(gpu: Gpu) -> Iterator[Row]:
    for link in gpu.links:
        yield (str(link),), flag(gpu.ask(nv.nvmlDeviceGetNvLinkState, link))


def power(gpu: Gpu) -> float | None:
    instant = gpu.field(nv.NVML_FI_DEV_POWER_INSTANT)
    return over(first(instant, gpu.ask(nv.nvmlDeviceGetPowerUsage)), 1000)


def energy(gpu: Gpu) -> float | None:
    field = gpu.field(nv.NVML_FI_DEV_ENERGY)
    return over(first(field, gpu.ask(nv.nvmlDeviceGetTotalEnergyConsumption)), 1000)


def mhz(call: Callable[..., Any]) -> Read:
    return by(CLOCKS, lambda gpu, clock: times(gpu.ask(call, clock), 1e6))


GPU_FAMILIES: dict[str, Read] = {
    "info": info,
    "utilization_percent": part(nv.nvmlDeviceGetUtilizationRates, "gpu"),
    "memory_utilization_percent": part(nv.nvmlDeviceGetUtilizationRates, "memory"),
    "encoder_utilization_percent": part(nv.nvmlDeviceGetEncoderUtilization, 0),
    "decoder_utilization_percent": part(nv.nvmlDeviceGetDecoderUtilization, 0),
    "jpeg_utilization_percent": part(nv.nvmlDeviceGetJpgUtilization, 0),
    "ofa_utilization_percent": part(nv.nvmlDeviceGetOfaUtilization, 0),
    "memory_total_bytes": memory("total"),
    "memory_used_bytes": memory("used"),
    "memory_free_bytes": memory("free"),
    "memory_reserved_bytes": memory("reserved"),
    "bar1_total_bytes": part(nv.nvmlDeviceGetBAR1MemoryInfo, "bar1Total"),
    "bar1_used_bytes": part(nv.nvmlDeviceGetBAR1MemoryInfo, "bar1Used"),
    "temperature_celsius": one(
        lambda gpu: gpu.ask(nv.nvmlDeviceGetTemperature, nv.NVML_TEMPERATURE_GPU)
    ),
    "memory_temperature_celsius": one(lambda gpu: gpu.field(nv.NVML_FI_DEV_MEMORY_TEMP)),
    "temperature_margin_celsius": one(lambda gpu: gpu.ask(nv.nvmlDeviceGetMarginTemperature)),
    "temperature_threshold_celsius": temperature_thresholds,
    "power_watts": one(power),
    "power_average_watts": one(lambda gpu: over(gpu.field(nv.NVML_FI_DEV_POWER_AVERAGE), 1000)),
    "power_limit_watts": power_limits,
    "energy_joules_total": one(energy),
    "power_min_watts": ring(nv.NVML_TOTAL_POWER_SAMPLES, min, 1000),
    "power_mean_watts": ring(nv.NVML_TOTAL_POWER_SAMPLES, mean, 1000),
    "power_max_watts": ring(nv.NVML_TOTAL_POWER_SAMPLES, max, 1000),
    "utilization_min_percent": ring(nv.NVML_GPU_UTILIZATION_SAMPLES, min),
    "utilization_mean_percent": ring(nv.NVML_GPU_UTILIZATION_SAMPLES, mean),
    "utilization_max_percent": ring(nv.NVML_GPU_UTILIZATION_SAMPLES, max),
    "clock_hertz": mhz(nv.nvmlDeviceGetClockInfo),
    "clock_max_hertz": mhz(nv.nvmlDeviceGetMaxClockInfo),
    "pstate": one(lambda gpu: gpu.ask(nv.nvmlDeviceGetPerformanceState)),
    "fan_speed_percent": fans,
    "throttle_reason": throttle_reasons,
    "throttle_seconds_total": by(THROTTLES, lambda gpu, number: over(gpu.field(number), 1e9)),
    "ecc_mode": one(lambda gpu: gpu.field(nv.NVML_FI_DEV_ECC_CURRENT)),
    "ecc_errors_total": ecc_errors,
    "ecc_sram_threshold_exceeded": one(
        lambda gpu: getattr(sram_status(gpu), "bThresholdExceeded", None)
    ),
    "remapped_rows_total": by(
        {0: "correctable", 1: "uncorrectable"},
        lambda gpu, i: (gpu.ask(nv.nvmlDeviceGetRemappedRows) or (None,) * 4)[i],
    ),
    "remap_pending": part(nv.nvmlDeviceGetRemappedRows, 2),
    "remap_failure": part(nv.nvmlDeviceGetRemappedRows, 3),
    "remap_banks": banks,
    "retired_pages_total": retired,
    "retired_pages_pending": one(lambda gpu: flag(gpu.field(nv.NVML_FI_DEV_RETIRED_PENDING))),
    "recovery_action": state(
        constants("NVML_GPU_RECOVERY_ACTION_"),
        lambda gpu: gpu.field(nv.NVML_FI_DEV_GET_GPU_RECOVERY_ACTION),
    ),
    "pcie_link_generation": pcie("Generation"),
    "pcie_link_width": pcie("Width"),
    "pcie_tx_bytes_total": one(lambda gpu: gpu.field(nv.NVML_FI_DEV_PCIE_COUNT_TX_BYTES)),
    "pcie_rx_bytes_total": one(lambda gpu: gpu.field(nv.NVML_FI_DEV_PCIE_COUNT_RX_BYTES)),
    "pcie_replays_total": one(lambda gpu: gpu.ask(nv.nvmlDeviceGetPcieReplayCounter)),
    "pcie_errors_total": pcie_errors,
    "nvlink_up": link_states,
    "nvlink_tx_bytes_total": nvlink_bytes(
        nv.NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_TX, nv.NVML_FI_DEV_NVLINK_COUNT_XMIT_BYTES
    ),
    "nvlink_rx_bytes_total": nvlink_bytes(
        nv.NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_RX, nv.NVML_FI_DEV_NVLINK_COUNT_RCV_BYTES
    ),
    "nvlink_errors_total": nvlink_errors,
    "nvlink_speed_bytes": one(
        lambda gpu: times(gpu.field(nv.NVML_FI_DEV_NVLINK_SPEED_MBPS_COMMON), 1e6)
    ),
    "nvlink_link_tx_bytes_total": link_bytes(
        nv.NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_TX, nv.NVML_FI_DEV_NVLINK_COUNT_XMIT_BYTES
    ),
    "nvlink_link_rx_bytes_total": link_bytes(
        nv.NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_RX, nv.NVML_FI_DEV_NVLINK_COUNT_RCV_BYTES
    ),
    "nvlink_link_errors_total": link_errors,
    "nvlink_effective_ber": link_error_rate,
    "fabric_state": state(
        constants("NVML_GPU_FABRIC_STATE_", "NOT_SUPPORTED"), lambda gpu: fabric(gpu).state
    ),
    "fabric_health": fabric_health,
    "processes": one(process_count),
    "process_memory_bytes": process_memory,
    "mode": modes,
    "graphics_active_ratio": metric(nv.NVML_GPM_METRIC_GRAPHICS_UTIL, den=100),
    "sm_active_ratio": metric(nv.NVML_GPM_METRIC_SM_UTIL, den=100),
    "sm_occupancy_ratio": metric(nv.NVML_GPM_METRIC_SM_OCCUPANCY, den=100),
    "tensor_active_ratio": metric(nv.NVML_GPM_METRIC_ANY_TENSOR_UTIL, den=100),
    "dram_active_ratio": metric(nv.NVML_GPM_METRIC_DRAM_BW_UTIL, den=100),
    "pipe_active_ratio": ratios(PIPES),
    "gpm_pcie_tx_bytes_per_second": metric(nv.NVML_GPM_METRIC_PCIE_TX_PER_SEC, 1 << 20),
    "gpm_pcie_rx_bytes_per_second": metric(nv.NVML_GPM_METRIC_PCIE_RX_PER_SEC, 1 << 20),
    "gpm_nvlink_tx_bytes_per_second": metric(nv.NVML_GPM_METRIC_NVLINK_TOTAL_TX_PER_SEC, 1 << 20),
    "gpm_nvlink_rx_bytes_per_second": metric(nv.NVML_GPM_METRIC_NVLINK_TOTAL_RX_PER_SEC, 1 << 20),
    "gpm_cycles_total": by(CYCLES, lambda gpu, number: gpu.sampled.get(number)),
}


# --------------------------------------------------------------------------- an instance's rows


def mig_info(mig: Gpu) -> Iterator[Row]:
    profile = mig.ask(nv.nvmlDeviceGetName).partition(" MIG ")[2]
    instance = nv.nvmlDeviceGetGpuInstanceById(mig.parent, mig.ask(nv.nvmlDeviceGetGpuInstanceId))
    place = nv.nvmlGpuInstanceGetInfo(instance).placement
    resource = f"nvidia.com/mig-{profile}".replace("+", ".") if Oracle.k8s else None
    yield (profile, f"{place.start}:{place.size}", resource), 1


def mig_ecc(mig: Gpu) -> Iterator[Row]:
    for scope, in_scope in SCOPES.items():
        for kind, name in TYPES.items():
            yield (name, in_scope), mig.ask(nv.nvmlDeviceGetTotalEccErrors, kind, scope)


MIG_FAMILIES: dict[str, Read] = {
    "info": mig_info,
    "memory_total_bytes": memory("total"),
    "memory_used_bytes": memory("used"),
    "memory_free_bytes": memory("free"),
    "bar1_total_bytes": part(nv.nvmlDeviceGetBAR1MemoryInfo, "bar1Total"),
    "bar1_used_bytes": part(nv.nvmlDeviceGetBAR1MemoryInfo, "bar1Used"),
    "multiprocessors": part(nv.nvmlDeviceGetAttributes_v2, "multiprocessorCount"),
    "ecc_errors_total": mig_ecc,
    "utilization_percent": metric(nv.NVML_GPM_METRIC_GRAPHICS_UTIL),
    "sm_active_ratio": metric(nv.NVML_GPM_METRIC_SM_UTIL, den=100),
    "sm_occupancy_ratio": metric(nv.NVML_GPM_METRIC_SM_OCCUPANCY, den=100),
    "tensor_active_ratio": metric(nv.NVML_GPM_METRIC_ANY_TENSOR_UTIL, den=100),
    "dram_active_ratio": metric(nv.NVML_GPM_METRIC_DRAM_BW_UTIL, den=100),
}

#: Those that say how the collector fares, and what the driver tells of by itself.
OWN = {
    "esnode_gpus",
    "esnode_gpus_expected",
    "esnode_gpu_pci_devices",
    "esnode_gpu_driver_up",
    "esnode_gpu_driver_released",
    "esnode_gpu_up",
    "esnode_gpu_stuck",
    "esnode_gpu_last_success_timestamp_seconds",
    "esnode_agent_nvml_calls_total",
    "esnode_agent_nvml_call_seconds_total",
    "esnode_gpu_xid_errors_total",
    "esnode_gpu_events_total",
    "esnode_gpu_last_xid",
    "esnode_gpu_last_event_timestamp_seconds",
    "esnode_nvswitch_sxid_errors_total",
}


class Oracle:
    """Reads every GPU and MIG instance that there is."""

    detail = processes = k8s = False

    def __init__(self, detail: bool = False, processes: bool = False, k8s: bool = False) -> None:
        Oracle.detail, Oracle.processes, Oracle.k8s = detail, processes, k8s
        self.gpus: list[Gpu] = []
        self.migs: list[tuple[int, Gpu]] = []
        for index in range(nv.nvmlDeviceGetCount()):
            handle = nv.nvmlDeviceGetHandleByIndex(index)
            self.gpus.append(Gpu(handle))
            mode = ask(nv.nvmlDeviceGetMigMode, handle)
            if mode and mode[0]:
                for place in range(nv.nvmlDeviceGetMaxMigDeviceCount(handle)):
                    try:
                        mig = nv.nvmlDeviceGetMigDeviceHandleByIndex(handle, place)
                    except nv.NVMLError_NotFound:
                        continue
                    self.migs.append((index, Gpu(mig, handle)))
        self.sample()

    def sample(self) -> None:
        """GPM's metrics of all of them, of the same short time."""
        able = [
            gpu
            for gpu in (*self.gpus, *(mig for _, mig in self.migs))
            if nv.nvmlGpmQueryDeviceSupport(gpu.parent or gpu.handle).isSupportedDevice
        ]
        before = [self.take(gpu) for gpu in able]
        time.sleep(APART)
        after = [self.take(gpu) for gpu in able]
        for gpu, one, two in zip(able, before, after, strict=True):
            for number in constants("NVML_GPM_METRIC_", "MAX"):
                asked = nv.c_nvmlGpmMetricsGet_t()
                asked.version = nv.NVML_GPM_METRICS_GET_VERSION
                asked.numMetrics, asked.sample1, asked.sample2 = 1, one, two
                asked.metrics[0].metricId = number
                with contextlib.suppress(nv.NVMLError_InvalidArgument):
                    nv.nvmlGpmMetricsGet(asked)
                    if asked.metrics[0].nvmlReturn == 0:
                        gpu.sampled[number] = asked.metrics[0].value
            nv.nvmlGpmSampleFree(one)
            nv.nvmlGpmSampleFree(two)

    def take(self, gpu: Gpu) -> Any:
        sample = nv.nvmlGpmSampleAlloc()
        if gpu.parent is None:
            nv.nvmlGpmSampleGet(gpu.handle, sample)
        else:
            gi = gpu.ask(nv.nvmlDeviceGetGpuInstanceId)
            nv.nvmlGpmMigSampleGet(gpu.parent, gi, sample)
        return sample

    def rows(self) -> dict[Key, float]:
        """Every row of the table."""
        found: dict[Key, float] = {}

        def add(prefix: str, labels: tuple[str, ...], families: dict[str, Read], gpu: Gpu) -> None:
            for family, read in families.items():
                for more, value in read(gpu):
                    if value is not None:
                        found[f"{prefix}{family}", (*labels, *more)] = value

        labels = [(str(i), gpu.ask(nv.nvmlDeviceGetUUID)) for i, gpu in enumerate(self.gpus)]
        for of, gpu in zip(labels, self.gpus, strict=True):
            add("esnode_gpu_", of, GPU_FAMILIES, gpu)
        for index, mig in self.migs:
            own = (nv.nvmlDeviceGetGpuInstanceId, nv.nvmlDeviceGetComputeInstanceId)
            place = (*(str(mig.ask(call)) for call in own), mig.ask(nv.nvmlDeviceGetUUID))
            add("esnode_mig_", (*labels[index], *place), MIG_FAMILIES, mig)
        return found
