"""The fake of NVIDIA's library: nvidia-ml-py reads what was scripted, and each script works."""

from __future__ import annotations

import ctypes
import itertools
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pynvml as nv
import pytest

from tests import fakenvml
from tests.fakenvml import TOTAL, Fake, Mig

MODELS = ["T4", "A100", "A6000", "H100", "H200", "B200", "GB200"]


def code(call: Callable[..., object], *arguments: object) -> int:
    """The code that a call answers; 0 where it has a value."""
    try:
        call(*arguments)
    except nv.NVMLError as error:
        return int(error.value)
    return 0


def gpu(fake: Fake, model: str = "H100") -> tuple[fakenvml.Gpu, nv.c_nvmlDevice_t]:
    fake.set_gpus([model])
    return fake.gpu(0), nv.nvmlDeviceGetHandleByIndex(0)


def same(a: nv.c_nvmlDevice_t, b: nv.c_nvmlDevice_t) -> bool:
    return ctypes.cast(a, ctypes.c_void_p).value == ctypes.cast(b, ctypes.c_void_p).value


def field(handle: nv.c_nvmlDevice_t, *asked: int | tuple[int, int]) -> list[tuple[int, int]]:
    return [
        (value.nvmlReturn, value.value.ullVal if value.nvmlReturn == 0 else 0)
        for value in nv.nvmlDeviceGetFieldValues(handle, list(asked))
    ]


def test_nothing_is_answered_before_init_and_after_shutdown(fake: Fake) -> None:
    gpu(fake)
    nv.nvmlInit()
    nv.nvmlShutdown()
    assert nv.nvmlDeviceGetCount() == 1, "as often as it was initialised"
    nv.nvmlShutdown()
    assert code(nv.nvmlDeviceGetCount) == nv.NVML_ERROR_UNINITIALIZED
    assert code(nv.nvmlShutdown) == nv.NVML_ERROR_UNINITIALIZED
    nv.nvmlInit()


def test_each_model_is_what_it_is(fake: Fake) -> None:
    fake.set_gpus(MODELS)
    assert nv.nvmlDeviceGetCount() == len(MODELS)
    uuids = set()
    for index, model in enumerate(MODELS):
        handle = nv.nvmlDeviceGetHandleByIndex(index)
        assert model in nv.nvmlDeviceGetName(handle)
        assert nv.nvmlDeviceGetIndex(handle) == index
        uuid, bus = nv.nvmlDeviceGetUUID(handle), nv.nvmlDeviceGetPciInfo(handle).busId
        assert same(nv.nvmlDeviceGetHandleByUUID(uuid), handle)
        assert same(nv.nvmlDeviceGetHandleByPciBusId(bus), handle)
        uuids.add(uuid)
        links = nv.nvmlDeviceGetFieldValues(handle, [nv.NVML_FI_DEV_NVLINK_LINK_COUNT])[0]
        assert (links.value.uiVal if links.nvmlReturn == 0 else 0) == {
            "T4": 0, "A100": 12, "A6000": 4
        }.get(model, 18)  # fmt: skip
        least, most = nv.nvmlDeviceGetPowerManagementLimitConstraints(handle)
        assert least < nv.nvmlDeviceGetEnforcedPowerLimit(handle) == most
        hopper = index >= MODELS.index("H100")
        assert bool(nv.nvmlGpmQueryDeviceSupport(handle).isSupportedDevice) == hopper
        remap, retired = nv.nvmlDeviceGetRemappedRows, nv.nvmlDeviceGetRetiredPagesPendingStatus
        assert (code(remap, handle), code(retired, handle)) == ((3, 0) if index == 0 else (0, 3))
        assert (code(nv.nvmlDeviceGetFanSpeed_v2, handle, 0) == 0) == (model == "A6000")
        slowdown = code(nv.nvmlDeviceGetTemperatureThreshold, handle, 1)
        assert (slowdown, field(handle, 194)[0][0]) == ((3, 0) if hopper else (0, 3))
        kib, nvlink5 = field(handle, 138)[0][0], field(handle, 202)[0][0]
        assert (kib, nvlink5) == ((3, 3) if index == 0 else (3, 0) if "B2" in model else (0, 3))
        assert (code(nv.nvmlDeviceGetNumaNodeId, handle) == 0) == (model == "GB200")
    assert len(uuids) == len(MODELS)


