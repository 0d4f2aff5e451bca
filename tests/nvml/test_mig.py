"""MIG instances: their values against nvidia-ml-py, and what is the parent's."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.fakenvml import Fake, Mig

from . import oracle
from .node import Node
from .oracle import Oracle
from .scripted import script, script_instance
from .test_values import compare

Make = Callable[..., Node]
SMALL = {"A100": "1g.10gb", "H100": "1g.10gb", "H200": "1g.18gb", "B200": "1g.23gb"}
LARGE = {"A100": "3g.40gb", "H100": "3g.40gb", "H200": "3g.71gb", "B200": "3g.90gb"}
#: What the driver tells of a GPU as a whole only.
WHOLE = (
    "utilization_percent",
    "memory_utilization_percent",
    "utilization_max_percent",
    *(f"{engine}_utilization_percent" for engine in ("encoder", "decoder", "jpeg", "ofa")),
)


def instances(fake: Fake, slot: int, *migs: Mig | None) -> None:
    fake.gpu(slot).mig(migs)
    for index, mig in enumerate(migs):
        if mig:
            script_instance(fake, slot, index)


@pytest.mark.parametrize("model", SMALL)
def test_each_model(fake: Fake, node: Make, model: str) -> None:
    fake.set_gpus([model] * 3)
    for slot in range(3):
        script(fake, slot)
    for slot in range(2):
        instances(
            fake,
            slot,
            Mig(SMALL[model], gi=7, start=0),
            None,
            Mig(f"{SMALL[model]}+me", gi=8, start=1),
            Mig(f"1c.{LARGE[model]}", gi=2, ci=0, start=4),
            Mig(f"2c.{LARGE[model]}", gi=2, ci=1, start=4),
        )
    a = node(enable_gpu_mig=True, k8s_mode=True)
    page = a.pair()
    compare(page, Oracle(k8s=True))
    assert a.errors == 0
    # By hand, as the device plugin spells it: a resource has no plus sign in its name.
    (resource,) = (key[-1] for key in page.of("esnode_mig_info", gpu=1, gi=8))
    assert resource == f"nvidia.com/mig-{SMALL[model]}.me"
    declared = {f"esnode_mig_{name}" for name in oracle.MIG_FAMILIES}
    ratios = {name for name in declared if "ratio" in name or "utilization" in name}
    assert declared - page.families == (ratios if model == "A100" else set())


def test_what_mig_mode_makes_meaningless_is_absent(fake: Fake, node: Make) -> None:
    fake.set_gpus(["H100"] * 2)
    for slot in range(2):
        script(fake, slot)
        fake.gpu(slot).sample(1, 10**15, 50)
    fake.gpu(0).mig([Mig("7g.80gb", gi=0)])
    for keys in ({}, {"enable_gpu_mig": True}):
        page = node(**keys).pair()
        for name in WHOLE:
            assert page.get(f"esnode_gpu_{name}", gpu=0) is None, name
            assert page.get(f"esnode_gpu_{name}", gpu=1) is not None, name
        assert page.get("esnode_gpu_mode", gpu=0, mode="mig") == 1
        assert page.get("esnode_gpu_memory_used_bytes", gpu=0) is not None
        assert ("esnode_mig_info" in page.families) == bool(keys)


def test_instances_without_the_key_cost_no_call(fake: Fake, node: Make) -> None:
    fake.set_gpus(["H100"])
    fake.gpu(0).mig([Mig("1g.10gb", gi=7)])
    node().pair()
    called = {function for function, _ in fake.calls()}
    assert not {name for name in called if "MigDevice" in name or "Instance" in name}


def test_instances_come_and_go(fake: Fake, node: Make) -> None:
    fake.set_gpus(["H100"] * 2)
    one = fake.gpu(0)
    a = node(enable_gpu_mig=True)
    utilization = "esnode_gpu_utilization_percent"

    page = a.tick()
    assert "esnode_mig_info" not in page.families
    assert page.get(utilization, gpu=0) == 0

    instances(fake, 0, Mig("1g.10gb", gi=7), Mig("1g.10gb", gi=8))
    compare(a.pair(), Oracle())
    instances(fake, 0, None, Mig("1g.10gb", gi=8), Mig("3g.40gb", gi=2, start=4))
    compare(a.pair(), Oracle())
    instances(fake, 1, Mig("3g.40gb", gi=1))
    compare(a.pair(), Oracle())
    one.mig([])
    page = a.pair()
    compare(page, Oracle())
    assert page.of("esnode_mig_info", gpu=0) == {}
    assert page.get(utilization, gpu=0) is None

    one.mig(None)
    page = a.tick()
    assert page.get(utilization, gpu=0) == 0, "supported again"
    compare(a.pair(), Oracle())
    assert a.errors == 0


def test_an_instance_is_made_anew_between_two_ticks(fake: Fake, node: Make) -> None:
    """It has the UUID of the one before, which follows from its place."""
    fake.set_gpus(["H100"])
    instances(fake, 0, Mig("1g.10gb", gi=7))
    a = node(enable_gpu_mig=True)
    before = a.pair()
    assert before.get("esnode_mig_sm_active_ratio") is not None
    instances(fake, 0, Mig("1g.10gb", gi=7))
    a.pair()
    compare(a.pair(), Oracle())


def test_an_instance_of_another_profile_in_its_place(fake: Fake, node: Make) -> None:
    fake.set_gpus(["H100"])
    instances(fake, 0, Mig("1g.10gb", gi=7))
    a = node(enable_gpu_mig=True)
    a.pair()
    instances(fake, 0, Mig("1g.20gb", gi=7))
    a.pair()
    compare(a.pair(), Oracle())


def test_a_gpu_leaves_with_its_instances(fake: Fake, node: Make) -> None:
    fake.set_gpus(["H100"] * 2)
    instances(fake, 0, Mig("1g.10gb", gi=7))
    instances(fake, 1, Mig("3g.40gb", gi=1))
    a = node(enable_gpu_mig=True)
    assert len(a.pair().of("esnode_mig_info")) == 2
    fake.gpu(0).remove()
    page = a.pair()
    assert page.of("esnode_mig_info", gpu=0) == {}
    assert len(page.of("esnode_mig_info", gpu=1)) == 1
