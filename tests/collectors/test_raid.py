"""collectors/raid.py: what the disks of an array count as."""

from __future__ import annotations

import shutil
from typing import NamedTuple

import pytest

from esnode.collectors.raid import Raid
from tests.hosts import Rows, Tree


class Array(NamedTuple):
    """An array as /proc/mdstat and sysfs have it; ``counts``: active, failed, spare, required."""

    mdstat: str
    raid_disks: str
    disks: dict[str, tuple[str, str]]
    counts: tuple[int, int, int, int | None]
    array_state: str = "clean"
    sync_action: str = "idle"

    def files(self, name: str) -> dict[str, str]:
        """Those of /sys."""
        md = f"sys/block/{name}/md"
        files = {
            f"{md}/array_state": self.array_state,
            f"{md}/raid_disks": self.raid_disks,
            f"{md}/sync_action": self.sync_action,
        }
        for disk, (state, slot) in self.disks.items():
            files |= {f"{md}/dev-{disk}/state": state, f"{md}/dev-{disk}/slot": slot}
        return {path: text + "\n" for path, text in files.items()}


def members(*slots: str | int, state: str = "in_sync") -> dict[str, tuple[str, str]]:
    """Disks sda, sdb, … of a state in their slots."""
    return {f"sd{chr(ord('a') + i)}": (state, str(slot)) for i, slot in enumerate(slots)}


def recovery(word: str) -> str:
    return f"      [=>...]  {word} =  8.5% (1677/19531) finish=17.0min speed=25978K/sec\n"


