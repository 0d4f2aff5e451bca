"""What nvidia-ml-py tells of a GPU, under the names of our series.

Written from NVIDIA's names, not from our query table, and by another function than ours where NVML
has two for the same value. Each field is asked alone. Unlike tests/nvml/oracle.py, which is for the
fake and exact, it takes whatever code a real driver may answer for "not here".
"""

from __future__ import annotations

import contextlib
import ctypes
import time
from collections.abc import Callable, Iterator
from typing import Any

import pynvml as nv

from tests.nvml.oracle import (
    CLOCKS,
    LINKS_ERRORS,
    LOCATIONS,
    MARGINS,
    PCIE_ERRORS,
    SCOPES,
    THRESHOLDS,
    THROTTLES,
    TOTALS,
    TYPES,
    constants,
    reasons,
)

#: A family without its prefix, and the labels after those of the device.
Key = tuple[str, tuple[str, ...]]
Values = dict[Key, float]

#: How the library says that it does not know.
UNKNOWN = (0xFFFF_FFFF, 0xFFFF_FFFF_FFFF_FFFF, 0x7FFF_FFFF)

#: Of each link; of two that mean the same the first that the GPU has.
LINK_ERRORS = {
    "replay": (nv.NVML_FI_DEV_NVLINK_ERROR_DL_REPLAY,),
    "recovery": (
        nv.NVML_FI_DEV_NVLINK_ERROR_DL_RECOVERY,
        nv.NVML_FI_DEV_NVLINK_COUNT_LINK_RECOVERY_EVENTS,
    ),
    "crc": (nv.NVML_FI_DEV_NVLINK_ERROR_DL_CRC,),
    "malformed_packet": (nv.NVML_FI_DEV_NVLINK_COUNT_MALFORMED_PACKET_ERRORS,),
    "buffer_overrun": (nv.NVML_FI_DEV_NVLINK_COUNT_BUFFER_OVERRUN_ERRORS,),
    "rx": (nv.NVML_FI_DEV_NVLINK_COUNT_RCV_ERRORS,),
    "rx_remote": (nv.NVML_FI_DEV_NVLINK_COUNT_RCV_REMOTE_ERRORS,),
    "rx_general": (nv.NVML_FI_DEV_NVLINK_COUNT_RCV_GENERAL_ERRORS,),
    "local_link_integrity": (nv.NVML_FI_DEV_NVLINK_COUNT_LOCAL_LINK_INTEGRITY_ERRORS,),
    "tx_discards": (nv.NVML_FI_DEV_NVLINK_COUNT_XMIT_DISCARDS,),
    "recovery_failed": (nv.NVML_FI_DEV_NVLINK_COUNT_LINK_RECOVERY_FAILED_EVENTS,),
    "effective": (nv.NVML_FI_DEV_NVLINK_COUNT_EFFECTIVE_ERRORS,),
    "symbol": (nv.NVML_FI_DEV_NVLINK_COUNT_SYMBOL_ERRORS,),
}
#: Of a GPU and of an instance: by metric, the row and what makes a ratio of a percentage, or bytes
#: of MiB.
GPM: dict[int, tuple[Key, float]] = {
    nv.NVML_GPM_METRIC_GRAPHICS_UTIL: (("graphics_active_ratio", ()), 100),
    nv.NVML_GPM_METRIC_SM_UTIL: (("sm_active_ratio", ()), 100),
    nv.NVML_GPM_METRIC_SM_OCCUPANCY: (("sm_occupancy_ratio", ()), 100),
    nv.NVML_GPM_METRIC_ANY_TENSOR_UTIL: (("tensor_active_ratio", ()), 100),
    nv.NVML_GPM_METRIC_DRAM_BW_UTIL: (("dram_active_ratio", ()), 100),
    nv.NVML_GPM_METRIC_INTEGER_UTIL: (("pipe_active_ratio", ("integer",)), 100),
    nv.NVML_GPM_METRIC_DFMA_TENSOR_UTIL: (("pipe_active_ratio", ("tensor_dfma",)), 100),
    nv.NVML_GPM_METRIC_HMMA_TENSOR_UTIL: (("pipe_active_ratio", ("tensor_hmma",)), 100),
    nv.NVML_GPM_METRIC_DMMA_TENSOR_UTIL: (("pipe_active_ratio", ("tensor_dmma",)), 100),
    nv.NVML_GPM_METRIC_IMMA_TENSOR_UTIL: (("pipe_active_ratio", ("tensor_imma",)), 100),
    nv.NVML_GPM_METRIC_FP64_UTIL: (("pipe_active_ratio", ("fp64",)), 100),
    nv.NVML_GPM_METRIC_FP32_UTIL: (("pipe_active_ratio", ("fp32",)), 100),
    nv.NVML_GPM_METRIC_FP16_UTIL: (("pipe_active_ratio", ("fp16",)), 100),
    nv.NVML_GPM_METRIC_PCIE_TX_PER_SEC: (("gpm_pcie_tx_bytes_per_second", ()), 1 / 2**20),
    nv.NVML_GPM_METRIC_PCIE_RX_PER_SEC: (("gpm_pcie_rx_bytes_per_second", ()), 1 / 2**20),
    nv.NVML_GPM_METRIC_NVLINK_TOTAL_TX_PER_SEC: (("gpm_nvlink_tx_bytes_per_second", ()), 1 / 2**20),
    nv.NVML_GPM_METRIC_NVLINK_TOTAL_RX_PER_SEC: (("gpm_nvlink_rx_bytes_per_second", ()), 1 / 2**20),
}


