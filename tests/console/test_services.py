"""What the command gives the console: profiles in the file, events, connecting."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

from esnode.cli import console
from esnode.client import Message, NoAnswer
from esnode.config import Arguments, parse_arguments
from esnode.console.cells import plain
from esnode.console.session import Session
from esnode.console.view import View
from esnode.control import managed
from esnode.control.managed import State
from esnode.control.protocol import Policy, Sets
from tests.control.controller import JOIN, Controller
from tests.running import Agent, free_port, run


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in [name for name in os.environ if name.startswith("ESNODE_")]:
        monkeypatch.delenv(name)
    path = tmp_path / "esnode.toml"
    path.write_text("# ours\nenable_disk = true  # kept\n")
    return path


def arguments(file: Path) -> Arguments:
    address = f"127.0.0.1:{free_port()}"
    return parse_arguments(["--config", str(file), "--listen-address", address, "cli"])


def test_profiles_say_where_a_value_is_from(file: Path) -> None:
    found, problem = console.profiles(arguments(file))
    assert not problem
    by_key = {each.key: each for each in found}
    assert (by_key["enable_disk"].set, by_key["enable_disk"].on) == ("host", True)
    assert by_key["enable_disk"].origin == str(file)
    assert by_key["enable_gpu"].origin == "default"
    file.write_text("enable_disk = 3\n")
    found, problem = console.profiles(arguments(file))
    assert not found and "enable_disk" in problem


def test_turning_saves_and_keeps_the_rest_of_the_file(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = console.turn(arguments(file), "key:enable_disk", False)
    assert "enable_disk is turned off" in said
    assert file.read_text() == "# ours\nenable_disk = false  # kept\n"
    assert "power is turned off" in console.turn(arguments(file), "set:power", False)
    assert "enable_power = false" in file.read_text()
    assert capsys.readouterr() == ("", "")  # the terminal is the console's


def test_a_set_is_turned_off_and_on_again(file: Path) -> None:
    """The set of GPUs, too, of which those of AMD are turned on by their own key alone."""
    words = arguments(file)
    session = Session(console.services(words, None), View(screen="5"))
    session.run = lambda busy, work, then: then(work())  # type: ignore[method-assign]
    session.read_profiles()
    for expected in ("off", "on", "off"):
        session.turn("set:gpu")
        row = next(line for line in map(plain, session.frame().lines) if line.startswith(" gpu "))
        assert row.split() == ["gpu", expected]
        assert "enable_gpu_amd = true" not in file.read_text()


def test_what_the_controller_has_decided_counts(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path))
    decided = Policy(version=1, metric_sets=Sets(gpu=False, app=True))
    state = State(server="pulse:1", origin="command", policy=decided)
    managed.change(tmp_path, lambda _: state)
    found, _ = console.profiles(arguments(file))
    by_key = {each.key: (each.on, each.origin) for each in found}
    assert by_key["enable_gpu"] == (False, "the controller")
    assert by_key["enable_app"] == (True, "the controller")
    assert by_key["enable_disk"] == (True, str(file))
    address = f"--listen-address=127.0.0.1:{free_port()}"
    for command in (["profiles"], ["config", "show"]):
        env = {"STATE_DIRECTORY": str(tmp_path)}
        shown = run("--config", str(file), address, *command, env=env).stdout
        assert re.search(r"enable_gpu\b.*false.*the controller", shown), shown


def test_what_the_agent_was_started_with_counts(file: Path) -> None:
    with Agent("--config", str(file), "--no-enable-power") as agent:
        words = ["--config", str(file), "--listen-address", agent.address, "cli"]
        found, _ = console.profiles(parse_arguments(words))
    by_key = {each.key: (each.on, each.origin) for each in found}
    assert by_key["enable_power"] == (False, "--enable-power of the agent")
    assert by_key["enable_disk"] == (True, str(file))


def test_a_flag_that_counts_more_is_said(file: Path) -> None:
    words = ["--config", str(file), "--no-enable-disk", "cli"]
    said = console.turn(parse_arguments(words), "key:enable_disk", True)
    assert "--enable-disk counts more" in said


def test_a_file_that_cannot_be_written_is_said(file: Path) -> None:
    file.unlink()
    file.mkdir()
    with pytest.raises((OSError, console.ConfigError), match=r"esnode\.toml"):
        console.turn(arguments(file), "key:enable_disk", False)


def test_a_url_makes_profiles_another_nodes(file: Path) -> None:
    found = console.services(arguments(file), "http://127.0.0.1:9")
    assert found.profiles() == ([], console.ELSEWHERE)
    assert found.elsewhere == console.ELSEWHERE
    assert console.services(arguments(file), None).elsewhere == ""
    with pytest.raises(NoAnswer):
        found.ask()


def test_connecting_to_a_controller_and_what_is_refused_then(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path / "state"))
    with Controller() as server:
        file.write_text("")
        authority = str(server.write_ca(tmp_path))
        with pytest.raises(console.Undone, match="not connected"):
            console.connect(arguments(file), server.address, "wrong", authority)
        assert console.refusal(arguments(file)) == ""
        said = console.connect(arguments(file), server.address, JOIN, authority)
        assert f"connected to {server.address}" in said
    found, problem = console.profiles(arguments(file))
    assert found and server.address in problem and "disconnect" in problem
    with pytest.raises(OSError, match="disconnect"):
        console.turn(arguments(file), "set:gpu", False)
    assert file.read_text() == ""


def test_connecting_is_the_commands_and_hides_the_token(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What stands for the interpreter writes down what it is given."""
    seen = tmp_path / "seen"
    program = tmp_path / "python"
    program.write_text(
        f'#!/bin/sh\necho "$@" > {seen}\ncat >> {seen}\n'
        'case "$*" in *good:1*) echo connected to good:1;;\n'
        "*) echo 'esnode-core: not connected: refused' >&2; exit 1;; esac\n"
    )
    program.chmod(0o755)
    monkeypatch.setattr(console.sys, "executable", str(program))
    assert console.connect(arguments(file), "good:1", "s3cr3t", "/ca.pem") == "connected to good:1"
    words, token = seen.read_text().splitlines()
    assert token == "s3cr3t" and "s3cr3t" not in words
    assert (
        f"--config={file}" in words
        and "server connect --address good:1 --token-file - --ca-file /ca.pem" in words
    )
    with pytest.raises(console.Undone, match=r"^not connected: refused$"):
        console.connect(arguments(file), "bad:1", "", "")


