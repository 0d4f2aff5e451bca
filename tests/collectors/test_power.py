"""collectors/power.py: RAPL's zones."""

import logging
import shutil
import time

import pytest

from esnode.agent import Agent
from esnode.collectors.power import Power
from esnode.config import Settings
from tests.collectors.caps import bound_by_permissions
from tests.collectors.exporter import node_exporter
from tests.hosts import Rows, Tree, config
from tests.running import series

CLASS = "sys/class/powercap"
#: Of a package of Intel's; its memory has another one.
RANGE = 262143328850


def zone(number: str, name: str, energy: int, range: int = RANGE) -> dict[str, str]:
    """A zone's files by their path; energies in µJ."""
    path = f"{CLASS}/intel-rapl:{number}"
    return {
        f"{path}/name": f"{name}\n",
        f"{path}/energy_uj": f"{energy}\n",
        f"{path}/max_energy_range_uj": f"{range}\n",
        f"{path}/enabled": "1\n",
    }


def energy(package: str) -> str:
    return f'esnode_cpu_package_energy_joules_total{{package="{package}"}}'


def watts(package: str) -> str:
    return f'esnode_cpu_package_power_watts{{package="{package}"}}'


def domain(name: str, package: str | None = None) -> str:
    head = f'package="{package}",' if package is not None else ""
    return f'esnode_cpu_domain_energy_joules_total{{{head}domain="{name}"}}'


def energies(rows: Rows) -> Rows:
    return {name: value for name, value in rows.items() if "energy" in name}


@pytest.fixture
def rapl(tree: Tree) -> Tree:
    tree.use(Power)
    return tree


def rebind(tree: Tree) -> None:
    """Lets the lane try again now what it would in a minute."""
    assert tree.lane is not None
    for part in tree.lane.parts:
        part.due = 0


def look(tree: Tree) -> None:
    """Lets the collector look now at what it would in a minute."""
    assert tree.lane is not None
    for part in tree.lane.parts:
        assert isinstance(part.collector, Power)
        part.collector.look_due = 0


def test_two_sockets(rapl: Tree) -> None:
    rapl.write(
        {
            f"{CLASS}/intel-rapl/enabled": "1\n",
            **zone("0", "package-0", 5_000_001),
            **zone("0:0", "core", 1_000_000),
            **zone("0:1", "dram", 250_000, 65712999613),
            **zone("1", "package-1", 6_000_000),
            **zone("1:0", "dram", 2_000_000, 65712999613),
        }
    )
    assert rapl.read() == {
        energy("0"): 5.000001,
        energy("1"): 6,
        domain("core", "0"): 1,
        domain("dram", "0"): 0.25,
        domain("dram", "1"): 2,
    }
    assert rapl.errors == 0
    assert rapl.up


def test_dies_are_packages_of_their_own(rapl: Tree) -> None:
    rapl.write(
        {
            **zone("0", "package-0-die-0", 1_000_000),
            **zone("0:0", "dram", 2_000_000),
            **zone("1", "package-0-die-1", 3_000_000),
            **zone("1:0", "dram", 4_000_000),
        }
    )
    assert rapl.read() == {
        energy("0-die-0"): 1,
        domain("dram", "0-die-0"): 2,
        energy("0-die-1"): 3,
        domain("dram", "0-die-1"): 4,
    }


def test_amd_has_cores_and_no_memory(rapl: Tree) -> None:
    rapl.write(
        {
            **zone("0", "package-0", 7_000_000, 65532610987),
            **zone("0:0", "core", 3_000_000, 65532610987),
        }
    )
    assert rapl.read() == {energy("0"): 7, domain("core", "0"): 3}


def test_the_platform_is_of_no_package(rapl: Tree) -> None:
    """psys stands beside the packages; where the first package has none, its name has a number."""
    rapl.write(
        {
            **zone("0", "package-0", 1_000_000),
            **zone("0:0", "uncore", 2_000_000),
            **zone("1", "psys", 3_000_000),
            **zone("2", "psys-1", 4_000_000),
        }
    )
    assert rapl.read() == {
        energy("0"): 1,
        domain("uncore", "0"): 2,
        domain("psys"): 3,
        domain("psys-1"): 4,
    }


