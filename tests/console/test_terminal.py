"""``esnode-core cli`` on a pseudo-terminal, with a real agent that is killed under it."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.running import PATIENCE, Agent, command, environment, free_port, run

F3 = b"\x1bOR"
COLOR = re.compile(rb"\x1b\[[0-9;]*\b(3[0-8]|4[0-8]|9[0-7]|10[0-7])[;m]")


class Terminal:
    """A command on a terminal of its own."""

    def __init__(self, process: subprocess.Popen[bytes], handle: int) -> None:
        self.process = process
        self.handle = handle
        self.all = b""
        self.size = (80, 24)

    def resize(self, columns: int, lines: int) -> None:
        """Which has all of the screen drawn again."""
        self.size = (columns, lines)
        fcntl.ioctl(self.handle, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        self.process.send_signal(signal.SIGWINCH)

    def read(self, seconds: float) -> bytes:
        """What comes until it is silent for some time."""
        found = b""
        while select.select([self.handle], [], [], seconds)[0]:
            try:
                piece = os.read(self.handle, 1 << 16)
            except OSError:  # the other end is closed
                break
            if not piece:
                break
            found += piece
            if len(found) > 1 << 20:
                break
        self.all += found
        return found

    def press(self, keys: bytes) -> None:
        os.write(self.handle, keys)

    def shows(self, *words: str) -> str:
        """Waits until words are on the screen, which is drawn anew meanwhile; what is there."""
        end = time.monotonic() + PATIENCE
        text = ""
        while time.monotonic() < end:
            self.resize(self.size[0] ^ 1, self.size[1])
            found = self.read(0.3).decode(errors="replace")
            text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", found)
            if all(word in text for word in words):
                return text
        raise AssertionError(f"{words} not in {text}")

    def ended(self) -> int:
        end = time.monotonic() + PATIENCE
        while self.process.poll() is None:
            self.read(0.05)
            assert time.monotonic() < end, "it has not ended"
        self.read(0.05)
        return self.process.returncode


@contextmanager
def terminal(*words: str, **variables: str) -> Iterator[Terminal]:
    ours, theirs = pty.openpty()
    fcntl.ioctl(ours, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    more = {"TERM": "xterm-256color", "LC_ALL": "C.UTF-8", **variables}
    env = {
        key: each
        for key, each in environment(more).items()
        if key not in ("NO_COLOR", "LANG", "LC_CTYPE")
    }
    env |= variables
    process = subprocess.Popen(
        command(*words), env=env, cwd="/", stdin=theirs, stdout=theirs, stderr=theirs,
        start_new_session=True,
    )  # fmt: skip
    os.close(theirs)
    shown = Terminal(process, ours)
    try:
        yield shown
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def test_a_session_over_which_the_agent_is_killed_and_comes_back() -> None:
    port = free_port()
    with terminal("--listen-address", f"127.0.0.1:{port}", "cli") as shown:
        with Agent(port=port) as agent:
            shown.shows("ESNODE-Core Main Menu", "standalone")
            shown.press(b"1\r")
            shown.shows("Node overview", os.uname().release)
            shown.resize(132, 43)
            shown.shows("F12=Back", os.uname().release)
            agent.process.kill()
            agent.process.wait()
            shown.shows("NO ANSWER since", "old", os.uname().release)
        with Agent(port=port):
            for _ in range(20):
                text = shown.shows("Node overview")
                if "NO ANSWER" not in text:
                    break
            assert "agent healthy" in text
            shown.press(F3)
            assert shown.ended() == 0
    assert COLOR.search(shown.all)
    assert b"\x1b[?1049l" in shown.all  # the screen before is back


@pytest.mark.parametrize(
    ("flags", "variables"),
    [
        (["--no-color"], {}),
        ([], {"NO_COLOR": "1"}),
        ([], {"TERM": "vt100", "LC_ALL": "C"}),
        ([], {"TERM": "vt100", "LC_ALL": "", "LANG": "C"}),
    ],
)
def test_without_colour(flags: list[str], variables: dict[str, str]) -> None:
    """And, where the terminal has only that, in ASCII."""
    with terminal("--listen-address", f"127.0.0.1:{free_port()}", "cli", *flags, **variables) as it:
        it.shows("ESNODE-Core Main Menu", "NO ANSWER since", "F3=Exit")
        it.resize(30, 24)  # what is cut ends in an ellipsis
        it.shows("F5=Refresh")
        it.press(b"q")
        assert it.ended() == 0
    assert not COLOR.search(it.all)
    assert it.all.isascii() == ("LC_ALL" in variables)


def test_a_dumb_terminal_gets_lines() -> None:
    with terminal("--listen-address", f"127.0.0.1:{free_port()}", "cli", TERM="dumb") as it:
        for prompt, word in (
            ("q leave:", "1"),
            ("q leave:", "8"),
            ("q leave:", "7"),
            ("the server;", "h:1"),
            ("the token,", "s3cr3t"),
            ("the CA file;", ""),
            ("q leave:", "q"),
        ):
            end, found = time.monotonic() + PATIENCE, b""
            while prompt.encode() not in found:
                found += it.read(0.2)
                assert time.monotonic() < end, it.all
            it.press(word.encode() + b"\n")
            assert it.process.poll() is None
        assert it.ended() == 0
    text = it.all.decode()
    assert "Node overview" in text and "start one" in text and "h:1" in text
    assert "\x1b" not in text and "s3cr3t" not in text  # the terminal shows no token, either
    assert max(map(len, text.splitlines())) <= 80  # what is asked moves nothing off the screen


def test_a_signal_ends_it_and_leaves_the_terminal_as_it_was() -> None:
    with terminal("--listen-address", f"127.0.0.1:{free_port()}", "cli") as it:
        before = termios.tcgetattr(it.handle)
        it.shows("Main Menu")
        assert termios.tcgetattr(it.handle) != before
        it.process.send_signal(signal.SIGTERM)
        assert it.ended() == 128 + signal.SIGTERM
        assert termios.tcgetattr(it.handle) == before
    assert b"\x1b[?1049l" in it.all


def test_it_takes_the_terminal_again_after_it_was_stopped_and_draws_anew_when_told() -> None:
    def drawn(it: Terminal) -> None:
        """Waits until the whole screen was drawn once more."""
        end, found = time.monotonic() + PATIENCE, b""
        while b"Main Menu" not in found:
            found += it.read(0.1)
            assert time.monotonic() < end, found

    with terminal("--listen-address", f"127.0.0.1:{free_port()}", "cli") as it:
        before = termios.tcgetattr(it.handle)
        it.shows("Main Menu")
        ours = termios.tcgetattr(it.handle)
        it.read(0.1)
        it.press(b"\x0c")
        drawn(it)
        it.process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, it.process.pid, os.WSTOPPED)
        termios.tcsetattr(it.handle, termios.TCSANOW, before)
        it.read(0.1)
        it.process.send_signal(signal.SIGCONT)
        drawn(it)
        assert termios.tcgetattr(it.handle) == ours
        it.press(b"q")
        assert it.ended() == 0
        assert termios.tcgetattr(it.handle) == before


def test_it_needs_a_terminal() -> None:
    done = run("cli")
    assert done.returncode == 2
    assert "esnode-core status" in done.stderr and done.stderr.count("\n") == 1