def test_properties(fake: Fake) -> None:
    """What a value is called, and by which function nvidia-ml-py reads it."""
    card, handle = gpu(fake, "A6000")
    fake.gpu(0).set("ecc_mode", 1)
    readings: dict[str, Callable[[], object]] = {
        "power_usage": lambda: nv.nvmlDeviceGetPowerUsage(handle),
        "power_limit": lambda: nv.nvmlDeviceGetEnforcedPowerLimit(handle),
        "power_limit_default": lambda: nv.nvmlDeviceGetPowerManagementDefaultLimit(handle),
        "power_limit_max": lambda: nv.nvmlDeviceGetPowerManagementLimitConstraints(handle)[1],
        "energy": lambda: nv.nvmlDeviceGetTotalEnergyConsumption(handle),
        "temperature": lambda: nv.nvmlDeviceGetTemperatureV(handle, nv.NVML_TEMPERATURE_GPU),
        "temperature_gpu_max": lambda: nv.nvmlDeviceGetTemperatureThreshold(handle, 3),
        "utilization_gpu": lambda: nv.nvmlDeviceGetUtilizationRates(handle).gpu,
        "utilization_memory": lambda: nv.nvmlDeviceGetUtilizationRates(handle).memory,
        "utilization_encoder": lambda: nv.nvmlDeviceGetEncoderUtilization(handle)[0],
        "utilization_decoder": lambda: nv.nvmlDeviceGetDecoderUtilization(handle)[0],
        "memory_used": lambda: nv.nvmlDeviceGetMemoryInfo(handle, nv.nvmlMemory_v2).used,
        "memory_reserved": lambda: nv.nvmlDeviceGetMemoryInfo(handle, nv.nvmlMemory_v2).reserved,
        "bar1_used": lambda: nv.nvmlDeviceGetBAR1MemoryInfo(handle).bar1Used,
        "clock_memory": lambda: nv.nvmlDeviceGetClockInfo(handle, nv.NVML_CLOCK_MEM),
        "clock_max_video": lambda: nv.nvmlDeviceGetMaxClockInfo(handle, nv.NVML_CLOCK_VIDEO),
        "clock_reasons": lambda: nv.nvmlDeviceGetCurrentClocksEventReasons(handle),
        "pstate": lambda: nv.nvmlDeviceGetPerformanceState(handle),
        "fan_0": lambda: nv.nvmlDeviceGetFanSpeed_v2(handle, 0),
        "uncorrected_aggregate_total": lambda: nv.nvmlDeviceGetTotalEccErrors(handle, 1, 1),
        "corrected_volatile_dram": lambda: nv.nvmlDeviceGetMemoryErrorCounter(handle, 0, 0, 2),
        "remapped_uncorrected": lambda: nv.nvmlDeviceGetRemappedRows(handle)[1],
        "banks_low": lambda: nv.nvmlDeviceGetRowRemapperHistogram(handle).low,
        "pcie_width": lambda: nv.nvmlDeviceGetCurrPcieLinkWidth(handle),
        "pcie_replays": lambda: nv.nvmlDeviceGetPcieReplayCounter(handle),
        "persistence": lambda: nv.nvmlDeviceGetPersistenceMode(handle),
        "minor": lambda: nv.nvmlDeviceGetMinorNumber(handle),
    }
    for number, (name, read) in enumerate(readings.items(), start=41):
        card.set(name, number)
        assert read() == number == card.get(name), name
        card.set(name, 0xFFFF_FFFF)
        assert read() in (0xFFFF_FFFF, -1), f"{name}: the type's maximum"
        if name not in ("memory_used", "memory_reserved", "bar1_used") and "ban" not in name:
            card.set(name, None)
            if not name.startswith("remap"):
                assert code(read) == nv.NVML_ERROR_NOT_SUPPORTED, name
        card.set(name, number)
    for name, read in {
        "name": nv.nvmlDeviceGetName,
        "uuid": nv.nvmlDeviceGetUUID,
        "serial": nv.nvmlDeviceGetSerial,
        "part_number": nv.nvmlDeviceGetBoardPartNumber,
        "vbios": nv.nvmlDeviceGetVbiosVersion,
    }.items():
        card.text(name, f"the {name}")
        assert read(handle) == f"the {name}"
    with pytest.raises(ValueError, match="power_usgae"):
        card.set("power_usgae", 1)


