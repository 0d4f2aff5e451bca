"""GPUs and MIG instances come, go and change: what is shown is what is there, and nothing else."""

from __future__ import annotations

import random
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fakenvml import Fake, Mig
from tests.running import wait_for

from .lane import DEADLINE, SLACK, Node, Reading, calls, threads

Make = Callable[..., Node]

UTILIZATION = "esnode_gpu_utilization_percent"


@pytest.fixture
def four(nvml: Fake) -> Fake:
    nvml.set_gpus(["H100"] * 4)
    mark(nvml, 4)
    return nvml


def mark(fake: Fake, gpus: int) -> None:
    """Each GPU says what slot it is in."""
    for slot in range(gpus):
        fake.gpu(slot).set("utilization_gpu", 10 + slot)
        fake.gpu(slot).set("energy", 1000 * (10 + slot))


def utilization(reading: Reading) -> dict[str | None, float]:
    energy = reading.by_gpu("esnode_gpu_energy_joules_total")
    assert energy == reading.by_gpu(UTILIZATION)
    return energy


# GPUs.


def test_the_one_in_the_middle_is_removed(four: Fake, node: Make) -> None:
    machine = node()
    first = machine.tick()
    assert utilization(first) == {"0": 10, "1": 11, "2": 12, "3": 13}
    gone = first.uuids()["1"]
    assert gone is not None
    four.remove(1)
    for _ in range(3):
        reading = machine.tick()
        assert utilization(reading) == {"0": 10, "2": 12, "3": 13}
        assert not reading.names(gone)
        assert set(reading.uuids().items()) < set(first.uuids().items())
        assert reading.one("esnode_gpus") == 3
        assert reading.up == ["0", "2", "3"]


@pytest.mark.parametrize("slot", [0, 3])
def test_the_first_or_last_is_removed(slot: int, four: Fake, node: Make) -> None:
    machine = node()
    machine.tick()
    four.remove(slot)
    assert utilization(machine.tick()) == {str(n): 10 + n for n in range(4) if n != slot}


def test_a_removed_gpu_comes_back(four: Fake, node: Make) -> None:
    machine = node()
    first = machine.tick()
    four.remove(1)
    machine.tick()
    four.add(1, "H100")
    mark(four, 4)
    reading = machine.tick()
    assert reading.uuids() == first.uuids()
    assert utilization(reading) == {"0": 10, "1": 11, "2": 12, "3": 13}


def test_one_arrives_before_the_others(nvml: Fake, node: Make) -> None:
    """Those that were there keep their numbers."""
    for slot in (1, 2, 4):
        nvml.add(slot, "H100")
    machine = node()
    first = machine.tick()
    assert set(first.uuids()) == {"0", "1", "2"}
    nvml.add(0, "H100")
    nvml.add(3, "A100")
    mark(nvml, 5)
    reading = machine.tick()
    assert set(first.uuids().items()) < set(reading.uuids().items())
    assert {gpu: value for gpu, value in utilization(reading).items() if gpu in "012"} == {
        "0": 11, "1": 12, "2": 14
    }  # fmt: skip
    assert sorted(utilization(reading).values()) == [10, 11, 12, 13, 14]


def test_another_gpu_at_the_same_place(four: Fake, node: Make) -> None:
    """Between two readings, so that their number is the same."""
    machine = node()
    first = machine.tick()
    four.add(1, "H100")
    mark(four, 4)
    four.gpu(1).text("uuid", "GPU-00000000-1111-2222-3333-444444444444")
    reading = machine.tick()
    assert utilization(reading) == {"0": 10, "1": 11, "2": 12, "3": 13}
    assert reading.uuids()["1"] == "GPU-00000000-1111-2222-3333-444444444444"
    assert not reading.names(first.uuids()["1"] or "")
    assert reading.up == ["0", "1", "2", "3"]


def test_another_gpu_of_another_model_has_nothing_of_the_one_before(four: Fake, node: Make) -> None:
    machine = node()
    machine.tick()
    assert machine.tick().of("esnode_gpu_nvlink_up")
    four.add(1, "T4")
    four.gpu(1).text("uuid", "GPU-00000000-1111-2222-3333-444444444444")
    reading = machine.tick()
    names = reading.names("GPU-00000000-1111-2222-3333-444444444444")
    assert "esnode_gpu_nvlink_up" not in names
    assert "esnode_gpu_sm_active_ratio" not in names
    assert UTILIZATION in names
    (labels,) = (key for key in reading.of("esnode_gpu_info") if key[0] == "1")
    assert "Tesla T4" in labels


