"""collectors/device.py: directories that come and go, whose files are values."""

from __future__ import annotations

import gc
import logging
import os
import re
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ClassVar

import pytest

from esnode._fast import values
from esnode.collectors import device
from esnode.collectors.device import Constant, Device, Devices, Row, State, Text, Value, text
from esnode.metrics import gauge
from tests.hosts import Rows, Tree
from tests.process import descriptors

from .fuse import HANGS, FileSystem

INFO = gauge("esnode_thing_info", "What a thing is.", ("thing", "model"))
POWER = gauge("esnode_thing_power_watts", "Power of a thing.", ("thing",))
PROBE = gauge("esnode_thing_probe", "What a probe of a thing says.", ("thing", "probe"))
STATE = gauge("esnode_thing_state", "State of a thing.", ("thing", "state"))

SYS = "sys/class/thing"
THING = {"power": "1500\n", "state": "1: UP\n", "model": "x9\n", "probe0": "-7\n"}


class Things(Devices):
    """Things, each with a model that is its label, and any number of probes."""

    name = "thing"
    switch = "enable_cpu"
    directory = "class/thing"
    pattern = re.compile("thing.*", re.DOTALL)
    metrics = (INFO, POWER, PROBE, STATE)

    described: ClassVar[list[str]]
    known: ClassVar[list[tuple[str, str]]]
    race: ClassVar[Callable[[], object]]

    def describe(self, name: str, path: str) -> Iterator[Row]:
        self.described.append(name)
        thing = self.label(name)
        model = text(f"{path}/model")
        type(self).race()
        yield Text("model")
        if model == "hidden":
            return
        yield Constant(INFO, (thing, model))
        yield Value(POWER, (thing,), "power", 1, 1000)
        yield State(STATE, (thing,), "state", {1: "up", 2: "down"})
        for file in device.listing(path):
            if file.startswith("probe"):
                yield Value(PROBE, (thing, file[5:]), file, signed=True)

    def label(self, name: str) -> str:
        return device.label(os.fsencode(name)).partition("-")[0]

    def joined(self, device: Device) -> None:
        assert device.slots
        self.known.append(("joined", device.name))

    def left(self, device: Device) -> None:
        assert device.slots
        self.known.append(("left", device.name))


class Now:
    """The monotonic clock that collectors see, put forward."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def monotonic(self) -> float:
        return time.monotonic() + self.ahead


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> Now:
    now = Now()
    monkeypatch.setattr(device, "time", now)
    return now


class ThingTree(Tree):
    """A tree of things."""

    def add(self, name: str, **files: str | bytes) -> None:
        self.write({f"{SYS}/{name}/{file}": text for file, text in {**THING, **files}.items()})

    def lose(self, name: str) -> None:
        shutil.rmtree(self.root / SYS / name)

    @property
    def things(self) -> Things:
        assert self.lane is not None
        collector = self.lane.parts[0].collector
        assert isinstance(collector, Things)
        return collector

    def rest(self) -> None:
        """Reads until the disk's clock has moved on, and nothing seems to have changed."""
        time.sleep(0.03)
        for _ in range(3):
            self.read(False)
        Things.described.clear()


@pytest.fixture
def tree(tmp_path: Path) -> ThingTree:
    Things.described, Things.known, Things.race = [], [], lambda: None
    tree = ThingTree(tmp_path)
    tree.use(Things)
    return tree


def rows_of(thing: str, model: str = "x9", power: float = 1.5, probe: float | None = -7) -> Rows:
    rows = {
        f'esnode_thing_info{{thing="{thing}",model="{model}"}}': 1.0,
        f'esnode_thing_power_watts{{thing="{thing}"}}': power,
        f'esnode_thing_state{{thing="{thing}",state="up"}}': 1.0,
        f'esnode_thing_state{{thing="{thing}",state="down"}}': 0.0,
    }
    if probe is not None:
        rows[f'esnode_thing_probe{{thing="{thing}",probe="0"}}'] = probe
    return rows


def series(tree: Tree) -> int:
    """The rows of the table, with or without a value."""
    assert tree.lane is not None
    return len(tree.lane.table.freeze(0, 0))


def test_values_states_and_constants(tree: ThingTree) -> None:
    tree.add("thing0")
    tree.add("thing1", power="2\n", model="y\n", probe0="5\n")
    tree.add("other")
    for tick in (True, False, True):
        rows = {**rows_of("thing0"), **rows_of("thing1", "y", 0.002, 5)}
        assert tree.read(tick) == rows
    assert tree.errors == 0
    assert tree.up


