"""Which calls of the library the GPU lane makes, how often, and what follows from their errors."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator

import pynvml as nv
import pytest

from esnode.collectors.nvidia import readings
from esnode.collectors.nvidia.readings import Field, Fields, Query, Row
from tests.fakenvml import Fake

from .node import Node
from .oracle import Oracle
from .scripted import samples, script
from .test_values import MODELS, compare, rows

Make = Callable[..., Node]

#: What an H100 is asked in a minute of twelve ticks: with each, three times a minute, or once.
MINUTE = {
    "nvmlDeviceGetUtilizationRates": 12,
    "nvmlDeviceGetMemoryInfo_v2": 12,
    "nvmlDeviceGetTemperatureV": 12,
    "nvmlDeviceGetCurrentClocksEventReasons": 12,
    "nvmlDeviceGetFieldValues": 3 * 12 + 5 * 4 + 5,
    "nvmlGpmSampleGet": 12,
    "nvmlGpmMetricsGet": 12,
    "nvmlDeviceGetSamples": 12 + 4,
    "nvmlDeviceGetClockInfo": 2 * 4 + 2,
    "nvmlDeviceGetMemoryErrorCounter": 4,
    **dict.fromkeys(
        (
            "nvmlDeviceGetMigMode",
            "nvmlDeviceGetPerformanceState",
            "nvmlDeviceGetEncoderUtilization",
            "nvmlDeviceGetDecoderUtilization",
            "nvmlDeviceGetJpgUtilization",
            "nvmlDeviceGetOfaUtilization",
            "nvmlDeviceGetBAR1MemoryInfo",
            "nvmlDeviceGetMarginTemperature",
            "nvmlDeviceGetSramEccErrorStatus",
            "nvmlDeviceGetRemappedRows",
            "nvmlDeviceGetRowRemapperHistogram",
            "nvmlDeviceGetCurrPcieLinkGeneration",
            "nvmlDeviceGetCurrPcieLinkWidth",
            "nvmlDeviceGetGpuFabricInfoV",
            "nvmlDeviceGetPersistenceMode",
            "nvmlDeviceGetComputeMode",
        ),
        1,
    ),
}
#: Of each GPU, though the library has it for the node.
OF_NODE = {"nvmlSystemGetConfComputeState": 1}
#: How much faster than in life the test below lets a minute pass, and by how much a tick may be
#: late there.
SPEED, LATE = 20, 0.05


def of_gpu(fake: Fake, slot: int = 0) -> dict[str, int]:
    return {name: count for (name, at), count in fake.calls().items() if at == slot}


def minute(fake: Fake, node: Node) -> bool:
    """Twelve ticks, after one that they follow; whether each was on time."""
    start = time.monotonic()
    for tick in range(13):
        time.sleep(max(0.0, start + tick * 5 / SPEED - time.monotonic()))
        if time.monotonic() - start - tick * 5 / SPEED > LATE:
            return False
        node.tick()
        if tick == 0:
            fake.forget_calls()
    return True


def test_a_minute(fake: Fake, node: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    queries = readings.gpu_queries

    def faster(*keys: bool) -> Iterator[Query]:
        for query in queries(*keys):
            period = query.period / SPEED if query.period > 0 else query.period
            yield query._replace(period=period)

    monkeypatch.setattr(readings, "gpu_queries", faster)
    fake.set_gpus(["H100"] * 2)
    for slot in range(2):
        samples(fake, slot, time.time_ns() // 1000)
    a = node()
    a.tick(3)  # what is not supported is found out
    if not any(minute(fake, a) for _ in range(4)):
        pytest.skip("the machine is too busy to be on time")
    found = of_gpu(fake)
    assert found == of_gpu(fake, 1) == MINUTE
    shared = of_gpu(fake, -1)
    assert shared == {"nvmlDeviceGetCount_v2": 12, **{k: 2 * n for k, n in OF_NODE.items()}}
    calls = found | OF_NODE
    for name, count in sorted(calls.items(), key=lambda item: -item[1]):
        print(f"{count / 12:6.2f} {name}")
    average = sum(calls.values()) / 12
    print(f"{average:6.2f} calls per GPU and tick")
    assert average <= 16
    assert (a.errors, a.reason) == (0, None)


EACH = {
    "nvmlDeviceGetUtilizationRates": 1,
    "nvmlDeviceGetMemoryInfo_v2": 1,
    "nvmlDeviceGetTemperatureV": 1,
    "nvmlDeviceGetCurrentClocksEventReasons": 1,
}


@pytest.mark.parametrize(
    ("model", "more"),
    [
        ("H100", {"nvmlDeviceGetFieldValues": 3}),
        ("T4", {"nvmlDeviceGetPowerUsage": 1, "nvmlDeviceGetTotalEnergyConsumption": 1}),
        ("A100", {"nvmlDeviceGetFieldValues": 2}),
        ("B200", {"nvmlDeviceGetFieldValues": 3}),
    ],
)
def test_what_a_scrape_and_another_tick_ask(
    fake: Fake, node: Make, model: str, more: dict[str, int]
) -> None:
    fake.set_gpus([model])
    script(fake, 0)
    expected = {key for key in Oracle().rows() if not is_sampled(key[0])}
    a = node()
    a.tick(2)
    fake.forget_calls()
    fake.gpu(0).set("temperature", 77)
    page = a.scrape()
    assert of_gpu(fake) == EACH | more
    assert page.get("esnode_gpu_temperature_celsius") == 77
    assert rows(page).keys() == expected, "what belongs to the tick, or is slower, is kept"
    fake.forget_calls()
    a.tick()
    assert of_gpu(fake) == EACH | more | {"nvmlDeviceGetSamples": 1}, "too early for GPM"


def test_what_was_counted_before_a_reload_is_taken_over_to_the_nanosecond(
    fake: Fake, node: Make
) -> None:
    fake.set_gpus(["H100"])
    a = node()
    a.tick()
    driver = a.collector.driver
    name = "nvmlDeviceGetComputeMode"
    count, seconds = driver.calls()[name]
    times = range(1, 1000)
    for nanoseconds in times:
        driver.resume({name: (1, nanoseconds / 1e9)})
    after = driver.calls()[name]
    assert after[0] == count + len(times)
    assert round((after[1] - seconds) * 1e9) == sum(times)


def test_calls_that_are_never_made(fake: Fake, node: Make) -> None:
    fake.set_gpus(MODELS)
    a = node(gpu_detail=True, gpu_process_metrics=True, enable_gpu_mig=True)
    a.pair()
    a.scrape()
    called = {name for name, _ in fake.calls()}
    assert not {name for name in called if "PcieThroughput" in name or "ProcessName" in name}
    assert not {name for name in called if "ProcessUtilization" in name or "Reset" in name}


def test_processes_are_listed_only_when_asked_for(fake: Fake, node: Make) -> None:
    fake.set_gpus(["H100"])
    fake.gpu(0).processes(compute=[(1, 5)])
    lists = {
        "nvmlDeviceGetComputeRunningProcesses_v3",
        "nvmlDeviceGetGraphicsRunningProcesses_v3",
    }
    page = node().tick()
    assert not lists & of_gpu(fake).keys()
    assert not {name for name in page.families if "process" in name}
    a = node(gpu_process_metrics=True)
    assert a.tick().get("esnode_gpu_processes") == 1
    assert lists <= of_gpu(fake).keys()
    fake.gpu(0).processes()
    page = a.tick()
    assert page.get("esnode_gpu_processes") == 0
    assert page.of("esnode_gpu_process_memory_bytes") == {}


# ------------------------------------------------------------------------------------- errors

RATES = "nvmlDeviceGetUtilizationRates"
FIELDS = "nvmlDeviceGetFieldValues"
UTILIZATION = "esnode_gpu_utilization_percent"


@pytest.mark.parametrize("code", [3, 13, 25])
def test_what_is_not_supported_is_remembered(fake: Fake, node: Make, code: int) -> None:
    """Of that GPU and call."""
    fake.set_gpus(["H100"] * 2)
    a = node(enable_gpu_mig=True)
    fake.gpu(0).fail(RATES, code)
    page = a.tick()
    fake.script(RATES)
    fake.forget_calls()
    page = a.tick(2)
    assert (of_gpu(fake, 0).get(RATES), of_gpu(fake, 1)[RATES]) == (None, 2)
    assert page.get(UTILIZATION, gpu=0) is None
    assert page.get(UTILIZATION, gpu=1) == 0
    assert a.errors == 0

    fake.gpu(0).mig([])
    a.tick()
    fake.gpu(0).mig(None)
    assert a.tick().get(UTILIZATION, gpu=0) == 0, "until MIG mode changes"


def test_a_reloaded_driver_is_asked_anew(fake: Fake, node: Make) -> None:
    fake.set_gpus(["H100"] * 2)
    for slot in range(2):
        script(fake, slot)
    a = node()
    fake.gpu(0).fail(None, nv.NVML_ERROR_NOT_SUPPORTED)
    fake.gpu(0).set("fans", 1)
    for function in ("HandleByIndex_v2", "UUID"):
        fake.script(f"nvmlDeviceGet{function}", 0)
    page = a.pair()
    assert {key[0] for key in rows(page) if key[1][0] == "0"} == {
        "esnode_gpu_info",
        "esnode_gpu_mode",  # the node's confidential computing
    }
    fake.script()
    fake.reload()
    a.follow()
    compare(a.pair(), Oracle())


def is_sampled(family: str) -> bool:
    """Whether it comes from GPM, which needs some time between two ticks."""
    return family.endswith("_ratio") or "gpm" in family


#: What is asked when a GPU is seen for the first time.
IDENTITY = (
    *("Name", "Serial", "BoardPartNumber", "VbiosVersion", "ModuleId", "MinorNumber", "NumaNodeId"),
    *("Architecture", "CudaComputeCapability", "PciInfo_v3", "NumFans", "UUID", "HandleByIndex_v2"),
)


@pytest.mark.parametrize("code", [2, 4, 6, 10, 21, 27, 999])
def test_passing_errors(fake: Fake, node: Make, code: int) -> None:
    """Of each function alone: the GPU is up, the failure is counted, and the next tick has all."""
    fake.set_gpus(["A6000", "H100", "H100"])
    fake.gpu(1).set("ecc_mode", 1)
    for slot in range(3):
        script(fake, slot)
    a = node()
    fake.forget_calls()
    whole = rows(a.pair())
    asked = set(of_gpu(fake, 0)) | set(of_gpu(fake, 1))
    assert whole == Oracle().rows()
    asked -= {f"nvmlDeviceGet{name}" for name in IDENTITY} | {"nvmlGpmMetricsGet"}
    if code in (nv.NVML_ERROR_INVALID_ARGUMENT, nv.NVML_ERROR_NOT_FOUND):
        asked -= {FIELDS, "nvmlDeviceGetSamples"}  # no such field, no new samples
    for function in sorted(asked):
        before = a.errors
        fake.reload()  # so that everything is asked again
        fake.script(function, 0, code=code)
        fake.script(function, 1, code=code)
        a.follow()
        page = a.tick()
        assert set(page.of("esnode_gpu_up").values()) == {1}, function
        assert a.errors > before + 1, function  # that the driver went was one
        well = [{key for key in found if key[1][0] == "2"} for found in (rows(page), whole)]
        assert well[1] - well[0] == {key for key in well[1] if is_sampled(key[0])}, function
        fake.script()
    a.tick()
    compare(a.pair(), Oracle())


def test_a_passing_error_costs_its_rows_only(fake: Fake, node: Make) -> None:
    fake.set_gpus(["H100"] * 2)
    for slot in range(2):
        script(fake, slot)
    a = node()
    whole = rows(a.pair())
    families = {
        RATES: {"utilization_percent", "memory_utilization_percent"},
        "nvmlDeviceGetMemoryInfo_v2": {
            f"memory_{name}_bytes" for name in ("total", "used", "free", "reserved")
        },
        "nvmlDeviceGetTemperatureV": {"temperature_celsius"},
        "nvmlDeviceGetCurrentClocksEventReasons": {"throttle_reason"},
        "nvmlDeviceGetFieldValues": {
            *("power_watts", "power_average_watts", "energy_joules_total"),
            *("pcie_tx_bytes_total", "pcie_rx_bytes_total"),
            *("nvlink_tx_bytes_total", "nvlink_rx_bytes_total"),
        },
    }
    for errors, (function, lost) in enumerate(families.items(), start=1):
        for code in (nv.NVML_ERROR_TIMEOUT,):
            fake.gpu(0).fail(function, code)
            found = rows(a.scrape())
            fake.script()
            gone = {key for key in whole if key not in found}
            assert {key[0] for key in gone} == {f"esnode_gpu_{name}" for name in lost}
            assert {key[1][0] for key in gone} == {"0"}
            assert a.errors == errors
            assert a.reason is not None
            assert f"{function}: TIMEOUT" in a.reason
            assert rows(a.scrape()) == whole


def test_one_field_that_fails(fake: Fake, node: Make) -> None:
    fake.set_gpus(["H100"])
    script(fake, 0)
    card = fake.gpu(0)
    a = node()
    a.tick()
    card.field(197, code=nv.NVML_ERROR_UNKNOWN)
    page = a.tick()
    assert page.get("esnode_gpu_pcie_tx_bytes_total") is None
    assert page.get("esnode_gpu_pcie_rx_bytes_total") is not None
    assert (a.errors, a.reason) == (
        1,
        f"GPU 0 ({nv.nvmlDeviceGetUUID(nv.nvmlDeviceGetHandleByIndex(0))}): "
        "nvmlDeviceGetFieldValues: UNKNOWN",
    )
    card.field(197, 12345)
    assert a.tick().get("esnode_gpu_pcie_tx_bytes_total") == 12345


def test_a_total_without_one_of_its_links_is_absent(fake: Fake, node: Make) -> None:
    """A link that has no counter is no part of it; one that fails makes it unknown."""
    fake.set_gpus(["B200"])
    card = fake.gpu(0)
    for link in range(18):
        card.field(202, 1000 + link, scope=link)
    card.field(202, code=nv.NVML_ERROR_NOT_SUPPORTED, scope=3)
    a = node()
    total = "esnode_gpu_nvlink_tx_bytes_total"
    assert a.tick().get(total) == sum(range(1000, 1018)) - 1003
    card.field(202, code=nv.NVML_ERROR_UNKNOWN, scope=9)
    page = a.tick()
    assert page.get(total) is None
    assert page.get("esnode_gpu_nvlink_rx_bytes_total") == 0
    card.field(202, 5, scope=9)
    assert a.tick().get(total) == sum(range(1000, 1018)) - 1003 - 1009 + 5


# ------------------------------------------------------------------------------------- batches


def test_a_mixed_batch_is_split_once(
    fake: Fake, node: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """GB200 answers that it supports none of a batch with fields of several families."""
    batch = Fields(
        readings.EACH,
        (
            Field(185, Row(readings.POWER_AVERAGE, den=1000)),
            Field(94, Row(readings.PCIE_REPLAYS)),
            Field(29, Row(readings.RETIRED, ("single_bit",))),
        ),
    )
    monkeypatch.setattr(readings, "gpu_queries", lambda *keys: [batch])
    fake.set_gpus(["GB200", "H100"])
    for slot in range(2):
        script(fake, slot)
    a = node()
    counts = []
    for _ in range(4):
        fake.forget_calls()
        page = a.tick()
        counts.append((of_gpu(fake, 0)[FIELDS], of_gpu(fake, 1)[FIELDS]))
        for slot in range(2):
            watts = page.get("esnode_gpu_power_average_watts", gpu=slot)
            assert watts == fake.gpu(slot).get("power_average") / 1000
            replays = page.get("esnode_gpu_pcie_replays_total", gpu=slot)
            assert replays == fake.gpu(slot).get("pcie_replays")
        assert "esnode_gpu_retired_pages_total" not in page.families
    later = counts[1:]
    assert [gb200 for gb200, _ in later] == [3, 2, 2], "once more with what is left of it"
    assert [h100 for _, h100 in later] == [1, 1, 1]
    assert a.errors == 0


@pytest.mark.parametrize("known", [91, 137, 163, 192, 198, 229, 268])
def test_a_driver_that_knows_fewer_fields(fake: Fake, node: Make, known: int) -> None:
    """One that it does not know makes it refuse the batch."""
    fake.set_gpus(["H100", "B200"])
    for slot in range(2):
        script(fake, slot)
    fake.option("known_fields", known)
    a = node(gpu_detail=True)
    compare(a.pair(), Oracle(detail=True))
    fake.forget_calls()
    compare(a.pair(), Oracle(detail=True))
    asked = Counter(name for name, _ in fake.calls())
    assert asked[FIELDS] <= Counter(name for name, _ in fake.calls())[FIELDS]
    assert a.errors == 0


def test_batches_are_whole_again_without_what_the_driver_does_not_know(
    fake: Fake, node: Make
) -> None:
    fake.set_gpus(["H100"])
    fake.option("known_fields", 190)  # not 191, which is in a batch with 185 and 186
    a = node()
    a.tick(2)
    fake.forget_calls()
    a.tick()
    assert of_gpu(fake)[FIELDS] == 2, "power, and the bytes of NVLink"
    assert of_gpu(fake)["nvmlDeviceGetTotalEnergyConsumption"] == 1


def test_a_gpu_that_left_and_came_back_between_two_ticks(fake: Fake, node: Make) -> None:
    """The handle of before is invalid, and the number of GPUs is the same."""
    fake.set_gpus(["H100"] * 2)
    for slot in range(2):
        script(fake, slot)
    a = node()
    a.pair()
    fake.gpu(0).remove()
    fake.add(0, "H100")
    script(fake, 0)
    a.tick()
    compare(a.pair(), Oracle())