def test_arguments_are_checked(fake: Fake) -> None:
    _, handle = gpu(fake)
    library = nv.nvmlLib
    text, small = ctypes.create_string_buffer(96), ctypes.c_uint(5)
    assert library.nvmlDeviceGetPowerUsage(handle, None) == nv.NVML_ERROR_INVALID_ARGUMENT
    assert library.nvmlDeviceGetName(handle, text, small) == nv.NVML_ERROR_INSUFFICIENT_SIZE
    assert code(nv.nvmlDeviceGetHandleByIndex, 1) == nv.NVML_ERROR_INVALID_ARGUMENT
    assert code(nv.nvmlDeviceGetHandleByUUID, "GPU-0") == nv.NVML_ERROR_NOT_FOUND
    for wrong in (0, 0x7FFF_FFFF, 2**64 - 1):
        assert library.nvmlDeviceGetName(ctypes.c_void_p(wrong), text, 96) == 2
    assert code(nv.nvmlDeviceGetClockInfo, handle, 4) == nv.NVML_ERROR_INVALID_ARGUMENT
    assert field(handle, 0, 9999)[0][0] == nv.NVML_ERROR_INVALID_ARGUMENT


def test_fields(fake: Fake) -> None:
    card, handle = gpu(fake)
    card.set("tlimit_shutdown", 2**64 - 8)
    values = nv.nvmlDeviceGetFieldValues(handle, [193, 186, 83])
    assert [v.valueType for v in values] == [5, 1, 3]
    assert values[0].value.siVal == -8
    assert field(handle, 164, (164, 3), (164, 18)) == [(0, 26562), (0, 26562), (2, 0)]
    for link in range(18):
        card.field(138, 100 + link, scope=link)
    assert field(handle, (138, 3), (138, TOTAL)) == [(0, 103), (0, sum(range(100, 118)))]
    card.field(138, 7)
    card.field(186, code=nv.NVML_ERROR_UNKNOWN)
    card.field(305, 12)
    assert field(handle, (138, TOTAL), 186, 305) == [(0, 7), (999, 0), (0, 12)]
    card.field(165, 0, scope=2)
    assert [nv.nvmlDeviceGetNvLinkState(handle, link) for link in (1, 2)] == [1, 0]
    card.field(74, 2**64 - 1)
    assert field(handle, 74) == [(0, 2**64 - 1)]


def test_a_mixed_batch_on_gb200(fake: Fake) -> None:
    card, handle = gpu(fake, "GB200")
    assert field(handle, 185, 202) == [(3, 0), (3, 0)]
    assert [c for c, _ in field(handle, 185, 186, 191)] == [0, 0, 0]
    assert [c for c, _ in field(handle, 202, 204)] == [0, 0]
    card.set("mixed_fields_fail", 0)
    assert [c for c, _ in field(handle, 185, 202)] == [0, 0]