ARRAYS = {
    "healthy": Array(
        "active raid1 sdb[1] sda[0]\n      1000 blocks super 1.2 [2/2] [UU]\n",
        "2",
        members(0, 1),
        (2, 0, 0, 2),
    ),
    "striped": Array(
        "active raid0 sdc[2] sdb[1] sda[0]\n      3000 blocks super 1.2 512k chunks\n",
        "3",
        members(0, 1, 2),
        (3, 0, 0, 3),
    ),
    "degraded, with a spare": Array(
        "active raid6 sde[4](S) sdd[3](F) sdc[2] sdb[1] sda[0]\n"
        "      2000 blocks super 1.2 level 6, 512k chunk, algorithm 2 [4/3] [UUU_]\n"
        "      bitmap: 0/30 pages [0KB], 65536KB chunk\n",
        "4",
        {**members(0, 1, 2), "sdd": ("faulty", "none"), "sde": ("spare", "none")},
        (3, 1, 1, 4),
    ),
    "failed in its slot": Array(
        "active raid1 sdb[1](F) sda[0]\n      1000 blocks super 1.2 [2/1] [U_]\n",
        "2",
        {**members(0), "sdb": ("faulty,blocked,write_mostly", "1")},
        (1, 1, 0, 2),
    ),
    "recovering": Array(
        "active raid1 sdb[2] sda[0]\n      1000 blocks super 1.2 [2/1] [U_]\n"
        + recovery("recovery"),
        "2",
        {**members(0), "sdb": ("spare", "1")},
        (1, 0, 0, 2),
        sync_action="recover",
    ),
    "checking": Array(
        "active raid1 sdb[1] sda[0]\n      1000 blocks super 1.2 [2/2] [UU]\n" + recovery("check"),
        "2",
        members(0, 1),
        (2, 0, 0, 2),
        sync_action="check",
    ),
    "growing": Array(
        "active raid5 sdd[4] sdc[3] sdb[1] sda[0]\n"
        "      2000 blocks super 1.2 level 5, 512k chunk, algorithm 2 [4/4] [UUUU]\n"
        + recovery("reshape"),
        "4 (3)",
        members(0, 1, 2, 3),
        (4, 0, 0, 4),
        sync_action="reshape",
    ),
    "shrinking": Array(
        "active raid5 sdd[4] sdc[3] sdb[1] sda[0]\n"
        "      2000 blocks super 1.2 level 5, 512k chunk, algorithm 2 [3/3] [UUU]\n"
        + recovery("reshape"),
        "3 (4)",
        members(0, 1, 2, 3),
        (3, 0, 0, 3),
        sync_action="reshape",
    ),
    "with a journal": Array(
        "active raid5 sdd[4](J) sdc[3] sdb[1] sda[0]\n"
        "      2000 blocks super 1.2 level 5, 512k chunk, algorithm 2 [3/3] [UUU]\n",
        "3",
        {**members(0, 1, 2), "sdd": ("journal", "journal")},
        (3, 0, 0, 3),
    ),
    "with a failed journal": Array(
        "active (read-only) raid5 sdd[4](J)(F) sdc[3] sdb[1] sda[0]\n"
        "      2000 blocks super 1.2 level 5, 512k chunk, algorithm 2 [3/3] [UUU]\n",
        "3",
        {**members(0, 1, 2), "sdd": ("faulty,journal", "journal")},
        (3, 1, 0, 3),
        array_state="readonly",
    ),
    "write-mostly": Array(
        "active raid1 sdb[1](W) sda[0]\n      1000 blocks super 1.2 [2/2] [UU]\n",
        "2",
        {**members(0), "sdb": ("in_sync,write_mostly", "1")},
        (2, 0, 0, 2),
        array_state="active-idle",
    ),
    "replacing a disk": Array(
        "active raid1 sdc[2](R) sdb[1] sda[0]\n      1000 blocks super 1.2 [2/2] [UU]\n"
        + recovery("recovery"),
        "2",
        {
            **members(0),
            "sdb": ("in_sync,want_replacement", "1"),
            "sdc": ("spare,replacement", "1"),
        },
        (2, 0, 0, 2),
        sync_action="recover",
    ),
    "replaced, for a moment": Array(
        "active raid1 sdc[2](R) sdb[1] sda[0]\n      1000 blocks super 1.2 [2/2] [UU]\n",
        "2",
        {
            **members(0),
            "sdb": ("in_sync,want_replacement", "1"),
            "sdc": ("in_sync,replacement", "1"),
        },
        (2, 0, 0, 2),
    ),
    "waiting for its other half": Array(
        "inactive sda[0](S)\n      1000 blocks super 1.2\n",
        "",
        members("none", state="spare"),
        (0, 0, 1, None),
        array_state="inactive",
    ),
    "could not start": Array(
        "inactive sdc[2] sda[0](F)\n      1000 blocks super 1.2\n",
        "3",
        {"sda": ("faulty", "0"), "sdc": ("in_sync", "2")},
        (0, 1, 0, 3),
        array_state="inactive",
    ),
    "a container": Array(
        "inactive sdb[1](S) sda[0](S)\n      5288 blocks super external:imsm\n",
        "",
        members("none", "none", state="spare"),
        (0, 0, 2, None),
        array_state="inactive",
    ),
    "in a container": Array(
        "active raid1 sdb[1] sda[0]\n      1000 blocks super external:/md127/0 [2/2] [UU]\n",
        "2",
        members(0, 1),
        (2, 0, 0, 2),
    ),
}


STATES = ("active", "failed", "spare", "required")


def counts(rows: Rows, array: str) -> tuple[float | None, ...]:
    head = f'esnode_md_disks{{array="{array}",state='
    return tuple(rows.get(f'{head}"{state}"}}') for state in STATES)


@pytest.fixture
def raid(tree: Tree) -> Tree:
    tree.use(Raid)
    return tree


@pytest.mark.parametrize("name", ARRAYS)
def test_arrays(raid: Tree, name: str) -> None:
    array = ARRAYS[name]
    raid.write(array.files("md127"))
    rows = raid.read()
    assert counts(rows, "md127") == array.counts
    assert len(rows) == sum(count is not None for count in array.counts)
    assert raid.errors == 0


def test_without_slots_the_states_decide(raid: Tree) -> None:
    disks = {**members(0, 1), "sdc": ("faulty", "none"), "sdd": ("spare", "none")}
    files = Array("", "3", disks, (0, 0, 0, 0)).files("md0")
    raid.write({path: text for path, text in files.items() if not path.endswith("slot")})
    assert counts(raid.read(), "md0") == (2, 1, 1, 3)


def test_a_slot_that_is_none_costs_no_array(raid: Tree) -> None:
    files = ARRAYS["healthy"].files("md0")
    slot = next(path for path in files if path.endswith("slot"))
    raid.write({**files, slot: "9" * 5000})
    assert counts(raid.read(), "md0") == (2, 0, 0, 2)
    assert raid.errors == 0