def test_nothing_to_read_is_looked_for_again(tree: ThingTree) -> None:
    assert tree.read() == {}
    assert tree.lane is not None
    part = tree.lane.parts[0]
    assert (part.absent, part.errors) == (True, 0)
    assert part.reason == f"{tree.root}/sys/class/thing: nothing to read"
    tree.add("thing0")
    assert tree.read() == {}
    part.due = 0
    assert tree.read() == rows_of("thing0")


def test_devices_come_and_go_at_a_tick(tree: ThingTree) -> None:
    tree.add("thing0")
    assert tree.read() == rows_of("thing0")
    tree.add("thing1")
    assert tree.read(False) == rows_of("thing0")
    assert tree.read(True) == {**rows_of("thing0"), **rows_of("thing1")}
    tree.lose("thing0")
    assert tree.read(True) == rows_of("thing1")
    tree.lose("thing1")
    assert tree.read(True) == {}
    assert series(tree) == 0
    tree.add("thing0", power="3000\n")
    assert tree.read(True) == rows_of("thing0", power=3)
    assert tree.errors == 0
    assert tree.up
    assert Things.known == [
        ("joined", "thing0"),
        ("joined", "thing1"),
        ("left", "thing0"),
        ("left", "thing1"),
        ("joined", "thing0"),
    ]


def test_a_directory_that_goes_and_comes_back_as_it_was(tree: ThingTree) -> None:
    tree.add("thing0")
    there = tree.read()
    directory = tree.root / SYS
    aside = directory.rename(directory.with_name("aside"))
    for _ in range(2):
        assert tree.read() == {}
    aside.rename(directory)
    assert tree.read() == there


def test_a_device_that_goes_between_ticks_goes_without_a_word(tree: ThingTree) -> None:
    tree.add("thing0")
    tree.add("thing1")
    tree.read()
    tree.lose("thing1")
    assert tree.read(False) == rows_of("thing0")
    assert series(tree) == len(rows_of("thing0"))
    assert tree.errors == 0


def test_a_device_that_changes_is_described_anew_in_the_same_reading(tree: ThingTree) -> None:
    tree.add("thing0")
    tree.add("thing1")
    tree.read()
    for tick, model in ((False, "a"), (True, "b"), (False, "c")):
        tree.write({f"{SYS}/thing0/model": f"{model}\n", f"{SYS}/thing0/power": "9000\n"})
        assert tree.read(tick) == {**rows_of("thing0", model, 9), **rows_of("thing1")}
        assert series(tree) == 10
    tree.write({f"{SYS}/thing0/model": "hidden\n"})
    assert tree.read(False) == rows_of("thing1")
    tree.write({f"{SYS}/thing0/model": "d\n"})
    assert tree.read(False) == {**rows_of("thing0", "d", 9), **rows_of("thing1")}
    assert tree.errors == 0


def test_a_device_that_changes_while_it_is_described(tree: ThingTree) -> None:
    """It is described again at the next reading."""
    tree.add("thing0")
    tree.read()
    tree.rest()

    def race() -> None:
        Things.race = lambda: None
        tree.write({f"{SYS}/thing0/model": "late\n"})

    tree.write({f"{SYS}/thing0/model": "new\n"})
    Things.race = race
    assert tree.read(False) == rows_of("thing0", "new")
    assert tree.read(False) == rows_of("thing0", "late")
    Things.described.clear()
    for _ in range(3):
        tree.read(False)
    assert len(Things.described) <= 1


def test_new_files_of_a_device_are_found_after_a_while(tree: ThingTree, now: Now) -> None:
    """Below a folder that the kernel's own would not say has changed."""
    tree.add("thing0")
    tree.read()
    tree.rest()
    tree.read(True)
    assert Things.described == []
    now.ahead = device.LOOK
    tree.read(False)
    assert Things.described == [], "with a tick"
    tree.read(True)
    assert Things.described == ["thing0"]
    for _ in range(3):
        tree.read(True)
    assert Things.described == ["thing0"]


def test_probes_come_and_go(tree: ThingTree) -> None:
    tree.add("thing0")
    tree.read()
    tree.write({f"{SYS}/thing0/probe1": "11\n"})
    probe = 'esnode_thing_probe{thing="thing0",probe="1"}'
    assert tree.read() == {**rows_of("thing0"), probe: 11}
    tree.remove(f"{SYS}/thing0/probe0")
    assert tree.read() == {**rows_of("thing0", probe=None), probe: 11}
    assert tree.errors == 0
    assert tree.up


