"""The history on a real file system that fills, and one that is made read-only."""

from __future__ import annotations

import errno
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from esnode.tsdb import index
from esnode.tsdb.layout import OPEN, SEALED, WINDOW, name
from esnode.tsdb.reader import Block
from esnode.tsdb.recorder import Recorder
from esnode.tsdb.verify import verify
from tests.running import Agent, wait_for
from tests.tsdb.history import START, Sample, held, many, samples

ROWS = 100


def mount(*words: str | Path) -> None:
    done = subprocess.run(["mount", *words], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"nothing can be mounted here: {done.stderr.strip()}")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 kB."""
    path = tmp_path / "disk"
    path.mkdir()
    try:
        mount("-t", "tmpfs", "-o", "size=256k", "tmpfs", path)
    except FileNotFoundError:
        pytest.skip("there is no mount command")
    yield path
    subprocess.run(["umount", "-l", path], check=True)


@pytest.fixture
def recorder(disk: Path) -> Iterator[Recorder]:
    made = Recorder(disk / "tsdb", flush=3600, clock=lambda: START / 1000)
    made.start()
    assert made.flush()
    yield made
    made.stop()


def test_a_disk_that_fills(disk: Path, recorder: Recorder) -> None:
    """Nothing is lost while the queue has room, and it goes on by itself when others make room."""
    other = disk / "other"
    other.write_bytes(bytes(200 * 1024))
    source = many(ROWS)
    wanted: list[Sample] = []
    flushed = 0
    for stamp in range(12):
        tick = source.tick(START + stamp, range(ROWS))
        recorder.add(tick)
        wanted += samples(tick)
        if recorder.flush():
            flushed = len(wanted)
        assert sorted(held(recorder.path)) == sorted(wanted[:flushed])
        assert sorted(held(recorder.path, recorder.pending())) == sorted(wanted)
    assert 0 < flushed < len(wanted)
    assert recorder.errors > 0
    assert list(verify(recorder.path)) == []
    other.unlink()
    assert recorder.flush()
    assert sorted(held(recorder.path)) == sorted(wanted)
    assert recorder.dropped == 0
    assert list(verify(recorder.path)) == []


def test_sealing_on_a_full_disk(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be sealed stays as it is, and is sealed when there is room."""
    monkeypatch.setattr("esnode.tsdb.recorder.PAUSE", 0.2)
    now = START / 1000
    recorder = Recorder(disk / "tsdb", flush=0.05, clock=lambda: now)
    recorder.start()
    source = many(ROWS)
    wanted: list[Sample] = []
    for stamp in range(8):
        tick = source.tick(START + stamp, range(ROWS))
        recorder.add(tick)
        wanted += samples(tick)
        assert recorder.flush()
    with (disk / "other").open("wb", buffering=0) as other:
        try:
            while True:
                other.write(bytes(4096))
        except OSError:
            pass
    now = (START + WINDOW) / 1000
    wait_for(lambda: recorder.errors > 0, "a failed sealing")
    assert sorted(held(recorder.path)) == sorted(wanted)
    assert sorted(file.name for file in (recorder.path / name(START)).iterdir()) == [OPEN]
    (disk / "other").unlink()
    wait_for(lambda: Block(recorder.path, START).sealed, "it is sealed")
    recorder.stop()
    assert sorted(held(recorder.path)) == sorted(wanted)
    assert list(verify(recorder.path)) == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_an_index_that_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """The lines are written all the same; a block is sealed when its index can be."""
    monkeypatch.setattr("esnode.tsdb.recorder.PAUSE", 0.2)
    monkeypatch.setattr("esnode.tsdb.recorder.DESCRIBE", 0)
    real = index.replace
    broken = True

    def replace(path: Path, data: bytes) -> None:
        if broken:
            raise OSError(number, os.strerror(number))
        real(path, data)

    monkeypatch.setattr(index, "replace", replace)
    now = START / 1000
    recorder = Recorder(tmp_path, flush=0.05, clock=lambda: now)
    recorder.start()
    source = many(ROWS)
    wanted: list[Sample] = []
    for stamp in range(8):
        tick = source.tick(START + stamp, range(ROWS))
        recorder.add(tick)
        wanted += samples(tick)
        assert recorder.flush()
        assert sorted(held(tmp_path)) == sorted(wanted)
    assert recorder.errors
    now = (START + WINDOW) / 1000
    sealed = tmp_path / name(START) / SEALED
    wait_for(sealed.exists, "a sealing that ends without its index")
    assert sorted(held(tmp_path)) == sorted(wanted)
    broken = False
    wait_for(lambda: Block(tmp_path, START).sealed, "it is sealed")
    recorder.stop()
    assert sorted(held(tmp_path)) == sorted(wanted)
    assert list(verify(tmp_path)) == []


