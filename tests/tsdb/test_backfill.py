"""Backfills: into a receiver that fails as told, and into a real one that is killed."""

from __future__ import annotations

import gzip
import http.server
import json
import shutil
import socket
import ssl
import subprocess
import threading
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import pytest

from esnode.tsdb import backfill
from esnode.tsdb.backfill import LATE, Backfill, BackfillError, Target, cursor_path
from esnode.tsdb.layout import WINDOW
from esnode.tsdb.select import Selection, select
from tests.running import environment, free_port, run
from tests.tsdb.receivers import Victoria, needs_victoria
from tests.tsdb.test_import import different
from tests.tsdb.written import START, History, made_up, metric

HISTORY = made_up(windows=4, decimals=3)


class Script:
    """A receiver on the loopback; ``answers`` are the statuses of the next requests, 0 hangs up."""

    def __init__(self) -> None:
        self.answers: deque[int] = deque()
        self.taken: list[tuple[str, str | None, bytes]] = []
        #: Of all connections that were made, the sockets.
        self.connections: list[socket.socket] = []
        self.secure: ssl.SSLContext | None = None
        script = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                if script.secure:
                    self.request = script.secure.wrap_socket(self.request, server_side=True)
                super().setup()
                script.connections.append(self.connection)

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                status = script.answers.popleft() if script.answers else 204
                if status == 0:
                    self.close_connection = True
                    return
                if status == 204:
                    text = gzip.decompress(body)
                    script.taken.append((self.path, self.headers["authorization"], text))
                self.send_response(status)
                if status == 301:
                    self.send_header("location", "/elsewhere")
                if status != 204:
                    self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def held(self) -> History:
        found: dict[bytes, set[tuple[int, float]]] = {}
        for _, _, text in self.taken:
            for row in text.splitlines():
                line = json.loads(row)
                series = metric(line["metric"].pop("__name__"), **line["metric"])
                pairs = zip(line["timestamps"], line["values"], strict=True)
                found.setdefault(series, set()).update(pairs)
        return {series: sorted(samples) for series, samples in found.items()}


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Iterator[Script]:
    monkeypatch.setattr(backfill, "PAUSES", (0.01, 0.02))
    script = Script()
    yield script
    script.server.shutdown()
    script.server.server_close()


def made(path: Path, url: str, state: Path, selection: Selection, attempts: int = 10) -> Backfill:
    target = Target(url)
    return Backfill(path, target, selection, cursor_path(state, path, target), attempts)


def within(start: int, end: int) -> History:
    return {
        series: [(moment, value) for moment, value in samples if start <= moment <= end]
        for series, samples in HISTORY.items()
    }


def test_a_range_is_sent_in_windows_of_at_most_a_block(
    path: Path, script: Script, tmp_path: Path
) -> None:
    start, end = START + 1_000_000, START + 2 * WINDOW + 1_000_000
    made(path, script.url, tmp_path, select(str(start), str(end))).run()
    assert different(script.held(), within(start, end)) == {}
    assert len(script.taken) == 3
    for where, _, text in script.taken:
        assert where == "/api/v1/import"
        stamps = [stamp for row in text.splitlines() for stamp in json.loads(row)["timestamps"]]
        assert min(stamps) // WINDOW == max(stamps) // WINDOW


