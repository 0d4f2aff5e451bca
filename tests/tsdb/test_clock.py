"""The real agent while its clock is set: its own clock, by a library that is loaded before libc."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from esnode.tsdb import runs
from esnode.tsdb.block import Open
from esnode.tsdb.layout import WINDOW, window
from esnode.tsdb.verify import verify
from tests.running import Agent, wait_for
from tests.tsdb.history import held, many, samples

MINUTE, HOUR = 60.0, 3600.0
DAY = 24 * HOUR
SERIES = '{"__name__":"esnode_memory_total_bytes"}'
#: What is added to the clock, one after the other.
SET = (-0.3, -1, -1.4, 0, -5 * MINUTE, 0, 2 * MINUTE, -3 * HOUR, 0, 2 * HOUR, 0, 3 * DAY, 0)

pytestmark = [
    pytest.mark.skipif(sys.version_info < (3, 11), reason="Python waits by the clock before 3.11"),
    pytest.mark.usefixtures("restless"),
]


class Clock:
    """The clock of the processes that are started; ``base`` is where it stands without a step."""

    def __init__(self, file: Path, now: float) -> None:
        self.file = file
        self.base = now - time.time()
        file.write_bytes(bytes(8))
        self.set(0)

    def set(self, seconds: float) -> None:
        offset = struct.pack("q", round((self.base + seconds) * 1e9))
        descriptor = os.open(self.file, os.O_WRONLY)
        os.pwrite(descriptor, offset, 0)
        os.close(descriptor)
        self.offset = self.base + seconds

    def now(self) -> float:
        return time.time() + self.offset


@pytest.fixture
def clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Stands in the middle of a window."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler")
    library = tmp_path / "clock.so"
    source = Path(__file__).with_name("clock.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", library, source], check=True)
    made = Clock(tmp_path / "offset", window(int(time.time() * 1000)) / 1000 + HOUR)
    monkeypatch.setenv("CLOCK_FILE", str(made.file))
    monkeypatch.setenv("LD_PRELOAD", str(library))
    return made


@pytest.fixture
def path(tmp_path: Path) -> Path:
    found = tmp_path / "tsdb"
    found.mkdir()
    return found


def two_days(path: Path, until: float) -> set[tuple[str, int]]:
    """Writes a history of two days by hand; its series and times."""
    source = many(3)
    written = set()
    for number in range(1, 24):
        start = window(int(until * 1000)) - number * WINDOW
        tick = source.tick(start + 5, [1, 2, 3])
        Open(path, start).append(text for text, _ in runs.texts([tick]))
        written |= {(series, stamp) for series, stamp, _ in samples(tick)}
    return written


def stay(agent: Agent, clock: Clock, path: Path) -> set[tuple[str, int]]:
    """Waits until something of the present time is on the disk; the series and times there."""
    began = clock.now() * 1000
    found: set[tuple[str, int]] = set()

    def written() -> bool:
        nonlocal found
        found = {(series, stamp) for series, stamp, _ in held(path)}
        return any(began <= stamp <= clock.now() * 1000 for _, stamp in found)

    wait_for(written, "a flush")
    assert list(verify(path)) == []
    return found


def lives_through(path: Path, clock: Clock, move: Callable[[Agent], None]) -> None:
    """Runs an agent while the clock is moved, and looks at what is left."""
    with Agent(
        *("--enable-local-tsdb", "--local-tsdb-path", str(path), "--scrape-interval", "200ms")
    ) as agent:
        move(agent)
        text = agent.get("/tsdb/export?metrics=esnode_memory_total_bytes").body.decode()
        page = agent.series()
        assert page["esnode_agent_tsdb_errors_total"] == 0
        assert page["esnode_agent_tsdb_dropped_samples_total"] == 0
        assert agent.end()[0] == 0
        assert "Traceback" not in agent.log
    assert list(verify(path)) == []
    stamps = [int(line.split()[-1]) for line in text.splitlines()[:-1]]
    assert stamps == sorted(set(stamps))
    on_disk = {stamp for series, stamp, _ in held(path) if series == SERIES}
    assert set(stamps) <= on_disk, "all that an export had"


def test_a_clock_that_is_set(clock: Clock, path: Path) -> None:
    """By less than a tick, by minutes, hours, days and years, and back: nothing is lost by it."""
    seen = two_days(path, clock.now())

    def move(agent: Agent) -> None:
        nonlocal seen
        for seconds in (*SET, 14 * 365 * DAY, 0):
            clock.set(seconds)
            found = stay(agent, clock, path)
            assert seen <= found, f"at {seconds} s"
            seen = found

    lives_through(path, clock, move)
    assert seen <= {(series, stamp) for series, stamp, _ in held(path)}


def test_a_clock_that_is_slewed_over_the_end_of_a_block(clock: Clock, path: Path) -> None:
    """Steps back over the border, again and again, while its block is being sealed."""
    border = window(int(clock.now() * 1000)) + WINDOW
    seen: set[tuple[str, int]] = set()

    def move(agent: Agent) -> None:
        nonlocal seen
        for _ in range(4):
            clock.set(border / 1000 - 0.5 - time.time() - clock.base)
            seen |= stay(agent, clock, path)
            wait_for(lambda: clock.now() * 1000 > border, "the end of the block")
            seen |= stay(agent, clock, path)

    lives_through(path, clock, move)
    found = held(path)
    assert seen <= {(series, stamp) for series, stamp, _ in found}
    stamps = {stamp for series, stamp, _ in found if series == SERIES}
    assert min(stamps) < border <= max(stamps)
