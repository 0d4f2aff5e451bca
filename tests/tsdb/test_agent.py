"""The real agent with its history."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import pytest

from esnode.tsdb.layout import OPEN
from tests.running import Agent, run, wait_for
from tests.tsdb.history import Sample, held, parse

QUICK = ("--scrape-interval", "100ms", "--enable-local-tsdb", "--local-tsdb-path")
KILLS = 300 if os.environ.get("ESNODE_SOAK") else 20


def test_every_tick_is_recorded_and_the_end_loses_none(tmp_path: Path) -> None:
    with Agent(*QUICK, str(tmp_path)) as agent:
        time.sleep(2)
        page = agent.series()
        assert page["esnode_agent_tsdb_errors_total"] == 0
        began = time.time()
        code, seconds = agent.end()
    assert (code, seconds < 5) == (0, True)
    found = held(tmp_path)
    own = {name for name in page if name.startswith("esnode_agent")}
    names = {name for name, _, _ in found}
    for metric in ("esnode_cpu_context_switches_total", "esnode_agent_series"):
        (series,) = (name for name in names if f'"{metric}"' in name)
        stamps = [stamp for name, stamp, _ in found if name == series]
        assert len(stamps) >= 15
        assert max(stamps) >= (began - 1) * 1000, "what the last ticks read is there, too"
    assert len(names) >= len(own)


def test_an_operator_asks_for_a_flush(tmp_path: Path) -> None:
    with Agent(*QUICK, str(tmp_path)) as agent:
        for _ in range(2):  # before the half minute is over
            time.sleep(0.3)
            before = raw(tmp_path)
            now = time.time() * 1000
            agent.process.send_signal(signal.SIGWINCH)
            wait_for(lambda seen=before: raw(tmp_path) > seen, "it is written")
            assert max(stamp for _, stamp, _ in raw(tmp_path)) > now - 1000
    with Agent("--local-tsdb-path", str(tmp_path / "none")) as agent:
        agent.process.send_signal(signal.SIGWINCH)
        assert agent.get().status == 200


def test_a_second_agent_on_the_path_refuses(tmp_path: Path) -> None:
    with Agent(*QUICK, str(tmp_path)) as agent:
        done = run("--listen-address", "127.0.0.1:0", *QUICK, str(tmp_path))
        assert done.returncode == 2, "no port"
        done = run("--listen-address", f"127.0.0.2:{agent.port}", *QUICK, str(tmp_path))
        assert done.returncode == 1
        assert f"{tmp_path}: another agent" in done.stderr
        assert "Traceback" not in done.stderr
        assert agent.get().status == 200


def test_an_agent_without_history_keeps_none(tmp_path: Path) -> None:
    with Agent("--local-tsdb-path", str(tmp_path / "tsdb")) as agent:
        assert not [name for name in agent.series() if "_tsdb_" in name]
    assert not (tmp_path / "tsdb").exists()


def raw(path: Path) -> set[Sample]:
    """The samples of the whole lines in the open blocks, as json reads them. Of two ticks in one
    millisecond, as a busy machine makes them after a late one, the second counts."""
    found: dict[tuple[str, int], float] = {}
    for file in path.glob(f"*/{OPEN}"):
        for line in file.read_bytes().splitlines(keepends=True):
            if line.endswith(b"\n"):
                found |= {(series, stamp): value for series, stamp, value in parse(line)}
    return {(*key, value) for key, value in found.items()}


@pytest.mark.usefixtures("restless")
def test_killed_at_any_moment(tmp_path: Path) -> None:
    """What was written is there after kill -9 and a restart, once, and each kill adds to it."""
    chance = random.Random(5)
    written: set[Sample] = set()
    for _ in range(KILLS):
        with Agent(*QUICK, str(tmp_path)) as agent:
            wait_for(lambda before=written: bool(raw(tmp_path) - before), "a flush")
            time.sleep(chance.random() / 5)
            seen = held(tmp_path)
            agent.process.kill()
            agent.process.wait()
        found = held(tmp_path)
        assert len(found) == len(set(found))
        assert written < set(found)
        assert set(seen) <= set(found)
        written = raw(tmp_path)
        assert set(found) == written
