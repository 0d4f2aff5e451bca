"""``esnode-core server`` and ``disconnect`` with a real agent and the reference controller."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from esnode.control import managed

from ..console.test_terminal import terminal
from ..pki import authority
from ..running import Agent, command, environment, free_port, run, wait_for
from . import controller as reference
from .controller import CLUSTER, JOIN, Controller


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory of the state of the agent and of the commands."""
    path = tmp_path / "state"
    monkeypatch.setenv("STATE_DIRECTORY", str(path))
    return path


@pytest.fixture
def server() -> Iterator[Controller]:
    with Controller() as running:
        yield running


def here(*words: str, port: int | None = None, **more: Any) -> subprocess.CompletedProcess[str]:
    """Runs a command where no agent runs, or the one on a port."""
    return run("--listen-address", f"127.0.0.1:{port or free_port()}", *words, timeout=60, **more)


def connect(
    server: Controller, directory: Path, *more: str, port: int | None = None
) -> subprocess.CompletedProcess[str]:
    words = ["--address", server.address, "--ca-file", server.write_ca(directory)]
    return here("server", "connect", *words, "--token", JOIN, *more, port=port)


def managed_block(agent: Agent) -> dict[str, Any]:
    document = json.loads(agent.get("/status").body)
    assert (document["mode"] == "managed") == (document["managed"]["server"] is not None)
    found: dict[str, Any] = document["managed"]
    return found


