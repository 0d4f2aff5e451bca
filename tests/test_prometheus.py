"""A real Prometheus server scrapes the real agent."""

from __future__ import annotations

import http.client
import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from . import process
from .running import Agent, free_port, wait_for

CONFIG = """
global:
  scrape_interval: 1s
  scrape_timeout: 500ms
scrape_configs:
  - job_name: esnode
    static_configs:
      - targets: ["{target}"]
"""


class Prometheus:
    """A Prometheus server on the loopback that scrapes one agent each second."""

    def __init__(self, folder: Path, agent: Agent) -> None:
        self.port = free_port()
        file = folder / "prometheus.yml"
        file.write_text(CONFIG.format(target=agent.address))
        self.log = (folder / "log").open("w+b")
        self.process = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={file}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{self.port}",
            ],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=self.log,
            stderr=self.log,
        )

    def ask(self, path: str, **parameters: str) -> Any:
        """The data of an answer of its API; None as long as it does not answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request("GET", f"/api/v1/{path}?{urlencode(parameters)}")
            response = connection.getresponse()
            return json.loads(response.read())["data"] if response.status == 200 else None
        except OSError:
            return None
        finally:
            connection.close()

    def query(self, expression: str) -> list[float]:
        """The values of an instant query."""
        data = self.ask("query", query=expression)
        return [] if data is None else [float(row["value"][1]) for row in data["result"]]

    def stop(self) -> None:
        process.end(self.process, 10)
        self.log.close()


@pytest.fixture
def agent() -> Iterator[Agent]:
    with Agent("--scrape-interval", "1s") as running:
        yield running


@pytest.fixture
def prometheus(agent: Agent, tmp_path: Path) -> Iterator[Prometheus]:
    if shutil.which("prometheus") is None:
        pytest.skip("Debian's package prometheus is not installed")
    server = Prometheus(tmp_path, agent)
    yield server
    server.stop()


def test_prometheus_scrapes_the_agent(agent: Agent, prometheus: Prometheus) -> None:
    query = prometheus.query
    wait_for(
        lambda: query("count_over_time(up[1m])") >= [3.0], "Prometheus has scraped three times", 30
    )
    assert query("min_over_time(up[1m])") == [1]
    (target,) = prometheus.ask("targets", state="active")["activeTargets"]
    assert (target["health"], target["lastError"]) == ("up", "")

    # Every series of a page is there under its name and with its labels, and none besides.
    end = time.monotonic() + 10
    page = set(agent.series())
    while query("scrape_samples_scraped") != [len(page)] and time.monotonic() < end:
        time.sleep(0.2)  # a row may have come or gone since the last scrape
        page = set(agent.series())
    assert query("scrape_samples_scraped") == [len(page)]
    assert query("scrape_samples_post_metric_relabeling") == [len(page)]
    assert query('count({job="esnode",__name__=~"esnode_.+"})') == [len(page)]
    for name in page:
        assert len(query(name)) == 1, name

    (total,) = query("esnode_memory_total_bytes")
    assert total == agent.series()["esnode_memory_total_bytes"]
    assert query("rate(esnode_cpu_context_switches_total[10s])") > [0.0]
    (metadata,) = prometheus.ask("metadata", metric="esnode_memory_total_bytes").values()
    assert (metadata[0]["type"], metadata[0]["help"] != "") == ("gauge", True)

    prometheus.log.seek(0)
    log = prometheus.log.read().decode()
    assert "level=warn" not in log
    assert "level=error" not in log
