"""`esnode-core gpu release` gives back all that is held of the driver; `attach` takes it again."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.running import Agent, run, wait_for

CONTROL = Path("/dev/nvidiactl")
#: How often the module is held; without it there is none, or no right to look.
USERS = Path("/sys/module/nvidia/refcnt")


@pytest.fixture
def agent(nvml: None) -> Iterator[Agent]:
    with Agent("--scrape-interval", "1s", "--enable-gpu-events") as running:
        yield running


def devices(agent: Agent) -> set[str]:
    """The devices of the driver that the agent has open, or has mapped."""
    folder = Path(f"/proc/{agent.process.pid}/fd")
    found = set()
    for entry in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):
            found.add(str(entry.readlink()))
    maps = Path(f"/proc/{agent.process.pid}/maps").read_text().split()
    return {name for name in [*found, *maps] if name.startswith("/dev/nvidia")}


def users() -> int | None:
    try:
        return int(USERS.read_text())
    except OSError:
        return None


def test_released_and_attached_again(agent: Agent) -> None:
    up = "esnode_gpu_driver_up"
    released = "esnode_gpu_driver_released"
    wait_for(lambda: agent.series().get(up) == 1, "the driver is up")
    held, before = devices(agent), users()
    gpus = {name for name in agent.series() if name.startswith("esnode_gpu_info")}
    assert gpus
    assert bool(held) == CONTROL.exists(), "where there are devices they are open"

    def tell(word: str) -> None:
        done = run("--listen-address", agent.address, "gpu", word)
        assert done.returncode == 0, done.stderr

    tell("release")
    wait_for(lambda: agent.series().get(released) == 1, "it says that the driver is released")
    wait_for(lambda: not devices(agent), "it has closed every device of the driver")
    series = agent.series()
    assert series[up] == 0
    gone = [name for name in series if name.startswith("esnode_gpu_") and "uuid=" in name]
    assert {name.split("_")[2] for name in gone} <= {"degradation"}, "which goes with the next tick"
    # Unloading the module is what an open device forbids: it is by so many users less away.
    after = users()
    if held and before is not None and after is not None:
        assert after < before

    tell("attach")
    wait_for(lambda: agent.series().get(up) == 1, "the driver is up again")
    assert agent.series()[released] == 0
    wait_for(
        lambda: {name for name in agent.series() if name.startswith("esnode_gpu_info")} == gpus,
        "the same GPUs are there",
    )
    assert devices(agent) == held
