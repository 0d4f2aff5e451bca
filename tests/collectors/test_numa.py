"""collectors/numa.py: memory, allocations, distances and usage of nodes."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping, Sequence

import pytest

from esnode.collectors.cpu import Cpu
from esnode.collectors.numa import KINDS, Numa, cores
from tests.hosts import Rows, Tree

TOP = "sys/devices/system/node"


def node(
    number: int, cpulist: str, distance: Sequence[int], total: int = 1000, free: int = 400
) -> dict[str, str]:
    """A node's files; memory in kB."""
    sizes = {"MemTotal": total, "MemFree": free, "MemUsed": total - free, "Active(anon)": 5}
    lines = [f"Node {number} {key + ':':15}{size:9} kB\n" for key, size in sizes.items()]
    return {
        f"{TOP}/node{number}/meminfo": "".join(lines) + f"Node {number} HugePages_Total:     0\n",
        f"{TOP}/node{number}/numastat": "".join(
            f"{key} {100 * number + i}\n" for i, key in enumerate(KINDS)
        ),
        f"{TOP}/node{number}/cpulist": cpulist + "\n",
        f"{TOP}/node{number}/distance": " ".join(map(str, distance)) + "\n",
    }


def stat(busy: Mapping[int, int], ticks: int = 100) -> dict[str, str]:
    """/proc/stat and the list of the cores after some ticks, and how many of them each was busy."""
    lines = [f"cpu{core} {time} 0 0 {ticks - time} 0\n" for core, time in busy.items()]
    return {
        "proc/stat": "cpu  0 0 0 0 0\n" + "".join(lines),
        "sys/devices/system/cpu/online": ",".join(map(str, busy)) + "\n",
    }


def numa(rows: Rows, family: str = "") -> Rows:
    head = f"esnode_numa_{family}"
    return {name.removeprefix(head): value for name, value in rows.items() if head in name}


def usage(rows: Rows) -> dict[int, float]:
    head = 'cpu_usage_percent{node="'
    return {int(k.removeprefix(head)[:-2]): v for k, v in numa(rows).items() if head in k}


def distances(rows: Rows) -> dict[int, dict[int, float]]:
    """By node, and the node it is to."""
    found: dict[int, dict[int, float]] = {}
    for labels, value in numa(rows, "distance").items():
        node, to = map(int, re.findall(r"\d+", labels))
        found.setdefault(node, {})[to] = value
    return found


@pytest.fixture
def machine(tree: Tree) -> Tree:
    """Two nodes of two cores each."""
    tree.use(Cpu, Numa)
    tree.write(
        {
            **node(0, "0,2", (10, 21)),
            **node(1, "1,3", (21, 10), 2000, 500),
            f"{TOP}/online": "0-1\n",
            f"{TOP}/has_memory": "0-1\n",
            **stat({0: 0, 1: 0, 2: 0, 3: 0}, 0),
            "proc/loadavg": "0 0 0 1/2 3\n",
        }
    )
    return tree


def test_values_of_the_files(machine: Tree) -> None:
    machine.read()
    machine.write(stat({0: 10, 1: 20, 2: 30, 3: 100}))
    assert numa(machine.read()) == {
        'memory_total_bytes{node="0"}': 1024000,
        'memory_total_bytes{node="1"}': 2048000,
        'memory_free_bytes{node="0"}': 409600,
        'memory_free_bytes{node="1"}': 512000,
        'memory_used_bytes{node="0"}': 614400,
        'memory_used_bytes{node="1"}': 1536000,
        'cpu_usage_percent{node="0"}': 20,
        'cpu_usage_percent{node="1"}': 60,
        'allocations_total{node="0",kind="hit"}': 0,
        'allocations_total{node="0",kind="miss"}': 1,
        'allocations_total{node="0",kind="foreign"}': 2,
        'allocations_total{node="0",kind="interleave_hit"}': 3,
        'allocations_total{node="0",kind="local"}': 4,
        'allocations_total{node="0",kind="other"}': 5,
        'allocations_total{node="1",kind="hit"}': 100,
        'allocations_total{node="1",kind="miss"}': 101,
        'allocations_total{node="1",kind="foreign"}': 102,
        'allocations_total{node="1",kind="interleave_hit"}': 103,
        'allocations_total{node="1",kind="local"}': 104,
        'allocations_total{node="1",kind="other"}': 105,
        'distance{node="0",to="0"}': 10,
        'distance{node="0",to="1"}': 21,
        'distance{node="1",to="0"}': 21,
        'distance{node="1",to="1"}': 10,
    }
    assert machine.errors == 0


def test_usage_belongs_to_the_tick(machine: Tree) -> None:
    assert usage(machine.read()) == {}
    machine.write(stat({0: 10, 1: 20, 2: 30, 3: 100}))
    machine.read()
    machine.write(stat({0: 110, 1: 120, 2: 130, 3: 200}, 200))
    assert usage(machine.read(tick=False)) == {0: 20, 1: 60}
    assert usage(machine.read()) == {0: 100, 1: 100}


def test_without_the_cores_usage_there_is_none(machine: Tree) -> None:
    machine.use(Numa)
    for ticks in (100, 200):
        machine.write(stat({0: ticks, 1: ticks, 2: ticks, 3: ticks}, ticks))
        rows = machine.read()
    assert usage(rows) == {}
    assert machine.errors == 0