def test_rows_that_another_device_has_cost_one_report(tree: ThingTree, now: Now) -> None:
    tree.add("thing0")
    tree.add("thing0-b", power="2000\n", model="b\n")
    for _ in range(5):
        assert tree.read() == rows_of("thing0")
        now.ahead += device.LOOK
    assert tree.errors == 1
    assert series(tree) == 5, "the row that is its own is not left behind"
    assert tree.lane is not None
    reason = tree.lane.parts[0].reason or ""
    assert reason.startswith(f"{tree.root}/{SYS}/thing0-b: duplicate series")
    tree.lose("thing0-b")
    assert tree.read() == rows_of("thing0")
    tree.add("thing0-b", power="2000\n", model="b\n")
    tree.read()
    assert tree.errors == 2
    tree.lose("thing0")
    now.ahead += device.LOOK
    assert tree.read() == rows_of("thing0", "b", 2)
    assert tree.errors == 2
    assert Things.known == [("joined", "thing0"), ("left", "thing0"), ("joined", "thing0-b")]


def test_an_error_costs_its_row_and_is_counted_once_a_reading(
    tree: ThingTree, caplog: pytest.LogCaptureFixture
) -> None:
    tree.add("thing0")
    tree.read()
    tree.write({f"{SYS}/thing0/power": "?\n"})
    rows = rows_of("thing0")
    power = rows.pop('esnode_thing_power_watts{thing="thing0"}')
    for errors in (1, 2, 3):
        assert tree.read() == rows
        assert tree.errors == errors
        assert not tree.up
    told = f"{tree.root}/{SYS}/thing0/power: not all of it can be understood"
    assert [r.message for r in caplog.records if "power" in r.message] == [f"thing: {told}"]
    tree.write({f"{SYS}/thing0/power": "1500\n"})
    assert tree.read() == {**rows, 'esnode_thing_power_watts{thing="thing0"}': power}
    assert tree.errors == 3
    assert tree.up


def test_a_file_that_is_missing_from_the_start_is_no_error(tree: ThingTree) -> None:
    tree.add("thing0")
    tree.remove(f"{SYS}/thing0/power")
    rows = rows_of("thing0")
    del rows['esnode_thing_power_watts{thing="thing0"}']
    for _ in range(3):
        assert tree.read() == rows
    tree.write({f"{SYS}/thing0/power": "1500\n"})
    assert tree.read() == rows_of("thing0")
    assert tree.errors == 0


def test_what_was_refused_is_forgotten_when_the_device_goes(tree: ThingTree) -> None:
    for name in ("thing0", "thing01"):
        tree.add(name)
        tree.remove(f"{SYS}/{name}/power")
        (tree.root / SYS / name / "power").mkdir()
    tree.read()
    refused = {os.fsencode(tree.root / SYS / name / "power") for name in ("thing0", "thing01")}
    assert tree.things.values.refused == refused
    for name in ("thing0", "thing01"):
        tree.add(name, model="new\n")
    absent = 'esnode_thing_power_watts{thing="thing0"}'
    rows = tree.read()
    assert absent not in rows
    assert 'esnode_thing_info{thing="thing0",model="new"}' in rows, "it was bound anew"
    tree.lose("thing0")
    tree.read()
    assert tree.things.values.refused == {os.fsencode(tree.root / SYS / "thing01/power")}
    tree.add("thing0")
    assert tree.read()[absent] == 1.5
    assert tree.errors == 0


def test_names_of_odd_bytes(tree: ThingTree) -> None:
    odd = os.fsdecode(b'thing\xff\xfe \n"\\' + bytes(range(1, 32)) + b"x" * 200)
    tree.add(odd)
    tree.add("thing0")
    rows = tree.read()
    assert len(rows) == 10
    assert any(r'thing="thing\\xff\\xfe \n\"\\' in name for name in rows)
    tree.write({f"{SYS}/{odd}/power": b"\xff"})
    assert len(tree.read()) == 9
    tree.add(f"{odd}-b")
    tree.read()
    assert tree.errors == 3
    assert tree.lane is not None
    assert (tree.lane.parts[0].reason or "").encode()


class Slow(Things):
    period = 15.0