def test_other_control_types_are_not_shown(rapl: Tree) -> None:
    """The same package's counter by another way, and zones that are no energy."""
    mmio = f"{CLASS}/intel-rapl-mmio:0"
    rapl.write(
        {
            **zone("0", "package-0", 1_000_000),
            f"{mmio}/name": "package-0\n",
            f"{mmio}/energy_uj": "1000000\n",
            f"{CLASS}/dtpm/enabled": "1\n",
            f"{CLASS}/intel-rapl:0:0:0/name": "deeper\n",
        }
    )
    assert rapl.read() == {energy("0"): 1}
    assert rapl.errors == 0


def test_the_class_is_links_to_the_devices(rapl: Tree) -> None:
    devices = rapl.root / "sys/devices/virtual/powercap/intel-rapl"
    rapl.write(
        {
            name.replace(CLASS, "sys/devices/virtual/powercap/intel-rapl"): text
            for name, text in zone("0", "package-0", 1_000_000).items()
        }
    )
    (rapl.root / CLASS).mkdir(parents=True)
    (rapl.root / CLASS / "intel-rapl").symlink_to(devices)
    (rapl.root / CLASS / "intel-rapl:0").symlink_to(devices / "intel-rapl:0")
    (rapl.root / CLASS / "intel-rapl:1").symlink_to(devices / "gone")
    assert rapl.read() == {energy("0"): 1}
    assert rapl.errors == 0


def test_the_counter_starts_over_at_its_range(rapl: Tree) -> None:
    """Each zone at its own; node_exporter's readers see a reset there."""
    rapl.write({**zone("0", "package-0", RANGE - 9_000_000), **zone("0:0", "dram", 99, 100)})
    rapl.read()
    rapl.write({**zone("0", "package-0", 1_000_000), **zone("0:0", "dram", 1, 100)})
    rows = rapl.read()
    assert rows[energy("0")] == pytest.approx((RANGE + 1_000_000) / 1e6, abs=1e-6)
    assert rows[domain("dram", "0")] == pytest.approx(101e-6)
    assert rows[watts("0")] > 0
    rapl.write({**zone("0", "package-0", 4_000_000), **zone("0:0", "dram", 0, 100)})
    rows = rapl.read(tick=False)
    assert rows[energy("0")] == pytest.approx((RANGE + 4_000_000) / 1e6, abs=1e-6)
    rapl.write(zone("0", "package-0", 3_000_000))
    rapl.read()
    rapl.write(zone("0", "package-0", 2_000_000))
    assert rapl.read()[energy("0")] == 2, "no more than a step back: it was reset"


def test_a_counter_that_is_reset_has_no_power_in_that_tick(rapl: Tree) -> None:
    rapl.write(zone("0", "package-0", 100_000_000))
    rapl.read()
    rapl.write(zone("0", "package-0", 40_000_000))
    assert rapl.read() == {energy("0"): 40}
    rapl.write(zone("0", "package-0", 41_000_000))
    rows = rapl.read()
    assert rows[energy("0")] == 41
    assert rows[watts("0")] > 0


@pytest.mark.parametrize("text", ["", "0", "-7", "no number", "9" * 400, "9" * 5000, None])
def test_without_a_range_every_fall_is_a_reset(rapl: Tree, text: str | None) -> None:
    files = zone("0", "package-0", 1_000_000)
    name = f"{CLASS}/intel-rapl:0/max_energy_range_uj"
    if text is None:
        del files[name]
    else:
        files[name] = text
    rapl.write(files)
    rapl.read()
    rapl.write({f"{CLASS}/intel-rapl:0/energy_uj": "3\n"})
    assert rapl.read() == {energy("0"): 3e-6}
    assert rapl.errors == 0