def test_a_disk_fails_and_another_takes_its_place(raid: Tree) -> None:
    raid.write(ARRAYS["healthy"].files("md0"))
    assert counts(raid.read(), "md0") == (2, 0, 0, 2)
    raid.write({"sys/block/md0/md/dev-sdb/state": "faulty\n"})
    assert counts(raid.read(tick=False), "md0") == (1, 1, 0, 2)
    shutil.rmtree(raid.root / "sys/block/md0/md/dev-sdb")
    assert counts(raid.read(tick=False), "md0") == (1, 0, 0, 2)
    disk = "sys/block/md0/md/dev-sdc"
    raid.write(
        {
            f"{disk}/state": "spare\n",
            f"{disk}/slot": "1\n",
            "sys/block/md0/md/sync_action": "recover\n",
        }
    )
    assert counts(raid.read(tick=False), "md0") == (1, 0, 0, 2)
    raid.write({f"{disk}/state": "in_sync\n", "sys/block/md0/md/sync_action": "idle\n"})
    assert counts(raid.read(tick=False), "md0") == (2, 0, 0, 2)


def test_arrays_come_and_go(raid: Tree) -> None:
    raid.write(ARRAYS["healthy"].files("md0"))
    raid.read()
    raid.write(ARRAYS["striped"].files("md_d1"))
    rows = raid.read()
    assert (counts(rows, "md0"), counts(rows, "md_d1")) == ((2, 0, 0, 2), (3, 0, 0, 3))
    shutil.rmtree(raid.root / "sys/block/md0")
    assert counts(raid.read(), "md0") == (None,) * 4
    assert raid.errors == 0


def test_a_stopped_array_is_none(raid: Tree) -> None:
    raid.write(ARRAYS["healthy"].files("md0"))
    raid.read()
    shutil.rmtree(raid.root / "sys/block/md0/md")
    stopped = Array("", "", {}, (0, 0, 0, None), array_state="clear")
    raid.write(stopped.files("md0"))
    assert raid.read() == {}
    raid.write(ARRAYS["striped"].files("md0"))
    assert counts(raid.read(), "md0") == (3, 0, 0, 3)


@pytest.mark.parametrize("text", ["x", "-1", "", "\0", "2 disks", "99999999999"])
def test_odd_numbers_of_disks(raid: Tree, text: str) -> None:
    """No array of this world has a million disks."""
    raid.write({**ARRAYS["healthy"].files("md0"), "sys/block/md0/md/raid_disks": text + "\n"})
    assert counts(raid.read(), "md0") == (2, 0, 0, None)


def test_a_state_that_cannot_be_understood_is_not_no_disk(raid: Tree) -> None:
    raid.write(ARRAYS["healthy"].files("md0"))
    raid.write({"sys/block/md0/md/dev-sdb/state": "\xff?\n"})
    assert raid.read() == {}
    raid.write({"sys/block/md0/md/dev-sdb/state": "in_sync\n"})
    assert counts(raid.read(), "md0") == (2, 0, 0, 2)


@pytest.mark.parametrize("text", [None, ""])
def test_a_state_that_cannot_be_read_is_not_no_disk(raid: Tree, text: str | None) -> None:
    files = ARRAYS["healthy"].files("md0")
    raid.write(files)
    assert counts(raid.read(), "md0") == (2, 0, 0, 2)
    state = next(path for path in files if "/dev-" in path and path.endswith("state"))
    if text is None:
        raid.remove(state)
    else:
        raid.write({state: text})
    assert raid.read() == {}
    raid.write({state: files[state]})
    assert counts(raid.read(), "md0") == (2, 0, 0, 2)


def test_other_disks_are_no_arrays(raid: Tree) -> None:
    raid.write({"sys/block/sda/size": "5\n", "sys/block/mdx/size": "5\n", "sys/block/md": "x"})
    assert raid.read() == {}
    assert raid.lane is not None
    reason = raid.lane.parts[0].reason
    assert reason == f"{raid.root}/sys/block: no RAID array", "there are disks to read"