def test_what_a_call_does(fake: Fake) -> None:
    fake.set_gpus(["H100"] * 2)
    one, two = (nv.nvmlDeviceGetHandleByIndex(i) for i in range(2))
    power = nv.nvmlDeviceGetPowerUsage

    fake.gpu(0).fail("nvmlDeviceGetPowerUsage", 999, times=2)
    assert [code(power, one) for _ in range(3)] == [999, 999, 0]
    assert code(power, two) == 0
    fake.fail("nvmlDeviceGetPowerUsage", 4)
    assert [code(power, one), code(power, two)] == [4, 4]
    fake.script("nvmlDeviceGetPowerUsage")
    assert code(power, one) == 0

    def took(handle: nv.c_nvmlDevice_t) -> float:
        began = time.monotonic()
        power(handle)
        return time.monotonic() - began

    fake.gpu(0).delay(None, 0.15)
    assert took(one) > 0.15 > took(two)
    fake.script(None, 0, spin=0.1)
    began = time.thread_time()
    power(one)
    assert time.thread_time() - began > 0.02
    fake.script()
    fake.option("busy_ns", 30_000_000)
    assert took(two) > 0.03
    fake.option("busy_ns", 0)

    fake.gpu(1).hang("nvmlDeviceGetPowerUsage")
    stuck = threading.Thread(target=power, args=(two,))
    stuck.start()
    stuck.join(0.05)
    assert stuck.is_alive()
    assert code(power, one) == 0
    fake.release()
    stuck.join(5)
    assert not stuck.is_alive()


def test_calls_are_counted(fake: Fake) -> None:
    fake.set_gpus(["H100"] * 2)
    fake.forget_calls()
    for index in (0, 1, 1):
        nv.nvmlDeviceGetPowerUsage(nv.nvmlDeviceGetHandleByIndex(index))
    assert fake.calls() == {
        ("nvmlDeviceGetHandleByIndex_v2", 0): 1,
        ("nvmlDeviceGetHandleByIndex_v2", 1): 2,
        ("nvmlDeviceGetPowerUsage", 0): 1,
        ("nvmlDeviceGetPowerUsage", 1): 2,
    }
    nv.nvmlDeviceGetCount()
    assert fake.calls()["nvmlDeviceGetCount_v2", -1] == 1
    began = time.monotonic()
    nv.nvmlDeviceGetPcieThroughput(nv.nvmlDeviceGetHandleByIndex(0), 0)
    assert time.monotonic() - began >= 0.02
    fake.forget_calls()
    assert fake.calls() == {}


def test_gpus_are_lost_and_need_a_reset(fake: Fake) -> None:
    fake.set_gpus(["H100"] * 2)
    one, two = (nv.nvmlDeviceGetHandleByIndex(i) for i in range(2))
    fake.gpu(0).lose()
    assert code(nv.nvmlDeviceGetUUID, one) == nv.NVML_ERROR_GPU_IS_LOST
    assert code(nv.nvmlDeviceGetHandleByIndex, 0) == nv.NVML_ERROR_GPU_IS_LOST
    assert (nv.nvmlDeviceGetCount(), code(nv.nvmlDeviceGetUUID, two)) == (2, 0)
    fake.gpu(0).lose(nv.NVML_ERROR_RESET_REQUIRED)
    assert code(nv.nvmlDeviceGetUUID, one) == 0
    assert code(nv.nvmlDeviceGetPowerUsage, one) == nv.NVML_ERROR_RESET_REQUIRED
    fake.gpu(0).recover()
    assert code(nv.nvmlDeviceGetPowerUsage, one) == 0


