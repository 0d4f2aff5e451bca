"""Who takes an export: the real VictoriaMetrics, and promtool with the real Prometheus."""

from __future__ import annotations

import http.client
import json
import re
import shutil
import subprocess
from pathlib import Path
from urllib.parse import urlencode

import pytest

from tests.running import free_port, wait_for
from tests.tsdb.written import History, metric

needs_victoria = pytest.mark.skipif(
    shutil.which("victoria-metrics") is None, reason="no victoria-metrics is installed"
)
needs_prometheus = pytest.mark.skipif(
    not (shutil.which("prometheus") and shutil.which("promtool")),
    reason="no prometheus is installed, or no promtool",
)


class Receiver:
    """A server of time series on the loopback, which can be killed and started again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.start()

    def command(self) -> list[str]:
        raise NotImplementedError

    def start(self) -> None:
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                self.command(), cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        wait_for(lambda: self.ask("GET", "/-/ready" if self.ready else "/health")[0] == 200, "up")

    ready = False

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def ask(self, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        """(status, body) of an answer; status 0 where there is none."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body)
            response = connection.getresponse()
            return response.status, response.read()
        except OSError:
            return 0, b""
        finally:
            connection.close()


class Victoria(Receiver):
    def command(self) -> list[str]:
        return [
            "victoria-metrics",
            f"-storageDataPath={self.folder / 'data'}",
            f"-httpListenAddr=127.0.0.1:{self.port}",
            "-retentionPeriod=100y",
            "-search.latencyOffset=0s",
        ]

    def held(self) -> History:
        """All of its samples as they are, in the order of their times; duplicates once."""
        self.ask("GET", "/internal/force_flush")
        query = urlencode({"match[]": '{__name__!=""}', "start": "0"})
        status, body = self.ask("GET", f"/api/v1/export?{query}")
        assert status == 200
        found: dict[bytes, set[tuple[int, float]]] = {}
        for row in body.splitlines():
            line = json.loads(re.sub(rb"\+?Inf\b", b"Infinity", row))  # as older ones have it
            name = line["metric"].pop("__name__")
            series = metric(name, **dict(sorted(line["metric"].items())))
            pairs = zip(line["timestamps"], map(float, line["values"]), strict=True)
            found.setdefault(series, set()).update(pairs)
        return {series: sorted(samples) for series, samples in found.items()}


class Prometheus(Receiver):
    ready = True

    def command(self) -> list[str]:
        (self.folder / "empty.yml").write_text("")
        return [
            "prometheus",
            f"--config.file={self.folder / 'empty.yml'}",
            f"--storage.tsdb.path={self.folder / 'data'}",
            "--storage.tsdb.retention.time=100y",
            f"--web.listen-address=127.0.0.1:{self.port}",
        ]

    def held(self, start: int, end: int) -> History:
        """Its samples of a range in milliseconds, both ends included."""
        found: History = {}
        query = '{__name__=~"esnode_.*"}' + f"[{end - start + 1}ms]"
        asked = urlencode({"query": query, "time": end / 1000})
        status, body = self.ask("GET", f"/api/v1/query?{asked}")
        assert status == 200, body
        for each in json.loads(body)["data"]["result"]:
            labels = each["metric"]
            series = metric(labels.pop("__name__"), **dict(sorted(labels.items())))
            found[series] = [(round(at * 1000), float(value)) for at, value in each["values"]]
        return found