def test_all_are_removed_and_come_back(four: Fake, node: Make) -> None:
    machine = node()
    first = machine.tick()
    for slot in range(4):
        four.remove(slot)
    reading = machine.tick()
    assert reading.uuids() == {}
    assert reading.one("esnode_gpus") == 0
    assert reading.one("esnode_gpu_driver_up") == 1
    for slot in (3, 2, 1, 0):
        four.add(slot, "H100")
        machine.tick()
    assert machine.tick().uuids() == first.uuids()


def test_sixteen_come_and_go(nvml: Fake, node: Make) -> None:
    """At random; nothing is left over."""
    chance = random.Random(1)
    nvml.set_gpus(["H100"] * 16)
    mark(nvml, 16)
    machine = node()
    machine.tick()
    before = threads()
    here = set(range(16))
    for _ in range(60):
        for slot in chance.sample(range(16), chance.randint(1, 5)):
            if slot in here:
                nvml.remove(slot)
                here.discard(slot)
            else:
                nvml.add(slot, chance.choice(["H100", "A100", "T4"]))
                nvml.gpu(slot).set("utilization_gpu", 10 + slot)
                here.add(slot)
        reading = machine.tick()
        assert sorted(reading.by_gpu(UTILIZATION).values()) == sorted(10 + n for n in here)
        assert len(reading.up) == len(here)
    wait_for(lambda: threads() <= before + 1, "one thread hangs")
    for slot in range(16):
        nvml.remove(slot)
    machine.tick()
    machine.tick()
    assert nvml.gpm_samples() == 0
    assert not [key for key in machine.tick().rows if key[0].startswith("esnode_gpu_") and key[1]]


@pytest.mark.parametrize("function", ["nvmlDeviceGetUtilizationRates", "nvmlGpmSampleGet"])
def test_one_is_removed_while_another_one_hangs(function: str, four: Fake, node: Make) -> None:
    """What hangs keeps its thread; the GPU that has its index now is read."""
    machine = node()
    first = machine.tick()
    before = threads()
    time.sleep(0.11)
    four.gpu(1).hang(function)
    machine.tick()
    four.remove(0)
    calls(four)
    for _ in range(5):
        reading = machine.tick()
        assert reading.took < DEADLINE
        assert reading.up == ["2", "3"]
        assert set(reading.uuids().items()) == set(first.uuids().items()) - {
            ("0", first.uuids()["0"])
        }
        assert reading.by_gpu("esnode_gpu_stuck") == {"1": 1, "2": 0, "3": 0}
        assert utilization(reading) == {"2": 12, "3": 13}
    asked = calls(four, 1)
    assert set(asked) <= {"nvmlDeviceGetHandleByIndex_v2", "nvmlDeviceGetUUID"}
    assert sum(asked.values()) <= 4, "to find out which it is, and once only"
    wait_for(lambda: threads() <= before + 1, "one thread hangs")
    four.release()
    reading = machine.until(lambda reading: len(reading.up) == 3, "it is up again")
    assert utilization(reading) == {"1": 11, "2": 12, "3": 13}
    wait_for(lambda: threads() <= before + 1, "one thread hangs")


@pytest.mark.parametrize("gone", [0, 3])
@pytest.mark.parametrize("function", ["nvmlDeviceGetUtilizationRates", None])
def test_one_is_removed_as_another_one_begins_to_hang(
    function: str | None, gone: int, four: Fake, node: Make
) -> None:
    """Those that are well are read at once, and only one GPU hangs, not one for its index too."""
    machine = node()
    first = machine.tick()
    time.sleep(0.11)
    four.gpu(1).hang(function)
    four.remove(gone)
    well = {"0": 10, "2": 12, "3": 13}
    del well[str(gone)]
    assert utilization(machine.tick()) == well
    for _ in range(3):
        reading = machine.tick()
        assert utilization(reading) == well
        assert reading.by_gpu("esnode_gpu_up") == {"1": 0, **dict.fromkeys(well, 1)}
    four.release()
    reading = machine.until(lambda reading: len(reading.up) == 3, "it is up again")
    assert set(reading.uuids().items()) < set(first.uuids().items())