def test_connected_is_said_when_the_controller_has_answered(
    state: Path, tmp_path: Path, server: Controller
) -> None:
    server.first_token = "own-token"
    done = connect(server, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"connected to {server.address}: cluster {CLUSTER}" in done.stdout
    kept = managed.load(state)
    assert kept is not None
    assert (kept.server, kept.cluster_id, kept.token) == (server.address, CLUSTER, "own-token")
    assert list(server.tokens) == [kept.node_id]
    assert stat.S_IMODE((state / "managed.json").stat().st_mode) == 0o600

    shown = here("server", "status").stdout
    for text in (server.address, CLUSTER, kept.node_id, "s ago", "no agent answers"):
        assert text in shown
    left = here("disconnect")
    assert left.returncode == 0
    assert server.heard[-1][0] == "DELETE"
    assert not (state / "managed.json").exists()
    assert "standalone" in here("server", "status").stdout
    assert "nothing to disconnect" in here("server", "disconnect").stdout
    assert connect(server, tmp_path).returncode == 0
    assert list(server.tokens) == [kept.node_id]  # the same one
    for each in (done, left):
        assert JOIN not in each.stdout + each.stderr
        assert "own-token" not in each.stdout + each.stderr


@pytest.mark.parametrize("trick", ["failing", "redirecting", "no JSON", "another node"])
def test_a_controller_that_lies_connects_nothing(
    trick: str, state: Path, tmp_path: Path, server: Controller
) -> None:
    server.trick = reference.TRICKS[trick]
    done = connect(server, tmp_path)
    assert done.returncode == 1
    assert done.stdout == ""
    assert "not connected" in done.stderr
    assert server.address in done.stderr
    assert not (state / "managed.json").exists()


def test_a_wrong_certificate_or_token_or_nobody_connects_nothing(
    state: Path, tmp_path: Path, server: Controller
) -> None:
    theirs = tmp_path / "theirs.pem"
    theirs.write_bytes(authority("theirs").certificate)
    words = ["server", "connect", "--address", server.address]
    wrong = here(*words, "--ca-file", str(theirs), "--token", JOIN)
    assert wrong.returncode == 1
    assert "certificate" in wrong.stderr
    refused = here(*words, "--ca-file", server.write_ca(tmp_path), "--token", "a-wrong-one")
    assert refused.returncode == 1
    assert "HTTP 401" in refused.stderr
    assert "a-wrong-one" not in refused.stderr
    away = here("server", "connect", "--address", f"127.0.0.1:{free_port()}")
    assert away.returncode == 1
    assert "cannot be reached" in away.stderr
    assert not (state / "managed.json").exists()


def test_where_the_token_is_from(state: Path, tmp_path: Path, server: Controller) -> None:
    words = ["--address", server.address, "--ca-file", server.write_ca(tmp_path)]
    file = tmp_path / "token"
    file.write_text(f"{JOIN}\n")
    assert here("server", "connect", *words, "--token-file", str(file)).returncode == 0
    variable = {"ESNODE_MANAGED_JOIN_TOKEN": JOIN}
    assert here("disconnect").returncode == 0
    assert here("server", "connect", *words, env=variable).returncode == 0
    assert here("disconnect").returncode == 0
    address = ["--listen-address", f"127.0.0.1:{free_port()}"]
    piped = subprocess.run(
        command(*address, "server", "connect", *words, "--token-file", "-"),
        env=environment(),
        input=JOIN,
        text=True,
        capture_output=True,
        timeout=60,
    )
    assert piped.returncode == 0, piped.stderr
    assert {token for _, _, token, _ in server.heard} == {JOIN}
    for bad in ("two words", "a\nb", "ü", "x" * 5000):
        file.write_text(bad)
        done = here("server", "connect", *words, "--token-file", str(file))
        assert done.returncode == 2
        assert bad not in done.stderr
    both = here("server", "connect", *words, "--token-file", str(file), "--token", "x")
    assert both.returncode == 2


def test_a_token_that_is_typed_is_not_shown(
    state: Path, tmp_path: Path, server: Controller
) -> None:
    words = ["server", "connect", "--address", server.address, "--ca-file"]
    words += [server.write_ca(tmp_path), "--token-file", "-"]
    with terminal("--listen-address", f"127.0.0.1:{free_port()}", *words) as it:
        wait_for(lambda: b"not shown" in it.read(0.1) + it.all, "it asks")
        it.press(f"{JOIN}\n".encode())
        assert it.ended() == 0
    assert b"connected to" in it.all and JOIN.encode() not in it.all


def test_offline_keeps_it_and_says_so(state: Path, tmp_path: Path) -> None:
    with Controller() as server:
        pass
    done = connect(server, tmp_path, "--offline")
    assert done.returncode == 0
    assert "without contact" in done.stdout
    assert "onnected to" not in done.stdout
    kept = managed.load(state)
    assert kept is not None
    assert (kept.last_contact_unix_ms, kept.token, kept.join_token) == (None, None, JOIN)
    assert "never" in here("server", "status").stdout
    with Controller(server.port), Agent("--scrape-interval", "0.2s") as agent:
        wait_for(lambda: managed_block(agent)["state"] == "connected", "the agent connects")


def test_a_running_agent_is_attached_and_detached_while_it_collects(
    state: Path, tmp_path: Path, server: Controller
) -> None:
    with Agent("--scrape-interval", "0.2s") as agent:
        assert managed_block(agent) == dict.fromkeys(managed_block(agent))
        done = connect(server, tmp_path, port=agent.port)
        assert f"process {agent.process.pid}" in done.stdout
        wait_for(lambda: managed_block(agent)["state"] == "connected", "it is connected")
        wait_for(lambda: server.beats() > 0, "a heartbeat")
        beat = next(iter(server.nodes.values()))
        wait_for(lambda: bool(next(iter(server.nodes.values()))["status"]), "a digest")
        assert beat["node_id"] == managed_block(agent)["node_id"]
        shown = here("server", "status", port=agent.port).stdout
        assert "connected" in shown
        assert "s ago" in shown

        again = here("server", "connect", "--address", "elsewhere:1", port=agent.port)
        assert again.returncode == 1
        assert "esnode-core disconnect" in again.stderr
        left = here("disconnect", port=agent.port)
        assert (left.returncode, left.stderr) == (0, "")
        wait_for(lambda: managed_block(agent)["state"] is None, "it is standalone")
        assert JOIN not in agent.log
        assert agent.end()[0] == 0


def test_tuning_by_hand_is_refused_and_reading_is_not(
    state: Path, tmp_path: Path, server: Controller
) -> None:
    file = tmp_path / "esnode.toml"
    file.write_text("enable_gpu = false\n")
    server.policy = {"version": 2, "metric_sets": {"power": False}}
    port = free_port()
    with Agent("--config", str(file), "--scrape-interval", "0.2s", port=port) as agent:
        assert connect(server, tmp_path, port=port).returncode == 0
        wait_for(lambda: "esnode_cpu_cores" in agent.series(), "a tick")
        for words in (
            ("config", "set", "log_level=debug"),
            ("enable-metric-set", "gpu"),
            ("disable-metric-set", "all"),
        ):
            done = here("--config", str(file), *words, port=port)
            assert done.returncode == 1
            assert server.address in done.stderr
            assert "esnode-core disconnect" in done.stderr
        assert file.read_text() == "enable_gpu = false\n"
        assert here("--config", str(file), "profiles", port=port).returncode == 0
        disabled = 'esnode_agent_collector_disabled{collector="power"}'
        wait_for(lambda: agent.series().get(disabled) == 1, "the policy is applied")
        assert agent.get("/status").status == agent.get("/metrics").status == 200
        assert agent.get("/events?follow=false").status == 200

        assert here("--config", str(file), "disconnect", port=port).returncode == 0
        wait_for(lambda: agent.series().get(disabled) == 0, "its own configuration counts again")
        done = here("--config", str(file), "config", "set", "log_level=debug", port=port)
        assert done.returncode == 0, done.stderr


def test_a_command_counts_more_than_the_keys_of_the_file(
    state: Path, tmp_path: Path, server: Controller
) -> None:
    file = tmp_path / "esnode.toml"
    file.write_text(
        f'managed_server = "{server.address}"\nmanaged_cluster_id = "{CLUSTER}"\n'
        f'managed_node_id = "gpu-node-01"\nmanaged_join_token = "{JOIN}"\n'
        f'managed_ca_file = "{server.write_ca(tmp_path)}"\n'
    )
    flags = ("--config", str(file), "--scrape-interval", "0.2s")
    with Agent(*flags) as agent:
        wait_for(lambda: managed_block(agent)["state"] == "connected", "it is connected")
        assert list(server.tokens) == ["gpu-node-01"]
        assert managed_block(agent)["cluster_id"] == CLUSTER
        done = here(*flags, "disconnect", port=agent.port)
        assert "managed_server is still in the configuration" in done.stderr
        wait_for(lambda: managed_block(agent)["state"] is None, "it is standalone")
        wait_for(lambda: server.heard[-1][0] == "DELETE", "the controller was told")
        port = agent.port
    with Agent(*flags, port=port) as agent:
        assert managed_block(agent)["server"] is None
        assert here(*flags, "server", "connect", port=port).returncode == 0
        wait_for(lambda: managed_block(agent)["state"] == "connected", "it is connected again")
        assert JOIN not in agent.log + agent.get("/status").body.decode()


@pytest.mark.parametrize("trick", ["silent", "hanging", "huge", "failing", "away"])
def test_nothing_of_a_controller_holds_up_collection_or_the_end(
    trick: str, state: Path, tmp_path: Path, server: Controller
) -> None:
    interval = 0.1
    with Agent("--scrape-interval", f"{interval}s") as agent:
        assert connect(server, tmp_path, port=agent.port).returncode == 0
        wait_for(lambda: managed_block(agent)["state"] == "connected", "it is connected")
        if trick == "away":
            server.__exit__()
        else:
            server.trick = {**vars(reference), **reference.TRICKS}[trick]
        count = server.requests
        if trick != "away":
            wait_for(lambda: server.requests > count, "it meets the trick")
        memory = agent.memory
        assert ticks(agent, 1.5) > 1.5 / interval / 3  # a busy machine skips some
        assert agent.memory - memory < 8 << 20
        code, seconds = agent.end()
        assert code == 0
        assert seconds < 5
    if trick == "away":
        server.__enter__()


def ticks(agent: Agent, seconds: float) -> int:
    """How many ticks the agent has in a time."""
    end = time.monotonic() + seconds
    found = set()
    while time.monotonic() < end:
        found.add(json.loads(agent.get("/status").body)["last_scrape_unix_ms"])
        time.sleep(0.02)
    return len(found)


def test_a_damaged_file_is_put_aside_by_a_command_and_that_is_said(
    state: Path, tmp_path: Path, server: Controller
) -> None:
    state.mkdir()
    (state / "managed.json").write_text("{")
    shown = here("server", "status")
    assert shown.returncode == 1
    assert "damaged" in shown.stderr and "put the file aside" in shown.stderr
    assert (state / "managed.json").read_text() == "{"
    done = connect(server, tmp_path)
    assert done.returncode == 0
    assert "managed.json.damaged" in done.stderr
    assert (state / "managed.json.damaged").read_text() == "{"


def test_an_agent_that_we_may_not_see_is_not_called_standalone(state: Path, tmp_path: Path) -> None:
    """Another user's: no process of an agent is found behind what answers."""
    block = {"server": "pulse:1", "cluster_id": "C", "node_id": "n", "last_contact_unix_ms": 1}

    class Document(BaseHTTPRequestHandler):
        code = 200

        def do_GET(self) -> None:
            self.send_response(self.code)
            self.end_headers()
            self.wfile.write(json.dumps({"managed": {**block, "state": "connected"}}).encode())

        def log_message(self, *unused: Any) -> None:
            pass

    file = tmp_path / "esnode.toml"
    file.write_text("")
    port = free_port()
    with ThreadingHTTPServer(("127.0.0.1", port), Document) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        for words in (
            ("disconnect",),
            ("server", "connect", "--address", "pulse:2", "--offline"),
            ("--config", str(file), "enable-metric-set", "app"),
        ):
            done = here(*words, port=port)
            assert done.returncode == 1, done.stdout
            assert "managed by ESNODE-Pulse on pulse:1" in done.stderr and "root" in done.stderr
        assert "pulse:1" in here("server", "status", port=port).stdout
        Document.code = 401
        shown = here("server", "status", port=port).stdout
        assert "unknown: " in shown and "does not admit us" in shown and "standalone" not in shown
        server.shutdown()
    assert file.read_text() == ""
    assert not (state / "managed.json").exists()


def test_a_standalone_agent_loads_nothing_of_it() -> None:
    code = (
        "import sys, esnode.agent;"
        "print([name for name in sys.modules if name in ('http.client', 'urllib.request',"
        " 'esnode.control.wire', 'esnode.control.controller')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_token_on_the_command_line_is_not_in_process_lists(state: Path) -> None:
    with Agent("--managed-join-token", "hunter2", "--orchestrator-token=hunter3") as agent:
        line = Path(f"/proc/{agent.process.pid}/cmdline").read_text()
        assert "--managed-join-token\0*******\0--orchestrator-token=*******\0" in line
