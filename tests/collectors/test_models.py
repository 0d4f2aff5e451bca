"""collectors/models.py: what disks are."""

from __future__ import annotations

import shutil

import pytest

from esnode.collectors.models import Models
from tests.hosts import Rows, Tree


def infos(rows: Rows) -> list[str]:
    """The labels of the rows, all of which are 1."""
    assert set(rows.values()) <= {1}
    return [name.removeprefix("esnode_disk_info{")[:-1] for name in rows]


def disk(name: str, rotational: str | None = "0", **device: str) -> dict[str, str]:
    """A disk's files; ``device``: those of the device that it is on."""
    files = {f"sys/block/{name}/device/{file}": f"{text}\n" for file, text in device.items()}
    queue = {f"sys/block/{name}/queue/rotational": f"{rotational}\n"} if rotational else {}
    return {f"sys/block/{name}/size": "1\n", **queue, **files}


@pytest.fixture
def disks(tree: Tree) -> Tree:
    tree.use(Models)
    return tree


def test_kinds_of_disks(disks: Tree) -> None:
    disks.write(
        {
            **disk("nvme0n1", model=f"{'Some NVMe Disk':40}", firmware_rev=f"{'GDC5602Q':8}"),
            **disk("sda", "1", model="ST16000NM001G   ", rev="SN04", vendor="ATA     "),
            **disk("vda", "1", vendor="0x1af4"),
            **disk("dm-0"),
            **disk("md0", None),
            **disk("nvme0c0n1", model="a path of the first"),
            **disk("sda1"),
            **disk("loop0"),
        }
    )
    assert infos(disks.read()) == [
        'device="dm-0",rotational="0"',
        'device="md0"',
        'device="nvme0n1",model="Some NVMe Disk",firmware="GDC5602Q",rotational="0"',
        'device="sda",model="ST16000NM001G",firmware="SN04",rotational="1"',
        'device="vda",rotational="1"',
    ]
    assert disks.errors == 0


def test_include_and_exclude(disks: Tree) -> None:
    disks.use(Models, disk_device_include="^sd", disk_device_exclude="b$")
    disks.write({**disk("sda"), **disk("sda1"), **disk("sdb"), **disk("vda")})
    assert infos(disks.read()) == ['device="sda",rotational="0"', 'device="sda1",rotational="0"']


def test_disks_come_and_go(disks: Tree) -> None:
    disks.write({**disk("sda", model="one"), **disk("sdb", model="two")})
    disks.read()
    shutil.rmtree(disks.root / "sys/block/sda")
    assert infos(disks.read()) == ['device="sdb",model="two",rotational="0"']
    disks.write(disk("sda", model="three"))
    assert infos(disks.read()) == [
        'device="sdb",model="two",rotational="0"',
        'device="sda",model="three",rotational="0"',
    ]


def test_a_scrape_is_worth_no_reading(disks: Tree) -> None:
    disks.write(disk("sda"))
    rows = disks.read()
    assert disks.read(tick=False) == rows
    assert disks.lane is not None
    assert not disks.lane.wanted


def test_odd_texts_are_labels_or_nothing(disks: Tree) -> None:
    disks.write(
        {
            **disk("sda", "", model='6"\\', rev="\n"),
            **disk("sdb", model="two\nlines"),
            "sys/block/sdc/device/model": b"\xff\x01\n",
            "sys/block/sdd/device/model/directory": "in its place",
        }
    )
    assert infos(disks.read()) == [
        'device="sda",model="6\\"\\\\"',
        'device="sdb",model="two",rotational="0"',
        'device="sdc",model="\\\\xff\x01"',
        'device="sdd"',
    ]
    assert disks.errors == 0


def test_none_is_unavailable(disks: Tree) -> None:
    disks.write(disk("loop0"))
    assert disks.read() == {}
    assert disks.lane is not None
    assert disks.lane.parts[0].absent