def test_gpus_leave_and_arrive(fake: Fake) -> None:
    fake.set_gpus(["H100"] * 3)
    one, two, three = (nv.nvmlDeviceGetHandleByIndex(i) for i in range(3))
    uuids = [nv.nvmlDeviceGetUUID(h) for h in (one, two, three)]
    fake.gpu(1).remove()
    assert nv.nvmlDeviceGetCount() == 2
    assert code(nv.nvmlDeviceGetUUID, two) == nv.NVML_ERROR_INVALID_ARGUMENT
    assert nv.nvmlDeviceGetIndex(three) == 1
    assert nv.nvmlDeviceGetUUID(nv.nvmlDeviceGetHandleByIndex(1)) == uuids[2]
    fake.add(1, "H100")
    assert code(nv.nvmlDeviceGetUUID, two) == nv.NVML_ERROR_INVALID_ARGUMENT, "of before"
    assert nv.nvmlDeviceGetUUID(nv.nvmlDeviceGetHandleByIndex(1)) == uuids[1]


def test_the_driver_is_reloaded(fake: Fake) -> None:
    card, handle = gpu(fake)
    card.set("energy", 5)
    card.field(74, 5)
    fake.reload(stale=nv.NVML_ERROR_DRIVER_NOT_LOADED)
    assert code(nv.nvmlDeviceGetPowerUsage, handle) == nv.NVML_ERROR_DRIVER_NOT_LOADED
    assert code(nv.nvmlDeviceGetCount) == nv.NVML_ERROR_DRIVER_NOT_LOADED
    nv.nvmlInit()
    assert code(nv.nvmlDeviceGetPowerUsage, handle) == nv.NVML_ERROR_INVALID_ARGUMENT
    handle = nv.nvmlDeviceGetHandleByIndex(0)
    assert nv.nvmlDeviceGetTotalEnergyConsumption(handle) == 0
    assert field(handle, 74) == [(0, 0)]
    fake.reload(init=nv.NVML_ERROR_LIB_RM_VERSION_MISMATCH)
    assert code(nv.nvmlInit) == nv.NVML_ERROR_LIB_RM_VERSION_MISMATCH
    assert code(nv.nvmlDeviceGetCount) == nv.NVML_ERROR_UNINITIALIZED
    fake.driver_version("999.1")
    fake.reload()
    nv.nvmlInit()
    assert nv.nvmlSystemGetDriverVersion() == "999.1"
    nv.nvmlShutdown()
    nv.nvmlShutdown()


def test_older_structs(fake: Fake) -> None:
    _, handle = gpu(fake)
    calls = [
        lambda: nv.nvmlDeviceGetMemoryInfo(handle, nv.nvmlMemory_v2),
        lambda: nv.nvmlDeviceGetTemperatureV(handle, 0),
        lambda: nv.nvmlDeviceGetSramEccErrorStatus(handle, ctypes.byref(status)),
        lambda: nv.nvmlGpmQueryDeviceSupport(handle),
        lambda: fabric(nv.c_nvmlGpuFabricInfo_v3_t, nv.nvmlGpuFabricInfo_v3),
        lambda: fabric(nv.c_nvmlGpuFabricInfo_v2_t, nv.nvmlGpuFabricInfo_v2),
    ]
    status = nv.c_nvmlEccSramErrorStatus_v1_t()

    def fabric(kind: type, version: int) -> None:
        info = kind()
        info.version = version
        nv.nvmlDeviceGetGpuFabricInfoV(handle, ctypes.byref(info))
        assert (info.state, info.healthMask) == (3, 0x1AA)

    assert [code(call) for call in calls] == [0] * 6
    fake.option("old_structs", 1)
    assert [code(call) for call in calls] == [25] * 5 + [0]
    assert nv.nvmlDeviceGetMemoryInfo(handle).total == 81559 << 20
    assert nv.nvmlDeviceGetTemperature(handle, 0) == 30


