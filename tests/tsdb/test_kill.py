"""Sealing that is cut off: the agent is killed in it, and every state that a crash can leave."""

from __future__ import annotations

import os
import random
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from esnode.tsdb import runs, seal
from esnode.tsdb.block import Open
from esnode.tsdb.layout import INDEX, NEW, OPEN, SEALED, WINDOW, name, window
from esnode.tsdb.reader import blocks
from esnode.tsdb.recorder import Recorder
from esnode.tsdb.verify import verify
from tests.running import Agent, wait_for
from tests.tsdb.history import START, Sample, held, many, samples

KILLS = 200 if os.environ.get("ESNODE_SOAK") else 6
ROWS = 40

Held = dict[tuple[str, int], float]


def append(path: Path, start: int, ticks: range, chance: random.Random) -> Held:
    """Adds ticks of a second to the block of a window, some to a flush; the samples."""
    source = many(ROWS)
    written: Held = {}
    file = Open(path, start)
    for first in range(ticks.start, ticks.stop, 50):
        flush = [
            source.tick(start + 1000 * number, [chance.random() for _ in range(ROWS)])
            for number in range(first, min(first + 50, ticks.stop))
        ]
        file.append(text for run in runs.by_window(flush)[start] for text, _ in runs.texts(run))
        for tick in flush:
            written |= {(series, stamp): value for series, stamp, value in samples(tick)}
    return written


def ours(path: Path) -> Held:
    """The samples there but for those that an agent has read by itself."""
    found: list[Sample] = held(path)
    return {(series, stamp): value for series, stamp, value in found if "esnode_" not in series}


@pytest.mark.usefixtures("restless")
def test_killed_while_it_seals(tmp_path: Path) -> None:
    """Blocks that an agent has left, and that get more, also over what there was."""
    chance = random.Random(7)
    first = window(int(time.time() * 1000)) - 3 * WINDOW
    starts = [first, first + WINDOW]
    wanted: Held = {}
    last = 0
    hit = 0

    def sealed() -> bool:
        return all(block.sealed for block in blocks(tmp_path) if block.start in starts)

    for number in range(KILLS):
        if sealed():
            for start in starts:
                wanted |= append(tmp_path, start, range(max(0, last - 30), last + 600), chance)
            last = (last + 600) % 1800
        agent = Agent("--enable-local-tsdb", "--local-tsdb-path", str(tmp_path))
        try:
            wait_for(lambda: any(tmp_path.glob(f"*/{SEALED}{NEW}")) or sealed(), "it seals")
            time.sleep(chance.random() * min(number / 20, 0.5))
        finally:
            agent.process.kill()
            agent.process.wait()
        hit += any(tmp_path.glob(f"*/{SEALED}{NEW}"))
        assert ours(tmp_path) == wanted
        assert list(verify(tmp_path)) == []
    assert hit
    with Agent("--enable-local-tsdb", "--local-tsdb-path", str(tmp_path)) as agent:
        wait_for(sealed, "it is sealed")
        assert agent.series()["esnode_agent_tsdb_errors_total"] == 0
    assert ours(tmp_path) == wanted
    assert list(verify(tmp_path)) == []


def states(path: Path, aside: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Seals the block and copies its directory before each call that changes it and after it;
    of a file that is being written also parts."""
    block = path / name(START)
    found: list[Path] = []

    def copy() -> None:
        made = aside / str(len(found)) / name(START)
        shutil.copytree(block, made)
        found.append(made.parent)

    def watched(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **named: Any) -> Any:
            copy()
            result = real(*args, **named)
            copy()
            return result

        return call

    with monkeypatch.context() as patch:
        for each in ("fdatasync", "fsync", "rename", "unlink"):
            patch.setattr(os, each, watched(getattr(os, each)))
        for _ in seal.seal(path, START):
            copy()
    for state in list(found):
        yield state
        for file in (state / name(START)).glob("*" + NEW):
            data = file.read_bytes()
            for size in {0, len(data) // 2}:
                file.write_bytes(data[:size])
                yield state


@pytest.mark.parametrize("again", [False, True])
def test_every_state_of_a_sealing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, again: bool
) -> None:
    """Also when a block that had been sealed is sealed anew with what came later."""
    monkeypatch.setattr(seal, "FRAME", 40_000)
    path = tmp_path / "tsdb"
    path.mkdir()
    chance = random.Random(3)
    wanted = append(path, START, range(100), chance)
    if again:
        for _ in seal.seal(path, START):
            pass
        wanted |= append(path, START, range(90, 130), chance)
    seen: set[tuple[str, ...]] = set()
    count = 0
    for state in states(path, tmp_path / "states", monkeypatch):
        count += 1
        seen.add(tuple(sorted(file.name for file in (state / name(START)).iterdir())))
        assert ours(state) == wanted
        assert list(verify(state)) == []
        copy = tmp_path / "copy"
        shutil.copytree(state, copy)
        recorder = Recorder(copy, flush=0.02, clock=lambda: (START + WINDOW) / 1000)
        recorder.start()
        wait_for(lambda copy=copy: all(block.sealed for block in blocks(copy)), "it is sealed")
        recorder.stop()
        assert recorder.errors == 0
        assert ours(copy) == wanted
        assert list(verify(copy)) == []
        assert {file.name for file in (copy / name(START)).iterdir()} == {INDEX, SEALED}
        shutil.rmtree(copy)
    assert count > 20
    assert any(SEALED + NEW in files for files in seen)
    assert any(INDEX + NEW in files for files in seen)
    assert (INDEX, OPEN, SEALED) in seen
