"""collectors/nodepower.py: the node's power by source."""

import errno
import logging
import os
import shutil
import time
from pathlib import Path

import pytest

from esnode._fast.ipmi import Power as Dcmi
from esnode.collectors.nodepower import Bmc, NodePower, bmc_of
from esnode.collectors.power import Power
from esnode.host import Host
from tests.collectors.caps import bound_by_permissions
from tests.hosts import Rows, Tree

RAPL, HWMON = "sys/class/powercap", "sys/class/hwmon"
NODE = "esnode_node_power_watts"
ENERGY = "esnode_node_energy_joules_total"
EXCEEDED = "esnode_node_power_envelope_exceeded"
RANGE = 262143328850


def source(name: str) -> str:
    return f'esnode_node_power_source_watts{{source="{name}"}}'


def psys(joules: float, number: int = 1, name: str = "psys") -> dict[str, str]:
    """The files of the platform's zone."""
    path = f"{RAPL}/intel-rapl:{number}"
    return {
        f"{path}/name": f"{name}\n",
        f"{path}/energy_uj": f"{round(joules * 1e6)}\n",
        f"{path}/max_energy_range_uj": f"{RANGE}\n",
    }


def meter(number: int, watts: float, about: str = "", kind: str = "average") -> dict[str, str]:
    """The files of a power meter."""
    path = f"{HWMON}/hwmon{number}"
    files = {"name": "power_meter\n", f"power1_{kind}": f"{round(watts * 1e6)}\n"}
    if about:
        files["power1_oem_info"] = f"{about}\n"
    return {f"{path}/{file}": text for file, text in files.items()}


@pytest.fixture
def node(tree: Tree) -> Tree:
    tree.use(NodePower)
    return tree


def collector(tree: Tree) -> NodePower:
    assert tree.lane is not None
    found = tree.lane.parts[0].collector
    assert isinstance(found, NodePower)
    return found


def look(tree: Tree) -> None:
    """Lets the collector look now at what it would in a minute."""
    collector(tree).look_due = collector(tree).bmc_due = 0


def rebind(tree: Tree) -> None:
    """Lets the lane try again now what it would in a minute."""
    assert tree.lane is not None
    tree.lane.parts[0].due = 0


class Played:
    """A BMC that says what it is told to, and counts."""

    def __init__(self) -> None:
        self.watts: float | None = None
        #: The error of opening, asking and answering.
        self.closed: OSError | None = None
        self.deaf: OSError | None = None
        self.mute: OSError | None = None
        self.opened = self.asked = 0
        self.max_age = 0.0

    def open(self, host: Host, max_age: float) -> Bmc:
        self.opened += 1
        self.max_age = max_age
        if self.closed:
            raise self.closed
        return self

    def ask(self) -> None:
        self.asked += 1
        if self.deaf:
            raise self.deaf

    def answer(self) -> float | None:
        if self.mute:
            raise self.mute
        return self.watts


@pytest.fixture
def bmc(node: Tree) -> Played:
    """A BMC of the node's."""
    played = Played()

    class WithBmc(NodePower):
        bmc_of = staticmethod(played.open)

    node.use(WithBmc)
    return played


def failure(number: int) -> OSError:
    return OSError(number, os.strerror(number), "/dev/ipmi0")


def test_a_node_without_a_source(node: Tree, caplog: pytest.LogCaptureFixture) -> None:
    """Packages and sensors are none."""
    caplog.set_level(logging.INFO)
    node.write(
        {
            f"{RAPL}/intel-rapl:0/name": "package-0\n",
            f"{RAPL}/intel-rapl:0/energy_uj": "1\n",
            f"{RAPL}/intel-rapl-mmio:0/name": "psys\n",
            f"{RAPL}/intel-rapl-mmio:0/energy_uj": "1\n",
            f"{HWMON}/hwmon0/name": "pmbus\n",
            f"{HWMON}/hwmon0/power1_average": "1000000\n",
            f"{HWMON}/hwmon1/name": "power_meter\n",
        }
    )
    for _ in range(3):
        assert node.read() == {}
        rebind(node)
    assert node.errors == 0
    assert node.lane is not None
    assert node.lane.parts[0].absent
    assert len(caplog.messages) == 1
    node.write(meter(2, 500))
    assert node.read() == {NODE: 500, source("hwmon"): 500}


