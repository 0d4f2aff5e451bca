"""A GPU or driver that hangs, is lost or goes away costs its own rows, one thread, and no time."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fakenvml import (
    DRIVER_NOT_LOADED,
    GPU_IS_LOST,
    LIB_RM_VERSION_MISMATCH,
    NOT_SUPPORTED,
    RESET_REQUIRED,
    UNINITIALIZED,
    UNKNOWN,
    Fake,
    Mig,
)
from tests.running import wait_for

from .lane import DEADLINE, SLACK, STATUS, Node, Reading, calls, threads

Make = Callable[..., Node]

UTILIZATION = "esnode_gpu_utilization_percent"
#: Families that a healthy H100 has at every reading.
ALWAYS = {UTILIZATION, "esnode_gpu_power_watts", "esnode_gpu_memory_used_bytes"}
#: Calls that each reading makes, not too few to be late where each is a little slow.
SLOW = (
    "nvmlDeviceGetUtilizationRates",
    "nvmlDeviceGetMemoryInfo_v2",
    "nvmlDeviceGetTemperatureV",
    "nvmlDeviceGetCurrentClocksEventReasons",
    "nvmlDeviceGetFieldValues",
)
SICK = "3"
OTHERS = [str(n) for n in range(8) if str(n) != SICK]


@pytest.fixture
def eight(nvml: Fake) -> Fake:
    nvml.set_gpus(["H100"] * 8)
    for slot in range(8):
        nvml.gpu(slot).set("utilization_gpu", 10 + slot)
    return nvml


def fresh(reading: Reading, sick: str = SICK) -> None:
    """All GPUs but the sick one are up, with what they say now; of that one there is no value."""
    others = [str(n) for n in range(8) if str(n) != sick]
    assert reading.up == others
    assert reading.by_gpu(UTILIZATION) == {gpu: 10 + int(gpu) for gpu in others}
    for gpu in others:
        uuid = reading.uuids()[gpu]
        assert uuid is not None
        assert reading.names(uuid) >= ALWAYS
    assert reading.by_gpu("esnode_gpu_up")[sick] == 0
    assert reading.by_gpu("esnode_gpu_stuck")[sick] == 1
    assert reading.one("esnode_gpus") == 8


# A GPU that hangs.


@pytest.mark.parametrize(
    "function",
    [
        "nvmlDeviceGetUtilizationRates",
        "nvmlDeviceGetFieldValues",
        "nvmlDeviceGetMemoryInfo_v2",
        "nvmlGpmSampleGet",
        "nvmlGpmMetricsGet",
        "nvmlDeviceGetSamples",
        None,
    ],
)
def test_a_gpu_hangs_while_it_is_read(function: str | None, eight: Fake, node: Make) -> None:
    machine = node()
    assert machine.tick().up == [str(n) for n in range(8)]
    before = threads()
    time.sleep(0.11)  # between two GPM samples
    eight.gpu(3).hang(function)
    reading = machine.tick()
    fresh(reading)
    assert reading.took < DEADLINE + SLACK
    assert reading.names(reading.uuids()[SICK] or "") <= STATUS
    calls(eight)
    for _ in range(30):
        reading = machine.tick()
        fresh(reading)
        assert reading.took < DEADLINE, "only the first reading waits for it"
    assert calls(eight, 3) == {}, "it is not asked while it hangs"
    assert threads() <= before + 1
    eight.release()
    machine.until(lambda reading: len(reading.up) == 8, "all are up again")


@pytest.mark.parametrize(
    "function",
    [
        "nvmlDeviceGetHandleByIndex_v2",
        "nvmlDeviceGetUUID",
        "nvmlDeviceGetName",
        "nvmlDeviceGetPciInfo_v3",
        "nvmlDeviceGetFieldValues",
        "nvmlGpmQueryDeviceSupport",
        None,
    ],
)
def test_a_gpu_hangs_from_the_start(function: str | None, eight: Fake, node: Make) -> None:
    before = threads()
    eight.gpu(3).hang(function)
    machine = node()
    reading = machine.tick()
    fresh(reading)
    assert reading.took < DEADLINE + SLACK
    calls(eight)
    for _ in range(10):
        reading = machine.tick()
        fresh(reading)
        assert reading.took < DEADLINE
    assert calls(eight, 3) == {}
    assert threads() <= before + 4, "one for the GPU, one for the others, and two for events"
    eight.release()
    reading = machine.until(lambda reading: len(reading.up) == 8, "all are up")
    assert reading.by_gpu(UTILIZATION)[SICK] == 13
    assert set(reading.by_gpu("esnode_gpu_stuck").values()) == {0}


def test_what_hangs_at_the_start_is_reported(
    eight: Fake, node: Make, caplog: pytest.LogCaptureFixture
) -> None:
    eight.gpu(3).hang("nvmlDeviceGetHandleByIndex_v2")
    machine = node()
    for _ in range(3):
        machine.tick()
    (line,) = [line for line in caplog.messages if "has not returned" in line]
    assert "GPU 3" in line


def test_a_gpu_hangs_while_its_instances_are_listed(eight: Fake, node: Make) -> None:
    eight.gpu(3).mig([Mig("1g.10gb", 7), None, Mig("2g.20gb", 3, start=2)])
    machine = node(enable_gpu_mig=True)
    reading = machine.tick()
    assert len(reading.of("esnode_mig_info")) == 2
    eight.gpu(3).hang("nvmlDeviceGetMigDeviceHandleByIndex")
    for round in range(5):
        reading = machine.tick()
        fresh(reading)
        assert reading.took < (DEADLINE if round else DEADLINE + SLACK)
        assert not reading.of("esnode_mig_memory_used_bytes")
    eight.gpu(3).mig([Mig("1g.10gb", 7)])
    eight.release()
    reading = machine.until(lambda reading: len(reading.up) == 8, "all are up again")
    assert len(reading.of("esnode_mig_info")) == 1


def test_several_gpus_hang_in_different_calls_at_the_start(eight: Fake, node: Make) -> None:
    """They hang one after the other, and the reading does not wait for each of them anew."""
    before = threads()
    eight.gpu(1).hang("nvmlDeviceGetUUID")
    eight.gpu(4).hang("nvmlDeviceGetFieldValues")
    eight.gpu(6).hang("nvmlDeviceGetUtilizationRates")
    machine = node()
    sick = {"1", "4", "6"}
    for round in range(12):
        reading = machine.tick()
        assert reading.took < (DEADLINE if round else DEADLINE + 0.3)
        assert reading.up == [str(n) for n in range(8) if str(n) not in sick]
        assert set(reading.by_gpu(UTILIZATION)) == set(reading.up)
        stuck = reading.by_gpu("esnode_gpu_stuck")
        assert {gpu for gpu, value in stuck.items() if value} == sick
    assert threads() <= before + 6
    eight.release()
    machine.until(lambda reading: len(reading.up) == 8, "all are up")


def test_all_gpus_hang(eight: Fake, node: Make) -> None:
    machine = node()
    machine.tick()
    before = threads()
    eight.hang("nvmlDeviceGetMemoryInfo_v2")
    for round in range(20):
        reading = machine.tick()
        assert reading.took < DEADLINE + (0 if round > 4 else SLACK)
        time.sleep(0.02)
        assert reading.up == []
        assert set(reading.by_gpu("esnode_gpu_stuck").values()) == {1} or round < 5
        assert reading.one("esnode_gpu_driver_up") == 1
        assert reading.one("esnode_gpus") == 8
    assert threads() <= before + 8
    eight.release()
    machine.until(lambda reading: len(reading.up) == 8, "all are up again")
    wait_for(lambda: threads() <= before + 1, "the threads have gone")


def test_the_count_hangs(eight: Fake, node: Make) -> None:
    machine = node()
    machine.tick()
    before = threads()
    eight.hang("nvmlDeviceGetCount_v2")
    for round in range(10):
        reading = machine.tick()
        assert reading.took < (DEADLINE if round else DEADLINE + SLACK)
        assert len(reading.up) == 8
    assert threads() <= before + 1
    eight.release()
    eight.remove(5)
    machine.until(lambda reading: len(reading.up) == 7, "it is looked again")


@pytest.mark.parametrize("function", ["nvmlInit_v2", "nvmlSystemGetDriverVersion"])
def test_the_start_of_the_driver_hangs(function: str, eight: Fake, node: Make) -> None:
    before = threads()
    eight.hang(function)
    machine = node()
    for round in range(10):
        reading = machine.tick()
        assert reading.took < (DEADLINE if round else DEADLINE + SLACK)
        assert reading.one("esnode_gpu_driver_up") == 0
        assert reading.up == []
    assert threads() <= before + 1
    assert sum(calls(eight).values()) <= 2
    eight.release()
    reading = machine.until(lambda reading: len(reading.up) == 8, "all are up")
    assert reading.one("esnode_gpu_driver_up") == 1


def test_a_slow_gpu_is_not_a_stuck_one(eight: Fake, node: Make) -> None:
    """Its calls return: what it says is shown, if late; the others are on time."""
    machine = node()
    machine.tick()
    for function in SLOW:
        eight.gpu(3).delay(function, DEADLINE / 5)
    seen = 0
    for _ in range(5):
        reading = machine.tick()
        assert reading.took < DEADLINE + SLACK
        assert [gpu for gpu in reading.up if gpu != SICK] == OTHERS
        assert reading.by_gpu("esnode_gpu_stuck")[SICK] == 0, "each of its calls returns"
        seen += SICK in reading.up
        assert (SICK in reading.up) == (SICK in reading.by_gpu(UTILIZATION))
        time.sleep(DEADLINE)
    assert 1 <= seen <= 4


def test_a_gpu_that_is_only_a_little_slow(eight: Fake, node: Make) -> None:
    machine = node()
    machine.tick()
    eight.gpu(3).delay("nvmlDeviceGetUtilizationRates", DEADLINE / 4)
    for _ in range(3):
        reading = machine.tick()
        assert len(reading.up) == 8
        assert reading.by_gpu(UTILIZATION)[SICK] == 13


def test_a_scrape_does_not_wait_for_a_gpu_that_hangs(eight: Fake, node: Make) -> None:
    """Its readings are none of a tick: they, too, leave it alone."""
    machine = node()
    machine.tick()
    eight.gpu(3).hang()
    machine.tick()
    for slot in range(8):
        eight.gpu(slot).set("utilization_gpu", 50 + slot)
    reading = machine.tick(False)
    assert reading.took < DEADLINE
    assert reading.by_gpu(UTILIZATION) == {gpu: 50 + int(gpu) for gpu in OTHERS}


def test_it_hangs_again_and_again(eight: Fake, node: Make) -> None:
    """No thread, GPM sample or row is left over."""
    machine = node()
    machine.tick()
    before, samples = threads(), eight.gpm_samples()
    for function in ("nvmlGpmSampleGet", "nvmlDeviceGetUtilizationRates") * 2:
        time.sleep(0.11)
        eight.gpu(3).hang(function)
        fresh(machine.tick())
        eight.gpu(3).usual()
        machine.until(lambda reading: len(reading.up) == 8, "all are up again")
    assert eight.gpm_samples() == samples
    wait_for(lambda: threads() <= before + 1, "the threads have gone")


def test_a_collector_is_let_go_of_while_a_gpu_hangs(eight: Fake, node: Make) -> None:
    before = threads()
    machine = node()
    machine.tick()
    eight.gpu(3).hang()
    machine.tick()
    start = time.monotonic()
    machine.gpus.stop()
    machine.gpus.driver = None
    machine.gpus.cards.clear()
    wait_for(lambda: threads() <= before + 1, "all threads but that one have gone")
    assert time.monotonic() - start < 5
    eight.release()
    wait_for(lambda: threads() <= before, "that one, too")


# A GPU that is lost.


@pytest.mark.parametrize("code", [GPU_IS_LOST, RESET_REQUIRED])
@pytest.mark.parametrize("mig", [False, True])
def test_a_lost_gpu(
    code: int, mig: bool, eight: Fake, node: Make, caplog: pytest.LogCaptureFixture
) -> None:
    if mig:
        eight.gpu(3).mig([Mig("1g.10gb", 7)])
    machine = node(enable_gpu_mig=mig)
    first = machine.tick()
    eight.gpu(3).lose(code)
    calls(eight)
    machine.tick()
    assert sum(calls(eight, 3).values()) <= 3
    name = {GPU_IS_LOST: "GPU_IS_LOST", RESET_REQUIRED: "RESET_REQUIRED"}[code]
    for _ in range(5):
        reading = machine.tick()
        assert reading.up == OTHERS
        assert reading.by_gpu("esnode_gpu_stuck")[SICK] == 0
        assert reading.names(reading.uuids()[SICK] or "") - {"esnode_mig_info"} <= STATUS | {
            "esnode_mig_multiprocessors"
        }
        assert reading.uuids() == first.uuids()
        assert sum(calls(eight, 3).values()) == 1, "it is asked once each time"
    assert len([line for line in caplog.messages if name in line]) == 1
    last = reading.by_gpu("esnode_gpu_last_success_timestamp_seconds")
    assert last[SICK] < min(last[gpu] for gpu in OTHERS)
    eight.gpu(3).recover()
    reading = machine.tick()
    assert reading.up == sorted([*OTHERS, SICK])
    assert reading.names(reading.uuids()[SICK] or "") >= (ALWAYS - {UTILIZATION} if mig else ALWAYS)
    assert len(reading.of("esnode_mig_memory_used_bytes")) == mig


def test_a_gpu_that_is_lost_at_the_start(eight: Fake, node: Make) -> None:
    eight.gpu(3).lose()
    machine = node()
    reading = machine.tick()
    assert reading.up == OTHERS
    assert reading.by_gpu("esnode_gpu_up")[SICK] == 0
    assert reading.one("esnode_gpus") == 8
    eight.gpu(3).recover()
    reading = machine.tick()
    assert reading.up == sorted([*OTHERS, SICK])
    assert None not in reading.uuids().values()


def test_a_gpu_is_lost_in_the_middle_of_a_reading(eight: Fake, node: Make) -> None:
    """Nothing of what it said before stays."""
    machine = node()
    machine.tick()
    eight.gpu(3).fail("nvmlDeviceGetMemoryInfo_v2", GPU_IS_LOST, times=1)
    reading = machine.tick()
    assert reading.up == OTHERS
    assert reading.names(reading.uuids()[SICK] or "") <= STATUS
    assert machine.tick().up == sorted([*OTHERS, SICK])


def test_all_calls_of_a_gpu_fail(eight: Fake, node: Make) -> None:
    """It could not be read, then, whatever the code is."""
    machine = node()
    machine.tick()
    eight.gpu(3).fail(None, UNKNOWN)
    for _ in range(3):
        assert machine.tick().up == OTHERS
    eight.gpu(3).usual()
    machine.until(lambda reading: len(reading.up) == 8, "it is up again")


def test_one_call_of_a_gpu_fails(eight: Fake, node: Make) -> None:
    machine = node()
    machine.tick()
    eight.gpu(3).fail("nvmlDeviceGetUtilizationRates", UNKNOWN)
    reading = machine.tick()
    assert len(reading.up) == 8
    assert SICK not in reading.by_gpu(UTILIZATION)
    eight.gpu(3).fail("nvmlDeviceGetUtilizationRates", NOT_SUPPORTED, times=1)
    machine.tick()
    eight.gpu(3).usual()
    assert SICK not in machine.tick().by_gpu(UTILIZATION), "that is remembered"


# The driver.


def test_a_driver_that_appears_later(
    eight: Fake, node: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    later = tmp_path / "lib.so"
    machine = node(nvml_library=str(later))
    for _ in range(3):
        reading = machine.tick()
        assert reading.one("esnode_gpu_driver_up") == 0
        assert not reading.of("esnode_gpus")
    later.symlink_to(eight.path)
    assert machine.tick().one("esnode_gpu_driver_up") == 0, "it is looked for every ten seconds"
    monkeypatch.setattr("esnode.collectors.nvidia.gpus.RETRY", 0.0)
    machine.gpus.due = time.monotonic()
    reading = machine.tick()
    assert reading.one("esnode_gpu_driver_up") == 1
    assert len(reading.up) == 8


def test_a_driver_that_is_loaded_later(
    eight: Fake, node: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    eight.reload(init=DRIVER_NOT_LOADED)
    machine = node()
    for _ in range(3):
        assert machine.tick().one("esnode_gpu_driver_up") == 0
    assert calls(eight).get("nvmlInit_v2") == 1, "it is tried every ten seconds"
    eight.reload()
    machine.gpus.due = time.monotonic()
    assert len(machine.tick().up) == 8


@pytest.mark.parametrize("stale", [UNINITIALIZED, DRIVER_NOT_LOADED])
def test_the_driver_is_reloaded(stale: int, eight: Fake, node: Make) -> None:
    energy = "esnode_gpu_energy_joules_total"
    machine = node()
    for slot in range(8):
        eight.gpu(slot).set("energy", 5_000_000)
        eight.gpu(slot).set("pcie_replays", 4_000_000_000)
    first = machine.tick()
    assert set(first.by_gpu(energy).values()) == {5000}
    eight.reload(stale=stale)
    reading = machine.tick()
    assert reading.up == []
    assert reading.one("esnode_gpu_driver_up") == 0
    assert not reading.of("esnode_gpu_info")
    reading = machine.until(lambda reading: len(reading.up) == 8, "it is up again")
    assert reading.uuids() == first.uuids()
    assert set(reading.by_gpu(energy).values()) == {0}, "the driver's counters begin anew"
    assert set(reading.by_gpu("esnode_gpu_pcie_replays_total").values()) == {0}
    before = first.of("esnode_agent_nvml_calls_total")
    after = reading.of("esnode_agent_nvml_calls_total")
    assert all(after[key] >= value for key, value in before.items()), "ours do not"


def test_the_driver_is_unloaded_for_a_while(eight: Fake, node: Make) -> None:
    machine = node()
    first = machine.tick()
    eight.reload(init=DRIVER_NOT_LOADED, stale=DRIVER_NOT_LOADED)
    for _ in range(4):
        reading = machine.tick()
        assert reading.one("esnode_gpu_driver_up") == 0
        assert {name for name, labels in reading.rows if "esnode_gpu" in name and labels} == set()
    eight.set_gpus(["A100"] * 2)
    eight.reload()
    machine.gpus.due = time.monotonic()
    reading = machine.tick()
    assert reading.up == ["0", "1"]
    assert set(reading.uuids().items()) <= set(first.uuids().items())


@pytest.mark.parametrize("stale", [UNINITIALIZED, DRIVER_NOT_LOADED, LIB_RM_VERSION_MISMATCH])
def test_that_the_driver_has_gone_is_said_once(
    stale: int, eight: Fake, node: Make, caplog: pytest.LogCaptureFixture
) -> None:
    """And not by each GPU."""
    machine = node()
    machine.tick()
    caplog.clear()
    caplog.set_level("INFO")
    eight.reload(init=stale, stale=stale)
    machine.tick()
    assert len(caplog.messages) == 1


def test_what_is_not_supported_is_asked_again_by_another_driver(eight: Fake, node: Make) -> None:
    eight.fail("nvmlDeviceGetUtilizationRates", NOT_SUPPORTED)
    machine = node()
    machine.tick()
    eight.script("nvmlDeviceGetUtilizationRates")
    assert machine.tick().by_gpu(UTILIZATION) == {}
    eight.reload()
    machine.until(lambda reading: len(reading.by_gpu(UTILIZATION)) == 8, "it is asked again")


def test_the_driver_goes_while_a_gpu_hangs(eight: Fake, node: Make) -> None:
    machine = node()
    machine.tick()
    eight.gpu(3).hang()
    machine.tick()
    eight.reload()
    for _ in range(5):
        reading = machine.tick()
        assert reading.took < DEADLINE
        assert reading.one("esnode_gpu_driver_up") == 0
        assert reading.up == []
    eight.release()
    reading = machine.until(lambda reading: len(reading.up) == 8, "all are up again")
    assert reading.one("esnode_gpu_driver_up") == 1


def test_let_go_of_and_taken_again(eight: Fake, node: Make) -> None:
    machine = node(gpu_release_seconds=60, enable_gpu_events=True)
    first = machine.tick()
    assert first.one("esnode_gpu_driver_released") == 0
    machine.gpus.release()
    reading = machine.tick()
    assert reading.one("esnode_gpu_driver_released") == 1
    assert reading.one("esnode_gpu_driver_up") == 0
    assert reading.up == []
    counted = calls(eight)
    assert counted["nvmlShutdown"] == counted["nvmlInit_v2"] == 1
    assert counted["nvmlEventSetFree"] == 1
    assert eight.gpm_samples() == 0
    for _ in range(5):
        machine.tick(False)
        machine.tick()
    assert calls(eight) == {}, "nothing is asked meanwhile"
    machine.gpus.resume()
    reading = machine.tick()
    assert reading.one("esnode_gpu_driver_released") == 0
    assert reading.uuids() == first.uuids()
    assert len(reading.up) == 8


def test_it_is_taken_again_by_itself(eight: Fake, node: Make) -> None:
    machine = node(gpu_release_seconds=0.3)
    machine.tick()
    machine.gpus.release()
    assert machine.tick().one("esnode_gpu_driver_released") == 1
    reading = machine.until(lambda reading: len(reading.up) == 8, "all are up again")
    assert reading.one("esnode_gpu_driver_released") == 0


def test_it_is_not_let_go_of_while_a_gpu_hangs(eight: Fake, node: Make) -> None:
    """What is said is what is the case."""
    machine = node()
    machine.tick()
    eight.gpu(3).hang()
    machine.tick()
    machine.gpus.release()
    reading = machine.tick()
    assert reading.took < DEADLINE
    assert reading.one("esnode_gpu_driver_released") == 0
    assert "nvmlShutdown" not in calls(eight)
    eight.release()
    machine.until(lambda reading: reading.one("esnode_gpu_driver_released") == 1, "it is let go")
    assert calls(eight)["nvmlShutdown"] == 1
    machine.gpus.resume()
    assert len(machine.tick().up) == 8
