"""collectors/nvidia/visible.py: which GPUs and MIG instances are shown."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esnode.collectors.nvidia.visible import Gpu, Mig, Visible

#: A plain GPU, one with two instances, and one whose driver names instances in the old way.
PLAIN = Gpu(0, "GPU-8f2a1c00-1111-2222-3333-444455556666")
SLICED = Gpu(
    1,
    "GPU-8f2b0000-aaaa-bbbb-cccc-ddddeeeeffff",
    (
        Mig("MIG-4e1c0000-0000-5000-8000-000000000001", 0, 7, 0),
        Mig("MIG-4e1c0000-0000-5000-8000-000000000002", 1, 11, 0),
    ),
)
OLD = Gpu(
    10,
    "GPU-c0ffee00-0000-0000-0000-000000000000",
    (
        Mig("MIG-GPU-c0ffee00-0000-0000-0000-000000000000/1/0", 0, 1, 0),
        Mig("MIG-GPU-c0ffee00-0000-0000-0000-000000000000/1/1", 1, 1, 1),
        Mig("MIG-GPU-c0ffee00-0000-0000-0000-000000000000/11/0", 2, 11, 0),
    ),
)
GPUS = (PLAIN, SLICED, OLD)
EVERYTHING = ["0", "1", "1:0", "1:1", "10", "10:0", "10:1", "10:2"]


def shown(visible: Visible) -> list[str]:
    """What is shown: GPUs by index, instances by index and number."""
    found = []
    for gpu in GPUS:
        if visible.gpu(gpu):
            found.append(f"{gpu.index}")
        found += [f"{gpu.index}:{mig.number}" for mig in gpu.migs if visible.mig(gpu, mig)]
    return found


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("all", EVERYTHING),
        ("ALL", EVERYTHING),
        ("", EVERYTHING),
        (" , ", EVERYTHING),
        ("none", []),
        ("None", []),
        ("none,0", ["0"]),
        ("0,all", EVERYTHING),
        ("0", ["0"]),
        ("00", ["0"]),
        (" 0 , 1 ", ["0", "1", "1:0", "1:1"]),
        ("GPU-8f2a1c00-1111-2222-3333-444455556666", ["0"]),
        ("gpu-8F2A1C00-1111-2222-3333-444455556666", ["0"]),
        ("GPU-8f2a", ["0"]),
        ("GPU-8f2", ["0", "1", "1:0", "1:1"]),
        # An instance shows its GPU, and no other instance of it.
        ("MIG-4e1c0000-0000-5000-8000-000000000002", ["1", "1:1"]),
        ("mig-4E1C", ["1", "1:0", "1:1"]),
        ("MIG-GPU-c0ffee00-0000-0000-0000-000000000000/1/0", ["10", "10:0"]),
        ("MIG-GPU-c0ffee00-0000-0000-0000-000000000000/1", ["10", "10:0", "10:1"]),
        ("MIG-GPU-c0ffee00-0000-0000-0000-000000000000", ["10", "10:0", "10:1", "10:2"]),
        # The old name of an instance that has a UUID of its own.
        ("MIG-GPU-8f2b0000-aaaa-bbbb-cccc-ddddeeeeffff/11/0", ["1", "1:1"]),
        ("1:1,0", ["0", "1", "1:1"]),
        ("1:1,1", ["1", "1:0", "1:1"]),
    ],
)
def test_entries(text: str, expected: list[str]) -> None:
    visible = Visible(text)
    assert shown(visible) == expected
    assert visible.unmatched() == []


@pytest.mark.parametrize(
    "entry",
    [
        *("7", "-1", "0-1", "1:2", "0:0", "99999999999", "\u0661", "1 0", "void", "8f2a1c00"),
        *("GPU-8f2a1c00-1111-2222-3333-4444555566667", "G", "MIG-ffff", "GPU-8f2a/7/0"),
        *("MIG-GPU-8f2b0000-aaaa-bbbb-cccc-ddddeeeeffff/1/0", "MIG-GPU-8f2b/7/1", "/dev/nvidia0"),
    ],
)
def test_an_entry_that_matches_nothing_is_told(entry: str) -> None:
    visible = Visible(f"0, {entry} ,{entry}")
    assert shown(visible) == ["0"]
    assert visible.unmatched() == [entry]


def test_an_entry_has_matched_once_and_for_all() -> None:
    visible = Visible("5,all,none")
    assert visible.unmatched() == ["5"]
    assert visible.gpu(Gpu(5, "GPU-5"))
    assert visible.gpu(PLAIN)
    assert visible.unmatched() == []


def test_every_entry_is_told_not_the_first_that_matches_only() -> None:
    visible = Visible("0,GPU-8f2a1c00-1111-2222-3333-444455556666,MIG-4e1c,1:0")
    shown(visible)
    assert visible.unmatched() == []


@pytest.mark.parametrize(
    ("text", "by_mig"),
    [
        *(("0,GPU-1", False), ("MIG-4e1c", True), ("0, mig-GPU-1/2/3", True), ("1:0", True)),
        *(("all,MIG-4e1c", False), ("", False), ("none", False)),
    ],
)
def test_whether_instances_must_be_listed(text: str, by_mig: bool) -> None:
    assert Visible(text).by_mig is by_mig


@given(st.text() | st.lists(st.sampled_from("0,1:-/GPUMIGallnone8f2a")).map("".join))
def test_any_text_is_understood_or_told(text: str) -> None:
    visible = Visible(text)
    found = shown(visible)
    entries = {entry.strip() for entry in text.split(",")} - {""}
    assert set(visible.unmatched()) <= entries
    words = {entry.lower() for entry in entries}
    if found and entries and "all" not in words:
        assert set(visible.unmatched()) != entries
