"""What a crash or the disk leaves of an open block: the whole lines, and a word about the rest."""

from __future__ import annotations

import logging
import os
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from esnode.tsdb import retention, seal
from esnode.tsdb.block import Open, recover
from esnode.tsdb.layout import INDEX, NEW, OPEN, SEALED, WINDOW, name, window
from esnode.tsdb.reader import Block, blocks
from esnode.tsdb.recorder import Recorder
from esnode.tsdb.verify import verify
from tests.running import Agent, wait_for
from tests.tsdb.history import START, Sample, held, many, parse, samples

TIME = START / 1000


def record(path: Path, *stamps: int, rows: int = 3) -> list[Sample]:
    """One flush of ticks at some times after the start of the window."""
    recorder = Recorder(path, flush=3600, clock=lambda: TIME)
    recorder.start()
    assert recorder.flush()
    source = many(rows)
    ticks = [source.tick(START + stamp, range(rows)) for stamp in stamps]
    for tick in ticks:
        recorder.add(tick)
    recorder.stop()
    assert recorder.samples == len(stamps) * rows
    return [sample for tick in ticks for sample in samples(tick)]


def test_a_flush_cut_at_every_byte(tmp_path: Path) -> None:
    """The lines that are whole are there, with what was flushed before and comes after."""
    before = record(tmp_path, 0)
    file = tmp_path / name(START) / OPEN
    kept = len(file.read_bytes())
    record(tmp_path, 1, 2)
    text = file.read_bytes()
    for end in range(kept, len(text) + 1):
        file.write_bytes(text[:end])
        whole = text[: text.rfind(b"\n", 0, end) + 1]
        wanted = [sample for line in whole.splitlines() for sample in parse(line)]
        assert set(before) <= set(wanted)
        assert sorted(held(tmp_path)) == sorted(wanted)
        assert list(verify(tmp_path)) == []
        assert recover(tmp_path, START) == end - len(whole)
        assert file.read_bytes() == whole


def test_a_restart_goes_on_behind_a_torn_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    wanted = record(tmp_path, 0)
    file = tmp_path / name(START) / OPEN
    with file.open("ab") as torn:
        torn.write(b'{"metric":{"__na' + bytes(5000))  # zeros: a page that was not written
    with caplog.at_level(logging.WARNING):
        wanted += record(tmp_path, 1)
    assert "5016 bytes" in caplog.text
    assert sorted(held(tmp_path)) == sorted(wanted)


def test_appending_cuts_a_torn_line_by_itself(tmp_path: Path) -> None:
    """As when it could not be cut at the start."""
    wanted = record(tmp_path, 0)
    file = tmp_path / name(START) / OPEN
    good = file.read_bytes()
    file.write_bytes(good + b"torn")
    opened = Open(tmp_path, START)
    opened.append([good.replace(b"\n", b"?\n"), good])
    assert file.read_bytes() == good + good.replace(b"\n", b"?\n") + good
    assert held(tmp_path) == wanted


def test_damage_in_the_middle_costs_its_line(tmp_path: Path) -> None:
    wanted = record(tmp_path, 0, 1, rows=5)
    file = tmp_path / name(START) / OPEN
    text = file.read_bytes()
    for at in range(0, len(text), 7):
        spoilt = bytearray(text)
        spoilt[at] ^= 16
        file.write_bytes(spoilt)
        left = held(tmp_path)
        assert set(left) <= set(wanted)
        # A flipped newline makes one line of two.
        assert len(wanted) - len(left) == (4 if text[at] == 10 and at < len(text) - 1 else 2)
        assert at == len(text) - 1 or len(list(verify(tmp_path))) == 1


def spoil(file: Path, *places: int) -> None:
    """Flips a bit of a line's sum at some lines, by their number."""
    lines = file.read_bytes().splitlines(keepends=True)
    for number in places:
        line = bytearray(lines[number])
        line[-4] ^= 1
        lines[number] = bytes(line)
    file.write_bytes(b"".join(lines))