def test_the_one_that_hangs_is_removed(four: Fake, node: Make) -> None:
    machine = node()
    first = machine.tick()
    before = threads()
    for function in ("nvmlDeviceGetUtilizationRates", None):
        four.gpu(1).hang(function)
        machine.tick()
        four.remove(1)
        for _ in range(8):
            reading = machine.tick()
            assert reading.took < DEADLINE
            assert utilization(reading) == {"0": 10, "2": 12, "3": 13}
            assert not reading.names(first.uuids()["1"] or "")
        assert sum(calls(four).values()) < 1500, "it is one reading each time"
        wait_for(lambda: threads() <= before + 1, "one thread hangs")
        four.release()
        four.add(1, "H100")
        mark(four, 4)
        reading = machine.until(lambda reading: len(reading.up) == 4, "it is there again")
        assert reading.uuids() == first.uuids()
    wait_for(lambda: threads() <= before + 1, "one thread hangs")


def test_one_is_removed_while_another_one_is_lost(four: Fake, node: Make) -> None:
    """The one between them takes the index of the first, the lost one that of the second."""
    machine = node()
    first = machine.tick()
    four.gpu(3).lose()
    machine.tick()
    four.remove(1)
    for _ in range(3):
        reading = machine.tick()
        assert utilization(reading) == {"0": 10, "2": 12}
        assert reading.by_gpu("esnode_gpu_up") == {"0": 1, "2": 1, "3": 0}
        assert {reading.uuids()[number] for number in "02"} < set(first.uuids().values())
    four.gpu(3).recover()
    reading = machine.until(lambda reading: len(reading.up) == 3, "it is up again")
    assert utilization(reading) == {"0": 10, "2": 12, "3": 13}
    assert set(reading.uuids().items()) < set(first.uuids().items())


def test_the_last_one_hangs_and_is_removed(four: Fake, node: Make) -> None:
    machine = node()
    machine.tick()
    four.gpu(3).hang()
    machine.tick()
    machine.tick()
    calls(four)
    machine.tick()
    usual = sum(calls(four).values())
    four.remove(3)
    machine.tick()
    calls(four)
    for _ in range(3):
        reading = machine.tick()
        assert utilization(reading) == {"0": 10, "1": 11, "2": 12}
        assert sum(calls(four).values()) <= usual, "it is not read again and again"


def test_one_arrives_while_another_one_hangs(four: Fake, node: Make) -> None:
    four.remove(0)
    machine = node()
    first = machine.tick()
    four.gpu(2).hang("nvmlDeviceGetUtilizationRates")
    machine.tick()
    four.add(0, "H100")
    mark(four, 1)
    reading = machine.tick()
    assert reading.took < DEADLINE + SLACK
    assert set(first.uuids().items()) < set(reading.uuids().items())
    assert sorted(utilization(reading).values()) == [10, 11, 13]
    four.release()
    reading = machine.until(lambda reading: len(reading.up) == 4, "all are up")
    assert set(first.uuids().items()) < set(reading.uuids().items())


def test_the_gpus_of_the_bus_and_those_expected(four: Fake, node: Make, tmp_path: Path) -> None:
    """The card that never came up is on the bus and not in the driver."""
    bus = tmp_path / "sys/bus/pci/devices"
    for n in range(5):
        device = bus / f"0000:{n + 16:02x}:00.0"
        device.mkdir(parents=True)
        (device / "vendor").write_text("0x10de\n")
        (device / "class").write_text("0x030200\n")
    machine = node(expected_gpus=6)
    reading = machine.tick()
    assert reading.one("esnode_gpu_pci_devices") == 5
    assert reading.one("esnode_gpus") == 4
    assert reading.one("esnode_gpus_expected") == 6
    four.reload(init=9)
    shutil.rmtree(bus / "0000:10:00.0")
    machine.gpus.look_due = 0
    machine.tick()
    reading = machine.tick()
    assert reading.one("esnode_gpu_pci_devices") == 4
    assert not reading.of("esnode_gpus")
    assert reading.one("esnode_gpus_expected") == 6


# MIG.

INFO = "esnode_mig_info"
#: What a GPU in MIG mode does not say.
WHOLE = {
    UTILIZATION,
    "esnode_gpu_memory_utilization_percent",
    "esnode_gpu_encoder_utilization_percent",
    "esnode_gpu_decoder_utilization_percent",
    "esnode_gpu_jpeg_utilization_percent",
    "esnode_gpu_ofa_utilization_percent",
    "esnode_gpu_utilization_mean_percent",
}