def ask(call: Callable[..., Any], *arguments: Any) -> Any:
    """What a call answers; None for an error, and for what the library does not know."""
    try:
        value = call(*arguments)
    except nv.NVMLError:
        return None
    return None if isinstance(value, int) and value in UNKNOWN else value


def number(value: Any) -> float | None:
    """The value of a field."""
    member = {
        nv.NVML_VALUE_TYPE_DOUBLE: "dVal",
        nv.NVML_VALUE_TYPE_UNSIGNED_INT: "uiVal",
        nv.NVML_VALUE_TYPE_UNSIGNED_LONG: "ulVal",
        nv.NVML_VALUE_TYPE_UNSIGNED_LONG_LONG: "ullVal",
        nv.NVML_VALUE_TYPE_SIGNED_LONG_LONG: "sllVal",
        nv.NVML_VALUE_TYPE_SIGNED_INT: "siVal",
        nv.NVML_VALUE_TYPE_UNSIGNED_SHORT: "usVal",
    }[value.valueType]
    found = getattr(value.value, member)
    return None if found in UNKNOWN else found


def field(handle: Any, field_id: int, scope: int = 0) -> float | None:
    values = ask(nv.nvmlDeviceGetFieldValues, handle, [(field_id, scope)])
    if values is None or values[0].nvmlReturn:
        return None
    return number(values[0])


def either(value: float | None, handle: Any, field_id: int) -> float | None:
    """What a function told, else what a field does: not every GPU has both."""
    return field(handle, field_id) if value is None else value


class Teller:
    """Collects what is known under the names of our series."""

    def __init__(self, handle: Any) -> None:
        self.handle = handle
        self.values: Values = {}

    def put(self, name: str, value: float | None, *labels: str, den: float = 1) -> None:
        if value is not None and value not in UNKNOWN:
            self.values[name, labels] = value / den

    def ask(self, name: str, call: Callable[..., Any], *more: Any, den: float = 1) -> None:
        """A row without labels from a call with the handle."""
        self.put(name, ask(call, self.handle, *more), den=den)


def links(handle: Any) -> range:
    return range(int(field(handle, nv.NVML_FI_DEV_NVLINK_LINK_COUNT) or 0))