def test_a_disk_that_becomes_read_only(disk: Path, recorder: Recorder) -> None:
    source = many(ROWS)
    first, second, third = (source.tick(START + stamp, range(ROWS)) for stamp in range(3))
    recorder.add(first)
    assert recorder.flush()
    wanted = list(samples(first))
    mount("-o", "remount,ro", disk)
    for tick in (second, third):
        recorder.add(tick)
        assert not recorder.flush()
        assert sorted(held(recorder.path)) == sorted(wanted)
    mount("-o", "remount,rw", disk)
    assert recorder.flush()
    wanted += [*samples(second), *samples(third)]
    assert sorted(held(recorder.path)) == sorted(wanted)


def test_a_disk_that_hangs_holds_up_no_start(hung: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("esnode.tsdb.recorder.TAKING", 0.1)
    recorder = Recorder(hung / "tsdb", flush=0.1, clock=lambda: START / 1000)
    starting = threading.Thread(target=recorder.start, daemon=True)
    starting.start()
    starting.join(10)
    assert not starting.is_alive()
    recorder.add(many(ROWS).tick(START, [1.0] * ROWS))
    assert sum(1 for _ in recorder.pending()) == 1
    recorder.stop(0.1)


@pytest.mark.usefixtures("restless")
def test_an_agent_on_a_full_disk_serves(disk: Path) -> None:
    (disk / "other").write_bytes(bytes(256 * 1024 - 4096))
    with Agent(
        *("--scrape-interval", "100ms", "--enable-local-tsdb"),
        *("--local-tsdb-path", str(disk / "tsdb")),
    ) as agent:
        wait_for(lambda: agent.series()["esnode_agent_tsdb_errors_total"] > 0, "a failed flush")
        assert agent.series()["esnode_cpu_context_switches_total"] > 0
        assert agent.log.count("cannot be written") == 1
        code, seconds = agent.end()
    assert (code, seconds < 5) == (0, True)


@pytest.mark.usefixtures("restless")
def test_an_agent_whose_disk_becomes_read_only(disk: Path) -> None:
    """Nothing that it keeps open is in the way; what it reads meanwhile is written afterwards."""
    mount("-o", "remount,size=64m", disk)
    path = disk / "tsdb"
    with Agent(
        *("--scrape-interval", "100ms", "--enable-local-tsdb"), *("--local-tsdb-path", str(path))
    ) as agent:

        def number(name: str) -> float:
            return agent.series()[f"esnode_agent_tsdb_{name}_total"]

        wait_for(lambda: number("samples") > 0, "a flush")
        remount = ["mount", "-o", "remount,ro", str(disk)]
        # It is in the way only while it writes.
        wait_for(lambda: not subprocess.run(remount, stderr=subprocess.DEVNULL).returncode, "ro")
        began = time.time() * 1000
        errors = number("errors")
        wait_for(lambda: number("errors") > errors, "a failed flush")
        written = number("samples")
        time.sleep(0.5)
        assert number("samples") == written
        ended = time.time() * 1000
        mount("-o", "remount,rw", disk)
        wait_for(lambda: number("samples") > written, "it goes on")
        assert number("dropped_samples") == 0
        assert agent.log.count("cannot be written") == 1
        assert agent.log.count("is written again") == 1
        assert agent.end()[0] == 0
    assert list(verify(path)) == []
    assert any(began < stamp < ended for _, stamp, _ in held(path)), "of that time, too"
