"""GPM: when samples are taken, what a failure costs, and that no sample is forgotten."""

from __future__ import annotations

import time
from collections.abc import Callable

import pynvml as nv

from tests.fakenvml import Fake, Mig

from .node import APART, Node
from .oracle import Oracle
from .scripted import script
from .test_values import compare

Make = Callable[..., Node]
ACTIVE = "esnode_gpu_sm_active_ratio"
TENSOR = "esnode_gpu_tensor_active_ratio"
DRAM = "esnode_gpu_dram_active_ratio"


def test_samples_lie_apart(fake: Fake, node: Make) -> None:
    """At ticks that follow one another sooner the values stay; a scrape takes no sample."""
    fake.set_gpus(["H100"])
    fake.gpu(0).metric(nv.NVML_GPM_METRIC_SM_UTIL, 40)
    a = node()
    assert a.tick().get(ACTIVE) is None, "there is one sample"
    began = time.monotonic()
    values = []
    while time.monotonic() - began < 0.55:
        values.append(a.tick().get(ACTIVE))
        time.sleep(0.01)
    values = values[values.index(0.4) :]
    assert set(values) == {0.4}
    assert fake.calls()["nvmlGpmSampleGet", 0] in range(4, 7)
    assert fake.calls()["nvmlGpmMetricsGet", 0] == fake.calls()["nvmlGpmSampleGet", 0] - 1
    fake.gpu(0).metric(nv.NVML_GPM_METRIC_SM_UTIL, 60)
    fake.forget_calls()
    time.sleep(APART)
    assert a.scrape().get(ACTIVE) == 0.4
    assert not {name for name, _ in fake.calls() if "Gpm" in name}
    assert a.tick().get(ACTIVE) == 0.6


def test_one_call_for_all_metrics(fake: Fake, node: Make) -> None:
    fake.set_gpus(["H100", "A100", "H100"])
    a = node()
    a.pair()
    fake.forget_calls()
    time.sleep(APART)
    a.tick()
    found = {key: n for key, n in fake.calls().items() if "Gpm" in key[0]}
    assert found == {
        (function, slot): 1
        for function in ("nvmlGpmSampleGet", "nvmlGpmMetricsGet")
        for slot in (0, 2)
    }


def test_a_metric_that_fails_costs_its_row(fake: Fake, node: Make) -> None:
    fake.set_gpus(["H100"] * 2)
    for slot in range(2):
        script(fake, slot)
    a = node()
    a.pair()
    fake.gpu(0).metric(nv.NVML_GPM_METRIC_SM_UTIL, 0, code=nv.NVML_ERROR_UNKNOWN)
    time.sleep(APART)
    page = a.tick()
    compare(page, Oracle())
    assert page.get(ACTIVE, gpu=0) is None
    assert page.get(TENSOR, gpu=0) is not None
    fake.gpu(0).metric(nv.NVML_GPM_METRIC_SM_UTIL, 12)
    time.sleep(APART)
    assert a.tick().get(ACTIVE, gpu=0) == 0.12


def test_calls_that_fail(fake: Fake, node: Make) -> None:
    """They cost the rows of that GPU, which are back with the next samples."""
    fake.set_gpus(["H100"] * 2)
    for slot in range(2):
        script(fake, slot)
    a = node()
    a.pair()
    for function in ("nvmlGpmSampleGet", "nvmlGpmMetricsGet"):
        before = a.errors
        fake.gpu(0).fail(function, nv.NVML_ERROR_TIMEOUT)
        time.sleep(APART)
        page = a.tick()
        assert (page.get(ACTIVE, gpu=0), page.get(DRAM, gpu=0)) == (None, None)
        assert page.get(ACTIVE, gpu=1) is not None
        assert page.get("esnode_gpu_up", gpu=0) == 1
        assert a.errors == before + 1
        fake.script()
        a.pair()
        time.sleep(APART)
        compare(a.tick(), Oracle())
    fake.fail("nvmlGpmSampleAlloc", nv.NVML_ERROR_MEMORY)
    fake.gpu(0).mig([Mig("1g.10gb", gi=7)])
    b = node(enable_gpu_mig=True)
    assert "esnode_mig_info" in b.pair().families
    fake.script()
    b.pair()
    assert "esnode_mig_sm_active_ratio" in b.pair().families


def test_a_metric_alone_has_its_own_value(fake: Fake, node: Make) -> None:
    """Where a driver refuses a call for one of its metrics, the others are asked one by one."""
    fake.set_gpus(["H100"])
    script(fake, 0)
    fake.option("known_metrics", 200)
    a = node()
    compare(a.pair(), Oracle())


def test_no_sample_is_left_behind(fake: Fake, node: Make) -> None:
    """Over changes of MIG, of the driver, and of the GPUs."""
    fake.set_gpus(["H100"] * 2)
    a = node(enable_gpu_mig=True)
    for turn in range(60):
        fake.gpu(0).mig([Mig("1g.10gb", gi=7 + (turn + n) % 7) for n in range(turn % 4)])
        if turn % 5 == 0:
            fake.reload()
            a.follow()
        if turn % 7 == 0:
            fake.gpu(1).remove()
            a.tick()
            fake.add(1, "H100")
        if turn % 11 == 0:
            fake.gpu(1).lose()
            a.tick()
            fake.gpu(1).recover()
        a.tick()
        assert fake.gpm_samples() <= 2 * (2 + turn % 4)
    fake.gpu(0).mig(None)
    a.tick(2)
    assert fake.gpm_samples() == 4
    a.close()
    assert fake.gpm_samples() == 0