def instances(reading: Reading) -> set[tuple[str | None, ...]]:
    """gpu, gi, ci, profile and placement of each instance."""
    return {(key[0], key[2], key[3], key[5], key[6]) for key in reading.of(INFO)}


def memory(reading: Reading) -> set[tuple[str | None, ...]]:
    """gpu, gi and ci of each instance that is read."""
    return {(key[0], key[2], key[3]) for key in reading.of("esnode_mig_memory_used_bytes")}


SLICES = [Mig("1g.10gb", 7), None, Mig("2g.20gb", 3, start=2), Mig("3g.40gb", 2, start=4)]
SHOWN = {
    ("1", "7", "0", "1g.10gb", "0:1"),
    ("1", "3", "0", "2g.20gb", "2:2"),
    ("1", "2", "0", "3g.40gb", "4:4"),
}


def test_instances_with_a_hole_between_them(four: Fake, node: Make) -> None:
    four.gpu(1).mig(SLICES)
    machine = node(enable_gpu_mig=True)
    reading = machine.tick()
    assert instances(reading) == SHOWN
    assert memory(reading) == {(gpu, gi, ci) for gpu, gi, ci, _, _ in SHOWN}
    assert len(reading.of("esnode_mig_multiprocessors")) == 3
    time.sleep(0.11)
    reading = machine.tick()
    assert len(reading.of("esnode_mig_sm_active_ratio")) == 3
    uuid = reading.uuids()["1"]
    assert uuid is not None
    assert not reading.names(uuid) & WHOLE
    assert reading.names(reading.uuids()["0"] or "") >= {UTILIZATION}
    assert reading.of("esnode_gpu_mode")["1", uuid, "mig"] == 1


def test_without_the_key_no_instance_is_shown(four: Fake, node: Make) -> None:
    four.gpu(1).mig(SLICES)
    machine = node()
    reading = machine.tick()
    assert not instances(reading)
    assert "nvmlDeviceGetMigDeviceHandleByIndex" not in calls(four)
    assert len(reading.up) == 4


def test_the_mode_is_turned_on_and_off(four: Fake, node: Make) -> None:
    machine = node(enable_gpu_mig=True)
    before = machine.tick()
    uuid = before.uuids()["1"]
    assert uuid is not None
    assert before.names(uuid) >= WHOLE - {"esnode_gpu_utilization_mean_percent"}
    for _ in range(3):
        four.gpu(1).mig([])
        reading = machine.tick()
        assert not reading.names(uuid) & WHOLE
        assert not instances(reading)
        four.gpu(1).mig(SLICES)
        reading = machine.tick()
        assert instances(reading) == SHOWN
        assert not reading.names(uuid) & WHOLE
        four.gpu(1).mig(None)
        reading = machine.tick()
        assert not instances(reading)
        assert not [key for key in reading.rows if key[0].startswith("esnode_mig_")]
        assert reading.names(uuid) >= before.names(uuid)


def test_instances_are_destroyed_and_created(four: Fake, node: Make) -> None:
    four.gpu(1).mig(SLICES)
    machine = node(enable_gpu_mig=True)
    machine.tick()
    four.gpu(1).mig([*SLICES[:2], None, SLICES[3]])
    reading = machine.tick()
    assert instances(reading) == {row for row in SHOWN if row[1] != "3"}
    assert memory(reading) == {("1", "7", "0"), ("1", "2", "0")}
    four.gpu(1).mig([*SLICES[:2], Mig("1g.10gb", 9, start=2), SLICES[3]])
    reading = machine.tick()
    assert instances(reading) == {row for row in SHOWN if row[1] != "3"} | {
        ("1", "9", "0", "1g.10gb", "2:1")
    }
    assert ("1", "9", "0") in memory(reading)


