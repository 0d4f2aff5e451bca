"""collectors/throttles.py: how often packages and cores were throttled."""

from __future__ import annotations

import shutil

import pytest

from esnode.collectors.throttles import Throttles
from tests.hosts import Rows, Tree

TOP = "sys/devices/system/cpu"


def core(number: int, package: int, counts: tuple[int, int]) -> dict[str, str]:
    """An online core's files; ``counts``: its package's and its own."""
    path = f"{TOP}/cpu{number}"
    return {
        f"{path}/topology/physical_package_id": f"{package}\n",
        f"{path}/thermal_throttle/package_throttle_count": f"{counts[0]}\n",
        f"{path}/thermal_throttle/core_throttle_count": f"{counts[1]}\n",
        f"{path}/uevent": "",
    }


def online(text: str) -> dict[str, str]:
    return {f"{TOP}/online": text + "\n"}


def counts(rows: Rows) -> Rows:
    head = "esnode_cpu_throttles_total{"
    return {name.removeprefix(head)[:-1]: value for name, value in rows.items()}


def offline(tree: Tree, number: int) -> None:
    """The folder of a core that is taken offline stays."""
    for folder in ("topology", "thermal_throttle"):
        shutil.rmtree(tree.root / f"{TOP}/cpu{number}/{folder}")


@pytest.fixture
def cores(tree: Tree) -> Tree:
    """Two packages of two cores each."""
    tree.use(Throttles)
    tree.write(
        {
            **core(0, 0, (5, 1)),
            **core(1, 1, (7, 2)),
            **core(2, 0, (6, 3)),
            **core(10, 1, (8, 4)),
            **online("0-2,10"),
            f"{TOP}/cpufreq/boost": "1\n",
        }
    )
    return tree


def test_the_first_core_tells_of_its_package(cores: Tree) -> None:
    assert counts(cores.read()) == {'package="0"': 5, 'package="1"': 7}
    assert cores.errors == 0


def test_detail_has_every_core(cores: Tree) -> None:
    cores.use(Throttles, cpu_per_core_detail=True)
    assert counts(cores.read()) == {
        'package="0"': 5,
        'package="1"': 7,
        'package="0",core="0"': 1,
        'package="1",core="1"': 2,
        'package="0",core="2"': 3,
        'package="1",core="10"': 4,
    }


@pytest.mark.parametrize("detail", [False, True])
def test_cores_go_offline_and_come_back(cores: Tree, detail: bool) -> None:
    """A package's row moves to another core, and stays there: each core counts for itself."""
    cores.use(Throttles, cpu_per_core_detail=detail)
    before = counts(cores.read())
    offline(cores, 0)
    cores.write(online("1-2,10"))
    rows = counts(cores.read())
    assert rows.pop('package="0"') == 6
    assert rows.items() <= before.items()
    assert ('package="0",core="2"' in rows) is detail
    assert 'package="0",core="0"' not in rows

    cores.write({**core(0, 0, (50, 9)), **online("0-2,10")})
    rows = counts(cores.read())
    assert rows['package="0"'] == 6
    assert rows.get('package="0",core="0"') == (9 if detail else None)

    offline(cores, 2)
    cores.write(online("0-1,10"))
    rows = counts(cores.read())
    assert rows['package="0"'] == 50
    assert rows.keys() == before.keys() - {'package="0",core="2"'}
    assert cores.errors == 0


def test_a_whole_package_goes_offline(cores: Tree) -> None:
    cores.read()
    offline(cores, 1)
    offline(cores, 10)
    cores.write(online("0,2"))
    assert counts(cores.read()) == {'package="0"': 5}
    cores.write({**core(1, 1, (7, 2)), **core(10, 1, (8, 4)), **online("0-2,10")})
    assert counts(cores.read()) == {'package="0"': 5, 'package="1"': 7}


@pytest.mark.parametrize("detail", [False, True])
def test_processors_that_count_nothing(tree: Tree, detail: bool) -> None:
    tree.use(Throttles, cpu_per_core_detail=detail)
    tree.write({f"{TOP}/cpu0/topology/physical_package_id": "0\n", **online("0")})
    assert tree.read() == {}
    assert tree.lane is not None
    assert tree.lane.parts[0].absent


def test_a_package_that_counts_only_by_core(cores: Tree) -> None:
    cores.use(Throttles, cpu_per_core_detail=True)
    for number in (0, 2):
        cores.remove(f"{TOP}/cpu{number}/thermal_throttle/package_throttle_count")
    rows = counts(cores.read())
    assert 'package="0"' not in rows
    assert rows['package="0",core="2"'] == 3
    assert cores.errors == 0


@pytest.mark.parametrize("bad", ["", "x\n", "-1\n", f"{2**64}\n", "\0" * 5000])
def test_a_bad_file_costs_its_row_only(cores: Tree, bad: str) -> None:
    path = f"{TOP}/cpu0/thermal_throttle/package_throttle_count"
    cores.write({path: bad})
    assert counts(cores.read()) == {'package="1"': 7}
    cores.write({path: "11\n"})
    assert counts(cores.read()) == {'package="0"': 11, 'package="1"': 7}