def test_a_period_is_kept_at_ticks(tree: ThingTree, now: Now) -> None:
    """Ticks of 5 s that come a little early or late; the reading in between is kept."""
    tree.use(Slow)
    tree.add("thing0")
    assert tree.read() == rows_of("thing0")
    start = now.ahead
    seen = [1.5]
    for tick, late in enumerate((0.01, -0.01, 0, -0.01, 0.01, 0.01, -0.01, 0.02, -0.02), 1):
        tree.write({f"{SYS}/thing0/power": f"{tick}000\n"})
        now.ahead = start + 5 * tick + late
        assert tree.read(False) == rows_of("thing0", power=seen[-1])
        rows = tree.read(True)
        seen.append(rows['esnode_thing_power_watts{thing="thing0"}'])
        assert rows == rows_of("thing0", power=seen[-1])
    assert seen == [1.5, 1.5, 1.5, 3, 3, 3, 6, 6, 6, 9]
    tree.write({f"{SYS}/thing0/power": "?\n"})
    now.ahead += 10
    assert tree.read(True) == rows_of("thing0", power=9), "not due yet"
    now.ahead += 5
    assert 'esnode_thing_power_watts{thing="thing0"}' not in tree.read(True)
    now.ahead += 5
    assert 'esnode_thing_power_watts{thing="thing0"}' not in tree.read(True)
    assert tree.errors == 1


class Listed(Things):
    list_file = "online"


def test_a_list_file_says_when_to_look(tree: ThingTree, now: Now) -> None:
    tree.use(Listed)
    tree.write({f"{SYS}/online": "0\n"})
    tree.add("thing0")
    assert tree.read() == rows_of("thing0")
    tree.add("thing1")
    for _ in range(3):
        assert tree.read() == rows_of("thing0")
    tree.write({f"{SYS}/online": "0-1\n"})
    assert tree.read() == {**rows_of("thing0"), **rows_of("thing1")}
    tree.lose("thing0")
    tree.write({f"{SYS}/online": "1\n"})
    assert tree.read() == rows_of("thing1")
    tree.remove(f"{SYS}/online")
    tree.add("thing2")
    assert tree.read() == {**rows_of("thing1"), **rows_of("thing2")}, "without it, each time"
    assert tree.errors == 0


def test_a_list_file_is_not_all_that_counts(tree: ThingTree, now: Now) -> None:
    tree.use(Listed)
    tree.write({f"{SYS}/online": "0\n"})
    tree.add("thing0")
    tree.read()
    tree.add("thing1")
    now.ahead = device.LOOK
    assert tree.read() == {**rows_of("thing0"), **rows_of("thing1")}


# Short of descriptors.


@pytest.fixture
def limit(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], None]]:
    monkeypatch.setattr(Devices, "told", False)
    yield values.limit
    values.limit(1 << 30)


