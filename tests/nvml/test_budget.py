"""What 16 GPUs cost: their series beside a large host's, and memory over many ticks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from esnode.agent import Agent
from esnode.config import Settings
from tests import bighost
from tests.fakenvml import Fake, Mig
from tests.hosts import config
from tests.process import SANITIZED, descriptors, resident, threads

from .node import Node
from .scripted import samples

Make = Callable[..., Node]
NOW = 10**15
#: Of the degradation of one GPU.
FLAGS = 5


def host(root: Path) -> int:
    """The series of a host of 256 cores."""
    bighost.write(root)
    agent = Agent(Settings(config(root)))
    for _ in range(2):
        agent.read()
    for sampler in agent.samplers:
        for lane in sampler.lanes:
            for part in lane.parts:
                part.collector.stop()
    return sum(entry.snapshot.present for entry in agent.store.lanes.values())


def flags(fake: Fake, root: Path) -> int:
    """The series of the GPUs' degradation, when all of it is known."""
    off = {f"enable_{name}": False for name in ("cpu", "memory", "disk", "network", "power")}
    settings = config(
        root, nvml_library=str(fake.path), **{**off, "enable_gpu": True, "enable_gpu_events": True}
    )
    agent = Agent(Settings(settings))
    for _ in range(2):
        agent.read()
    names = [metric.name for metric, _, _ in agent.store.lanes["derived"].snapshot.items()]
    assert agent.gpus is not None
    agent.gpus.stop()
    agent.gpus.close()
    return sum(name.startswith("esnode_gpu_degradation_") for name in names)


@pytest.fixture(scope="module")
def of_host(tmp_path_factory: pytest.TempPathFactory) -> int:
    return host(tmp_path_factory.mktemp("host"))


@pytest.mark.parametrize("model", ["H100", "B200", "GB200"])
@pytest.mark.parametrize("mig", [False, True])
def test_series_stay_within_their_budget(
    fake: Fake, node: Make, of_host: int, tmp_path: Path, model: str, mig: bool
) -> None:
    fake.set_gpus([model] * 16)
    profile = {"H100": "1g.10gb", "B200": "1g.23gb", "GB200": "1g.24gb"}[model]
    for slot in range(16):
        samples(fake, slot, NOW)
        if mig:
            fake.gpu(slot).mig([Mig(profile, gi=7 + i, start=i) for i in range(7)])
    page = node(enable_gpu_mig=mig, k8s_mode=mig).pair()
    assert len(page.of("esnode_gpu_up")) == 16
    assert len(page.of("esnode_mig_info")) == (112 if mig else 0)
    gpus = len(page.rows) + 16 * FLAGS
    assert flags(fake, tmp_path) == 16 * FLAGS
    families = Counter(family for family, _ in page.rows)
    for family, count in families.most_common(12):
        print(f"{count:6} {family}")
    print(f"{model}, {'with' if mig else 'without'} MIG: {gpus} and the host's {of_host}:", end=" ")
    print(f"{gpus + of_host} series, {gpus / 16:.1f} for each GPU")
    assert gpus + of_host <= (6500 if mig else 4600)


@pytest.mark.parametrize("mig", [False, True])
def test_many_ticks_cost_no_more_than_the_first(fake: Fake, node: Make, mig: bool) -> None:
    """Quiet ones, and ones in which something comes or goes. What the allocator has taken by then
    it keeps, a megabyte at most, and takes no more."""
    fake.set_gpus(["H100"] * 8)
    profile = [Mig("1g.10gb", gi=7 + i, start=i) for i in range(7)]
    if mig:
        fake.gpu(0).mig(profile)
    a = node(enable_gpu_mig=mig, gpu_process_metrics=True, gpu_detail=True)

    def trouble(count: int) -> None:
        for turn in range(count):
            fake.gpu(1).processes(compute=[(turn * 10 + n, n) for n in range(turn % 5)])
            fake.gpu(2).mig(profile[: turn % 8] if mig else None)
            if turn % 10 == 0:
                fake.reload()
                a.follow()
            if turn % 10 == 5:
                fake.gpu(7).remove()
                a.tick()
                fake.add(7, "H100")
            if turn % 10 == 7:
                fake.gpu(3).lose()
                a.tick()
                fake.gpu(3).recover()
            a.tick()

    trouble(100)
    a.tick(2500)
    before = resident()
    holds = descriptors(), threads()
    a.tick(2000)
    trouble(100)
    grown = resident() - before
    print(f"{grown / 1024:.0f} KiB more after 2,000 ticks and 100 changes")
    assert descriptors() <= holds[0]
    assert threads() <= holds[1]
    if not SANITIZED:
        assert grown < 512 * 1024
    assert a.errors < 10_000