def gpu(handle: Any) -> Values:
    """Every value of a GPU that nvidia-ml-py can tell."""
    t = Teller(handle)
    mode = ask(nv.nvmlDeviceGetMigMode, handle)
    is_whole = mode is None or not mode[0]
    for tell in (memory, heat, power, clocks, ecc, replaced, pcie, nvlinks, fabric, modes):
        tell(t)
    if is_whole:
        use(t)
    processes(t)
    t.values |= gpm(handle)
    return t.values


def use(t: Teller) -> None:
    rates = ask(nv.nvmlDeviceGetUtilizationRates, t.handle)
    if rates is not None:
        t.put("utilization_percent", rates.gpu)
        t.put("memory_utilization_percent", rates.memory)
    for name, call in (
        ("encoder", nv.nvmlDeviceGetEncoderUtilization),
        ("decoder", nv.nvmlDeviceGetDecoderUtilization),
        ("jpeg", nv.nvmlDeviceGetJpgUtilization),
        ("ofa", nv.nvmlDeviceGetOfaUtilization),
    ):
        value = ask(call, t.handle)
        t.put(f"{name}_utilization_percent", value[0] if value else None)


def memory(t: Teller) -> None:
    info = ask(nv.nvmlDeviceGetMemoryInfo, t.handle, nv.nvmlMemory_v2)
    names = ["total", "used", "free", "reserved"]
    if info is None:
        info = ask(nv.nvmlDeviceGetMemoryInfo, t.handle)
        names.pop()
    for name in names if info is not None else ():
        t.put(f"memory_{name}_bytes", getattr(info, name))
    info = ask(nv.nvmlDeviceGetBAR1MemoryInfo, t.handle)
    if info is not None:
        t.put("bar1_total_bytes", info.bar1Total)
        t.put("bar1_used_bytes", info.bar1Used)


def heat(t: Teller) -> None:
    t.ask("temperature_celsius", nv.nvmlDeviceGetTemperature, nv.NVML_TEMPERATURE_GPU)
    t.put("memory_temperature_celsius", field(t.handle, nv.NVML_FI_DEV_MEMORY_TEMP))
    t.ask("temperature_margin_celsius", nv.nvmlDeviceGetMarginTemperature)
    for name, kind in THRESHOLDS.items():
        limit = ask(nv.nvmlDeviceGetTemperatureThreshold, t.handle, kind)
        t.put("temperature_threshold_celsius", limit, name)
    for name, margin in MARGINS.items():
        t.put("temperature_threshold_celsius", field(t.handle, margin), name)
    fans = ask(nv.nvmlDeviceGetNumFans, t.handle) or 0
    for fan in range(fans):
        t.put("fan_speed_percent", ask(nv.nvmlDeviceGetFanSpeed_v2, t.handle, fan), str(fan))


def power(t: Teller) -> None:
    now = field(t.handle, nv.NVML_FI_DEV_POWER_INSTANT)
    if now is None:
        now = ask(nv.nvmlDeviceGetPowerUsage, t.handle)
    t.put("power_watts", now, den=1000)
    t.put("power_average_watts", field(t.handle, nv.NVML_FI_DEV_POWER_AVERAGE), den=1000)
    energy = ask(nv.nvmlDeviceGetTotalEnergyConsumption, t.handle)
    t.put("energy_joules_total", either(energy, t.handle, nv.NVML_FI_DEV_ENERGY), den=1000)
    least, most = ask(nv.nvmlDeviceGetPowerManagementLimitConstraints, t.handle) or (None, None)
    enforced = ask(nv.nvmlDeviceGetEnforcedPowerLimit, t.handle)
    default = ask(nv.nvmlDeviceGetPowerManagementDefaultLimit, t.handle)
    for name, value, number in (
        ("enforced", enforced, nv.NVML_FI_DEV_POWER_CURRENT_LIMIT),
        ("default", default, nv.NVML_FI_DEV_POWER_DEFAULT_LIMIT),
        ("min", least, nv.NVML_FI_DEV_POWER_MIN_LIMIT),
        ("max", most, nv.NVML_FI_DEV_POWER_MAX_LIMIT),
    ):
        t.put("power_limit_watts", either(value, t.handle, number), name, den=1000)


