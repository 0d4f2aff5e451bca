"""collectors/nvidia/pci.py: the GPUs on the PCI bus."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from esnode.collectors.nvidia.pci import PciDevices
from esnode.host import Host
from tests import captured
from tests.hosts import Tree

BUS = "sys/bus/pci/devices"
GPU = "0000:65:00.0"


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


@pytest.fixture
def bus(tree: Tree) -> PciDevices:
    return PciDevices(Host(sysfs=f"{tree.root}/sys"))


def device(name: str, vendor: str = "0x10de", kind: str = "0x030200") -> dict[str, str]:
    return {f"{BUS}/{name}/vendor": f"{vendor}\n", f"{BUS}/{name}/class": f"{kind}\n"}


def test_gpus_and_nothing_else(tree: Tree, bus: PciDevices) -> None:
    tree.write(
        device("0001:00:00.0")  # of another domain
        | device(GPU)
        | device("0000:17:00.0", kind="0x030000")  # VGA
        | device("0000:17:00.1", kind="0x040300")  # its audio
        | device("0000:c4:00.0", kind="0x068000")  # an NVSwitch
        | device("0000:03:00.0", vendor="0x1a03", kind="0x030000")  # the BMC's VGA
        | device("0000:00:00.0", vendor="0x8086", kind="0x060000")
    )
    expected = ["0000:17:00.0", GPU, "0001:00:00.0"]
    assert bus.look() == expected
    assert bus.look() == expected


def test_the_part_of_a_gpu_that_is_for_a_virtual_machine_is_none(
    tree: Tree, bus: PciDevices
) -> None:
    tree.write(device(GPU) | device("0000:65:00.4"))
    (tree.root / BUS / "0000:65:00.4/physfn").symlink_to(f"../{GPU}")
    assert bus.look() == [GPU]


def test_without_a_bus(tree: Tree, bus: PciDevices) -> None:
    assert bus.look() is None
    (tree.root / BUS).mkdir(parents=True)
    assert bus.look() == []
    tree.write(device(GPU))
    assert bus.look() == [GPU]
    shutil.rmtree(tree.root / BUS)
    assert bus.look() is None
    tree.write({BUS: "a file"})
    assert bus.look() is None


def test_devices_come_go_and_are_replaced(tree: Tree, bus: PciDevices) -> None:
    tree.write(device(GPU))
    assert bus.look() == [GPU]
    tree.write(device("0000:ca:00.0"))
    assert bus.look() == [GPU, "0000:ca:00.0"]
    shutil.rmtree(tree.root / BUS / GPU)
    assert bus.look() == ["0000:ca:00.0"]
    tree.write(device(GPU, vendor="0x15b3", kind="0x020700"))
    assert bus.look() == ["0000:ca:00.0"]
    # Under the same name, between two looks.
    (tree.root / BUS / "0000:ca:00.0").rename(tree.root / "gone")
    tree.write(device("0000:ca:00.0", kind="0x068000"))
    assert bus.look() == []


def test_what_a_device_is_is_read_once(tree: Tree, bus: PciDevices) -> None:
    tree.write(device(GPU) | device("0000:00:00.0", vendor="0x8086"))
    assert bus.look() == [GPU]
    for name in (GPU, "0000:00:00.0"):
        tree.remove(f"{BUS}/{name}/vendor")
        tree.remove(f"{BUS}/{name}/class")
    assert bus.look() == [GPU]


@pytest.mark.parametrize("file", ["vendor", "class"])
@pytest.mark.parametrize("text", [None, b"", b"\n", b"nvidia", b"\xff\xfe", b"0x" + b"f" * 100])
def test_a_device_that_cannot_be_read_is_read_again(
    file: str, text: bytes | None, tree: Tree, bus: PciDevices
) -> None:
    tree.write(device(GPU) | device("0000:ca:00.0"))
    tree.remove(f"{BUS}/{GPU}/{file}")
    if text is not None:
        tree.write({f"{BUS}/{GPU}/{file}": text})
    assert bus.look() == ["0000:ca:00.0"]
    if text != b"0x" + b"f" * 100:  # which is a number, and not this one
        tree.write(device(GPU))
        assert bus.look() == [GPU, "0000:ca:00.0"]


def test_odd_names_and_links(tree: Tree, bus: PciDevices) -> None:
    tree.write(device(GPU))
    (tree.root / BUS / "dangling").symlink_to("nowhere")
    (tree.root / BUS / "loop").symlink_to("loop")
    (tree.root / BUS / "0000:17:00.0").symlink_to(GPU)
    tree.write({f"{BUS}/file": "text", f"{BUS}/\udcff\n": "text"})
    assert bus.look() == ["0000:17:00.0", GPU]


def test_the_captured_tree_has_no_nvidia_gpu(tmp_path: Path) -> None:
    captured.write(captured.entries(captured.read()), tmp_path)
    tree = Tree(tmp_path / "fixtures")
    host = Host(sysfs=f"{tree.root}/sys")
    assert (tree.root / BUS).is_dir()
    assert PciDevices(host).look() == []
    for file, text in (("vendor", "0x10de\n"), ("class", "0x030200\n")):
        tree.remove(f"{BUS}/0000:a2:00.0/{file}")  # is not to be written to
        tree.write({f"{BUS}/0000:a2:00.0/{file}": text})
    assert PciDevices(host).look() == ["0000:a2:00.0"]
