"""`status`, `check`, `events` and `diagnostics` with a live agent, on a fixture host and the fake's
GPUs: what they show is what the agent's page says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from .fakenvml import GPU_IS_LOST, Fake, library
from .running import Agent, run, series, wait_for

FIXTURE = Path(__file__).parent / "fixtures/hosts/small-vm"


class Live(NamedTuple):
    agent: Agent
    fake: Fake

    @property
    def to(self) -> tuple[str, str]:
        return ("--listen-address", self.agent.address)


@pytest.fixture
def live(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Live]:
    """An agent with four GPUs."""
    fake = Fake(library(), state=tmp_path / "nvml")
    fake.set_gpus(["H100"] * 4)
    for name, value in fake.environment().items():
        monkeypatch.setenv(name, value)
    flags = [f"--path-procfs={FIXTURE}/proc", f"--path-sysfs={FIXTURE}/sys"]
    library_flag = f"--nvml-library={fake.path}"
    events = "--enable-gpu-events"
    with Agent(*flags, library_flag, events, "--scrape-interval", "0.2") as agent:
        wait_for(lambda: len(agent.series()) > 100, "all is read")
        yield Live(agent, fake)


def test_status_agrees_with_the_page(live: Live) -> None:
    document = json.loads(run(*live.to, "status", "--json").stdout)
    page = series(run(*live.to, "metrics").stdout)
    # What does not change while the files do not.
    assert document["mem_total_bytes"] == page["esnode_memory_total_bytes"]
    assert document["load_avg_1m"] == page["esnode_cpu_load_avg_1m"]
    for gpu in document["gpus"]:
        labels = f'{{gpu="{gpu["gpu"]}",uuid="{gpu["uuid"]}"}}'
        assert gpu["memory_total_bytes"] == page[f"esnode_gpu_memory_total_bytes{labels}"]
    shown = run(*live.to, "status")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "4 x H100" in shown.stdout
    assert shown.stdout.startswith(document["hostname"])
    assert sum(line.split()[:1] == [str(at)] for at, line in enumerate(table(shown.stdout))) == 4


def table(screen: str) -> list[str]:
    """The lines of GPUs."""
    lines = screen.splitlines()
    start = next(at for at, line in enumerate(lines) if line.startswith("GPU  UTIL"))
    return lines[start + 1 : start + 5]


def test_a_lost_gpu_is_seen_by_all(live: Live) -> None:
    done = run(*live.to, "check")
    assert (done.returncode, done.stdout) == (0, "fit for work: 4 GPUs in order\n")
    live.fake.script(slot=2, code=GPU_IS_LOST)
    wait_for(lambda: run(*live.to, "check").returncode == 1, "the node is not fit")
    assert run(*live.to, "check").stdout.startswith("GPU 2 is lost")
    assert "LOST" in table(run(*live.to, "status").stdout)[2]
    done = run(*live.to, "events")
    assert (done.returncode, done.stderr) == (0, "")


def test_a_grave_xid_makes_the_node_unfit(live: Live) -> None:
    live.fake.gpu(1).event(8, 79)
    wait_for(lambda: run(*live.to, "check").returncode == 1, "the node is not fit")
    assert run(*live.to, "check").stdout.startswith("GPU 1: Xid 79 ")
    done = run(*live.to, "check", "--xid-hours", "0")
    assert (done.returncode, done.stdout) == (0, "fit for work: 4 GPUs in order\n")


def test_diagnostics_ask_the_agent(live: Live) -> None:
    done = run(*live.to, "diagnostics", "--json")
    found = {each["subject"]: each for each in json.loads(done.stdout)["findings"]}
    assert found["agent"]["level"] == "ok"
    assert live.agent.address in found["agent"]["text"]
