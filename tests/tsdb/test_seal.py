"""Sealing: the same samples in a tenth of the bytes, and what becomes of damage and crashes."""

from __future__ import annotations

import random
import subprocess
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
import zstandard

from esnode.tsdb import index, reader, seal
from esnode.tsdb.block import recover
from esnode.tsdb.layout import INDEX, NEW, OPEN, SEALED, WINDOW, name
from esnode.tsdb.reader import Block, blocks, lines
from esnode.tsdb.recorder import Recorder
from esnode.tsdb.verify import verify
from tests.running import wait_for
from tests.tsdb.history import START, Sample, held, many, parse, samples

ROWS = 40


def fill(path: Path, ticks: range, seed: int = 0) -> list[Sample]:
    """Records ticks of a second as several flushes."""
    chance = random.Random(seed)
    source = many(ROWS)
    recorder = Recorder(path, flush=3600, clock=lambda: START / 1000)
    recorder.start()
    assert recorder.flush()
    wanted = []
    for number in ticks:
        values = [
            chance.choice([1.0, chance.random(), chance.getrandbits(40)]) for _ in range(ROWS)
        ]
        snapshot = source.tick(START + 1000 * number, values)
        recorder.add(snapshot)
        wanted += samples(snapshot)
        if number % 20 == 19:
            assert recorder.flush()
    recorder.stop()
    return sorted(wanted)


def do(steps: Iterator[int]) -> int:
    return sum(1 for _ in steps)