def test_connecting_runs_nothing_of_the_directory_that_one_is_in(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "esnode").mkdir()
    for name in ("__init__", "__main__"):
        (tmp_path / "esnode" / f"{name}.py").write_text("raise SystemExit('another program')")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(console.Undone, match=r"cannot be reached"):
        console.connect(arguments(file), f"127.0.0.1:{free_port()}", "s3cr3t", "")


def test_flags_are_passed_on_without_secrets() -> None:
    words = ["--managed-join-token", "s3cr3t", "--no-enable-gpu", "--scrape-interval", "2s", "cli"]
    assert list(console.flags(parse_arguments(words))) == [
        "--enable-gpu=false",
        "--scrape-interval=2.0",
    ]


def message(kind: str, data: object) -> Message:
    return Message("1", kind, json.dumps(data).encode())


def test_events_become_lines() -> None:
    data = {"unix_ms": 5000, "gpu": "3", "uuid": "GPU-3", "kind": "xid", "code": 79,
            "meaning": "off the\x1b[2J bus", "action": "reboot", "text": None}  # fmt: skip
    found = console.entry(message("gpu", data))
    assert found and (found.unix_ms, found.gpu) == (5000, "GPU-3")
    text = "".join(piece for piece, _ in found.line)
    assert "GPU 3" in text and "Xid 79" in text and "\x1b" not in text
    flag = {"unix_ms": 1, "flag": "disk_degradation_latency", "labels": {"device": "sda"},
            "degraded": True, "reason": "slow", "score": 10}  # fmt: skip
    found = console.entry(message("degradation", flag))
    assert found and found.gpu is None
    lost = {"unix_ms": 1, "flag": "gpu_up", "labels": {"gpu": "6", "uuid": "GPU-6"},
            "degraded": True, "reason": "GPU 6: does not answer", "score": 10}  # fmt: skip
    found = console.entry(message("degradation", lost))
    assert found and found.gpu == "GPU-6"
    said = plain(found.line).split("  ")
    assert [each for each in said if each][:2] == ["degraded", "GPU 6: does not answer"]
    for odd in (message("gpu", []), message("gap", {}), Message("1", "gpu", b"{"),
                message("gpu", {"unix_ms": "x"})):  # fmt: skip
        assert console.entry(odd) is None