def test_the_values_are_those_of_the_instance(four: Fake, node: Make) -> None:
    """Also when another one before it goes, and those after it move up."""
    four.gpu(1).mig(SLICES)
    for index, used in ((0, 100), (2, 200), (3, 300)):
        four.gpu(1).instance_at(index).set("memory_used", used)
    machine = node(enable_gpu_mig=True)

    def used(reading: Reading) -> dict[str | None, float]:
        rows = reading.of("esnode_mig_memory_used_bytes")
        return {key[2]: value for key, value in rows.items()}

    assert used(machine.tick()) == {"7": 100, "3": 200, "2": 300}
    four.ask("mig_remove", 1, 0)
    assert used(machine.tick()) == {"3": 200, "2": 300}
    four.gpu(1).instance_at(2).set("memory_used", 250)
    four.ask("mig_remove", 1, 3)
    assert used(machine.tick()) == {"3": 250}


def test_an_instance_has_the_number_of_another_one(four: Fake, node: Make) -> None:
    four.gpu(1).mig([Mig("1g.10gb", 7)])
    machine = node(enable_gpu_mig=True)
    (before,) = machine.tick().of(INFO)
    four.gpu(1).mig([Mig("1g.10gb", 7)])
    four.gpu(1).instance_at(0).text("uuid", "MIG-00000000-1111-2222-3333-444444444444")
    reading = machine.tick()
    ((*_, uuid, _, _, _),) = reading.of(INFO)
    assert uuid == "MIG-00000000-1111-2222-3333-444444444444" != before[4]
    assert not reading.names(before[4] or "")


def test_an_instance_has_the_uuid_of_another_one(four: Fake, node: Make) -> None:
    """Drivers derive it from the numbers: another profile, and the same UUID."""
    four.gpu(1).mig([Mig("1g.10gb", 2)])
    machine = node(enable_gpu_mig=True)
    before = machine.tick()
    time.sleep(0.11)
    machine.tick()
    four.gpu(1).mig([Mig("3g.40gb", 2, start=4)])
    reading = machine.tick()
    assert instances(reading) == {("1", "2", "0", "3g.40gb", "4:4")}
    assert reading.of(INFO).keys() - before.of(INFO).keys()
    assert reading.one("esnode_mig_multiprocessors") > before.one("esnode_mig_multiprocessors")


def test_a_gpu_with_instances_is_lost_and_comes_back(four: Fake, node: Make) -> None:
    four.gpu(1).mig(SLICES)
    machine = node(enable_gpu_mig=True)
    machine.tick()
    four.gpu(1).lose()
    assert not memory(machine.tick())
    four.gpu(1).recover()
    reading = machine.tick()
    assert instances(reading) == SHOWN
    assert len(memory(reading)) == 3


def test_a_gpu_with_instances_is_removed(four: Fake, node: Make) -> None:
    four.gpu(1).mig(SLICES)
    machine = node(enable_gpu_mig=True)
    machine.tick()
    four.remove(1)
    reading = machine.tick()
    assert not [key for key in reading.rows if key[0].startswith("esnode_mig_")]
    assert utilization(reading) == {"0": 10, "2": 12, "3": 13}


def test_repartitioned_while_it_is_read(nvml: Fake, node: Make) -> None:
    """Hundreds of times; what is gone is gone with the next reading."""
    nvml.set_gpus(["H100"] * 4)
    machine = node(enable_gpu_mig=True)
    stop = threading.Event()
    sets: list[list[Mig | None] | None] = [
        SLICES,
        [Mig("1g.10gb", gi, start=gi - 7) for gi in range(7, 14)],
        [None, Mig("3g.40gb", 1), Mig("3g.40gb", 2, start=4)],
        [Mig("7g.80gb", 0)],
        [],
        None,
    ]

    def repartition() -> None:
        chance = random.Random(2)
        while not stop.is_set():
            nvml.gpu(chance.randrange(3)).mig(chance.choice(sets))
            time.sleep(chance.choice((0, 0.0001, 0.001)))

    thread = threading.Thread(target=repartition)
    thread.start()
    try:
        for _ in range(300):
            reading = machine.tick()
            assert len(reading.up) == 4
            assert reading.took < DEADLINE + SLACK
    finally:
        stop.set()
        thread.join()
    for slot in range(3):
        nvml.gpu(slot).mig([Mig("2g.20gb", 3 + slot, start=2)])
    machine.tick()
    reading = machine.tick()
    assert instances(reading) == {(str(n), str(3 + n), "0", "2g.20gb", "2:2") for n in range(3)}
    assert len(memory(reading)) == 3
    for slot in range(3):
        nvml.gpu(slot).mig(None)
    machine.tick()
    samples = nvml.gpm_samples()
    assert samples <= 2 * 4
    assert not memory(machine.tick())