def test_mig(fake: Fake) -> None:
    card, handle = gpu(fake)
    at = nv.nvmlDeviceGetMigDeviceHandleByIndex
    assert nv.nvmlDeviceGetMigMode(handle) == [0, 0]
    assert nv.nvmlDeviceGetMaxMigDeviceCount(handle) == 7
    card.mig([Mig("1g.10gb", gi=7), None, Mig("3g.40gb", gi=2, start=4)])
    assert nv.nvmlDeviceGetMigMode(handle) == [1, 1]
    assert code(at, handle, 1) == nv.NVML_ERROR_NOT_FOUND
    small, large = at(handle, 0), at(handle, 2)
    assert nv.nvmlDeviceGetName(small) == "NVIDIA H100 80GB HBM3 MIG 1g.10gb"
    assert nv.nvmlDeviceGetUUID(large).startswith("MIG-")
    assert same(nv.nvmlDeviceGetHandleByUUID(nv.nvmlDeviceGetUUID(large)), large)
    assert same(nv.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(large), handle)
    assert (nv.nvmlDeviceGetGpuInstanceId(large), nv.nvmlDeviceGetComputeInstanceId(large)) == (
        2,
        0,
    )
    info = nv.nvmlGpuInstanceGetInfo(nv.nvmlDeviceGetGpuInstanceById(handle, 2))
    assert (info.profileId, info.placement.start, info.placement.size) == (9, 4, 4)
    attributes = nv.nvmlDeviceGetAttributes_v2(large)
    assert (attributes.multiprocessorCount, attributes.gpuInstanceSliceCount) == (48, 3)
    assert attributes.memorySizeMB == nv.nvmlDeviceGetMemoryInfo(large).total >> 20 == 40779
    card.instance_at(2).set("corrected_aggregate_total", 6)
    assert nv.nvmlDeviceGetTotalEccErrors(large, 0, 1) == 6
    for call in (nv.nvmlDeviceGetPowerUsage, nv.nvmlDeviceGetUtilizationRates):
        assert code(call, small) == nv.NVML_ERROR_NOT_SUPPORTED
    assert code(nv.nvmlDeviceGetUtilizationRates, handle) == nv.NVML_ERROR_NOT_SUPPORTED
    assert code(nv.nvmlDeviceGetPowerUsage, handle) == 0
    card.mig([Mig("1g.10gb", gi=7)])
    assert code(nv.nvmlDeviceGetName, large) == nv.NVML_ERROR_NOT_FOUND
    assert code(nv.nvmlDeviceGetName, small) == nv.NVML_ERROR_NOT_FOUND, "another instance now"
    card.mig(None)
    assert code(at, handle, 0) == nv.NVML_ERROR_NOT_FOUND
    assert code(nv.nvmlDeviceGetUtilizationRates, handle) == 0
    with pytest.raises(ValueError, match="5g"):
        card.mig([Mig("5g.10gb", gi=1)])


def test_mig_changes_while_it_is_read(fake: Fake) -> None:
    card, handle = gpu(fake)
    names: set[str] = set()
    codes: set[int] = set()
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            try:
                one = nv.nvmlDeviceGetMigDeviceHandleByIndex(handle, 0)
                names.add(nv.nvmlDeviceGetUUID(one)[:4])
            except nv.NVMLError as error:
                codes.add(error.value)

    reader = threading.Thread(target=read)
    reader.start()
    for turn in range(500):
        card.mig([Mig("1g.10gb", gi=turn % 7 + 1)] if turn % 3 else None)
    done.set()
    reader.join()
    assert names <= {"MIG-"}
    assert codes <= {nv.NVML_ERROR_NOT_FOUND}