def test_power_is_that_of_the_whole_tick(rapl: Tree) -> None:
    rapl.write(zone("0", "package-0", 10_000_000))
    before = time.monotonic()
    assert watts("0") not in rapl.read()
    first = time.monotonic()
    time.sleep(0.1)
    rapl.write(zone("0", "package-0", 15_000_000))
    assert watts("0") not in rapl.read(tick=False), "it belongs to the tick"
    time.sleep(0.1)
    rapl.write(zone("0", "package-0", 30_000_000))
    last = time.monotonic()
    rows = rapl.read()
    after = time.monotonic()
    assert 20 / (after - before) <= rows[watts("0")] <= 20 / (last - first)
    rapl.write(zone("0", "package-0", 70_000_000))
    assert rapl.read(tick=False)[watts("0")] == rows[watts("0")], "carried over"
    assert rapl.read(tick=False)[energy("0")] == 70


def test_zones_come_and_go(rapl: Tree) -> None:
    rapl.write(zone("0", "package-0", 1_000_000))
    assert rapl.read() == {energy("0"): 1}
    rapl.write({**zone("1", "package-1", 2_000_000), **zone("1:0", "dram", 3_000_000)})
    assert energies(rapl.read()) == {energy("0"): 1, energy("1"): 2, domain("dram", "1"): 3}
    shutil.rmtree(rapl.root / CLASS / "intel-rapl:1")
    shutil.rmtree(rapl.root / CLASS / "intel-rapl:1:0")
    assert energies(rapl.read()) == {energy("0"): 1}
    assert rapl.up
    rapl.write(zone("1", "package-1", 4_000_000))
    rows = rapl.read()
    assert energies(rows) == {energy("0"): 1, energy("1"): 4}
    assert watts("1") not in rows, "its last reading is not from now"
    shutil.rmtree(rapl.root / CLASS)
    assert rapl.read() == {}
    rapl.write(zone("0", "package-0", 9_000_000))
    assert rapl.read() == {energy("0"): 9}


def test_a_zone_is_read_when_its_name_is_known(rapl: Tree) -> None:
    rapl.write({**zone("0", "package-0", 1_000_000), **zone("0:0", "dram", 2_000_000)})
    (rapl.root / CLASS / "intel-rapl:0:0/name").unlink()
    assert rapl.read() == {energy("0"): 1}
    rapl.write({f"{CLASS}/intel-rapl:0:0/name": "dram\n"})
    look(rapl)
    assert energies(rapl.read()) == {energy("0"): 1, domain("dram", "0"): 2}


def test_two_zones_of_one_name_are_one_row(rapl: Tree) -> None:
    rapl.write({**zone("0", "package-0", 1_000_000), **zone("1", "package-0", 2_000_000)})
    assert rapl.read() == {energy("0"): 1}
    assert rapl.errors == 1
    assert not rapl.up


@pytest.mark.parametrize("text", ["", "no number\n", "1 2\n", "-5\n", "\xff" * 600])
def test_a_counter_that_is_none(rapl: Tree, text: str) -> None:
    rapl.write({**zone("0", "package-0", 1_000_000), **zone("1", "package-1", 1_000_000)})
    rapl.read()
    rapl.write({f"{CLASS}/intel-rapl:1/energy_uj": text})
    assert energies(rapl.read()) == {energy("0"): 1}
    rapl.write({f"{CLASS}/intel-rapl:1/energy_uj": "2000000\n"})
    assert energies(rapl.read()) == {energy("0"): 1, energy("1"): 2}


