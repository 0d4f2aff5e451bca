"""Events and Xids as counters: from the fake's driver, and a kernel's log of our own."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from esnode.collectors.nvidia.gpus import Gpus
from esnode.collectors.nvidia.journal import Event
from esnode.config import Config
from esnode.sampler import Lane
from esnode.xids import COMMON

from ..collectors.nvidia.kmsg import Kmsg
from ..fakenvml import GPU_IS_LOST, Fake, library
from ..running import wait_for

XID, ECC, PSTATE, CLOCK, SOURCE, MIG = 8, 2, 4, 0x10, 0x80, 0x100
#: Where the fake has its first GPUs.
PCI = ("0000:17:00", "0000:2a:00")

Rows = dict[tuple[str, ...], float]


def line(pci: str, code: int) -> str:
    return f"NVRM: Xid (PCI:{pci}): {code}, pid=1, name=python3, something"


@pytest.fixture
def fake() -> Iterator[Fake]:
    fake = Fake(library())
    fake.set_gpus(["H100", "H100"])
    yield fake
    fake.reset()


@pytest.fixture
def kmsg(tmp_path: Path) -> Kmsg:
    return Kmsg(tmp_path)


@pytest.fixture
def start(
    tmp_path: Path, kmsg: Kmsg, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Lane]]:
    """Makes a lane, as a new process of the agent would."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    lanes = []

    def make(**keys: object) -> Lane:
        keys = {"enable_gpu_events": True, "nvml_library": str(library()), **keys}
        lane = Lane("gpu", [Gpus(kmsg.host, Config(**keys))], 5)  # type: ignore[arg-type]
        lane.read(True)
        lanes.append(lane)
        return lane

    yield make
    for lane in lanes:
        stop(lane)


def stop(lane: Lane) -> None:
    lane.parts[0].collector.stop()
    lane.parts[0].collector.driver.detach()  # type: ignore[attr-defined]


def rows(lane: Lane) -> Rows:
    """The rows of events of a new reading, by what follows ``esnode_`` and the labels but uuid."""
    found = {}
    for metric, labels, value in lane.read(True).items():
        if "xid" in metric.name or "event" in metric.name:
            shown = [
                text
                for name, text in zip(metric.labels, labels, strict=True)
                if name != "uuid" and text is not None
            ]
            found[(metric.name.removeprefix("esnode_"), *shown)] = value
    return found


def becomes(lane: Lane, key: tuple[str, ...], value: float) -> None:
    wait_for(lambda: rows(lane).get(key) == value, f"{key} is {value}")


def test_common_codes_start_at_zero(fake: Fake, start: Callable[..., Lane]) -> None:
    found = rows(start())
    for gpu in "01":
        assert all(found["gpu_xid_errors_total", gpu, str(code)] == 0 for code in COMMON)
        for kind in ("xid", "double_bit_ecc_error", "pstate", "clock", "mig_config_change"):
            assert found["gpu_events_total", gpu, kind] == 0
    assert not any(key[0].startswith("gpu_last") for key in found)


def test_every_kind_of_event_is_counted(fake: Fake, start: Callable[..., Lane]) -> None:
    lane = start()
    fake.gpu(1).event(XID, 48)
    for kind in (ECC, PSTATE, CLOCK, SOURCE, MIG):
        fake.gpu(1).event(kind)
    becomes(lane, ("gpu_events_total", "1", "mig_config_change"), 1)
    found = rows(lane)
    for kind in ("double_bit_ecc_error", "pstate", "clock", "power_source_change", "xid"):
        assert found["gpu_events_total", "1", kind] == 1
        assert found["gpu_events_total", "0", kind] == 0
    assert found["gpu_xid_errors_total", "1", "48"] == 1
    assert found["gpu_last_xid", "1"] == 48
    assert found["gpu_last_event_timestamp_seconds", "1"] > 1.7e9
    assert ("gpu_last_xid", "0") not in found


def test_an_event_of_a_gpu_that_has_fallen_off_the_bus(
    fake: Fake, start: Callable[..., Lane]
) -> None:
    lane = start()
    fake.script("nvmlDeviceGetUUID", 1, code=GPU_IS_LOST)
    fake.gpu(1).event(XID, 79)
    becomes(lane, ("gpu_xid_errors_total", "1", "79"), 1)
    assert rows(lane)["gpu_last_xid", "1"] == 79


def test_a_burst_told_twice_is_counted_once(
    fake: Fake, start: Callable[..., Lane], kmsg: Kmsg
) -> None:
    lane = start()
    fake.gpu(0).event(XID, 31, times=1000)
    kmsg.add(*[line(PCI[0], 31)] * 1000)
    kmsg.add(line(PCI[1], 79))
    becomes(lane, ("gpu_xid_errors_total", "0", "31"), 1000)
    found = rows(lane)
    assert found["gpu_xid_errors_total", "0", "31"] == 1000
    assert found["gpu_xid_errors_total", "1", "79"] == 1
    assert found["gpu_last_xid", "1"] == 79
    assert lane.parts[0].errors == 0