@pytest.mark.parametrize("name", ["psys", "psys-1"])
def test_the_platforms_counter(node: Tree, name: str) -> None:
    node.write(psys(1000, name=name))
    before = time.monotonic()
    assert node.read() == {ENERGY: 1000}, "its power is that of a tick"
    first = time.monotonic()
    time.sleep(0.05)
    node.write(psys(1005, name=name))
    assert node.read(tick=False) == {ENERGY: 1005}
    time.sleep(0.05)
    node.write(psys(1020, name=name))
    last = time.monotonic()
    rows = node.read()
    after = time.monotonic()
    assert rows[ENERGY] == 1020
    assert 20 / (after - before) <= rows[NODE] <= 20 / (last - first)
    assert rows[source("psys")] == rows[NODE]
    node.write(psys(1050, name=name))
    assert node.read(tick=False) == {**rows, ENERGY: 1050}, "carried over"


def test_the_platforms_counter_starts_over_at_its_range(node: Tree) -> None:
    node.write(psys(RANGE / 1e6 - 10))
    node.read()
    node.write(psys(5))
    rows = node.read()
    assert rows[ENERGY] == pytest.approx(RANGE / 1e6 + 5)
    assert rows[NODE] > 0
    node.write(psys(4))
    assert node.read() == {ENERGY: 4}, "no more than a step back: it was reset"


def test_a_counter_that_stands_still_is_no_power(node: Tree) -> None:
    node.write({**psys(1000), **meter(0, 0)})
    node.read()
    assert node.read() == {ENERGY: 1000}


def test_two_counters_of_platforms_are_none(node: Tree) -> None:
    node.write({**psys(1000), **psys(2000, 2, "psys-1"), **meter(0, 500)})
    assert node.read() == {NODE: 500, source("hwmon"): 500}


@pytest.mark.parametrize(("kind", "watts"), [("average", 612.5), ("input", 480.25)])
def test_one_meter_is_the_nodes(node: Tree, kind: str, watts: float) -> None:
    node.write(meter(3, watts, kind=kind))
    assert node.read() == {NODE: watts, source("hwmon"): watts}
    node.write(meter(3, 700, kind=kind))
    assert node.read(tick=False) == {NODE: 700, source("hwmon"): 700}


def test_a_meters_average_goes_before_what_it_has_now(node: Tree) -> None:
    node.write({**meter(0, 500, kind="input"), **meter(0, 480)})
    assert node.read()[NODE] == 480


def test_a_meters_files_are_at_its_device(node: Tree) -> None:
    """As in most kernels."""
    device = node.root / "sys/devices/ACPI000D:00"
    node.write({f"{HWMON}/hwmon0/uevent": ""})
    (node.root / HWMON / "hwmon0/device").symlink_to(device)
    for name, text in meter(0, 640, "Intel Node Manager").items():
        node.write({f"sys/devices/ACPI000D:00/{name.rpartition('/')[2]}": text})
    assert node.read() == {NODE: 640, source("hwmon"): 640}


def test_several_meters_are_of_parts(node: Tree) -> None:
    """Nobody knows of which."""
    node.write({**meter(0, 500), **meter(1, 600), **psys(1000)})
    assert node.read() == {ENERGY: 1000}


def test_grace_has_a_meter_of_each_module(node: Tree) -> None:
    """The others measure parts of it."""
    for socket in (0, 1):
        for i, (what, watts) in enumerate(
            {"Module": 900, "Grace": 250, "CPU": 180, "SysIO": 30}.items()
        ):
            node.write(meter(4 * socket + i, watts + socket, f"{what} Power Socket {socket}"))
    assert node.read() == {NODE: 1801, source("hwmon"): 1801}
    node.write({f"{HWMON}/hwmon4/power1_average": "\n"})
    assert node.read() == {}, "the half is not the whole"
    node.write(meter(4, 1000, "Module Power Socket 1"))
    assert node.read() == {NODE: 1900, source("hwmon"): 1900}


def test_grace_without_a_gpu_has_no_meter_of_all(node: Tree) -> None:
    node.write({**meter(0, 250, "Grace Power Socket 0"), **meter(1, 180, "CPU Power Socket 0")})
    assert node.read() == {}


def test_the_bmc_is_asked_at_ticks_and_answers_when_it_does(node: Tree, bmc: Played) -> None:
    assert node.read() == {}
    assert node.up
    assert bmc.asked == 1
    bmc.watts = 1234
    assert node.read(tick=False) == {NODE: 1234, source("bmc"): 1234}
    assert bmc.asked == 1
    assert node.read() == {NODE: 1234, source("bmc"): 1234}
    assert (bmc.opened, bmc.asked) == (1, 2)
    bmc.watts = None
    assert node.read() == {}