@pytest.fixture
def small_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many frames of few samples."""
    monkeypatch.setattr(seal, "FRAME", 20_000)
    monkeypatch.setattr(reader, "GROUP", 100_000)


@pytest.fixture
def sealed(tmp_path: Path, small_frames: None) -> tuple[Path, list[Sample]]:
    wanted = fill(tmp_path, range(200))
    assert do(seal.seal(tmp_path, START)) > 5
    return tmp_path, wanted


def test_a_sealed_block_has_the_same_samples(sealed: tuple[Path, list[Sample]]) -> None:
    path, wanted = sealed
    (block,) = blocks(path)
    assert block.sealed
    assert sorted(file.name for file in block.path.iterdir()) == [INDEX, SEALED]
    assert held(path) == wanted
    assert list(verify(path)) == []
    found = block.index
    assert found is not None
    assert (found.samples, found.series) == (len(wanted), ROWS)
    assert (found.min_time, found.max_time) == (START, START + 199_000)
    assert {key: (m.samples, m.series) for key, m in found.metrics.items()} == {
        "load": (200, 1),
        "heat_celsius": (200 * (ROWS - 1), ROWS - 1),
    }


def test_any_tool_reads_it(sealed: tuple[Path, list[Sample]]) -> None:
    path, wanted = sealed
    file = path / name(START) / SEALED
    try:
        text = subprocess.run(["zstd", "-dc", file], capture_output=True, check=True).stdout
    except FileNotFoundError:
        with zstandard.open(file, "rb") as stream:
            text = stream.read()
    assert [sample for line in text.splitlines() for sample in parse(line)] == wanted


def test_a_filter_reads_few_frames(
    sealed: tuple[Path, list[Sample]], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, wanted = sealed
    read = []
    monkeypatch.setattr(
        reader, "read_frame", lambda *args, f=reader.read_frame: read.append(args) or f(*args)
    )
    found = [
        sample
        for _, line in lines(Block(path, START), lambda metric: b'"load"' in metric)
        for sample in parse(line)
    ]
    assert found == [sample for sample in wanted if "load" in sample[0]]
    assert len(read) == 1


@pytest.mark.parametrize("damage", ["missing", "garbage", "other length", "other id"])
def test_an_index_that_does_not_match(damage: str, sealed: tuple[Path, list[Sample]]) -> None:
    path, wanted = sealed
    file = path / name(START) / INDEX
    right = file.read_bytes()
    assert seal.matches(file.parent)
    if damage == "missing":
        file.unlink()
    elif damage == "garbage":
        file.write_bytes(right[:-5])
    elif damage == "other length":
        file.write_bytes(summed(right.replace(b'"bytes":', b'"bytes":1')))
    else:
        at = right.index(b'"id":"') + 6
        file.write_bytes(summed(right[:at] + b"0123456789abcdef" + right[at + 16 :]))
    assert not seal.matches(file.parent)
    assert held(path) == wanted
    assert list(verify(path)) != []
    do(seal.rebuild(path, START))
    assert file.read_bytes() == right
    assert list(verify(path)) == []


def summed(data: bytes) -> bytes:
    """An index with the sum of what it says now."""
    text = data[: data.rindex(b',"crc":')]
    return text + b',"crc":%d}' % zlib.crc32(text)


def test_a_flipped_bit_of_an_index_costs_nothing(sealed: tuple[Path, list[Sample]]) -> None:
    """Wherever it is: an index that is believed would hide what it does not name."""
    path, wanted = sealed
    wanted = [sample for sample in wanted if "load" in sample[0]]
    file = path / name(START) / INDEX
    right = file.read_bytes()
    for at in (*range(0, len(right), len(right) // 50), right.index(b"labels"), len(right) - 2):
        file.write_bytes(right[:at] + bytes((right[at] ^ 1,)) + right[at + 1 :])
        found = [
            sample
            for _, line in lines(Block(path, START), lambda metric: b'"load"' in metric)
            for sample in parse(line)
        ]
        assert found == wanted, at
        assert not seal.matches(file.parent)


def test_a_flipped_bit_costs_its_frame(sealed: tuple[Path, list[Sample]]) -> None:
    path, wanted = sealed
    file = path / name(START) / SEALED
    found = index.read(file.parent)
    assert found is not None
    right = file.read_bytes()
    chance = random.Random(1)
    for frame in found.frames:
        spoilt = bytearray(right)
        spoilt[frame.offset + chance.randrange(frame.length)] ^= 1 << chance.randrange(8)
        file.write_bytes(spoilt)
        left = held(path)
        lost = set(wanted) - set(left)
        assert set(left) < set(wanted)
        assert len(lost) < len(wanted) / 4
        assert any(str(frame.offset) in problem.text for problem in verify(path))
        (path / name(START) / INDEX).rename(path / "aside")
        assert set(held(path)) == set(left), "without the index, too"
        (path / "aside").rename(path / name(START) / INDEX)


def test_lines_that_come_later(sealed: tuple[Path, list[Sample]]) -> None:
    """The clock steps back into a sealed block: both parts are one, and the later sample counts."""
    path, wanted = sealed
    later = fill(path, range(150, 250), seed=1)
    both = {sample[:2]: sample for sample in [*wanted, *later]}
    assert not Block(path, START).sealed
    assert held(path) == sorted(both.values())
    assert list(verify(path)) == []
    do(seal.seal(path, START))
    assert Block(path, START).sealed
    assert held(path) == sorted(both.values())
    assert list(verify(path)) == []


def test_verifying_a_block_that_is_sealed_anew_meanwhile(
    sealed: tuple[Path, list[Sample]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lines are the old file's and the index is the new one's: that is no damage."""
    path, _ = sealed
    times = 2

    def and_sealed(*args: Any, **named: Any) -> Iterator[reader.Line]:
        nonlocal times
        yield from lines(*args, **named)
        if times:
            times -= 1
            fill(path, range(300 + times, 301 + times))
            do(seal.seal(path, START))

    there = SimpleNamespace(blocks=reader.blocks, lines=and_sealed)
    monkeypatch.setattr("esnode.tsdb.verify.reader", there)
    assert list(verify(path)) == []
    assert times == 0
    # What is damaged for good is named, whatever else goes on.
    file = path / name(START) / INDEX
    file.write_bytes(file.read_bytes().replace(b'"series":', b'"series":1', 1))
    assert len(list(verify(path))) == 1