def test_gpm(fake: Fake) -> None:
    card, handle = gpu(fake)
    card.mig([Mig("1g.10gb", gi=7)])
    card.metric(nv.NVML_GPM_METRIC_SM_UTIL, 41.5)
    card.metric(nv.NVML_GPM_METRIC_FP64_UTIL, 0, code=999)
    card.instance_at(0).metric(nv.NVML_GPM_METRIC_SM_UTIL, 99)

    def metrics(get: Callable[[object], object], wait: float) -> list[tuple[int, float]]:
        asked = nv.c_nvmlGpmMetricsGet_t()
        asked.version, asked.numMetrics = nv.NVML_GPM_METRICS_GET_VERSION, 3
        for i, metric in enumerate((2, 11, 200)):
            asked.metrics[i].metricId = metric
        asked.sample1, asked.sample2 = nv.nvmlGpmSampleAlloc(), nv.nvmlGpmSampleAlloc()
        get(asked.sample1)
        time.sleep(wait)
        get(asked.sample2)
        nv.nvmlGpmMetricsGet(asked)
        assert fake.gpm_samples() == 2
        nv.nvmlGpmSampleFree(asked.sample1)
        nv.nvmlGpmSampleFree(asked.sample2)
        return [(m.nvmlReturn, m.value) for m in asked.metrics[:3]]

    whole = metrics(lambda sample: nv.nvmlGpmSampleGet(handle, sample), 0.11)
    assert whole == [(0, 41.5), (999, 0), (3, 0)]
    part = metrics(lambda sample: nv.nvmlGpmMigSampleGet(handle, 7, sample), 0.11)
    assert part[0] == (0, 99)
    early = metrics(lambda sample: nv.nvmlGpmSampleGet(handle, sample), 0)
    assert all(c for c, _ in early)
    assert fake.gpm_samples() == 0


def test_sample_rings(fake: Fake) -> None:
    card, handle = gpu(fake)

    def samples(ring: int, since: int = 0) -> list[tuple[int, int]]:
        try:
            _, rows = nv.nvmlDeviceGetSamples(handle, ring, since)
        except nv.NVMLError_NotFound:
            return []
        return [(row.timeStamp, row.sampleValue.uiVal) for row in rows]

    assert samples(0) == []
    for i in range(1, 131):
        card.sample(nv.NVML_TOTAL_POWER_SAMPLES, i * 1000, 70_000 + i)
    assert samples(0) == [(i * 1000, 70_000 + i) for i in range(11, 131)]
    assert samples(0, 129_000) == [(130_000, 70_130)]
    assert samples(0, 130_000) == []
    assert samples(1) == []
    card.set("ring_period_us", 20_000)
    card.set("utilization_gpu", 50)
    filled = samples(1)
    assert len(filled) == 120
    assert filled[-1][0] == pytest.approx(time.time() * 1e6, abs=2e6)
    assert {b[0] - a[0] for a, b in itertools.pairwise(filled)} == {20_000}
    assert {45, 50, 55} < {value for _, value in filled} <= set(range(45, 56))


def test_events(fake: Fake) -> None:
    fake.set_gpus(["H100"] * 2)
    card, other = fake.gpu(0), fake.gpu(1)
    handle = nv.nvmlDeviceGetHandleByIndex(0)
    wanted = nv.nvmlEventTypeXidCriticalError
    card.event(wanted, 13)
    events = nv.nvmlEventSetCreate()
    assert nv.nvmlDeviceGetSupportedEventTypes(handle) & wanted
    nv.nvmlDeviceRegisterEvents(handle, wanted, events)
    assert code(nv.nvmlEventSetWait_v2, events, 0) == nv.NVML_ERROR_TIMEOUT, "before: not ours"
    card.event(nv.nvmlEventTypeClock)
    other.event(wanted, 1)
    card.event(wanted, 79, gi=3)
    got = nv.nvmlEventSetWait_v2(events, 1000)
    assert (got.eventData, got.eventType, got.gpuInstanceId) == (79, wanted, 3)
    assert same(got.device, handle)
    card.event(wanted, 45, times=4096)
    for _ in range(4096):
        assert nv.nvmlEventSetWait_v2(events, 0).eventData == 45
    threading.Timer(0.05, card.event, (wanted, 48)).start()
    began = time.monotonic()
    assert nv.nvmlEventSetWait_v2(events, 5000).eventData == 48
    assert time.monotonic() - began < 2, "a push wakes"
    threading.Timer(0.05, card.lose).start()
    assert code(nv.nvmlEventSetWait_v2, events, 5000) == nv.NVML_ERROR_GPU_IS_LOST
    nv.nvmlEventSetFree(events)
    assert code(nv.nvmlEventSetWait_v2, events, 0) == nv.NVML_ERROR_INVALID_ARGUMENT