@pytest.mark.parametrize(("interval", "age"), [(0.1, 15), (5, 15), (60, 180)])
def test_an_answer_counts_for_more_than_two_intervals(
    node: Tree, bmc: Played, interval: float, age: float
) -> None:
    node.use(*node.collectors, scrape_interval_seconds=interval)
    node.read()
    assert bmc.max_age == age


def test_the_best_source_is_the_nodes(node: Tree, bmc: Played) -> None:
    bmc.watts = 1000
    node.write({**psys(1000), **meter(0, 900)})
    node.read()
    node.write(psys(1001))
    rows = node.read()
    assert rows.pop(source("psys")) > 0
    assert rows == {NODE: 1000, source("bmc"): 1000, source("hwmon"): 900, ENERGY: 1001}
    bmc.watts = None
    node.write(psys(1002))
    rows = node.read()
    assert rows[NODE] == 900
    assert source("bmc") not in rows
    node.write({f"{HWMON}/hwmon0/power1_average": "\n", **psys(1003)})
    rows = node.read()
    assert rows[NODE] == rows[source("psys")]
    assert source("hwmon") not in rows


def test_the_envelope(node: Tree, bmc: Played) -> None:
    node.use(*node.collectors, node_power_envelope_watts=1200.5)

    def exceeded() -> float | None:
        return node.read().get(EXCEEDED)

    assert exceeded() is None
    for watts, expected in ((1200, 0), (1200.5, 0), (1201, 1), (None, None), (1, 0)):
        bmc.watts = watts
        assert exceeded() == expected, watts


def test_a_bmc_that_fails_is_opened_anew_after_a_minute(
    node: Tree, bmc: Played, caplog: pytest.LogCaptureFixture
) -> None:
    bmc.watts = 1000
    node.write(meter(0, 900))
    node.read()
    for what in ("deaf", "mute"):
        setattr(bmc, what, failure(errno.EIO))
        opened = bmc.opened
        assert node.read() == {NODE: 900, source("hwmon"): 900}
        assert not node.up
        setattr(bmc, what, None)
        for _ in range(3):
            assert node.read()[NODE] == 900
            assert not node.up
        assert bmc.opened == opened
        collector(node).bmc_due = 0
        assert node.read(tick=False)[NODE] == 900
        assert node.read()[NODE] == 1000
        assert node.up
        assert bmc.opened == opened + 1
    assert caplog.messages == ["power: /dev/ipmi0: Input/output error"]


def test_a_bmc_that_cannot_be_opened(node: Tree, bmc: Played) -> None:
    bmc.closed = failure(errno.EBUSY)
    assert node.read() == {}
    assert node.lane is not None
    assert node.lane.parts[0].reason == "/dev/ipmi0: Device or resource busy"
    node.write(meter(0, 900))
    rebind(node)
    assert node.read()[NODE] == 900
    assert not node.up
    bmc.closed = None
    look(node)
    bmc.watts = 1000
    assert node.read()[NODE] == 1000
    assert node.up


def test_a_bmc_that_comes_later(node: Tree) -> None:
    """As when the module is loaded."""
    played = Played()
    played.watts = 1000
    here: list[Bmc] = []

    class Later(NodePower):
        bmc_of = staticmethod(lambda host, max_age: here[0] if here else None)

    node.use(Later)
    assert node.read() == {}
    here.append(played)
    rebind(node)
    assert node.read()[NODE] == 1000
    here.clear()
    played.mute = failure(errno.ENODEV)
    node.write(meter(0, 900))
    look(node)
    assert node.read()[NODE] == 900
    look(node)
    assert node.read()[NODE] == 900
    assert node.up
    played.mute = None
    here.append(played)
    look(node)
    assert node.read()[NODE] == 1000


def test_a_bmc_that_we_may_not_ask(
    node: Tree, bmc: Played, caplog: pytest.LogCaptureFixture
) -> None:
    bmc.closed = failure(errno.EACCES)
    for _ in range(3):
        assert node.read() == {}
        rebind(node)
    assert node.lane is not None
    assert not node.lane.parts[0].absent
    assert caplog.record_tuples == [
        (
            "esnode.sampler",
            logging.WARNING,
            "power: /dev/ipmi0: Permission denied: give the agent's group read and write access"
            " (see docs/power.md)",
        )
    ]
    bmc.closed, bmc.watts = None, 1000
    assert node.read()[NODE] == 1000


