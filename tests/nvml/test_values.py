"""Every value and label of the GPU lane is what nvidia-ml-py reads from the same library."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import pytest

from esnode.collectors.nvidia.gpus import Gpus
from tests.fakenvml import Fake

from . import oracle
from .node import Node, Page
from .oracle import Oracle
from .scripted import samples, script

MODELS = ("T4", "A100", "A6000", "H100", "H200", "B200", "GB200")
Make = Callable[..., Node]


def rows(page: Page) -> dict[object, float]:
    """Those of the page that the oracle has, too."""
    return {key: value for key, value in page.rows.items() if key[0] not in oracle.OWN}


def compare(page: Page, expected: Oracle) -> None:
    assert rows(page) == expected.rows()


@pytest.mark.parametrize("model", MODELS)
def test_each_model(fake: Fake, node: Make, model: str) -> None:
    """Two of the same kind, so that what was mixed up between GPUs shows."""
    fake.set_gpus([model] * 2)
    for slot in range(2):
        script(fake, slot)
        samples(fake, slot, time.time_ns() // 1000)
    a = node()
    compare(a.pair(), Oracle())
    assert (a.errors, a.reason) == (0, None)


@pytest.mark.parametrize("model", MODELS)
def test_each_model_in_detail(fake: Fake, node: Make, model: str) -> None:
    fake.set_gpus(["T4", model])
    for slot in range(2):
        script(fake, slot)
    fake.gpu(1).processes(
        compute=[(os.getpid(), 3 << 30), (1, 5), (2**22 + 1, 7)],
        graphics=[(os.getpid(), 11 << 20), (os.getppid(), 13)],
    )
    a = node(gpu_detail=True, gpu_process_metrics=True, k8s_mode=True)
    page = a.pair()
    compare(page, Oracle(detail=True, processes=True, k8s=True))
    assert page.get("esnode_gpu_processes", gpu=1) == 4
    assert a.errors == 0


def test_all_models_beside_each_other(fake: Fake, node: Make) -> None:
    fake.set_gpus(MODELS)
    for slot in range(len(MODELS)):
        script(fake, slot)
    compare(node().pair(), Oracle())


def test_what_is_switched_off_by_the_device(fake: Fake, node: Make) -> None:
    """Of a GPU that supports hardly anything nothing is invented."""
    fake.set_gpus(["H100"] * 2)
    bare = fake.gpu(1)
    for name in (
        *("ECC", "REMAP", "MEMTEMP", "MARGIN", "TLIMIT", "GPM", "MIG", "NVLINK", "NVLINK4"),
        *("FABRIC", "MODULE", "POWERFIELDS", "POWERAVERAGE", "PCIECOUNT", "SRAM", "RECOVERY"),
        *("JPEG", "SERIAL", "COUNTERS"),
    ):
        bare.feature(name, False)
    bare.set("links", 0)
    for name in (
        "utilization_gpu",
        "clock_video",
        "pstate",
        "temperature",
        "power_usage",
        "energy",
    ):
        bare.set(name, None)
    page = node().pair()
    compare(page, Oracle())
    assert len([key for key in rows(page) if key[1][0] == "1"]) < 60  # type: ignore[index]


def test_the_sources_that_come_second(fake: Fake, node: Make) -> None:
    """Links whose counters are known in total only, as Volta's."""
    fake.set_gpus(["A100"])
    card = fake.gpu(0)
    for link in range(12):
        for field in (161, 162, 163):
            card.field(field, code=3, scope=link)
    for number, field in enumerate((38, 45, 52, 59, 160)):
        card.field(field, 1000 + number)
    card.field(90, code=3)
    page = node().tick()
    assert page.of("esnode_gpu_nvlink_errors_total", gpu=0) == {
        (uuid(page), "crc_flit"): 1000,
        (uuid(page), "crc_data"): 1001,
        (uuid(page), "replay"): 1002,
        (uuid(page), "recovery"): 1003,
        (uuid(page), "ecc_data"): 1004,
    }
    assert page.get("esnode_gpu_nvlink_speed_bytes") == 25781e6


def test_a_total_stands_in_where_the_links_have_no_counter(fake: Fake, node: Make) -> None:
    """For one kind of errors, beside another that the links do count."""
    fake.set_gpus(["A100"])
    card = fake.gpu(0)
    for link in range(12):
        card.field(161, 1, scope=link)
        card.field(162, code=3, scope=link)
    card.field(52, 1000)
    card.field(59, 2000)
    page = node().tick()
    assert page.get("esnode_gpu_nvlink_errors_total", kind="replay") == 12
    assert page.get("esnode_gpu_nvlink_errors_total", kind="recovery") == 2000


def uuid(page: Page) -> str | None:
    (found,) = page.of("esnode_gpu_up", gpu=0)
    return found[0]


def test_every_family_is_compared_or_the_collectors_own() -> None:
    compared = {f"esnode_gpu_{name}" for name in oracle.GPU_FAMILIES} | {
        f"esnode_mig_{name}" for name in oracle.MIG_FAMILIES
    }
    declared = {metric.name for metric in Gpus.metrics}
    assert declared - compared - oracle.OWN == set()
    assert compared - declared == set()


def test_every_family_has_a_row_on_some_model(fake: Fake, node: Make) -> None:
    """So that none of the comparisons is of nothing with nothing."""
    fake.set_gpus(MODELS)
    now = time.time_ns() // 1000
    for slot in range(len(MODELS)):
        script(fake, slot)
        samples(fake, slot, now)
    fake.gpu(0).processes(compute=[(1, 1)])
    page = node(gpu_detail=True, gpu_process_metrics=True).pair()
    assert {f"esnode_gpu_{name}" for name in oracle.GPU_FAMILIES} <= page.families
