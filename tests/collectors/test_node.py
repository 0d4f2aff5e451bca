"""collectors/node.py: identity and boot time."""

import os
import time

import pytest

from esnode.collectors.node import Node
from tests.hosts import Tree

INFO = "esnode_node_info{"
BOOT = "esnode_node_boot_time_seconds"


def info(rows: dict[str, float]) -> list[str]:
    return [name for name in rows if name.startswith(INFO)]


@pytest.fixture
def node(tree: Tree) -> Tree:
    tree.use(Node)
    tree.write(
        {
            "proc/stat": "cpu 1 2 3 4\nbtime 1753081200\n",
            "proc/sys/kernel/hostname": "node-7\n",
            "proc/sys/kernel/osrelease": "6.8.0\n",
            "proc/sys/kernel/arch": "riscv64\n",
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
    assert node.lane is not None
    collector = node.lane.parts[0].collector
    assert isinstance(collector, Node)
    collector.due = 0
    (name,) = info(node.read())
    assert 'hostname="renamed"' in name


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


@pytest.mark.parametrize("path", ["proc/sys/kernel/hostname", "etc/os-release", "proc/stat"])
def test_a_fifo_is_not_waited_for(node: Tree, path: str) -> None:
    node.remove(path)
    os.mkfifo(node.root / path)
    assert len(info(node.read())) == 1
