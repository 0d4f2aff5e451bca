"""Exports of a running agent."""

from __future__ import annotations

import time
from pathlib import Path

from prometheus_client.openmetrics.parser import text_string_to_metric_families

from tests.running import Agent, series


def test_what_is_not_flushed_is_exported_and_what_is_comes_once(tmp_path: Path) -> None:
    flags = (
        "--enable-local-tsdb",
        "--local-tsdb-path",
        str(tmp_path),
        "--scrape-interval",
        "100ms",
    )
    with Agent(*flags) as agent:
        names: set[str] = set()
        stamps: list[int] = []
        for _ in range(3):
            time.sleep(0.5)
            text = agent.get("/tsdb/export").body
            assert text.endswith(b"\n# EOF\n")
            rows = [line.rsplit(" ", 2) for line in text.decode().splitlines()[:-1]]
            names = {name for name, _, _ in rows}
            keys = [(name, stamp) for name, _, stamp in rows]
            assert len(keys) == len(set(keys))
            now = [int(stamp) for name, _, stamp in rows if name == "esnode_memory_total_bytes"]
            assert now == sorted(now)
            assert now[: len(stamps)] == stamps
            assert len(now) >= len(stamps) + 3
            stamps = now
        assert abs(time.time() * 1000 - stamps[-1]) < 1000
        page = set(series(agent.get().body))
        # Those that the first page counts were not there yet.
        assert len(page - names) <= 0.01 * len(page)
        openmetrics = agent.get("/tsdb/export?format=openmetrics").body.decode()
        families = {family.name for family in text_string_to_metric_families(openmetrics)}
        assert "esnode_cpu_context_switches" in families
        one = agent.get(
            f"/tsdb/export?from={stamps[1]}&to={stamps[2]}&metrics=esnode_memory_total_*"
        )
        assert [int(row.split()[-1]) for row in one.body.decode().splitlines()[:-1]] == stamps[1:3]
        assert agent.get("/tsdb/export?metrics=%25").status == 400
        assert agent.end()[0] == 0
