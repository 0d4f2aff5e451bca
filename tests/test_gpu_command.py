"""`esnode-core gpu release|attach`: which process is told, and what is said when none can be."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from .running import PATIENCE, free_port, run

#: Listens on an address, prints which signals it gets; without "handle" as a word it handles none.
LISTENER = """
import signal, socket, sys
host, port = sys.argv[1], int(sys.argv[2])
listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
listener.bind((host, port))
listener.listen()
def told(number, frame):
    print(signal.Signals(number).name, flush=True)
if "handle" in sys.argv:
    signal.signal(signal.SIGUSR1, told)
    signal.signal(signal.SIGUSR2, told)
print("ready", flush=True)
while True:
    signal.pause()
"""


@contextmanager
def listener(
    directory: Path, *words: str, name: str = "esnode-core", host: str = "127.0.0.1"
) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A process of a script of that name, and the port that it listens on."""
    directory.chmod(0o755)
    script = directory / name
    script.write_text(LISTENER)
    port = free_port(host)
    with subprocess.Popen(
        [sys.executable, str(script), host, str(port), *words],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield process, port
        finally:
            process.kill()


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "::1"])
def test_the_agent_gets_the_signal(host: str, tmp_path: Path) -> None:
    with listener(tmp_path, "handle", host=host) as (process, port):
        shown = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        for word, name in (("release", "SIGUSR1"), ("attach", "SIGUSR2")):
            done = run("--listen-address", shown, "gpu", word)
            assert (done.returncode, done.stderr) == (0, "")
            assert str(process.pid) in done.stdout
            assert process.stdout is not None
            assert process.stdout.readline() == f"{name}\n"


def test_the_address_is_the_effective_configurations(tmp_path: Path) -> None:
    with listener(tmp_path, "handle") as (process, port):
        done = run("gpu", "release", env={"ESNODE_LISTEN_ADDRESS": f"localhost:{port}"})
        assert done.returncode == 0
        # Another one may listen on the same port of another address.
        done = run("gpu", "release", env={"ESNODE_LISTEN_ADDRESS": f"127.0.0.2:{port}"})
        refused(done, "no agent listens on 127.0.0.2")
        assert process.poll() is None


def refused(done: subprocess.CompletedProcess[str], text: str) -> None:
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("esnode-core: ")
    assert text in done.stderr


def test_nobody_listens() -> None:
    done = run("--listen-address", f"127.0.0.1:{free_port()}", "gpu", "release")
    refused(done, "--listen-address")


def test_what_listens_is_something_else(tmp_path: Path) -> None:
    with listener(tmp_path, "handle", name="other") as (process, port):
        done = run("--listen-address", f"127.0.0.1:{port}", "gpu", "attach")
        refused(done, f"process {process.pid}, is not esnode-core")


def test_an_agent_that_does_not_take_the_signal_is_not_killed_by_it(tmp_path: Path) -> None:
    with listener(tmp_path) as (process, port):
        done = run("--listen-address", f"127.0.0.1:{port}", "gpu", "release")
        refused(done, "does not take SIGUSR1")
        assert process.poll() is None


@pytest.mark.skipif(os.geteuid() != 0, reason="another user can be had by root only")
def test_an_agent_of_another_user(tmp_path: Path) -> None:
    """The other user is root here, and we are nobody."""
    with listener(tmp_path, "handle") as (_, port):
        program = (
            "import os, signal, sys\n"
            "os.setgid(65534); os.setuid(65534)\n"
            "from esnode.cli.process import send\n"
            f"try: send('127.0.0.1', {port}, signal.SIGUSR1)\n"
            "except OSError as error: print(error)\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", "import esnode.cli.process\n" + program],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        assert "belongs to another user (uid 0)" in done.stdout
        assert "as root" in done.stdout


@pytest.mark.parametrize("words", [["gpu"], ["gpu", "reset"], ["gpu", "release", "all"]])
def test_a_wrong_word_is_code_2(words: list[str]) -> None:
    assert run(*words).returncode == 2