def test_a_machine_without_counters(rapl: Tree, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    for _ in range(3):
        assert rapl.read() == {}
        rebind(rapl)
    assert rapl.errors == 0
    assert rapl.lane is not None
    assert rapl.lane.parts[0].absent
    assert len(caplog.messages) == 1
    rapl.write(zone("0", "package-0", 1_000_000))
    assert rapl.read() == {energy("0"): 1}


def deny(tree: Tree, *numbers: str, mode: int = 0) -> None:
    """Sets who may read some counters. The kernel lets root only: they tell of others' work."""
    for number in numbers:
        (tree.root / CLASS / f"intel-rapl:{number}/energy_uj").chmod(mode)


def test_it_is_said_once_what_is_missing(rapl: Tree, caplog: pytest.LogCaptureFixture) -> None:
    rapl.write({**zone("0", "package-0", 1_000_000), **zone("0:0", "dram", 2_000_000)})
    deny(rapl, "0", "0:0")
    with bound_by_permissions():
        for _ in range(3):
            assert rapl.read() == {}
            rebind(rapl)
    assert caplog.record_tuples == [
        (
            "esnode.sampler",
            logging.WARNING,
            f"power: {rapl.root}/{CLASS}/intel-rapl:0/energy_uj: Permission denied: give the"
            " agent CAP_DAC_READ_SEARCH, or a group of its own read access (see docs/power.md)",
        )
    ]
    assert not rapl.up
    assert rapl.lane is not None
    assert not rapl.lane.parts[0].absent


def test_the_page_says_that_it_is_down(rapl: Tree) -> None:
    rapl.write(zone("0", "package-0", 1_000_000))
    deny(rapl, "0")
    agent = Agent(Settings(config(rapl.root, scrape_interval_seconds=0.1)))
    with bound_by_permissions():
        page = series(agent.once())
    assert page['esnode_agent_collector_up{collector="power"}'] == 0
    assert not [name for name in page if name.startswith("esnode_cpu_package")]
    deny(rapl, "0", mode=0o400)
    agent = Agent(Settings(config(rapl.root, scrape_interval_seconds=0.1)))
    assert series(agent.once())['esnode_agent_collector_up{collector="power"}'] == 1


def test_a_permission_that_is_given_later_is_noticed(rapl: Tree) -> None:
    rapl.write(zone("0", "package-0", 1_000_000))
    deny(rapl, "0")
    with bound_by_permissions():
        assert rapl.read() == {}
        deny(rapl, "0", mode=0o400)
        assert rapl.read() == {}, "not before the next attempt"
        rebind(rapl)
        assert rapl.read() == {energy("0"): 1}
        assert rapl.up


def test_a_part_that_is_refused_is_told_of(rapl: Tree, caplog: pytest.LogCaptureFixture) -> None:
    """Such as a zone that comes after the rule that gave a group access to the others."""
    rapl.write(zone("0", "package-0", 1_000_000))
    with bound_by_permissions():
        assert rapl.read() == {energy("0"): 1}
        rapl.write({**zone("1", "package-1", 2_000_000), **zone("1:0", "dram", 2_000_000)})
        deny(rapl, "1", "1:0")
        for _ in range(3):
            assert energies(rapl.read()) == {energy("0"): 1}
            assert not rapl.up
        assert len(caplog.messages) == 1
        deny(rapl, "1", "1:0", mode=0o400)
        look(rapl)
        assert len(energies(rapl.read())) == 3
        assert rapl.up


def test_a_refused_zone_that_goes_is_no_trouble_any_more(rapl: Tree) -> None:
    rapl.write({**zone("0", "package-0", 1_000_000), **zone("1", "package-1", 2_000_000)})
    deny(rapl, "1")
    with bound_by_permissions():
        rapl.read()
        assert not rapl.up
        shutil.rmtree(rapl.root / CLASS / "intel-rapl:1")
        rapl.read()
        assert rapl.up


def test_node_exporter_reads_the_same(rapl: Tree) -> None:
    rapl.write(
        {
            **zone("0", "package-0", 5_123_456),
            **zone("0:0", "dram", 1_654_321),
            **zone("1", "package-1", 6_000_001),
            **zone("1:0", "dram", 2_999_999),
            **zone("2", "psys", 77_123_123),
        }
    )
    theirs = {
        (name.removeprefix("node_rapl_").removesuffix("_joules_total"), labels["index"]): value
        for name, labels, value in node_exporter(rapl.root, "rapl")
        if name.startswith("node_rapl")
    }
    rows = rapl.read()
    assert {
        ("package", "0"): rows[energy("0")],
        ("package", "1"): rows[energy("1")],
        ("dram", "0"): rows[domain("dram", "0")],
        ("dram", "1"): rows[domain("dram", "1")],
        ("psys", "0"): rows[domain("psys")],
    } == theirs