def clocks(t: Teller) -> None:
    for clock, name in CLOCKS.items():
        for family, call in (
            ("clock_hertz", nv.nvmlDeviceGetClockInfo),
            ("clock_max_hertz", nv.nvmlDeviceGetMaxClockInfo),
        ):
            t.put(family, ask(call, t.handle, clock), name, den=1e-6)
    pstate = ask(nv.nvmlDeviceGetPerformanceState, t.handle)
    t.put("pstate", None if pstate == nv.NVML_PSTATE_UNKNOWN else pstate)
    supported = ask(nv.nvmlDeviceGetSupportedClocksEventReasons, t.handle)
    now = ask(nv.nvmlDeviceGetCurrentClocksEventReasons, t.handle)
    if now is None:
        now = ask(nv.nvmlDeviceGetCurrentClocksThrottleReasons, t.handle)
    for bit, name in reasons().items():
        if now is not None and (not supported or supported & bit):
            t.put("throttle_reason", bool(now & bit), name)
    for number, name in THROTTLES.items():
        t.put("throttle_seconds_total", field(t.handle, number), name, den=1e9)


def ecc(t: Teller) -> None:
    mode = ask(nv.nvmlDeviceGetEccMode, t.handle)
    current = either(mode[0] if mode else None, t.handle, nv.NVML_FI_DEV_ECC_CURRENT)
    t.put("ecc_mode", current)
    for in_scope, scope in SCOPES.items():
        for of_kind, kind in TYPES.items():
            total = ask(nv.nvmlDeviceGetTotalEccErrors, t.handle, of_kind, in_scope)
            total = either(total, t.handle, TOTALS[of_kind, in_scope])
            t.put("ecc_errors_total", total, kind, scope, "all")
            for place, location in (*LOCATIONS.items(), (nv.NVML_MEMORY_LOCATION_SRAM, "sram")):
                count = ask(nv.nvmlDeviceGetMemoryErrorCounter, t.handle, of_kind, in_scope, place)
                t.put("ecc_errors_total", count, kind, scope, location)
    status = nv.c_nvmlEccSramErrorStatus_v1_t()
    with contextlib.suppress(nv.NVMLError):
        nv.nvmlDeviceGetSramEccErrorStatus(t.handle, ctypes.byref(status))
        t.put("ecc_sram_threshold_exceeded", bool(status.bThresholdExceeded))
        for scope in SCOPES.values():
            corrected = getattr(status, f"{scope}Cor")
            parity, double = (getattr(status, f"{scope}Unc{kind}") for kind in ("Parity", "SecDed"))
            t.put("ecc_errors_total", corrected, "corrected", scope, "sram")
            t.put("ecc_errors_total", parity + double, "uncorrected", scope, "sram")


def replaced(t: Teller) -> None:
    rows = ask(nv.nvmlDeviceGetRemappedRows, t.handle)
    if rows is not None:
        t.put("remapped_rows_total", rows[0], "correctable")
        t.put("remapped_rows_total", rows[1], "uncorrectable")
        t.put("remap_pending", bool(rows[2]))
        t.put("remap_failure", bool(rows[3]))
    banks = ask(nv.nvmlDeviceGetRowRemapperHistogram, t.handle)
    for name in ("max", "high", "partial", "low", "none") if banks is not None else ():
        t.put("remap_banks", getattr(banks, name), name)
    for name, cause in (
        ("single_bit", nv.NVML_PAGE_RETIREMENT_CAUSE_MULTIPLE_SINGLE_BIT_ECC_ERRORS),
        ("double_bit", nv.NVML_PAGE_RETIREMENT_CAUSE_DOUBLE_BIT_ECC_ERROR),
    ):
        pages = ask(nv.nvmlDeviceGetRetiredPages, t.handle, cause)
        t.put("retired_pages_total", None if pages is None else len(list(pages)), name)
    t.ask("retired_pages_pending", nv.nvmlDeviceGetRetiredPagesPendingStatus)
    action = field(t.handle, nv.NVML_FI_DEV_GET_GPU_RECOVERY_ACTION)
    actions = constants("NVML_GPU_RECOVERY_ACTION_")
    if action in actions:
        t.put("recovery_action", 1, actions[action])