def test_more_files_than_descriptors_are_told_once(
    tree: ThingTree,
    tmp_path: Path,
    limit: Callable[[int], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    limit(0)
    trees = [ThingTree(tmp_path / str(number)) for number in range(3)]
    gc.collect()
    before = descriptors()
    for one in trees:
        one.use(Things)
        one.add("thing0")
        for _ in range(3):
            assert one.read() == rows_of("thing0")
    assert descriptors() <= before
    told = [record for record in caplog.records if "descriptors" in record.message]
    assert [record.levelno for record in told] == [logging.WARNING]


def test_a_lack_of_descriptors_is_not_taken_for_a_lack_of_devices(
    tree: ThingTree, limit: Callable[[int], None], now: Now
) -> None:
    limit(0)
    tree.add("thing0")
    tree.remove(f"{SYS}/thing0/probe0")
    (tree.root / SYS / "thing0/probe0").mkdir()
    tree.add("thing1")
    good = tree.read()
    assert good == {**rows_of("thing0", probe=None), **rows_of("thing1")}
    refused = set(tree.things.values.refused)
    tree.rest()
    Things.known.clear()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        for _ in range(2):
            rows = tree.read()
            now.ahead += device.LOOK
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert rows.items() < good.items()
    assert tree.errors > 0
    assert Things.known == [], "what is there has not changed"
    assert tree.things.values.refused == refused
    assert tree.read() == good
    assert tree.up


# Devices that hang, and those of the kernel.


def test_a_device_that_hangs_costs_its_own_rows(
    tree: ThingTree, now: Now, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "TIMEOUT", 0.3)
    point = tree.root / "fuse"
    point.mkdir()
    tree.add("thing0")
    (tree.root / SYS / "thing1").symlink_to(point / "thing1")
    good = {f"thing1/{name}": text.encode() for name, text in THING.items()}
    everything = {**rows_of("thing0"), **rows_of("thing1")}
    info = 'esnode_thing_info{thing="thing1",model="x9"}'

    def until(wanted: Rows) -> None:
        end = time.monotonic() + 10
        while tree.read() != wanted:
            assert time.monotonic() < end, "waited in vain"

    try:
        system = FileSystem(point).__enter__()
    except OSError as error:
        pytest.skip(f"a FUSE file system cannot be mounted here: {error}")
    try:
        system.hold(good)
        until(everything)
        tree.rest()
        system.hold({**good, "thing1/model": HANGS})
        until({**rows_of("thing0"), info: 1})
        assert Things.described == []
        for _ in range(5):  # a look at it would hang
            now.ahead += device.LOOK
            errors = tree.errors
            start = time.monotonic()
            assert tree.read() == {**rows_of("thing0"), info: 1}
            assert time.monotonic() - start < 0.5
            assert tree.errors == errors + 1
        assert set(Things.described) == {"thing0"}
        assert tree.lane is not None
        assert tree.lane.parts[0].reason == (
            f"{tree.root}/{SYS}/thing1: the device does not answer"
        )
        system.hold({**good, "thing1/model": b"new\n"})
        until({**rows_of("thing0"), **rows_of("thing1", "new")})
        assert tree.up
        system.hold({**good, "thing1/power": HANGS})
        tree.read()
        (tree.root / SYS / "thing1").unlink()
        errors = tree.errors
        assert tree.read() == rows_of("thing0")
        assert tree.errors == errors, "it has gone, and that is all"
    finally:
        system.__exit__()


SWAPS = """
import subprocess
from pathlib import Path
from esnode.collectors import device
from tests.collectors.test_device import Taps
from tests.hosts import lane, rows

def ip(words):
    subprocess.run(["ip", *words.split()], check=True)

def read():
    found = rows(collectors.read(True))
    print(*(int(found.get(f'esnode_tap_mtu{{tap="{name}"}}', -1)) for name in ("tap0", "tap1")))

subprocess.run(["mount", "-t", "sysfs", "sysfs", "/sys"], check=True)
for name, mtu in ("tap0", 1400), ("tap1", 1300):
    ip(f"tuntap add {name} mode tap")
    ip(f"link set {name} mtu {mtu}")
collectors = lane(Path("/"), [Taps])
read()
for old, new in ("tap0", "tmp"), ("tap1", "tap0"), ("tmp", "tap1"):
    ip(f"link set {old} name {new}")
read()
collectors.parts[0].collector.look_due = 0
read()
ip("link set tap1 name tmp")
read()
ip("link set tmp name tap1")
read()
ip("tuntap del tap0 mode tap")
read()
ip("tuntap del tap1 mode tap")
ip("tuntap add tap1 mode tap")
ip("link set tap1 mtu 1200")
read()
print(collectors.parts[0].errors)
"""

MTU = gauge("esnode_tap_mtu", "The size of a tap.", ("tap",))


class Taps(Devices):
    name = "tap"
    switch = "enable_network"
    directory = "class/net"
    pattern = re.compile(r"tap\d")
    metrics = (MTU,)

    def describe(self, name: str, path: str) -> Iterator[Row]:
        yield Value(MTU, (name,), "mtu")


def test_devices_of_the_kernel_that_swap_their_names() -> None:
    """Interfaces, in a network of its own: what is open stays with the device."""
    probe = ["unshare", "-nm", "sh", "-c", "mount -t sysfs s /sys && ip tuntap add a mode tap"]
    try:
        subprocess.run(probe, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no network of our own can be had here")
    done = subprocess.run(
        ["unshare", "-nm", sys.executable, "-c", SWAPS],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=Path(__file__).parents[2],
    )
    first, swapped, looked, *rest = done.stdout.splitlines() or [""] * 3
    assert first == "1400 1300", done.stderr
    assert swapped in ("1400 1300", "1300 1400")
    assert looked == "1300 1400"
    assert rest == ["1300 -1", "1300 1400", "-1 1400", "-1 1200", "0"]


def test_a_link_that_leads_to_another_device(tree: ThingTree) -> None:
    for number in range(3):
        tree.write({f"sys/devices/{number}/{file}": text for file, text in THING.items()})
        tree.write({f"sys/devices/{number}/probe0": f"{number}\n"})
    link = tree.root / SYS / "thing7"
    link.parent.mkdir(parents=True, exist_ok=True)
    for number in (0, 1, 2, 0):
        link.unlink(missing_ok=True)
        link.symlink_to(f"../../devices/{number}")
        time.sleep(0.02)  # the clock of file systems moves in steps
        assert tree.read()['esnode_thing_probe{thing="thing7",probe="0"}'] == number