def test_the_log_is_read_without_the_driver(
    fake: Fake, start: Callable[..., Lane], kmsg: Kmsg
) -> None:
    lane = start(enable_gpu_events=False)
    found = rows(lane)
    assert found["gpu_xid_errors_total", "0", "79"] == 0
    assert not any(key[0] == "gpu_events_total" for key in found)
    fake.gpu(0).event(XID, 48)  # nobody listens
    kmsg.add(line(PCI[0], 119), line("0000:99:00", 119))
    kmsg.add("nvidia-nvswitch0: SXid (PCI:0000:c1:00.0): 20034, Fatal, Link 30 LTSSM Fault")
    found = rows(lane)
    assert found["gpu_xid_errors_total", "0", "119"] == 1
    assert found["gpu_xid_errors_total", "0", "48"] == 0
    assert found["nvswitch_sxid_errors_total", "20034"] == 1


def test_without_any_source_there_is_no_zero(
    fake: Fake, start: Callable[..., Lane], kmsg: Kmsg
) -> None:
    kmsg.file.unlink()
    assert rows(start(enable_gpu_events=False)) == {}


def test_counters_outlive_the_agent(fake: Fake, start: Callable[..., Lane], kmsg: Kmsg) -> None:
    lane = start()
    fake.gpu(0).event(XID, 94, times=3)
    becomes(lane, ("gpu_xid_errors_total", "0", "94"), 3)
    kmsg.add(line(PCI[0], 79))
    assert rows(lane)["gpu_xid_errors_total", "0", "79"] == 1
    stop(lane)
    kmsg.add(line(PCI[0], 95))
    found = rows(start())
    assert found["gpu_xid_errors_total", "0", "94"] == 3
    assert found["gpu_xid_errors_total", "0", "79"] == 1  # not once more
    assert found["gpu_xid_errors_total", "0", "95"] == 1  # logged while there was no agent
    assert found["gpu_last_xid", "0"] == 95


class Heard:
    """What a lane has heard of, and when."""

    def __init__(self, lane: Lane) -> None:
        self.events: list[tuple[Event, int | None, float]] = []
        gpus = lane.parts[0].collector
        assert isinstance(gpus, Gpus)
        gpus.heard = lambda event, gpu: self.events.append((event, gpu, time.monotonic()))

    def wait(self, number: int) -> list[tuple[str, str, int | None, int | None]]:
        wait_for(lambda: len(self.events) >= number, 5)
        return [(event.source, event.kind, event.code, gpu) for event, gpu, _ in self.events]


def test_an_event_is_heard_of_between_two_readings(fake: Fake, start: Callable[..., Lane]) -> None:
    lane = start()
    heard = Heard(lane)
    delays = []
    for number in range(5):
        told = time.monotonic()
        fake.gpu(1).event(XID, 79 + number)
        heard.wait(number + 1)
        delays.append(heard.events[-1][2] - told)
    assert min(delays) < 0.1, delays
    assert heard.wait(5)[0] == ("nvml", "xid", 79, 1)


def test_a_line_of_the_log_is_heard_of_once(
    fake: Fake, start: Callable[..., Lane], kmsg: Kmsg
) -> None:
    lane = start()
    heard = Heard(lane)
    kmsg.add(line(PCI[0], 48))
    assert heard.wait(1) == [("kernel", "xid", 48, 0)]
    fake.gpu(0).event(XID, 48)  # its twin
    fake.gpu(0).event(XID, 31)
    assert heard.wait(2)[1:] == [("nvml", "xid", 31, 0)]
    counted = rows(lane)
    assert counted["gpu_xid_errors_total", "0", "48"] == 1
    assert counted["gpu_xid_errors_total", "0", "31"] == 1


def test_an_event_of_a_hanging_gpu_holds_up_no_other(
    fake: Fake, start: Callable[..., Lane]
) -> None:
    lane = start()
    heard = Heard(lane)
    fake.gpu(1).hang()
    try:
        fake.gpu(1).event(XID, 79)
        fake.gpu(0).event(XID, 31)
        assert heard.wait(2) == [("nvml", "xid", 79, 1), ("nvml", "xid", 31, 0)]
    finally:
        fake.release()


def test_a_hanging_gpu_holds_up_no_event(
    fake: Fake, start: Callable[..., Lane], kmsg: Kmsg
) -> None:
    lane = start()
    heard = Heard(lane)
    fake.gpu(1).hang()
    reading = threading.Thread(target=lane.read, args=(True,))
    reading.start()
    try:
        kmsg.add(line(PCI[1], 79))
        assert heard.wait(1) == [("kernel", "xid", 79, 1)]
        fake.gpu(0).event(XID, 31)
        assert heard.wait(2)[1:] == [("nvml", "xid", 31, 0)]
    finally:
        fake.release()
        reading.join()