# What is shown.


def uuid_of(fake: Fake, slot: int, instance: int = -1) -> str:
    """As the driver tells it."""
    machine = Node(fake, Path("/nonexistent"), enable_gpu_mig=True)
    reading = machine.tick()
    machine.close()
    if instance < 0:
        return reading.uuids()[str(slot)] or ""
    gi = SLICES[instance]
    assert gi is not None
    (found,) = (key[4] for key in reading.of(INFO) if key[0] == str(slot) and key[2] == str(gi.gi))
    return found or ""


@pytest.mark.parametrize(
    ("gpus", "migs", "shown", "slices"),
    [
        ("all", "all", "0123", {"7", "3", "2"}),
        ("none", "all", "", set()),
        ("0,2", "all", "02", set()),
        ("GPU1", "all", "1", {"7", "3", "2"}),
        ("PREFIX1", "all", "1", {"7", "3", "2"}),
        ("all", "none", "0123", set()),
        ("all", "MIG2", "0123", {"3"}),
        ("MIG2", "all", "1", {"3"}),
        ("1:0,3", "all", "13", {"7"}),
        ("all", "1:0,1:2", "0123", {"7", "2"}),
        ("1", "MIG0,MIG3", "1", {"7", "2"}),
    ],
)
def test_only_what_is_asked_for(
    gpus: str, migs: str, shown: str, slices: set[str], four: Fake, node: Make
) -> None:
    four.gpu(1).mig(SLICES)
    names = {
        "PREFIX1": uuid_of(four, 1)[:12],
        "GPU1": uuid_of(four, 1),
        "MIG0": uuid_of(four, 1, 0),
        "MIG2": uuid_of(four, 1, 2),
        "MIG3": uuid_of(four, 1, 3),
    }
    for name, text in names.items():
        gpus, migs = gpus.replace(name, text), migs.replace(name, text)
    machine = node(enable_gpu_mig=True, gpu_visible_devices=gpus, mig_config_devices=migs)
    calls(four)
    for _ in range(3):
        reading = machine.tick()
        assert "".join(sorted(gpu or "" for gpu in reading.uuids())) == shown
        assert {row[1] for row in instances(reading)} == slices
        assert {row[1] for row in memory(reading)} == slices
    for slot in range(4):
        assert ("nvmlDeviceGetMemoryInfo_v2" in calls_of(four, slot)) == (str(slot) in shown)


def calls_of(fake: Fake, slot: int) -> set[str]:
    return {name for (name, at), count in fake.calls().items() if at == slot and count}


def test_an_instance_that_is_asked_for_comes_later(four: Fake, node: Make) -> None:
    four.gpu(1).mig(SLICES)
    uuid = uuid_of(four, 1, 2)
    four.gpu(1).mig(None)
    machine = node(enable_gpu_mig=True, gpu_visible_devices=uuid)
    assert machine.tick().uuids() == {}
    four.gpu(1).mig(SLICES)
    assert {row[1] for row in instances(machine.tick())} == {"3"}
    four.gpu(1).mig(None)
    assert machine.tick().uuids() == {}


def test_an_instance_that_is_made_anew_is_counted_at_its_place(four: Fake, node: Make) -> None:
    """The order is the library's, and not that in which they came."""
    four.gpu(1).mig([Mig("1g.10gb", 7), Mig("1g.10gb", 8, start=1)])
    machine = node(enable_gpu_mig=True, mig_config_devices="1:0")
    assert {row[1] for row in instances(machine.tick())} == {"7"}
    four.gpu(1).mig([Mig("1g.10gb", 9, start=2), Mig("1g.10gb", 8, start=1)])
    assert {row[1] for row in instances(machine.tick())} == {"9"}


def test_what_names_nothing_is_warned_about_once(
    four: Fake, node: Make, caplog: pytest.LogCaptureFixture
) -> None:
    machine = node(gpu_visible_devices="1,9,GPU-ffff", mig_config_devices="MIG-ffff")
    for _ in range(3):
        assert set(machine.tick().uuids()) == {"1"}
    warned = [line for line in caplog.messages if "no such device" in line]
    assert len(warned) == 3
    for entry in ("9:", "GPU-ffff", "MIG-ffff"):
        assert sum(entry in line for line in warned) == 1