def pcie(t: Teller) -> None:
    for family, bound, call in (
        ("pcie_link_generation", "current", nv.nvmlDeviceGetCurrPcieLinkGeneration),
        ("pcie_link_generation", "max", nv.nvmlDeviceGetMaxPcieLinkGeneration),
        ("pcie_link_width", "current", nv.nvmlDeviceGetCurrPcieLinkWidth),
        ("pcie_link_width", "max", nv.nvmlDeviceGetMaxPcieLinkWidth),
    ):
        t.put(family, ask(call, t.handle), bound)
    t.put("pcie_tx_bytes_total", field(t.handle, nv.NVML_FI_DEV_PCIE_COUNT_TX_BYTES))
    t.put("pcie_rx_bytes_total", field(t.handle, nv.NVML_FI_DEV_PCIE_COUNT_RX_BYTES))
    replays = ask(nv.nvmlDeviceGetPcieReplayCounter, t.handle)
    t.put("pcie_replays_total", either(replays, t.handle, nv.NVML_FI_DEV_PCIE_REPLAY_COUNTER))
    for number, name in PCIE_ERRORS.items():
        t.put("pcie_errors_total", field(t.handle, number), name)


def each_link(handle: Any, numbers: tuple[int, ...]) -> dict[int, float]:
    """The first of some fields that the links have, by link."""
    for number in numbers:
        found = {n: value for n in links(handle) if (value := field(handle, number, n)) is not None}
        if found:
            return found
    return {}


def nvlinks(t: Teller) -> None:
    for link in links(t.handle):
        state = ask(nv.nvmlDeviceGetNvLinkState, t.handle, link)
        t.put("nvlink_up", None if state is None else bool(state), str(link))
    for way, kib, plain in (
        ("tx", nv.NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_TX, nv.NVML_FI_DEV_NVLINK_COUNT_XMIT_BYTES),
        ("rx", nv.NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_RX, nv.NVML_FI_DEV_NVLINK_COUNT_RCV_BYTES),
    ):
        unit = 1024
        found = each_link(t.handle, (kib,))
        if not found:
            unit, found = 1, each_link(t.handle, (plain,))
        if found:
            t.put(f"nvlink_{way}_bytes_total", sum(found.values()) * unit)
        for link, value in found.items():
            t.put(f"nvlink_link_{way}_bytes_total", value * unit, str(link))
    for kind, numbers in LINK_ERRORS.items():
        found = each_link(t.handle, numbers)
        if found:
            t.put("nvlink_errors_total", sum(found.values()), kind)
        for link, value in found.items():
            t.put("nvlink_link_errors_total", value, str(link), kind)
    for number, kind in LINKS_ERRORS.items():
        if ("nvlink_errors_total", (kind,)) not in t.values:
            t.put("nvlink_errors_total", field(t.handle, number), kind)
    speed = field(t.handle, nv.NVML_FI_DEV_NVLINK_SPEED_MBPS_COMMON)
    if speed is None and links(t.handle):
        speed = field(t.handle, nv.NVML_FI_DEV_NVLINK_GET_SPEED, 0)
    t.put("nvlink_speed_bytes", speed, den=1e-6)
    for link, raw in each_link(t.handle, (nv.NVML_FI_DEV_NVLINK_COUNT_EFFECTIVE_BER,)).items():
        mantissa, exponent = int(raw) >> 8 & 0xF, int(raw) & 0xFF
        t.put("nvlink_effective_ber", float(f"{mantissa}e-{exponent}"), str(link))


