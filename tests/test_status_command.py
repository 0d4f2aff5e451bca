"""`esnode-core status`: the screen of a document, and the command with agents of all kinds."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import signal
import socket
import struct
import subprocess
import termios
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from esnode.cli import screen

from . import documents
from .documents import DRAWN, ILL, MANY, NOTHING, NOW, WELL, Drawn
from .peers import BROKEN, HUNG, page, peer, request, says
from .running import command, environment, free_port, run, wait_for

DOCUMENT = msgspec.json.encode(ILL)
SERVED = says(page(DOCUMENT))


@pytest.mark.parametrize("each", DRAWN, ids=lambda each: each.name)
def test_golden_screen(each: Drawn) -> None:
    """`python -m tests.documents` writes them anew; look at the difference."""
    expected = (documents.SCREENS / f"{each.name}.txt").read_text()
    assert documents.drawn(each) == expected


@pytest.mark.parametrize(
    "document", [WELL, ILL, MANY, NOTHING], ids=["well", "ill", "many", "nothing"]
)
@pytest.mark.parametrize(("width", "height"), [(80, 23), (40, 10), (20, 3), (1, 1), (200, 60)])
def test_a_screen_fits_the_terminal(
    document: documents.status.Status, width: int, height: int
) -> None:
    lines = screen.screen(document, NOW, width, height)
    assert all(len(screen.text(line, width)) <= width for line in lines)
    # What says how the node is has at least six lines, whatever the terminal.
    assert len(lines) <= max(height, 6)


def test_what_is_unknown_is_a_dash_and_what_is_zero_a_zero() -> None:
    text = documents.drawn(Drawn("", NOTHING))
    shown = re.sub(r"up 0s|0/0", "", text)  # the agent's own, which is never unknown
    assert not re.search(r"\d", shown)
    zero = documents.drawn(Drawn("", ILL, 80, 23)).splitlines()[19]
    assert zero.split()[:2] == ["7", "0"]
    assert "0/700 W" in zero


def test_gpus_with_a_trouble_are_shown_first_where_not_all_fit() -> None:
    text = documents.drawn(Drawn("", MANY, 80, 14))
    assert "LOST" in text
    assert "more" in text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 KiB"),
        (80 << 30, "80.0 GiB"),
        (999.9 * (1 << 30), "1.0 TiB"),
        (150 << 20, "150 MiB"),
        (1 << 80, "1048576 EiB"),
    ],
)
def test_sizes(value: float | None, text: str) -> None:
    assert screen.size(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "-"), (0, "0s"), (59.6, "1m 0s"), (90061, "1d 1h"), (86400, "1d 0h"), (-5, "0s")],
)
def test_durations(seconds: float | None, text: str) -> None:
    assert screen.span(seconds) == text


# ------------------------------------------------------------------------------ the command


def test_piped_it_is_plain_and_whole() -> None:
    with peer(SERVED) as address:
        done = run("--listen-address", address, "status", env={"FORCE_COLOR": "1", "TERM": "xterm"})
    assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b" not in done.stdout
    lines = done.stdout.splitlines()
    assert lines[0].startswith("dgx-h100-07   up 12d 3h")
    assert sum("/700 W" in line for line in lines) == 8


def test_json_is_the_document_as_served() -> None:
    served = b'{"schema_version":1,"unknown":"\xc3\xa9"}'
    with peer(says(page(served))) as address:
        done = run("status", "--json", "--url", f"http://{address}")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.encode() == served + b"\n"


def test_the_document_of_another_version_is_one_line() -> None:
    with peer(says(page(b'{"schema_version":1}'))) as address:
        refused(run("--listen-address", address, "status"), "is no status document")


def refused(done: subprocess.CompletedProcess[str], text: str, code: int = 1) -> None:
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("esnode-core: ")
    assert text in done.stderr


def test_no_agent() -> None:
    refused(run("--listen-address", f"127.0.0.1:{free_port()}", "status"), "start one, or name")
    refused(run("status", "--url", "unix:/no/such.sock"), "no agent answers on unix:/no/such.sock")


@pytest.mark.parametrize("name", ["silent", "drips"])
def test_an_agent_that_hangs(name: str) -> None:
    with peer(HUNG[name]) as address:
        start = time.monotonic()
        done = run("--listen-address", address, "status")
        assert time.monotonic() - start < 10
        refused(done, "did not answer within 2 s")


@pytest.mark.parametrize("name", ["no_http", "nonsense", "closes", "tls", "escape"])
def test_an_agent_that_serves_garbage(name: str) -> None:
    with peer(BROKEN[name]) as address:
        done = run("--listen-address", address, "status")
        refused(done, address)
        assert "\x1b" not in done.stderr


@pytest.mark.parametrize(
    "words",
    [
        ["status", "5"],
        ["status", "--watch", "0"],
        ["status", "--watch", "soon"],
        ["status", "--url", "ftp://x"],
        ["status", "--nonsense"],
    ],
)
def test_wrong_usage_is_code_2(words: list[str]) -> None:
    refused(run(*words), words[-1] if "--url" not in words else "https://", code=2)


def test_secrets_are_sent_and_not_shown() -> None:
    asked = []

    def act(connection: socket.socket, stop: threading.Event) -> None:
        asked.append(request(connection).decode())
        connection.sendall(page(b"", "401 Unauthorized"))

    with peer(act) as address:
        done = run("--listen-address", address, "status", env={"ESNODE_CLIENT_TOKEN": "hunter2"})
    assert "Authorization: Bearer hunter2" in asked[0]
    refused(done, "ESNODE_CLIENT_TOKEN")
    assert "hunter2" not in done.stderr


# ------------------------------------------------------------------------------ --watch


class Terminal:
    """A command on a terminal of its own; what it has written up to now."""

    def __init__(self, *words: str, size: tuple[int, int] = (24, 80), **variables: str) -> None:
        self.master, slave = pty.openpty()
        self.resize(size)
        self.process = subprocess.Popen(
            command(*words),
            env={**environment(), "TERM": "xterm", **variables},
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
        )
        os.close(slave)
        self.text = ""
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()

    def resize(self, size: tuple[int, int]) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", *size, 0, 0))

    def read(self) -> None:
        data = b""
        while True:
            try:
                more = os.read(self.master, 65536)
            except OSError:  # nobody has the other end any more
                return
            data += more
            self.text = data.decode(errors="replace")

    @property
    def shown(self) -> str:
        """The last screen."""
        return self.text.rpartition("\x1b[H")[2]

    def end(self, number: int) -> int:
        self.process.send_signal(number)
        code = self.process.wait(15)
        self.reader.join(5)
        return code


@contextmanager
def terminal(*words: str, **options: str) -> Iterator[Terminal]:
    found = Terminal(*words, **options)
    try:
        yield found
    finally:
        if found.process.poll() is None:
            found.process.kill()
            found.process.wait()
        os.close(found.master)


def test_a_terminal_gets_colours_unless_they_are_not_wanted() -> None:
    with peer(SERVED) as address:
        for words, variables, colored in (
            (["status"], {}, True),
            (["status", "--no-color"], {}, False),
            (["--no-color", "status"], {}, False),
            (["status"], {"NO_COLOR": "1"}, False),
            (["status"], {"TERM": "dumb"}, False),
        ):
            with terminal("--listen-address", address, *words, **variables) as shown:
                assert shown.process.wait(15) == 0
                shown.reader.join(5)
                assert ("\x1b[1m" in shown.text) is colored, words
                assert "dgx-h100-07" in shown.text


def test_watching_an_agent_that_goes_and_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "agent.sock"
    url = f"unix:{path}"
    with terminal("status", "--watch", "0.2", "--url", url, "--no-color") as shown:
        wait_for(lambda: "NO ANSWER" in shown.shown, "it says that there is none")
        with peer(SERVED, unix=path):
            wait_for(lambda: "dgx-h100-07" in shown.shown, "the node is shown")
            wait_for(lambda: "ctrl-C ends" in shown.shown, "all is well")
            assert "NO ANSWER" not in shown.shown
        path.unlink()
        # What was known stays, and it is said that it is old.
        wait_for(lambda: "NO ANSWER for" in shown.shown, "it says that it is gone")
        wait_for(lambda: "dgx-h100-07" in shown.shown, "the old screen is there")
        with peer(SERVED, unix=path):
            wait_for(lambda: "ctrl-C ends" in shown.shown, "it is back")
            assert shown.end(signal.SIGINT) == 0
    assert shown.text.startswith("\x1b[?1049h")
    assert shown.text.endswith("\x1b[?25h\x1b[?1049l")
    assert "Traceback" not in shown.text


def test_a_window_that_grows_is_used_at_once() -> None:
    with (
        peer(SERVED) as address,
        terminal("--listen-address", address, "status", "--watch", "600") as shown,
    ):
        wait_for(lambda: "ctrl-C ends" in shown.shown, "the node is shown")
        assert "PCIE" not in shown.shown
        shown.resize((40, 130))
        shown.process.send_signal(signal.SIGWINCH)
        wait_for(lambda: "PCIE" in shown.shown, "there are more columns")
        assert shown.end(signal.SIGTERM) == 128 + signal.SIGTERM
    assert shown.text.endswith("\x1b[?25h\x1b[?1049l")


def test_watching_into_a_pipe() -> None:
    with peer(SERVED) as address:
        process = subprocess.Popen(
            command("--listen-address", address, "status", "--json", "--watch", "0.1"),
            env=environment(),
            stdout=subprocess.PIPE,
        )
        assert process.stdout is not None
        with process:
            for _ in range(3):
                assert json.loads(process.stdout.readline())["hostname"] == "dgx-h100-07"
            process.send_signal(signal.SIGINT)
            process.stdout.read()
            assert process.wait(15) == 0