def test_requests_are_of_bounded_size(
    path: Path, script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("esnode.tsdb.export.PIECE", 1000)
    monkeypatch.setattr(backfill, "REQUEST", 3000)
    made(path, script.url, tmp_path, select()).run()
    assert different(script.held(), HISTORY) == {}
    assert len(script.taken) > 10


@pytest.mark.parametrize("failures", [[500], [0], [204, 503, 429, 0, 408], [204, 204, 0, 204, 500]])
def test_failures_are_tried_again(
    failures: list[int], path: Path, script: Script, tmp_path: Path
) -> None:
    script.answers.extend(failures)
    made(path, script.url, tmp_path, select()).run()
    assert different(script.held(), HISTORY) == {}


def test_what_was_taken_shortly_before_a_failure_is_sent_again(
    path: Path, script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script.answers.extend([204, 204, 0])
    made(path, script.url, tmp_path / "a", select()).cursor.parent.mkdir()
    made(path, script.url, tmp_path / "a", select()).run()
    assert len(script.taken) == 2 + 4
    script.taken.clear()
    monkeypatch.setattr(backfill, "SETTLED", 0)
    script.answers.extend([204, 204, 0])
    made(path, script.url, tmp_path, select()).run()
    assert len(script.taken) == 4


@pytest.mark.parametrize("status", [400, 401, 404, 301])
def test_a_refusal_is_final_and_told(
    status: int, path: Path, script: Script, tmp_path: Path
) -> None:
    script.answers.append(status)
    with pytest.raises(BackfillError, match=f"/api/v1/import: HTTP {status}"):
        made(path, script.url, tmp_path, select()).run()
    assert script.taken == []


def test_it_resumes_where_it_gave_up(
    path: Path, script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backfill, "SETTLED", 0)
    script.answers.extend([204, 204, 0, 0, 0])
    first = made(path, script.url, tmp_path, select(), attempts=3)
    assert not first.resume()
    with pytest.raises(BackfillError, match="go on later with --resume"):
        first.run()
    second = made(path, script.url, tmp_path, select())
    assert second.resume()
    assert second.selection.start == START + 2 * WINDOW
    second.run()
    assert len(script.taken) == 4
    assert different(script.held(), HISTORY) == {}
    # The last block is open: it goes on a little before its last sample.
    third = made(path, script.url, tmp_path, select())
    assert third.resume()
    last = max(samples[-1][0] for samples in HISTORY.values())
    assert third.selection.start == last - LATE + 1


def test_each_server_and_choice_has_a_cursor_of_its_own(tmp_path: Path) -> None:
    one, other = Target("http://a:1"), Target("http://b:1")
    paths = {
        cursor_path(tmp_path, tmp_path, one),
        cursor_path(tmp_path, tmp_path, other),
        cursor_path(tmp_path, tmp_path, one, ["a*"]),
        cursor_path(tmp_path, tmp_path / "x", one),
        cursor_path(tmp_path, tmp_path, Target("http://a:1?extra_label=x=y")),
    }
    assert len(paths) == 5
    assert cursor_path(tmp_path, tmp_path, Target("http://u:p@a:1/")) in paths


@pytest.mark.parametrize(
    "url",
    [
        "", "victoria:8428", "ftp://a", "http://", "http://a:x", "/x", "http://a:99999", "http://[::1",
        "http://a b", "http://a/b c", "http://a/\n", "http://a/é", f"http://{'a' * 64}",
        "http://u:se/cret@a", "http://u:1/se?cret@a", "http://u:se#cret@a", "ftp://u:secret@a",
    ],
)  # fmt: skip
def test_what_is_no_url_is_refused_without_being_shown(url: str) -> None:
    with pytest.raises(BackfillError, match=r"^--to: ") as caught:
        Target(url)
    assert "cret" not in str(caught.value)


def test_a_redirection_is_told(path: Path, script: Script, tmp_path: Path) -> None:
    script.answers.append(301)
    with pytest.raises(BackfillError, match="HTTP 301 /elsewhere"):
        made(path, script.url, tmp_path, select()).run()


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl makes a certificate")
def test_a_certificate_is_checked(
    path: Path, script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, certificate = tmp_path / "key", tmp_path / "certificate"
    words = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    words += ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    words += ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run(words, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    script.secure = context
    url = script.url.replace("http:", "https:")
    with pytest.raises(BackfillError, match="certificate"):  # at once, for it will not change
        made(path, url, tmp_path, select()).run()
    assert script.taken == []
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    made(path, url, tmp_path, select()).run()
    assert different(script.held(), HISTORY) == {}


def test_all_requests_take_one_connection_so_that_a_restart_is_noticed(
    path: Path, script: Script, tmp_path: Path
) -> None:
    run = made(path, script.url, tmp_path, select())

    def told(done: int, *_: int) -> None:
        if done == 2 and len(script.connections) == 1:  # as if it was killed, and back at once
            script.connections[0].shutdown(socket.SHUT_RDWR)
            script.taken.clear()

    run.told = told
    run.run()
    assert len(script.connections) == 2
    assert different(script.held(), HISTORY) == {}


def test_it_gives_up_when_the_same_window_fails_again_and_again(
    path: Path, script: Script, tmp_path: Path
) -> None:
    script.answers.extend([204, 500] * 100)
    with pytest.raises(BackfillError, match="HTTP 500; go on later with --resume"):
        made(path, script.url, tmp_path, select(), attempts=3).run()
    assert len(script.answers) == 194


def test_a_run_from_before_what_was_sent_sends_it_all(
    path: Path, script: Script, tmp_path: Path
) -> None:
    middle = str(START + 2 * WINDOW)
    made(path, script.url, tmp_path, select(middle)).run()
    script.taken.clear()
    earlier = made(path, script.url, tmp_path, select(str(START + WINDOW)))
    assert not earlier.resume()
    earlier.run()
    assert different(script.held(), within(START + WINDOW, START + 4 * WINDOW)) == {}
    # What both have sent is one range now.
    again = made(path, script.url, tmp_path, select(middle))
    assert again.resume()
    assert again.since == START + WINDOW
    after = made(path, script.url, tmp_path, select(str(START + 5 * WINDOW)))
    assert after.resume()
    assert after.since == after.selection.start == START + 5 * WINDOW


def test_paths_and_passwords(path: Path, script: Script, tmp_path: Path) -> None:
    url = script.url.replace("//", "//user:p%40ss@") + "/insert/0/prometheus/?extra_label=a=ss"
    run = made(path, url, tmp_path, select(metrics=["esnode_gpu_up"]))
    run.run()
    where, authorization, _ = script.taken[0]
    assert where == "/insert/0/prometheus/api/v1/import?extra_label=a=ss"
    assert authorization == "Basic dXNlcjpwQHNz"
    assert "ss" not in run.target.shown
    assert "ss" not in run.cursor.read_text().replace("insert/0/prometheus", "")


@needs_victoria
def test_a_victoriametrics_killed_in_the_middle_misses_nothing(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backfill, "PAUSES", (0.05, 0.2))
    victoria = Victoria(tmp_path)
    try:
        run = made(path, victoria.url, tmp_path, select(), attempts=200)
        killed = threading.Event()

        def told(done: int, *_: int) -> None:
            if done == 2 and not killed.is_set():
                victoria.kill()  # what it has just taken is not on its disk yet
                killed.set()
                threading.Thread(target=victoria.start).start()

        run.told = told
        run.run()
        assert killed.is_set()
        assert different(victoria.held(), HISTORY) == {}
    finally:
        victoria.kill()


def test_the_command(path: Path, script: Script, tmp_path: Path) -> None:
    asked = ("tsdb", "backfill", "--path", str(path), "--to", script.url)
    env = {"STATE_DIRECTORY": str(tmp_path)}
    done = run(*asked, "--from", str(START), "--until", str(START + WINDOW - 1), env=env)
    assert done.returncode == 0, done.stderr
    assert "1 of 1 blocks" in done.stderr
    assert different(script.held(), within(START, START + WINDOW - 1)) == {}
    done = run(*asked, "--resume", env=env)
    assert "goes on at 2025-11-22T06:00:00.000Z" in done.stderr
    assert different(script.held(), HISTORY) == {}
    refused = run("tsdb", "backfill", "--path", str(path), "--to", "x", env=env)
    assert (refused.returncode, refused.stderr.count("\n")) == (1, 1)
    gone = f"http://127.0.0.1:{free_port()}"
    refused = run(*asked[:-1], gone, "--attempts", "1", env=environment(env))
    assert refused.returncode == 1
    assert "go on later with --resume" in refused.stderr