def test_processes(fake: Fake) -> None:
    card, handle = gpu(fake)
    assert nv.nvmlDeviceGetComputeRunningProcesses_v3(handle) == []
    card.processes(compute=[(10, 1 << 30), (11, 2 << 30)], graphics=[(12, 5)])
    compute = nv.nvmlDeviceGetComputeRunningProcesses_v3(handle)
    assert [(p.pid, p.usedGpuMemory) for p in compute] == [(10, 1 << 30), (11, 2 << 30)]
    assert [p.pid for p in nv.nvmlDeviceGetGraphicsRunningProcesses_v3(handle)] == [12]
    room = ctypes.c_uint(1)
    rows = (nv.c_nvmlProcessInfo_v3_t * 1)()
    call = nv.nvmlLib.nvmlDeviceGetComputeRunningProcesses_v3
    assert call(handle, ctypes.byref(room), rows) == nv.NVML_ERROR_INSUFFICIENT_SIZE
    assert room.value == 2


def test_another_process_is_scripted_while_it_runs(path: Path, tmp_path: Path) -> None:
    fake = Fake(path, tmp_path / "state")
    fake.set_gpus(["H100", "T4"])
    program = """
        import pynvml as nv, sys
        nv.nvmlInit()
        one = nv.nvmlDeviceGetHandleByIndex(0)
        for line in sys.stdin:
            try:
                print(nv.nvmlDeviceGetCount(), nv.nvmlDeviceGetPowerUsage(one), flush=True)
            except nv.NVMLError as error:
                print(error.value, flush=True)
    """
    child = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)],
        env=fake.environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdin
    assert child.stdout

    def answer() -> str:
        assert child.stdin
        assert child.stdout
        print(file=child.stdin, flush=True)
        return child.stdout.readline().strip()

    fake.gpu(0).set("power_usage", 123_456)
    assert answer() == "2 123456"
    fake.gpu(1).remove()
    assert answer() == "1 123456"
    fake.gpu(0).hang("nvmlDeviceGetPowerUsage")
    threading.Timer(0.05, fake.release).start()
    assert answer() == "1 123456"
    assert fake.calls()["nvmlDeviceGetPowerUsage", 0] == 3
    fake.reload()
    assert answer() == "1"
    child.stdin.close()
    assert child.wait(5) == 0
    child.stdout.close()


def test_the_environment_sets_it_up(path: Path) -> None:
    program = "import pynvml as nv; nv.nvmlInit(); print(nv.nvmlDeviceGetCount())"
    where = {"LD_LIBRARY_PATH": str(path.parent), "FAKE_NVML_GPUS": "2xH100,1xT4"}
    said = subprocess.run([sys.executable, "-c", program], env=where, capture_output=True)
    assert (said.stdout, said.stderr) == (b"3\n", b"")


def test_every_function_that_the_agent_calls_is_there(fake: Fake) -> None:
    assert [name for name in fake.functions if not hasattr(nv.nvmlLib, name)] == []


def test_symbols_can_be_missing(path: Path) -> None:
    poor = fakenvml.library(missing=["nvmlDeviceGetFieldValues", "nvmlGpmSampleGet"])
    assert poor != path
    assert poor == fakenvml.library(missing=["nvmlGpmSampleGet", "nvmlDeviceGetFieldValues"])
    for library, has in ((path, True), (poor, False)):
        there = ctypes.CDLL(str(library))
        assert hasattr(there, "nvmlDeviceGetFieldValues") == has
        assert hasattr(there, "nvmlDeviceGetName")
    assert poor.name == "libnvidia-ml.so.1"