def test_a_crash_at_every_step(tmp_path: Path, small_frames: None) -> None:
    wanted = fill(tmp_path, range(100))
    block = tmp_path / name(START)
    text = (block / OPEN).read_bytes()
    steps = 0
    while True:
        job = seal.seal(tmp_path, START)
        taken = sum(1 for _, _ in zip(range(steps), job, strict=False))
        if taken < steps:
            break
        # The process is gone: nothing is cleaned up.
        aside = block / (SEALED + NEW)
        torn = aside.read_bytes() if steps else b""
        job.close()
        assert not aside.exists()
        aside.write_bytes(torn[:-1])
        assert held(tmp_path) == wanted
        recover(tmp_path, START)
        assert sorted(file.name for file in block.iterdir()) == [OPEN]
        steps += 1
    assert steps > 3
    # It has got its name, and the lines are still there: with the old index, then with its own.
    described = (block / INDEX).read_bytes()
    (block / OPEN).write_bytes(text)
    assert held(tmp_path) == wanted
    (block / INDEX).unlink()
    assert held(tmp_path) == wanted
    recover(tmp_path, START)
    do(seal.seal(tmp_path, START))
    assert held(tmp_path) == wanted
    again = msgspec.json.decode((block / INDEX).read_bytes())
    first = msgspec.json.decode(described)
    for each in ("id", "crc"):
        assert again.pop(each) != first.pop(each)
    assert again == first


def test_damaged_lines_are_reported_and_left_out(tmp_path: Path) -> None:
    wanted = fill(tmp_path, range(40))
    file = tmp_path / name(START) / OPEN
    text = bytearray(file.read_bytes())
    text[text.index(b"\n", 1000) - 40] ^= 1
    file.write_bytes(text)
    said: list[str] = []
    left = held(tmp_path, report=lambda path, text: said.append(text))
    assert set(left) < set(wanted)
    assert len(wanted) - len(left) == 20, "one line"
    assert len(said) == len(list(verify(tmp_path))) == 1
    do(seal.seal(tmp_path, START, lambda path, text: said.append(text)))
    assert len(said) == 2
    assert held(tmp_path) == left


def test_a_recorder_seals_what_is_finished(tmp_path: Path) -> None:
    wanted = fill(tmp_path, range(100))
    time = (START + WINDOW) / 1000
    recorder = Recorder(tmp_path, flush=0.05, clock=lambda: time)
    recorder.start()
    wait_for(Block(tmp_path, START).path.joinpath(SEALED).exists, "it is sealed")
    wait_for(lambda: Block(tmp_path, START).sealed, "only that is left")
    wanted += samples(many(3).tick(START + WINDOW, [1, 2, 3]))
    recorder.add(many(3).tick(START + WINDOW, [1, 2, 3]))
    late = many(3).tick(START + 500, [1, 2, 3])
    recorder.add(late)
    wanted += samples(late)
    assert recorder.flush()
    wait_for(lambda: Block(tmp_path, START).sealed, "the late ones, too")
    recorder.stop()
    assert [block.sealed for block in blocks(tmp_path)] == [True, False]
    assert recorder.blocks == 2
    assert sorted(held(tmp_path)) == sorted(wanted)
    assert recorder.errors == 0
    assert list(verify(tmp_path)) == []


def test_reading_while_it_writes_and_seals(tmp_path: Path, small_frames: None) -> None:
    """Every reading has all that was added before it, each sample once: `held` says so."""
    time = (START + 3 * WINDOW) / 1000
    recorder = Recorder(tmp_path, flush=0.01, clock=lambda: time)
    recorder.start()
    source = many(ROWS)
    wanted: set[Sample] = set()
    both = set()
    for number in range(120):
        # Into blocks that are finished, so that they are sealed and opened again all the time.
        tick = source.tick(START + number % 2 * WINDOW + 1000 * number, range(ROWS))
        recorder.add(tick)
        wanted |= set(samples(tick))
        assert set(held(tmp_path, recorder.pending())) == wanted
        assert list(verify(tmp_path)) == []
        both |= {block.sealed for block in blocks(tmp_path)}
    wait_for(lambda: all(block.sealed for block in blocks(tmp_path)), "all is sealed")
    recorder.stop()
    assert both == {True, False}
    assert set(held(tmp_path)) == wanted
    assert recorder.errors == 0
    assert list(verify(tmp_path)) == []
