"""The limit of descriptors, and an agent that may have few of them."""

from __future__ import annotations

import http.client
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial

import pytest

from esnode.collectors import COLLECTORS
from esnode.collectors.device import Devices
from esnode.collectors.power import PACKAGE_POWER
from tests import bighost
from tests.running import Agent, command, environment, series, wait_for

#: The families of devices; power over a tick is not there before the second one.
FAMILIES = {
    metric.name for cls in COLLECTORS if issubclass(cls, Devices) for metric in cls.metrics
} - {PACKAGE_POWER.name}
FEW = 128
CONNECTIONS = 20


def at_most(number: int) -> Callable[[], None]:
    """What lowers the limit of the process that calls it, for good."""
    return partial(resource.setrlimit, resource.RLIMIT_NOFILE, (number, number))


@pytest.fixture(scope="module")
def flags(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The flags of an agent on a host with hundreds of files of devices."""
    root = tmp_path_factory.mktemp("bighost")
    bighost.write(root)
    paths = {"procfs": f"{root}/proc", "sysfs": f"{root}/sys", "rootfs": str(root)}
    return [word for name, path in paths.items() for word in (f"--path-{name}", path)]


@pytest.fixture(scope="module")
def expected(flags: list[str]) -> dict[str, float]:
    """The rows of its devices, with as many descriptors as there can be."""
    if resource.getrlimit(resource.RLIMIT_NOFILE)[1] < 2000:
        pytest.skip("too few descriptors may be open here")
    with Agent(*flags) as agent:
        wait_for(lambda: bool(devices(agent)), "the rows are there")
        rows = devices(agent)
        assert len(rows) > 500
        assert agent.descriptors > 500
        assert "descriptors" not in agent.log
        return rows


def devices(agent: Agent) -> dict[str, float]:
    return of_devices(agent.series())


def of_devices(rows: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in rows.items() if name.partition("{")[0] in FAMILIES}


def test_few_descriptors_cost_no_row_and_no_client(
    flags: list[str], expected: dict[str, float]
) -> None:
    with Agent(*flags, start=at_most(FEW)) as agent:
        wait_for(lambda: devices(agent) == expected, "all rows are there")
        clients = [http.client.HTTPConnection(agent.host, agent.port) for _ in range(CONNECTIONS)]
        for _ in range(3):
            for client in clients:
                client.request("GET", "/metrics")
            for client in clients:
                assert of_devices(series(client.getresponse().read())) == expected
        for client in clients:
            client.close()
        assert devices(agent) == expected
        assert agent.descriptors < FEW
        assert agent.log.count("more files than descriptors") == 1
        assert "Too many open files" not in agent.log


def test_idle_clients_leave_descriptors_for_readings() -> None:
    with Agent("--scrape-interval", "100ms", start=at_most(FEW)) as agent:
        agent.series()
        clients = [agent.connect() for _ in range(2 * FEW)]
        time.sleep(1)
        assert agent.descriptors < FEW
        for client in clients:
            client.close()
        errors = {k: v for k, v in agent.series().items() if "_errors_total{collector=" in k}
        assert errors and not any(errors.values())
        assert "Too many open files" not in agent.log


def test_one_page_with_few_descriptors(flags: list[str], expected: dict[str, float]) -> None:
    once = subprocess.run(
        command("--once", *flags),
        env=environment(),
        preexec_fn=at_most(FEW),
        capture_output=True,
        timeout=30,
    )
    assert of_devices(series(once.stdout)) == expected
    assert once.stderr.count(b"more files than descriptors") == 1


LIMITS = """
import logging, resource, sys
from esnode import agent
from esnode._fast import values

logging.basicConfig(level="WARNING", format="%(message)s")
set_to = []
values.limit = set_to.append
resource.setrlimit(resource.RLIMIT_NOFILE, tuple(map(int, sys.argv[1:])))
agent.raise_descriptor_limit()
print(resource.getrlimit(resource.RLIMIT_NOFILE)[0], *set_to)
"""


@pytest.mark.parametrize(
    ("soft", "hard", "raised"),
    [
        (1024, 1024, "1024 512"),
        (64, 1024, "1024 512"),
        (100, 100, "100 0"),
        (128, 128, "128 0"),
        (255, 255, "255 0"),
        (256, 256, "256 128"),
        (1001, 1001, "1001 500"),
    ],
)
def test_half_of_the_descriptors_are_left_for_others(soft: int, hard: int, raised: str) -> None:
    script = [sys.executable, "-c", LIMITS, str(soft), str(hard)]
    done = subprocess.run(script, capture_output=True, text=True, timeout=30)
    assert done.stdout.strip() == raised, done.stderr
    assert done.stderr == ""
