"""Exports taken by the real VictoriaMetrics and the real Prometheus, compared sample by sample."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from esnode.tsdb.export import Export
from esnode.tsdb.layout import WINDOW
from esnode.tsdb.select import select
from tests.tsdb.receivers import Prometheus, Victoria, needs_prometheus, needs_victoria
from tests.tsdb.written import DECLARED, START, History, made_up

#: VictoriaMetrics keeps 18 digits of all values of a series together, so these have few decimals.
HISTORY = made_up(windows=4, step=5_000, decimals=3)


@pytest.fixture
def victoria(tmp_path: Path) -> Iterator[Victoria]:
    victoria = Victoria(tmp_path)
    yield victoria
    victoria.kill()


def different(found: History, expected: History) -> dict[bytes, object]:
    """What is not the same, short enough to be read."""
    return {
        series: [
            sorted(set(found.get(series, [])) ^ set(expected.get(series, [])))[:5],
            len(found.get(series, [])),
            len(expected.get(series, [])),
        ]
        for series in {*found, *expected}
        if found.get(series) != expected.get(series)
    }


@needs_victoria
def test_victoriametrics_imports_jsonl(path: Path, victoria: Victoria) -> None:
    text = b"".join(Export(path, select(), "jsonl", eof=False))
    assert victoria.ask("POST", "/api/v1/import", text)[0] == 204
    assert different(victoria.held(), HISTORY) == {}


@needs_victoria
def test_victoriametrics_imports_prometheus_text(path: Path, victoria: Victoria) -> None:
    text = b"".join(Export(path, select(), "prometheus"))
    assert victoria.ask("POST", "/api/v1/import/prometheus", text)[0] == 204
    assert different(victoria.held(), HISTORY) == {}


@needs_prometheus
def test_prometheus_takes_the_blocks_that_promtool_makes(path: Path, tmp_path: Path) -> None:
    file = tmp_path / "export.om"
    file.write_bytes(b"".join(Export(path, select(), "openmetrics", DECLARED)))
    command = ["promtool", "tsdb", "create-blocks-from", "openmetrics", file, tmp_path / "data"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    prometheus = Prometheus(tmp_path)
    try:
        assert different(prometheus.held(START, START + 4 * WINDOW), HISTORY) == {}
    finally:
        prometheus.kill()
