"""collectors/pressure.py: stalls of each resource."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from esnode.collectors.pressure import Pressure
from tests.hosts import Tree


def unsupported() -> Path | None:
    """A kernel file that answers EOPNOTSUPP, as those of pressure do with psi=0."""
    for path in Path("/sys/class/net").glob("*/phys_*"):
        try:
            path.read_bytes()
        except OSError as error:
            if error.errno == errno.EOPNOTSUPP:
                return path
    return None


def name(resource: str, kind: str) -> str:
    return f'esnode_pressure_stalled_seconds_total{{resource="{resource}",kind="{kind}"}}'


def line(kind: str, total: int) -> str:
    return f"{kind} avg10=1.50 avg60=0.00 avg300=0.02 total={total}\n"


FILES = {
    "proc/pressure/cpu": line("some", 409677206) + line("full", 0),
    "proc/pressure/memory": line("some", 3000001) + line("full", 2000000),
    "proc/pressure/io": line("some", 79388960) + line("full", 69675965),
    "proc/pressure/irq": line("full", 7),
}
VALUES = {
    name("cpu", "some"): 409.677206,
    name("cpu", "full"): 0,
    name("memory", "some"): 3.000001,
    name("memory", "full"): 2,
    name("io", "some"): 79.38896,
    name("io", "full"): 69.675965,
    name("irq", "full"): 0.000007,
}


@pytest.fixture
def pressure(tree: Tree) -> Tree:
    tree.use(Pressure)
    tree.write(FILES)
    return tree


def test_values_of_the_files(pressure: Tree) -> None:
    assert pressure.read() == VALUES
    assert pressure.errors == 0
    assert pressure.up


def test_an_older_kernel_has_fewer_resources_and_kinds(pressure: Tree) -> None:
    pressure.remove("proc/pressure/irq")
    pressure.write({"proc/pressure/cpu": line("some", 1_500_000)})
    rows = pressure.read()
    assert rows.keys() == VALUES.keys() - {name("irq", "full"), name("cpu", "full")}
    assert rows[name("cpu", "some")] == 1.5
    assert pressure.errors == 0


def test_without_a_file_it_is_not_there(tree: Tree) -> None:
    tree.use(Pressure)
    assert tree.read() == {}
    assert tree.lane is not None
    (part,) = tree.lane.parts
    assert (part.absent, part.errors) == (True, 0)
    tree.write(FILES)
    part.due = 0
    assert tree.read() == VALUES


def test_what_the_kernel_was_told_not_to_count_is_not_there(pressure: Tree) -> None:
    path = unsupported()
    if path is None:
        pytest.skip("no network card of this machine lacks a port's name")
    for file in FILES:
        pressure.remove(file)
        (pressure.root / file).symlink_to(path)
    assert pressure.read() == {}
    assert pressure.lane is not None
    assert pressure.lane.parts[0].absent
    assert pressure.errors == 0


def test_a_bad_file_costs_its_rows_and_comes_back(pressure: Tree) -> None:
    assert pressure.read() == VALUES
    others = {row: value for row, value in VALUES.items() if "io" not in row}
    for text in ("", "some", line("some", 1)[:-1], "some total=1\n", b"\xff\0" * 900):
        errors = pressure.errors
        pressure.write({"proc/pressure/io": text})
        assert pressure.read() == others, text
        assert pressure.errors == errors + (text != "some total=1\n")
    pressure.remove("proc/pressure/io")
    assert pressure.read() == others
    assert not pressure.up
    pressure.write(FILES)
    assert pressure.read() == VALUES
    assert pressure.up


def test_numbers_that_are_none(pressure: Tree) -> None:
    text = f"some a=1 b=1 c=1 total={2**64}\nfull a=1 b=1 c=1 total=\n"
    pressure.write({"proc/pressure/memory": text})
    assert pressure.read().keys() == {row for row in VALUES if "memory" not in row}
    assert pressure.errors == 1
