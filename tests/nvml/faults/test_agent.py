"""The real agent with the fake's GPUs: it is on time, lets go, and starts anew for a new driver."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests import fakenvml
from tests.fakenvml import LIB_RM_VERSION_MISMATCH, Fake, Mig
from tests.running import Agent, run, series, wait_for

#: Seconds between two ticks, and what a scrape may wait for a fresh reading.
INTERVAL = 0.5
WAIT = 0.05

Start = Callable[..., Agent]


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fake]:
    """Eight GPUs, for every process that is started."""
    fake = Fake(fakenvml.library(), tmp_path / "nvml")
    for name, value in fake.environment().items():
        monkeypatch.setenv(name, value)
    fake.reset()
    fake.set_gpus(["H100"] * 8)
    for slot in range(8):
        fake.gpu(slot).set("utilization_gpu", 10 + slot)
    yield fake
    fake.release()
    Fake(fake.path)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A /sys with the version of the driver."""
    (tmp_path / "sys/module/nvidia").mkdir(parents=True)
    (tmp_path / "sys/module/nvidia/version").write_text("580.95.05\n")
    return tmp_path / "sys"


@pytest.fixture
def start(fake: Fake, tree: Path) -> Start:
    def start(*flags: str) -> Agent:
        return Agent(
            *("--scrape-interval", str(INTERVAL), "--scrape-max-age", "0"),
            *("--nvml-library", str(fake.path), "--path-sysfs", str(tree), *flags),
        )

    return start


def value(agent: Agent, name: str) -> float | None:
    """The only row of a family on a fresh page."""
    return agent.series().get(name)


def by_gpu(page: dict[str, float], name: str) -> dict[str, float]:
    found = {}
    for key, number in page.items():
        if match := re.fullmatch(rf'{name}{{gpu="(\d+)".*}}', key):
            found[match[1]] = number
    return found


def up(agent: Agent) -> list[str]:
    page = by_gpu(agent.series(), "esnode_gpu_up")
    return sorted(gpu for gpu, number in page.items() if number)


ALL = [str(n) for n in range(8)]
OTHERS = [gpu for gpu in ALL if gpu != "3"]


