"""collectors/node.py: identity, boot time and open files."""

import os
import time

import pytest

from esnode.collectors.node import Node
from tests.hosts import Tree

INFO = "esnode_node_info{"
DMI = "esnode_node_dmi_info{"
BOOT = "esnode_node_boot_time_seconds"
FILES = "esnode_file_descriptors"


def info(rows: dict[str, float], head: str = INFO) -> list[str]:
    return [name for name in rows if name.startswith(head)]


def look_again(tree: Tree) -> dict[str, float]:
    """A reading at which what hardly ever changes is due."""
    assert tree.lane is not None
    collector = tree.lane.parts[0].collector
    assert isinstance(collector, Node)
    collector.due = 0
    return tree.read()


@pytest.fixture
def node(tree: Tree) -> Tree:
    tree.use(Node)
    tree.write(
        {
            "proc/stat": "cpu 1 2 3 4\nbtime 1753081200\n",
            "proc/sys/kernel/hostname": "node-7\n",
            "proc/sys/kernel/osrelease": "6.8.0\n",
            "proc/sys/kernel/arch": "riscv64\n",
            "proc/sys/fs/file-nr": "1408\t0\t9223372036854775807\n",
            "etc/os-release": 'NAME=x\nPRETTY_NAME="Some OS 3"\n',
        }
    )
    return tree


def test_identity_and_boot_time(node: Tree) -> None:
    before = time.time()
    rows = node.read()
    assert info(rows) == [
        'esnode_node_info{hostname="node-7",kernel="6.8.0",os="Some OS 3",arch="riscv64"}'
    ]
    assert rows[BOOT] == 1753081200
    assert before <= rows["esnode_node_time_seconds"] <= time.time()


def test_unknown_words_are_left_out_and_ours_are_not_taken(node: Tree) -> None:
    node.remove("proc/sys/kernel/hostname")
    node.write({"proc/sys/kernel/osrelease": ""})
    node.remove("etc/os-release")
    assert info(node.read()) == ['esnode_node_info{arch="riscv64"}']


def test_our_own_proc_has_our_own_names(tree: Tree) -> None:
    tree.use(Node, path_procfs="/proc", path_rootfs="/")
    (name,) = info(tree.read())
    assert f'hostname="{os.uname().nodename}"' in name
    assert f'kernel="{os.uname().release}"' in name
    assert f'arch="{os.uname().machine}"' in name


def test_usr_lib_os_release_is_the_second_choice(node: Tree) -> None:
    node.remove("etc/os-release")
    node.write({"usr/lib/os-release": "PRETTY_NAME='Other OS'\n"})
    assert 'os="Other OS"' in info(node.read())[0]


def test_odd_names_stay_one_label(node: Tree) -> None:
    node.write({"proc/sys/kernel/hostname": b'a"b\\c\nd\xff\n'})
    assert info(node.read())[0].startswith('esnode_node_info{hostname="a\\"b\\\\c\\nd\ufffd",')


def test_a_new_hostname_replaces_the_row(node: Tree) -> None:
    node.read()
    node.write({"proc/sys/kernel/hostname": "renamed\n"})
    (name,) = info(look_again(node))
    assert 'hostname="renamed"' in name


def test_the_machine(node: Tree) -> None:
    assert info(node.read(), DMI) == []
    node.write(
        {
            "sys/class/dmi/id/sys_vendor": "Some Maker, Inc.\n",
            "sys/class/dmi/id/product_name": " Server 7 \n",
            "sys/class/dmi/id/board_name": "\n",
            "sys/class/dmi/id/bios_version/directory": "",
        }
    )
    head = 'esnode_node_dmi_info{vendor="Some Maker, Inc.",product="Server 7"'
    assert info(look_again(node), DMI) == [head + "}"]
    node.write({"sys/class/dmi/id/bios_version": "1.2b\n"})
    assert info(look_again(node), DMI) == [head + ',bios_version="1.2b"}']
    for name in ("sys_vendor", "product_name", "bios_version"):
        node.remove("sys/class/dmi/id/" + name)
    assert info(look_again(node), DMI) == []
    assert node.errors == 0


def test_rows_that_stay_the_same_change_nothing(node: Tree) -> None:
    node.write({"sys/class/dmi/id/sys_vendor": "Some Maker, Inc.\n"})
    node.read()
    assert node.lane is not None
    layout = node.lane.read(True).layout
    look_again(node)
    assert node.lane.read(True).layout is layout


def test_open_files(node: Tree) -> None:
    rows = node.read()
    assert rows[FILES] == 1408
    assert rows[FILES + "_limit"] == float(2**63 - 1)
    node.write({"proc/sys/fs/file-nr": "1409 0 4096\n"})
    rows = node.read(tick=False)
    assert (rows[FILES], rows[FILES + "_limit"]) == (1409, 4096)
    assert node.up
    for text in ("", "x\t0\t9\n", "1409\t0\t4096"):
        node.write({"proc/sys/fs/file-nr": text})
        assert FILES not in node.read()
        assert not node.up
    node.remove("proc/sys/fs/file-nr")
    assert FILES not in node.read()
    assert node.errors == 4
    assert len(info(rows)) == 1


def test_without_stat_no_boot_time_and_the_collector_stays_down(node: Tree) -> None:
    node.remove("proc/stat")
    for _ in range(2):  # the second reading does not look again, but still does not know
        rows = node.read()
        assert BOOT not in rows
        assert len(info(rows)) == 1
        assert node.errors >= 1
        assert not node.up


def test_a_link_in_the_hosts_root_means_a_path_of_the_hosts(node: Tree) -> None:
    node.write({"srv/os": 'PRETTY_NAME="Host \\"7\\""\n'})
    node.remove("etc/os-release")
    (node.root / "etc/os-release").symlink_to("/srv/os")
    assert r'os="Host \"7\""' in info(node.read())[0]


@pytest.mark.parametrize(
    "path",
    [
        *("proc/sys/kernel/hostname", "etc/os-release", "proc/stat", "proc/sys/fs/file-nr"),
        "sys/class/dmi/id/sys_vendor",
    ],
)
def test_a_fifo_is_not_waited_for(node: Tree, path: str) -> None:
    node.write({path: ""})
    node.remove(path)
    os.mkfifo(node.root / path)
    assert len(info(node.read())) == 1