def fabric(t: Teller) -> None:
    for kind, version in (
        (nv.c_nvmlGpuFabricInfo_v3_t, nv.nvmlGpuFabricInfo_v3),
        (nv.c_nvmlGpuFabricInfo_v2_t, nv.nvmlGpuFabricInfo_v2),
    ):
        info = kind()
        info.version = version
        try:
            nv.nvmlDeviceGetGpuFabricInfoV(t.handle, ctypes.byref(info))
        except nv.NVMLError:
            continue
        states = {1: "not_started", 2: "in_progress", 3: "completed"}
        if info.state in states and not (info.state == 3 and info.status):
            t.put("fabric_state", 1, states[info.state])
            for name in ("degraded_bw", "route_recovery", "route_unhealthy"):
                check(t, info.healthMask, name)
            check(t, info.healthMask, "access_timeout_recovery")
            wrong = info.healthMask >> 8 & 0xF
            t.put("fabric_health", wrong > 1 if wrong else None, "incorrect_configuration")
        return


def check(t: Teller, mask: int, name: str) -> None:
    """One of the checks that are true, false or not supported."""
    prefix = "NVML_GPU_FABRIC_HEALTH_MASK"
    shift = getattr(nv, f"{prefix}_SHIFT_{name.upper()}")
    value = mask >> shift & 3
    label = name.replace("degraded_bw", "degraded_bandwidth")
    t.put("fabric_health", {1: 1, 2: 0}.get(value), label)


def modes(t: Teller) -> None:
    mig = ask(nv.nvmlDeviceGetMigMode, t.handle)
    state = ask(nv.nvmlSystemGetConfComputeState)
    for name, value in (
        ("mig", mig[0] if mig else None),
        ("persistence", ask(nv.nvmlDeviceGetPersistenceMode, t.handle)),
        ("compute", ask(nv.nvmlDeviceGetComputeMode, t.handle)),
        ("cc", None if state is None else bool(state.ccFeature)),
    ):
        t.put("mode", value, name)


def processes(t: Teller) -> None:
    compute = ask(nv.nvmlDeviceGetComputeRunningProcesses_v3, t.handle)
    graphics = ask(nv.nvmlDeviceGetGraphicsRunningProcesses_v3, t.handle)
    if compute is not None or graphics is not None:
        pids = {process.pid for process in [*(compute or ()), *(graphics or ())]}
        t.put("processes", len(pids))


@contextlib.contextmanager
def gpm_sample(take: Callable[[Any], Any]) -> Iterator[Any]:
    sample = nv.nvmlGpmSampleAlloc()
    try:
        take(sample)
        yield sample
    finally:
        nv.nvmlGpmSampleFree(sample)


def gpm_answers(
    handle: Any, numbers: list[int], gi: int | None = None
) -> dict[int, tuple[int, float]]:
    """(code, value) of GPM metrics over 150 ms, of a GPU or of one of its instances; nothing where
    the GPU has no GPM."""
    support = ask(nv.nvmlGpmQueryDeviceSupport, handle)
    if support is None or not support.isSupportedDevice:
        return {}

    def take(sample: Any) -> None:
        if gi is None:
            nv.nvmlGpmSampleGet(handle, sample)
        else:
            nv.nvmlGpmMigSampleGet(handle, gi, sample)

    with gpm_sample(take) as first:
        time.sleep(0.15)
        with gpm_sample(take) as second:
            asked = nv.c_nvmlGpmMetricsGet_t()
            asked.version = nv.NVML_GPM_METRICS_GET_VERSION
            asked.sample1, asked.sample2 = first, second
            answers = {}
            asked.numMetrics = 1
            for metric in numbers:  # one that a driver does not know would spoil the others
                asked.metrics[0].metricId = metric
                try:
                    nv.nvmlGpmMetricsGet(asked)
                    answers[metric] = (asked.metrics[0].nvmlReturn, asked.metrics[0].value)
                except nv.NVMLError as error:
                    answers[metric] = (int(error.value), 0.0)
    return answers


