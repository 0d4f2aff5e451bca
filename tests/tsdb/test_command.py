"""``esnode-core tsdb``, as an operator types it."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import zstandard
from isal import isal_zlib

from esnode.tsdb.export import Export
from esnode.tsdb.layout import OPEN, SEALED, WINDOW, name
from esnode.tsdb.select import select
from tests.running import PATIENCE, Agent, command, environment, run, wait_for
from tests.tsdb.written import DECLARED, START, made_up, write

HISTORY = made_up()

SAMPLES = sum(map(len, HISTORY.values()))


def tsdb(*words: str, path: Path) -> subprocess.CompletedProcess[str]:
    return run("tsdb", *words, "--path", str(path))


def test_blocks_are_listed(path: Path) -> None:
    done = tsdb("ls", path=path)
    assert (done.returncode, done.stderr) == (0, "")
    header, *rows = [row.split() for row in done.stdout.splitlines()]
    assert header == ["from", "to", "state", "series", "samples", "bytes"]
    assert [row[2] for row in rows] == ["sealed", "sealed", "open"]
    assert {row[3] for row in rows} == {str(len(HISTORY))}
    assert sum(int(row[4]) for row in rows) == SAMPLES
    assert int(rows[0][5]) == (path / name(START) / SEALED).stat().st_size
    assert int(rows[2][5]) == (path / name(START + 2 * WINDOW) / OPEN).stat().st_size
    assert rows[0][0].startswith("2025-11-22T04:00:0")


def test_statistics(path: Path) -> None:
    done = tsdb("stat", path=path)
    assert (done.returncode, done.stderr) == (0, "")
    found = re.findall(r"(\d+) blocks, (\d+) bytes, (\d+) samples, ([\d.]+) bytes", done.stdout)
    assert [int(blocks) for blocks, *_ in found] == [2, 1]
    for _, size, samples, each in found:
        assert float(each) == pytest.approx(int(size) / int(samples), abs=0.01)
    assert "2025-11-22T04:00:00.004Z to 2025-11-22T09:59:00.018Z, 5.98 h" in done.stdout


@pytest.mark.parametrize("form", ["prometheus", "openmetrics", "jsonl", "csv"])
def test_an_export_as_a_file(form: str, path: Path, tmp_path: Path) -> None:
    asked = ["--from", str(START + 5_000_000), "--to", "2025-11-22T08:00:00Z"]
    asked += ["--metrics", "esnode_gpu_*", "--match", '{gpu="0"}', "--format", form]
    selection = select(asked[1], asked[3], [asked[5]], [asked[7]])
    text = b"".join(Export(path, selection, form, DECLARED, eof=form != "jsonl"))
    for ending, plain in (
        ("", bytes),
        (".gz", lambda data: isal_zlib.decompress(data, wbits=31)),
        (".zst", lambda data: zstandard.ZstdDecompressor().stream_reader(data).read()),
    ):
        file = tmp_path / f"out{ending}"
        done = tsdb("export", str(file), *asked, path=path)
        assert (done.returncode, done.stdout) == (0, "")
        assert re.fullmatch(r"\d+ samples, \d+ bytes\n", done.stderr)
        found = plain(file.read_bytes())
        if form == "openmetrics":  # of these metrics, which are made up, the agent has other words
            found, text = (re.sub(rb"#.*\n", b"", each) for each in (found, text))
        assert found == text
    assert sorted(each.name for each in tmp_path.iterdir()) == ["out", "out.gz", "out.zst"]
    assert tsdb("export", "-", *asked[:-2], path=path).stdout.endswith("\n# EOF\n")


def test_a_terminal_gets_a_bar(path: Path, tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    words = command("tsdb", "export", str(tmp_path / "out"), "--path", str(path))
    process = subprocess.Popen(words, env={**environment(), "TERM": "xterm"}, stderr=theirs)
    os.close(theirs)
    shown = b""
    try:
        while more := os.read(ours, 1 << 16):
            shown += more
    except OSError:  # its end, as Linux tells it
        pass
    os.close(ours)
    assert process.wait(5) == 0
    assert b"100%" in shown
    assert b"%d samples" % SAMPLES in shown


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--from", "x"], "--from: 'x' is no time"),
        (["--to", "x"], "--to: 'x' is no time"),
        (["--metrics", "a,"], "--metrics: '' is no name"),
        (["--match", "a{b=~'c'}"], "--match: "),
        (["--format", "xml"], "--format: 'xml', allowed is prometheus, openmetrics, jsonl, csv"),
    ],
)
def test_a_bad_option_is_named_and_nothing_written(
    words: list[str], text: str, path: Path, tmp_path: Path
) -> None:
    done = tsdb("export", str(tmp_path / "out"), *words, path=path)
    assert done.returncode == 2
    assert text in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_no_history(tmp_path: Path) -> None:
    for words in (["ls"], ["stat"], ["verify"], ["export", "-"], ["backfill", "--to", "http://a"]):
        done = tsdb(*words, path=tmp_path / "nothing")
        assert (done.returncode, done.stdout) == (2, "")
        assert f"{tmp_path / 'nothing'}: there is no history" in done.stderr


def test_an_export_that_cannot_be_written(path: Path, tmp_path: Path) -> None:
    done = tsdb("export", str(tmp_path / "no" / "out"), path=path)
    assert done.returncode == 1
    assert str(tmp_path / "no" / "out") in done.stderr
    assert "Traceback" not in done.stderr
    done = tsdb("export", "/dev/full", path=path)
    assert (done.returncode, done.stderr) == (
        1,
        "esnode-core: /dev/full: No space left on device\n",
    )


def test_what_is_no_plain_file_is_written_and_stays_what_it_is(path: Path, tmp_path: Path) -> None:
    text = b"".join(Export(path, select()))
    pipe, link, target = tmp_path / "pipe", tmp_path / "link", tmp_path / "target"
    os.mkfifo(pipe)
    reader = subprocess.Popen(["cat", pipe], stdout=subprocess.PIPE)
    assert tsdb("export", str(pipe), path=path).returncode == 0
    assert reader.communicate(timeout=PATIENCE)[0] == text
    assert pipe.is_fifo()
    target.write_text("old")
    target.chmod(0o640)
    link.symlink_to(target)
    others = tmp_path / "target.part"
    others.write_text("not ours")
    assert tsdb("export", str(link), path=path).returncode == 0
    assert link.is_symlink()
    assert target.read_bytes() == text
    assert target.stat().st_mode & 0o777 == 0o640
    assert others.read_text() == "not ours"
    words = command("tsdb", "export", "/dev/stdout", "--path", str(path))
    done = subprocess.run(words, env=environment(), capture_output=True, timeout=PATIENCE)
    assert done.stdout == text


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_an_export_that_is_ended_leaves_nothing(number: int, path: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.write_text("old")
    words = [sys.executable, "-c", ENDLESS, "tsdb", "export", str(out), "--path", str(path)]
    process = subprocess.Popen(
        words,
        env=environment(),
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),  # nohup has it ignored
    )
    wait_for(lambda: any(each.stat().st_size > 1 << 20 for each in tmp_path.iterdir()), "it writes")
    process.send_signal(number)
    assert process.wait(PATIENCE) == 128 + number
    assert process.stderr is not None
    assert b"Traceback" not in process.stderr.read()
    process.stderr.close()
    assert [each.read_text() for each in tmp_path.iterdir()] == ["old"]


#: The command, with a history that goes on and on, slowly enough for any disk.
ENDLESS = """
import itertools, sys, time
from esnode.tsdb import export
from esnode.__main__ import main
piece = export.Export.__iter__
def endless(self):
    for each in itertools.cycle(list(piece(self))):
        time.sleep(0.01)
        yield each
export.Export.__iter__ = endless
sys.exit(main())
"""


def test_verify(tmp_path: Path) -> None:
    write(tmp_path, {series: samples[:100] for series, samples in HISTORY.items()})
    done = tsdb("verify", path=tmp_path)
    assert (done.returncode, done.stdout) == (0, "no damage\n")
    (file,) = tmp_path.glob(f"*/{OPEN}")
    data = bytearray(file.read_bytes())
    data[5] ^= 1
    file.write_bytes(data)
    done = tsdb("verify", path=tmp_path)
    assert done.returncode == 1
    assert str(file) in done.stdout
    assert tsdb("ls", path=tmp_path).returncode == 0


def test_a_live_path_is_read_beside_the_agent(tmp_path: Path) -> None:
    flags = ("--enable-local-tsdb", "--scrape-interval", "100ms", "--local-tsdb-path")
    with Agent(*flags, str(tmp_path)) as agent:
        agent.get("/tsdb/export")
        for words in (["ls"], ["stat"], ["verify"], ["export", "-"]):
            done = tsdb(*words, path=tmp_path)
            assert (done.returncode, done.stderr) == (0, ""), words
    done = tsdb("export", "-", path=tmp_path)
    assert "esnode_memory_total_bytes " in done.stdout
