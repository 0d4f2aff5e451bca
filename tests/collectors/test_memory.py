"""collectors/memory.py: meminfo and vmstat."""

import resource

import pytest

from esnode.collectors.memory import Memory
from tests.hosts import Tree

PAGE = resource.getpagesize()

MEMINFO = """\
MemTotal:        1000 kB
MemFree:          200 kB
MemAvailable:     600 kB
Buffers:           12 kB
Cached:           301 kB
SwapTotal:         50 kB
SwapFree:          20 kB
Dirty:              3 kB
Shmem:              7 kB
Slab:               8 kB
KReclaimable:       5 kB
Active(anon):       6 kB
CommitLimit:      800 kB
Committed_AS:     900 kB
HugePages_Total:    4
HugePages_Free:     1
HugePages_Rsvd:     2
Hugepagesize:    2048 kB
"""
VMSTAT = """\
pgpgin 11
pgpgout 12
pswpin 13
pswpout 14
pgfault 1000
pgmajfault 30
oom_kill 2
pgfault_of_another_kind 5
"""


@pytest.fixture
def memory(tree: Tree) -> Tree:
    tree.use(Memory)
    tree.write({"proc/meminfo": MEMINFO, "proc/vmstat": VMSTAT})
    return tree


def test_values_of_the_files(memory: Tree) -> None:
    assert memory.read() == {
        "esnode_memory_total_bytes": 1000 * 1024,
        "esnode_memory_free_bytes": 200 * 1024,
        "esnode_memory_available_bytes": 600 * 1024,
        "esnode_memory_used_bytes": 400 * 1024,
        "esnode_memory_buffers_bytes": 12 * 1024,
        "esnode_memory_cached_bytes": 301 * 1024,
        "esnode_memory_dirty_bytes": 3 * 1024,
        "esnode_memory_shared_bytes": 7 * 1024,
        "esnode_memory_slab_bytes": 8 * 1024,
        "esnode_memory_commit_limit_bytes": 800 * 1024,
        "esnode_memory_committed_bytes": 900 * 1024,
        "esnode_memory_hugepages": 4,
        "esnode_memory_hugepages_free": 1,
        "esnode_swap_total_bytes": 50 * 1024,
        "esnode_swap_free_bytes": 20 * 1024,
        "esnode_swap_used_bytes": 30 * 1024,
        "esnode_page_in_bytes_total": 11 * 1024,
        "esnode_page_out_bytes_total": 12 * 1024,
        "esnode_swap_in_bytes_total": 13 * PAGE,
        "esnode_swap_out_bytes_total": 14 * PAGE,
        'esnode_page_faults_total{kind="minor"}': 970,
        'esnode_page_faults_total{kind="major"}': 30,
        "esnode_oom_kills_total": 2,
    }
    assert memory.errors == 0


def test_used_needs_both_sides(memory: Tree) -> None:
    memory.write({"proc/meminfo": "MemTotal: 10 kB\nSwapTotal: 5 kB\nSwapFree: 6 kB\n"})
    rows = memory.read()
    assert rows["esnode_memory_total_bytes"] == 10240
    assert "esnode_memory_used_bytes" not in rows, "an old kernel without MemAvailable"
    assert "esnode_swap_used_bytes" not in rows, "less than nothing is in use"


def test_detail_is_the_remaining_keys(memory: Tree) -> None:
    memory.use(Memory, memory_detail=True)
    rows = memory.read()
    assert {name: value for name, value in rows.items() if "detail" in name} == {
        'esnode_memory_detail_bytes{key="KReclaimable"}': 5 * 1024,
        'esnode_memory_detail_bytes{key="Active(anon)"}': 6 * 1024,
        'esnode_memory_detail_bytes{key="Hugepagesize"}': 2048 * 1024,
    }
    assert rows["esnode_memory_total_bytes"] == 1000 * 1024


def test_detail_with_a_key_twice_costs_no_other_row(memory: Tree) -> None:
    plain = memory.read()
    memory.lane = None
    memory.use(Memory, memory_detail=True)
    memory.write({"proc/meminfo": MEMINFO + "Active(anon): 7 kB\n"})
    rows = memory.read()
    assert rows.items() >= plain.items()
    assert rows['esnode_memory_detail_bytes{key="Active(anon)"}'] == 7 * 1024


def test_detail_appears_when_the_file_does(memory: Tree) -> None:
    memory.use(Memory, memory_detail=True)
    memory.remove("proc/meminfo")
    memory.read()
    memory.write({"proc/meminfo": MEMINFO})
    assert 'esnode_memory_detail_bytes{key="Active(anon)"}' in memory.read()


@pytest.mark.parametrize("bad", [None, b"", b"\x00\xff" * 3000, b"MemTotal 5\n", b"MemTotal: 5 kB"])
def test_a_bad_file_costs_its_rows_only(memory: Tree, bad: bytes | None) -> None:
    good = memory.read()
    if bad is None:
        memory.remove("proc/meminfo")
    else:
        memory.write({"proc/meminfo": bad})
    rows = memory.read()
    assert memory.errors == 1
    assert set(rows) == {name for name in good if "memory" not in name} - {
        *("esnode_swap_total_bytes", "esnode_swap_free_bytes", "esnode_swap_used_bytes")
    }
    memory.write({"proc/meminfo": MEMINFO})
    assert memory.read() == good


def test_numbers_that_are_none(memory: Tree) -> None:
    memory.write(
        {
            "proc/meminfo": f"MemTotal: {2**64} kB\nMemFree: -1 kB\nMemAvailable: x kB\n"
            f"Slab: {2**64 - 1} kB\nDirty:\nBuffers: 4 kB\n"
        }
    )
    rows = memory.read()
    assert {name: value for name, value in rows.items() if "memory" in name} == {
        "esnode_memory_slab_bytes": float(2**64 - 1) * 1024,
        "esnode_memory_buffers_bytes": 4096,
    }
    assert memory.errors == 1