def gpm(handle: Any) -> Values:
    answers = gpm_answers(handle, list(GPM))
    return {GPM[n][0]: value / GPM[n][1] for n, (code, value) in answers.items() if code == 0}


def ring(handle: Any, kind: int) -> list[float]:
    """The samples that the driver has of a kind."""
    found = ask(nv.nvmlDeviceGetSamples, handle, kind, 0)
    return [] if found is None else [float(row.sampleValue.uiVal) for row in found[1]]


def identity(handle: Any) -> dict[str, str | None]:
    """The labels of esnode_gpu_info that nvidia-ml-py can tell."""
    pci = ask(nv.nvmlDeviceGetPciInfo, handle)
    capability = ask(nv.nvmlDeviceGetCudaComputeCapability, handle)
    cuda = ask(nv.nvmlSystemGetCudaDriverVersion)
    known = {
        "uuid": ask(nv.nvmlDeviceGetUUID, handle),
        "name": ask(nv.nvmlDeviceGetName, handle),
        "serial": ask(nv.nvmlDeviceGetSerial, handle),
        "board_part_number": ask(nv.nvmlDeviceGetBoardPartNumber, handle),
        "vbios": ask(nv.nvmlDeviceGetVbiosVersion, handle),
        "minor": ask(nv.nvmlDeviceGetMinorNumber, handle),
        "module_id": ask(nv.nvmlDeviceGetModuleId, handle),
        "pci_bus_id": pci.busId if pci else None,
        "driver_version": ask(nv.nvmlSystemGetDriverVersion),
        "cuda_version": f"{cuda // 1000}.{cuda % 1000 // 10}" if cuda else None,
        "compute_capability": "{}.{}".format(*capability) if capability else None,
    }
    return {name: None if value is None else str(value).strip() for name, value in known.items()}


def instances(handle: Any) -> Iterator[tuple[tuple[str, str, str], Any]]:
    """The MIG instances: (gi, ci, mig_uuid) and the handle."""
    for index in range(ask(nv.nvmlDeviceGetMaxMigDeviceCount, handle) or 0):
        mig = ask(nv.nvmlDeviceGetMigDeviceHandleByIndex, handle, index)
        if mig is not None:
            gi, ci = nv.nvmlDeviceGetGpuInstanceId(mig), nv.nvmlDeviceGetComputeInstanceId(mig)
            yield (str(gi), str(ci), nv.nvmlDeviceGetUUID(mig)), mig


def instance(handle: Any, mig: Any, gi: int) -> Values:
    """Every value of a MIG instance of a GPU that nvidia-ml-py can tell."""
    t = Teller(mig)
    memory(t)
    t.values.pop(("memory_reserved_bytes", ()), None)
    t.put("multiprocessors", nv.nvmlDeviceGetAttributes_v2(mig).multiprocessorCount)
    for in_scope, scope in SCOPES.items():
        for of_kind, kind in TYPES.items():
            total = ask(nv.nvmlDeviceGetTotalEccErrors, mig, of_kind, in_scope)
            t.put("ecc_errors_total", total, kind, scope)
    ratios = ("sm_active_ratio", "sm_occupancy_ratio", "tensor_active_ratio", "dram_active_ratio")
    for number, (code, value) in gpm_answers(handle, list(GPM), gi).items():
        name = GPM[number][0][0]
        if code == 0 and name in ratios:
            t.put(name, value, den=100)
        elif code == 0 and name == "graphics_active_ratio":
            t.put("utilization_percent", value)
    return t.values