def test_a_bmc_that_we_may_not_ask_is_no_trouble_where_there_is_another_source(
    node: Tree, bmc: Played
) -> None:
    bmc.closed = failure(errno.EPERM)
    node.write(meter(0, 900))
    assert node.read()[NODE] == 900
    look(node)
    assert node.read()[NODE] == 900
    assert node.up
    assert node.errors == 0


def test_sources_come_and_go(node: Tree) -> None:
    node.write(psys(1000))
    assert node.read() == {ENERGY: 1000}
    node.write(meter(0, 500))
    look(node)
    node.write(psys(RANGE / 1e6 - 1))
    assert node.read()[NODE] == 500
    node.write({**meter(1, 600), **psys(9)})
    look(node)
    rows = node.read()
    assert rows[ENERGY] == pytest.approx(RANGE / 1e6 + 9), "counted on"
    assert source("hwmon") not in rows
    shutil.rmtree(node.root / RAPL)
    shutil.rmtree(node.root / HWMON / "hwmon0")
    node.read()
    assert node.read() == {NODE: 600, source("hwmon"): 600}
    assert node.up
    shutil.rmtree(node.root / HWMON)
    node.read()
    assert node.read() == {}
    node.write({**meter(5, 700), **psys(3)})
    look(node)
    assert node.read() == {NODE: 700, source("hwmon"): 700, ENERGY: 3}


def test_a_counter_that_we_may_not_read_is_no_source(node: Tree) -> None:
    """Power says so; see test_power."""
    node.use(Power, NodePower)
    node.write(psys(1000))
    energy = node.root / RAPL / "intel-rapl:1/energy_uj"
    energy.chmod(0)
    with bound_by_permissions():
        assert node.read() == {}
        assert node.lane is not None
        assert [part.absent for part in node.lane.parts] == [False, True]
        energy.chmod(0o400)
        for part in node.lane.parts:
            part.due = 0
        assert node.read()[ENERGY] == 1000


@pytest.mark.parametrize("text", ["", "none", "-1", "9" * 600])
def test_a_meter_without_a_value(node: Tree, text: str) -> None:
    node.write({**meter(0, 500), **psys(1000)})
    node.read()
    node.write({f"{HWMON}/hwmon0/power1_average": text})
    assert node.read() == {ENERGY: 1000}
    node.write(meter(0, 600))
    assert node.read()[NODE] == 600


def test_which_device_is_the_bmc(tmp_path: Path) -> None:
    host = Host(devfs=str(tmp_path))
    assert bmc_of(host, 15) is None
    (tmp_path / "ipmi").mkdir()
    (tmp_path / "ipmi/0").write_bytes(b"")
    found = bmc_of(host, 15)
    assert isinstance(found, Dcmi)
    assert found.path == f"{tmp_path}/ipmi/0"
    (tmp_path / "ipmi0").write_bytes(b"")
    found = bmc_of(host, 15)
    assert isinstance(found, Dcmi)
    assert found.path == f"{tmp_path}/ipmi0"
    assert bmc_of(Host(devfs=str(tmp_path), sysfs="/host/sys"), 15) is None, "whose BMC is it?"


def test_a_device_that_we_may_not_open(tmp_path: Path) -> None:
    (tmp_path / "ipmi0").write_bytes(b"")
    (tmp_path / "ipmi0").chmod(0o400)
    with bound_by_permissions(), pytest.raises(PermissionError) as caught:
        bmc_of(Host(devfs=str(tmp_path)), 15)
    assert caught.value.filename == f"{tmp_path}/ipmi0"


def test_what_is_no_bmc_is_told_of(node: Tree) -> None:
    """A file in its place opens, and cannot be asked."""
    (node.root / "dev").mkdir()
    (node.root / "dev/ipmi0").write_bytes(b"")
    host = Host(devfs=f"{node.root}/dev")

    class Real(NodePower):
        bmc_of = staticmethod(lambda _, max_age: bmc_of(host, max_age))

    node.use(Real)
    rows: Rows = node.read()
    assert rows == {}
    assert node.errors == 1
    assert node.lane is not None
    assert node.lane.parts[0].reason == f"{node.root}/dev/ipmi0: Inappropriate ioctl for device"
