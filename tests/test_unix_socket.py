"""The agent on a unix socket: its file, what a dead one left, and who may connect."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import stat
import subprocess
from pathlib import Path

import pytest

from esnode.http import server

from .guarded import STILL, Guarded, basic
from .running import command, environment, run, wait_for


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "agent.sock"


def refused(path: Path) -> str:
    """What an agent says that cannot listen; one line."""
    done = run("--listen-address", f"unix:{path}", *STILL)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert f"unix:{path}" in done.stderr
    return done.stderr


def test_it_serves_and_takes_its_file_with_it(path: Path) -> None:
    with Guarded(path=path) as agent:
        assert b"esnode_node_info" in agent.get().body
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        assert f"unix:{path}" in agent.log
        assert agent.end()[0] == 0
    assert not path.exists()


def test_its_mode(path: Path) -> None:
    with Guarded("--listen-socket-mode", "0606", path=path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o606


def test_curl(path: Path) -> None:
    if not (curl := shutil.which("curl")):
        pytest.skip("there is no curl")
    with Guarded(path=path):
        words = [curl, "-s", "-m", "15", "--unix-socket", str(path), "http://localhost/healthz"]
        assert subprocess.run(words, capture_output=True, check=True).stdout == b"ok\n"


def test_credentials_are_asked_for_here_too(path: Path, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("0123456789abcdef")
    (tmp_path / "web.yml").write_text("bearer_token_file: token")
    with Guarded("--web-config-file", str(tmp_path / "web.yml"), path=path) as agent:
        assert agent.get().status == 401
        assert agent.get(authorization=basic("alice", "right")).status == 401
        assert agent.get(authorization="Bearer 0123456789abcdef").status == 200


def test_what_a_killed_agent_left_is_replaced(path: Path) -> None:
    with Guarded(path=path) as agent:
        agent.end(signal.SIGKILL)
    assert path.is_socket()
    with Guarded(path=path) as agent:
        assert agent.get().status == 200


def test_a_live_agents_is_not_taken(path: Path) -> None:
    with Guarded(path=path) as agent:
        assert "taken by another process" in refused(path)
        assert agent.get().status == 200


def test_a_socket_with_a_full_queue_is_alive(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as busy:
        busy.bind(str(path))
        busy.listen(0)
        clients = [socket.socket(socket.AF_UNIX) for _ in range(3)]
        for client in clients:
            client.setblocking(False)
            client.connect_ex(str(path))
        with pytest.raises(server.AddressError, match="taken"):
            server.listen(str(path), 0)
        for client in clients:
            client.close()


def test_another_file_is_not_replaced(path: Path) -> None:
    path.write_text("kept")
    assert "no socket" in refused(path)
    assert path.read_text() == "kept"


def test_a_directory_that_there_is_not(tmp_path: Path) -> None:
    assert "No such file" in refused(tmp_path / "none/agent.sock")


def test_a_socket_that_is_not_its_own_any_more_stays(path: Path) -> None:
    listener = server.listen(str(path), 0)
    path.unlink()
    other = server.listen(str(path), 0)
    listener.close()
    assert path.exists()
    other.close()
    assert not path.exists()


def test_of_many_that_start_together_one_listens(path: Path) -> None:
    with Guarded(path=path) as agent:
        agent.end(signal.SIGKILL)
    words = command("--listen-address", f"unix:{path}", *STILL)
    agents = [
        subprocess.Popen(words, env=environment(), cwd="/", stderr=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    try:
        wait_for(
            lambda: sum(agent.poll() is None for agent in agents) == 1 and path.exists(),
            "the others have given up",
        )
        assert sorted(agent.poll() or 0 for agent in agents) == [0, 1, 1, 1]
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            client.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
            assert b"200 OK" in client.recv(4096)
    finally:
        for agent in agents:
            agent.terminate()
        for agent in agents:
            agent.communicate(timeout=10)
    assert not path.exists()


def test_a_command_finds_the_agent_by_its_socket(path: Path) -> None:
    address = ("--listen-address", f"unix:{path}")
    with Guarded(path=path) as agent:
        done = run(*address, "gpu", "release")
        assert done.returncode == 0, done.stderr
        assert re.search(rf"\b{agent.process.pid}\b", done.stdout)
    done = run(*address, "gpu", "release")
    assert done.returncode == 1
    assert f"no agent listens on unix:{path}" in done.stderr


def test_many_agents_in_one_directory(tmp_path: Path) -> None:
    listeners = [server.listen(str(tmp_path / f"{number}.sock"), 0) for number in range(3)]
    assert {os.fspath(entry.name) for entry in tmp_path.iterdir()} == {
        "0.sock",
        "1.sock",
        "2.sock",
    }
    for listener in listeners:
        listener.close()