def test_cores_go_offline_and_come_back(machine: Tree) -> None:
    """The kernel lists those that are online."""
    machine.write({**stat({0: 0, 1: 0, 3: 0}, 0), f"{TOP}/node0/cpulist": "0\n"})
    machine.read()
    machine.write(stat({0: 50, 1: 10, 3: 10}, 100))
    assert usage(machine.read()) == {0: 50, 1: 10}
    machine.write({**stat({0: 50, 1: 10, 2: 0, 3: 10}, 200), f"{TOP}/node0/cpulist": "0,2\n"})
    machine.read()
    machine.write(stat({0: 50, 1: 10, 2: 100, 3: 10}, 300))
    assert usage(machine.read()) == {0: 50, 1: 0}, "the core that came back is one of them"
    machine.write({**stat({1: 10, 3: 60}, 400), f"{TOP}/node0/cpulist": "\n"})
    assert usage(machine.read()) == {1: 25}
    assert machine.errors == 0


def test_nodes_go_offline_and_come_back(machine: Tree) -> None:
    """A node's folder goes with it, and its place in the others' distances."""
    two = machine.read()
    machine.write({**node(0, "0,2", (10, 30, 21)), **node(1, "1,3", (21, 30, 10))})
    machine.write({**node(2, "", (30, 10, 30)), f"{TOP}/online": "0-2\n"})
    (machine.root / f"{TOP}/node1").rename(machine.root / f"{TOP}/node4")
    rows = machine.read()
    assert distances(rows) == {
        0: {0: 10, 2: 30, 4: 21},
        2: {0: 30, 2: 10, 4: 30},
        4: {0: 21, 2: 30, 4: 10},
    }
    assert 'esnode_numa_memory_free_bytes{node="1"}' not in rows
    shutil.rmtree(machine.root / f"{TOP}/node4")
    shutil.rmtree(machine.root / f"{TOP}/node2")
    machine.write({**node(0, "0,2", (10, 21)), **node(1, "1,3", (21, 10), 2000, 500)})
    assert machine.read() == two
    assert machine.errors == 0


def test_the_first_node_is_offline(machine: Tree) -> None:
    """The kernel then begins the distances with a space."""
    shutil.rmtree(machine.root / f"{TOP}/node0")
    machine.write(node(1, "1,3", (10, 12)) | node(3, "", (12, 10)))
    machine.write({f"{TOP}/node1/distance": " 10 12\n", f"{TOP}/node3/distance": " 12 10\n"})
    assert distances(machine.read()) == {1: {1: 10, 3: 12}, 3: {1: 12, 3: 10}}


def test_nodes_without_memory_or_cores(machine: Tree) -> None:
    machine.write(
        {
            **node(0, "0-3", (10, 20), total=0, free=0),
            **node(1, "", (20, 10)),
        }
    )
    machine.read()
    machine.write(stat({0: 10, 1: 20, 2: 30, 3: 100}))
    rows = machine.read()
    assert usage(rows) == {0: 40}
    assert numa(rows, "memory_total") == {'_bytes{node="0"}': 0, '_bytes{node="1"}': 1024000}
    assert machine.errors == 0


@pytest.mark.parametrize(
    "text", ["", "10\n", "10 21 30\n", "10 x\n", "10 -1\n", "10 2.1\n", f"10 {'9' * 400}\n"]
)
def test_distances_that_are_none_are_absent(machine: Tree, text: str) -> None:
    machine.write({f"{TOP}/node0/distance": text})
    assert distances(machine.read()) == {1: {0: 21, 1: 10}}


@pytest.mark.parametrize("file", ["meminfo", "numastat"])
@pytest.mark.parametrize("bad", [None, "", "\0\xff" * 3000, "Node 0 MemTotal:"])
def test_a_bad_file_costs_its_rows_and_comes_back(
    machine: Tree, file: str, bad: str | None
) -> None:
    good = machine.read()
    path = f"{TOP}/node1/{file}"
    text = (machine.root / path).read_bytes()
    if bad is None:
        machine.remove(path)
    else:
        machine.write({path: bad})
    word = "memory" if file == "meminfo" else "allocations"
    gone = {name for name in good if f"esnode_numa_{word}" in name and 'node="1"' in name}
    rows = machine.read()
    assert gone and rows == {name: value for name, value in good.items() if name not in gone}
    assert machine.errors == 1
    machine.write({path: text})
    assert machine.read() == good


def test_a_machine_without_nodes(tree: Tree) -> None:
    tree.use(Numa)
    tree.write({f"{TOP}/online": "0\n", f"{TOP}/nodes/x": "", f"{TOP}/node0/x": ""})
    shutil.rmtree(tree.root / f"{TOP}/node0")
    assert tree.read() == {}
    assert tree.lane is not None
    assert tree.lane.parts[0].absent


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("0", [0]),
        ("0-3,8", [0, 1, 2, 3, 8]),
        ("", []),
        ("x,2", [2]),
        ("5-3", []),
        ("-1", []),
    ],
)
def test_lists_of_cores(text: str, numbers: list[int]) -> None:
    assert cores(text) == [str(number) for number in numbers]


def test_a_list_of_cores_of_another_world() -> None:
    assert len(cores("0-999999")) < 10_000