def test_scrapes_are_on_time_while_a_gpu_hangs(fake: Fake, start: Start) -> None:
    with start() as agent:
        wait_for(lambda: up(agent) == ALL, "all are up")
        took = []

        def scrape() -> dict[str, float]:
            began = time.monotonic()
            page = agent.series()
            took.append(time.monotonic() - began)
            return page

        fake.gpu(3).hang("nvmlDeviceGetMemoryInfo_v2")
        # Also those that come while its deadline has not passed.
        wait_for(lambda: by_gpu(scrape(), "esnode_gpu_stuck").get("3") == 1, "it is seen")
        for round in range(20):
            fake.gpu(5).set("utilization_gpu", 50 + round)
            page = scrape()
            assert by_gpu(page, "esnode_gpu_utilization_percent")["5"] == 50 + round
            assert "3" not in by_gpu(page, "esnode_gpu_utilization_percent")
            assert sum(by_gpu(page, "esnode_gpu_up").values()) == 7
        took.sort()
        assert took[len(took) // 2] < WAIT + 0.1
        assert took[-1] < WAIT + 1
        threads = len(list(Path(f"/proc/{agent.process.pid}/task").iterdir()))
        time.sleep(2 * INTERVAL)
        assert len(list(Path(f"/proc/{agent.process.pid}/task").iterdir())) <= threads
        fake.release()
        wait_for(lambda: up(agent) == ALL, "all are up again")
        assert agent.log.count("has not returned") == 1


@pytest.mark.parametrize("function", [None, "nvmlDeviceGetCount_v2"])
def test_the_agent_ends_at_once_while_a_gpu_hangs(
    function: str | None, fake: Fake, start: Start
) -> None:
    with start("--enable-gpu-events") as agent:
        wait_for(lambda: up(agent) == ALL, "all are up")
        if function is None:
            fake.gpu(3).hang()
        else:
            fake.hang(function)
        time.sleep(INTERVAL * 1.2)
        code, took = agent.end()
        assert code == 0
        assert took < 3
        assert "Traceback" not in agent.log


def test_the_driver_hangs_at_the_start(fake: Fake, start: Start) -> None:
    fake.hang("nvmlInit_v2")
    with start() as agent:
        wait_for(lambda: value(agent, "esnode_gpu_driver_up") == 0, "there is a page")
        assert by_gpu(agent.series(), "esnode_gpu_up") == {}
        fake.release()
        wait_for(lambda: value(agent, "esnode_gpu_driver_up") == 1, "the driver is up")
        wait_for(lambda: up(agent) == ALL, "all are up")
        assert agent.end()[0] == 0


def test_it_ends_while_the_driver_hangs_at_the_start(fake: Fake, start: Start) -> None:
    fake.hang("nvmlInit_v2")
    with start() as agent:
        wait_for(lambda: value(agent, "esnode_gpu_driver_up") == 0, "there is a page")
        code, took = agent.end()
        assert (code, took < 3) == (0, True)


def test_a_page_of_one_call(fake: Fake, tree: Path) -> None:
    fake.gpu(1).mig([Mig("1g.10gb", 7)])
    fake.gpu(3).hang("nvmlDeviceGetMemoryInfo_v2")
    done = run(
        *("--once", "--nvml-library", str(fake.path), "--path-sysfs", str(tree)),
        *("--enable-gpu-mig", "--scrape-interval", str(INTERVAL)),
    )
    assert done.returncode == 0, done.stderr
    page = series(done.stdout)
    assert page["esnode_gpus"] == 8
    assert sorted(by_gpu(page, "esnode_gpu_utilization_percent")) == [
        gpu for gpu in OTHERS if gpu != "1"
    ]
    assert len(by_gpu(page, "esnode_mig_info")) == 1


# Letting go.


def send(agent: Agent, what: str) -> None:
    done = run("--listen-address", agent.address, "gpu", what)
    assert done.returncode == 0, done.stderr


def test_release_and_attach(fake: Fake, start: Start) -> None:
    with start("--enable-gpu-events", "--gpu-release", "60") as agent:
        wait_for(lambda: up(agent) == ALL, "all are up")
        fake.forget_calls()
        send(agent, "release")
        wait_for(lambda: value(agent, "esnode_gpu_driver_released") == 1, "it is let go of")
        assert fake.calls()["nvmlShutdown", -1] == 1
        fake.forget_calls()
        page = agent.series()
        assert page["esnode_gpu_driver_up"] == 0
        assert not [key for key in page if key.startswith("esnode_gpu_") and "uuid=" in key]
        time.sleep(3 * INTERVAL)
        agent.series()
        assert fake.calls() == {}, "nothing is asked meanwhile"
        assert fake.gpm_samples() == 0
        send(agent, "attach")
        wait_for(lambda: up(agent) == ALL, "all are up again")
        assert value(agent, "esnode_gpu_driver_released") == 0
        assert fake.calls()["nvmlInit_v2", -1] == 1
        assert agent.end()[0] == 0


def test_it_attaches_by_itself(fake: Fake, start: Start) -> None:
    with start("--gpu-release", "1") as agent:
        wait_for(lambda: up(agent) == ALL, "all are up")
        send(agent, "release")
        wait_for(lambda: value(agent, "esnode_gpu_driver_released") == 1, "it is let go of")
        began = time.monotonic()
        wait_for(lambda: up(agent) == ALL, "all are up again")
        assert time.monotonic() - began < 5
        assert value(agent, "esnode_gpu_driver_released") == 0


def test_release_while_a_gpu_hangs(fake: Fake, start: Start) -> None:
    """It is let go of as soon as the call returns, and not said to be before."""
    with start() as agent:
        wait_for(lambda: up(agent) == ALL, "all are up")
        fake.gpu(3).hang("nvmlDeviceGetMemoryInfo_v2")
        wait_for(lambda: up(agent) == OTHERS, "it hangs")
        send(agent, "release")
        wait_for(lambda: up(agent) == [], "it is not read any more")
        assert value(agent, "esnode_gpu_driver_released") == 0
        assert ("nvmlShutdown", -1) not in fake.calls()
        fake.release()
        wait_for(lambda: value(agent, "esnode_gpu_driver_released") == 1, "it is let go of")
        assert fake.calls()["nvmlShutdown", -1] == 1


# Another driver.


def image(agent: Agent) -> bytes:
    """What tells a process image from the next one of the same process: its stack's place."""
    return Path(f"/proc/{agent.process.pid}/auxv").read_bytes()


def test_a_new_driver_gets_a_new_process(fake: Fake, start: Start, tree: Path) -> None:
    """Once for each version."""
    with start() as agent:
        wait_for(lambda: up(agent) == ALL, "all are up")
        for version in ("590.10", "595.20"):
            before = image(agent)
            (tree / "module/nvidia/version").write_text(version + "\n")
            fake.reload(init=LIB_RM_VERSION_MISMATCH, stale=LIB_RM_VERSION_MISMATCH)
            wait_for(lambda old=before: image(agent) != old, "it is another image")
            wait_for(agent.ready, "it serves again")
            # The library is still the old one, as in an image whose files were not replaced.
            again = image(agent)
            wait_for(lambda: value(agent, "esnode_gpu_driver_up") == 0, "the driver is not up")
            time.sleep(INTERVAL)
            send(agent, "attach")
            time.sleep(INTERVAL)
            assert image(agent) == again, "it is not replaced again"
            assert agent.process.poll() is None
            assert agent.log.count(f"starts anew, with the library of driver {version}") == 1
            assert not by_gpu(agent.series(), "esnode_gpu_up")
            fake.reload()
            send(agent, "attach")  # it would try again by itself some seconds later
            wait_for(lambda: up(agent) == ALL, "all are up")
        code, took = agent.end()
        assert (code, took < 3) == (0, True)


def test_a_driver_that_is_newer_from_the_start(fake: Fake, start: Start) -> None:
    """The signals' handlers may not be there yet: it starts anew, once, and does not end."""
    fake.reload(init=LIB_RM_VERSION_MISMATCH)
    with start() as agent:
        wait_for(lambda: "starts anew" in agent.log, "it has started anew")
        wait_for(agent.ready, "it serves")
        wait_for(lambda: value(agent, "esnode_gpu_driver_up") == 0, "the driver is not up")
        time.sleep(2 * INTERVAL)
        assert agent.log.count("starts anew") == 1
        assert agent.process.poll() is None
        assert os.getpgid(agent.process.pid)
        assert agent.end(signal.SIGINT)[0] == 0
