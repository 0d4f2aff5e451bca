"""collectors/frequency.py: present frequencies of the cores."""

from __future__ import annotations

import shutil
from collections.abc import Iterable

import pytest

from esnode.collectors.frequency import Frequency
from tests.hosts import Rows, Tree

TOP = "sys/devices/system/cpu"


def cores(numbers: Iterable[int], khz: int = 1_200_000) -> dict[str, str]:
    """Cores with their frequencies, each 1 kHz above that of the one before."""
    return {
        f"{TOP}/cpu{number}/cpufreq/scaling_cur_freq": f"{khz + number}\n" for number in numbers
    }


def hertz(rows: Rows) -> dict[int, float]:
    head = 'esnode_cpu_frequency_hertz{core="'
    return {int(name.removeprefix(head)[:-2]): value for name, value in rows.items()}


def due(tree: Tree) -> Tree:
    """Lets the tree's next tick read."""
    assert tree.lane is not None
    collector = tree.lane.parts[0].collector
    assert isinstance(collector, Frequency)
    collector.due = 0
    return tree


@pytest.fixture
def node(tree: Tree) -> Tree:
    tree.use(Frequency)
    tree.write({**cores(range(3)), f"{TOP}/online": "0-2\n", f"{TOP}/cpuidle/x": ""})
    return tree


def test_values_of_the_files(node: Tree) -> None:
    assert hertz(node.read()) == {0: 1_200_000_000, 1: 1_200_001_000, 2: 1_200_002_000}
    assert node.errors == 0


def test_a_reading_lasts_for_a_while_and_is_for_ticks(node: Tree) -> None:
    node.read()
    node.write(cores(range(3), 2_000_000))
    assert hertz(node.read())[0] == 1.2e9
    due(node)
    assert hertz(node.read(tick=False))[0] == 1.2e9
    assert node.lane is not None
    assert not node.lane.wanted
    assert hertz(node.read())[0] == 2e9


@pytest.mark.parametrize(
    ("wanted", "count", "shown"),
    [
        ("auto", 64, True),
        ("auto", 65, False),
        (True, 65, True),
        (False, 1, False),
    ],
)
def test_cpu_frequency(tree: Tree, wanted: bool | str, count: int, shown: bool) -> None:
    tree.use(Frequency, cpu_frequency=wanted)
    tree.write({**cores(range(count)), f"{TOP}/online": f"0-{count - 1}\n"})
    assert len(tree.read()) == (count if shown else 0)
    assert tree.errors == 0
    assert tree.lane is not None
    assert tree.lane.parts[0].absent is not shown


def test_without_cpufreq_it_is_unavailable(tree: Tree) -> None:
    tree.use(Frequency)
    tree.write({f"{TOP}/online": "0-1\n", f"{TOP}/cpu0/uevent": "", f"{TOP}/cpu1/uevent": ""})
    assert tree.read() == {}
    assert tree.lane is not None
    assert tree.lane.parts[0].absent


def test_cores_go_offline_and_come_back(node: Tree) -> None:
    """The folder of such a core stays; its row goes at once, as it has no frequency any more."""
    node.read()
    shutil.rmtree(node.root / f"{TOP}/cpu1/cpufreq")
    node.write({f"{TOP}/online": "0,2\n", f"{TOP}/cpu1/online": "0\n"})
    assert hertz(node.read()).keys() == {0, 2}
    node.write({**cores([1]), f"{TOP}/online": "0-2\n"})
    node.read()
    assert hertz(due(node).read()).keys() == {0, 1, 2}
    assert node.errors == 0


def test_cores_of_one_policy(tree: Tree) -> None:
    """cpuN/cpufreq is a link on real machines."""
    tree.use(Frequency)
    tree.write({f"{TOP}/cpufreq/policy0/scaling_cur_freq": "800000\n", f"{TOP}/cpu0/uevent": ""})
    (tree.root / f"{TOP}/cpu0/cpufreq").symlink_to("../cpufreq/policy0")
    assert hertz(tree.read()) == {0: 8e8}


@pytest.mark.parametrize("bad", ["<unknown>\n", "", "\0", f"{2**64}\n", "-5\n"])
def test_a_reading_that_fails_takes_the_last_one_away(node: Tree, bad: str) -> None:
    node.read()
    node.write({f"{TOP}/cpu1/cpufreq/scaling_cur_freq": bad})
    assert hertz(due(node).read()).keys() == {0, 2}
    node.write(cores([1]))
    assert hertz(due(node).read()).keys() == {0, 1, 2}