def test_damage_is_counted_at_the_start_and_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The block that is written to is looked through; whoever meets the same place says no more."""
    record(tmp_path, 0, 1, rows=50)
    spoil(tmp_path / name(START) / OPEN, *range(1, 40))
    now = TIME
    with caplog.at_level(logging.WARNING):
        recorder = Recorder(tmp_path, flush=0.05, clock=lambda: now)
        recorder.start()
        wait_for(lambda: recorder.errors == 39, "it is counted")
        assert 20 <= len(caplog.records) <= 21, "not each of them is told"
        assert "line at " in caplog.text
        for _ in range(2):
            held(tmp_path, recorder.pending(), recorder.damaged)
        now = (START + WINDOW) / 1000
        wait_for(lambda: Block(tmp_path, START).sealed, "it is sealed")
        recorder.stop()
    assert recorder.errors == 39
    assert len(caplog.records) <= 21
    assert len(held(tmp_path)) == 2 * 11


@pytest.mark.usefixtures("restless")
def test_an_agent_counts_damage_that_an_export_meets(tmp_path: Path) -> None:
    """In a sealed block, which nobody looks through at the start."""
    start = window(int(time.time() * 1000)) - WINDOW
    line = b'{"metric":{"__name__":"a"},"values":[1],"timestamps":[%d]}\n' % start
    block = tmp_path / name(start)
    block.mkdir()
    (block / OPEN).write_bytes(line)
    for _ in seal.seal(tmp_path, start):
        pass
    data = bytearray((block / SEALED).read_bytes())
    data[-6] ^= 1
    (block / SEALED).write_bytes(data)
    with Agent("--enable-local-tsdb", "--local-tsdb-path", str(tmp_path)) as agent:

        def errors() -> float:
            return agent.series()["esnode_agent_tsdb_errors_total"]

        assert errors() == 0
        for _ in range(2):
            assert agent.get("/tsdb/export").body.endswith(b"# EOF\n")
        wait_for(lambda: errors() == 1, "it is counted")
        assert agent.log.count("damaged") == 1
        assert agent.log.count(SEALED) == 1


def test_one_block_that_cannot_be_sealed_is_not_in_the_way_of_others(tmp_path: Path) -> None:
    record(tmp_path, 0, WINDOW)
    (tmp_path / name(START) / (SEALED + NEW)).mkdir()  # stands for a place that is spoilt
    recorder = Recorder(tmp_path, flush=0.05, clock=lambda: TIME + 2 * WINDOW / 1000)
    recorder.start()
    wait_for(lambda: Block(tmp_path, START + WINDOW).sealed, "the other one is sealed")
    assert recorder.errors
    recorder.stop()


def test_what_was_being_written_goes_and_what_is_not_ours_stays(tmp_path: Path) -> None:
    block = tmp_path / name(START)
    block.mkdir()
    for each in (OPEN + NEW, SEALED + NEW, INDEX + NEW, INDEX, "notes.txt"):
        (block / each).write_bytes(b"?")
    (block / OPEN).write_bytes(b"torn")
    assert recover(tmp_path, START) == 4
    assert [file.name for file in block.iterdir()] == ["notes.txt"]
    (block / "notes.txt").unlink()
    recover(tmp_path, START)
    assert not block.exists()


def test_directories_that_are_no_blocks(tmp_path: Path) -> None:
    for each in ("1-2", f"{START}-{START}", f"{START + 1}-{START + WINDOW + 1}", "x", "-"):
        (tmp_path / each).mkdir()
    (tmp_path / name(0)).touch()
    (tmp_path / name(WINDOW)).symlink_to(tmp_path / "x")
    assert blocks(tmp_path) == []
    assert blocks(tmp_path / "nothing") == []


def test_the_index_of_an_open_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("esnode.tsdb.recorder.DESCRIBE", 0)
    recorder = Recorder(tmp_path, flush=3600, clock=lambda: TIME)
    recorder.start()
    for stamp in range(3):
        recorder.add(many(3).tick(START + stamp, [1, 2, 3]))
        assert recorder.flush()
    block = Block(tmp_path, START)
    found = block.index
    assert found is not None
    assert not found.sealed
    assert found.bytes == (block.path / OPEN).stat().st_size
    assert (found.samples, found.series, found.min_time, found.max_time) == (9, 3, START, START + 2)
    assert {key: (m.samples, m.series) for key, m in found.metrics.items()} == {
        "load": (3, 1),
        "heat_celsius": (6, 2),
    }
    recorder.stop()


def put_block(path: Path, start: int, size: int) -> Path:
    """A sealed block of nonsense, at the end of which stands a file that is not ours."""
    block = path / name(start)
    block.mkdir(parents=True)
    (block / SEALED).write_bytes(bytes(size))
    return block


def test_blocks_that_are_too_old_go(tmp_path: Path) -> None:
    old = put_block(tmp_path, START - 3 * WINDOW, 10)
    (old / "notes.txt").touch()
    last = put_block(tmp_path, START - 2 * WINDOW, 10)
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    recorder = Recorder(tmp_path, retention=7200, flush=3600, clock=lambda: TIME + 1)
    recorder.start()
    assert recorder.flush()
    recorder.stop()
    assert [file.name for file in old.iterdir()] == ["notes.txt"]
    assert not last.exists()
    assert foreign.exists()


def test_the_oldest_blocks_go_for_the_budget(tmp_path: Path) -> None:
    olds = [put_block(tmp_path, START - number * WINDOW, 1000) for number in range(9, 0, -1)]
    recorder = Recorder(tmp_path, budget=5000, flush=3600, clock=lambda: TIME)
    recorder.start()
    recorder.add(many(2).tick(START, [1, 2]))
    assert recorder.flush()
    assert recorder.flush()
    recorder.stop()
    assert [old.exists() for old in olds] == [False] * 5 + [True] * 4
    assert recorder.bytes <= 5000
    assert list(retention.sizes(tmp_path)) == [START - n * WINDOW for n in range(4, -1, -1)]


def test_a_budget_too_small_for_one_block_trims_within_it(tmp_path: Path) -> None:
    budget = 60_000
    source = many(20)
    recorder = Recorder(tmp_path, budget=budget, flush=3600, clock=lambda: TIME)
    recorder.start()
    wanted: list[Sample] = []
    flushed = 0
    for stamp in range(200):
        tick = source.tick(START + stamp, range(20))
        recorder.add(tick)
        assert recorder.flush()
        wanted += samples(tick)
        flushed = max(flushed, len(wanted))
        used = sum(file.stat().st_size for file in (tmp_path / name(START)).iterdir())
        assert used <= budget + 3000
    recorder.stop()
    left = held(tmp_path)
    assert len(left) > len(wanted) / 20
    stamps = sorted({stamp for _, stamp, _ in left})
    # The newest, without a hole; of the first tick that is left some lines may be gone.
    assert stamps == list(range(stamps[0], START + 200))
    assert {s for s in left if s[1] > stamps[0]} == {s for s in wanted if s[1] > stamps[0]}
    assert recorder.errors == 0


@pytest.mark.parametrize(("chance", "budget"), [(None, 140_000), (random.Random(1), 300_000)])
def test_the_budget_holds_while_it_seals(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chance: random.Random | None, budget: int
) -> None:
    """At every moment, with what is being written, and with values that do not compress."""
    rows = 40
    used: list[int] = []

    def look(real: Callable[..., Any]) -> Callable[..., Any]:
        def looking(*args: Any) -> Any:
            used.append(sum(file.stat().st_size for file in tmp_path.glob("*/*")))
            return real(*args)

        return looking

    for call in ("fdatasync", "rename", "unlink"):
        monkeypatch.setattr(os, call, look(getattr(os, call)))
    monkeypatch.setattr("esnode.tsdb.recorder.DESCRIBE", 0)
    monkeypatch.setattr(seal, "FRAME", 5000)
    now = TIME
    recorder = Recorder(tmp_path, budget=budget, flush=3600, clock=lambda: now)
    recorder.start()
    source = many(rows)
    newest: list[Sample] = []
    for number in range(100):
        stamp = START + number // 10 * WINDOW + number * 10
        now = stamp / 1000
        values = [chance.random() if chance else float(row) for row in range(rows)]
        ticks = [source.tick(stamp + more, values) for more in range(5)]
        newest = [sample for tick in ticks for sample in samples(tick)]
        for tick in ticks:
            recorder.add(tick)
        assert recorder.flush()
        wait_for(lambda: all(block.sealed for block in blocks(tmp_path)[:-1]), "all is sealed")
    recorder.stop()
    flush = next(filter(None, used))
    assert budget / 2 < max(used) < budget + 1.1 * flush
    assert set(newest) < set(held(tmp_path))
    assert recorder.errors == 0
    assert list(verify(tmp_path)) == []
    assert len(blocks(tmp_path)) > 3


def test_blocks_of_a_clock_that_was_wrong_go_first(tmp_path: Path) -> None:
    year = 365 * 12 * WINDOW
    wrong = [put_block(tmp_path, START + year + number * WINDOW, 1000) for number in range(2)]
    right = [put_block(tmp_path, START - number * WINDOW, 1000) for number in range(3, 0, -1)]
    recorder = Recorder(tmp_path, budget=3500, flush=3600, clock=lambda: TIME)
    recorder.start()
    assert recorder.flush()
    recorder.stop()
    assert [block.exists() for block in wrong + right] == [False, False, True, True, True]


def test_what_cannot_be_removed_wholly_is_no_block(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its directory stays, with a file that is not ours; it is not removed again and again."""
    (put_block(tmp_path, START - 99 * WINDOW, 10) / "notes.txt").touch()
    recorder = Recorder(tmp_path, retention=7200, flush=3600, clock=lambda: TIME)
    with caplog.at_level(logging.INFO):
        recorder.start()
        for _ in range(3):
            assert recorder.flush()
    recorder.stop()
    assert caplog.text.count("removed, for") == 1
    assert recorder.blocks == 0
