"""The running side of managed mode, against the reference controller."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from esnode.config import Config
from esnode.control import attachment, managed, wire
from esnode.control.attachment import Control, digest, pause
from esnode.control.managed import State
from esnode.view import STANDALONE

from ..running import wait_for
from . import controller as reference
from .controller import CLUSTER, JOIN, TRICKS, Controller

DOCUMENT = {
    "last_scrape_unix_ms": 7,
    "healthy": True,
    "load_avg_1m": 0.5,
    "cpu_util_percent": None,
    "mem_total_bytes": 8,
    "mem_used_bytes": 4,
    "node_power_watts": None,
    "degradation_score": 1.5,
    "gpus": [{"up": True}, {"up": False}, {"up": None}],
    "more": {},
}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attachment, "LOOK", 0.02)
    monkeypatch.setattr(attachment, "FIRST", 0.05)
    monkeypatch.setattr(attachment, "MOST", 0.2)
    monkeypatch.setattr(attachment, "SPREAD", 0.01)
    monkeypatch.setattr(attachment, "KEPT", 0.0)


@pytest.fixture
def server() -> Iterator[Controller]:
    with Controller() as running:
        yield running


@pytest.fixture
def controls() -> Iterator[Callable[..., Control]]:
    """Makes and starts what is under test, and ends it."""
    made: list[Control] = []

    def make(directory: Path, config: Config | None = None) -> Control:
        control = Control(config or Config(), {"STATE_DIRECTORY": str(directory)})
        control.document = lambda answer: answer(json.dumps(DOCUMENT).encode())
        made.append(control)
        control.start()
        return control

    yield make
    for control in made:
        control.stop()


def connect(directory: Path, server: Controller, **more: object) -> None:
    """What the command does."""
    state = State(
        server=server.address,
        origin="command",
        node_id="n",
        join_token=JOIN,
        ca_file=server.write_ca(directory),
    )
    managed.change(directory, lambda before: msgspec.structs.replace(state, **more))


def state(control: Control) -> str | None:
    return control.block().state


def becomes(control: Control, wanted: str | None) -> None:
    wait_for(lambda: state(control) == wanted, f"the state is {wanted}")


def test_a_standalone_node_has_no_thread_for_a_controller_and_makes_no_directory(
    tmp_path: Path, controls: Callable[..., Control]
) -> None:
    control = controls(tmp_path / "state")
    assert control.block() == STANDALONE
    time.sleep(0.1)
    assert not (tmp_path / "state").exists()
    assert not [each for each in threading.enumerate() if each.name == "heartbeat"]


def test_what_a_command_wrote_is_noticed_and_so_is_its_end(
    tmp_path: Path, server: Controller, controls: Callable[..., Control]
) -> None:
    control = controls(tmp_path)
    connect(tmp_path, server)
    becomes(control, "connected")
    wait_for(lambda: server.beats() > 0, "a heartbeat")
    block = control.block()
    assert (block.server, block.cluster_id, block.node_id) == (server.address, CLUSTER, "n")
    assert abs((block.last_contact_unix_ms or 0) / 1000 - time.time()) < 60
    beat = server.nodes["n"]
    assert (beat["protocol"], beat["cluster_id"], beat["policy_version"]) == (1, CLUSTER, 0)
    assert beat["status"] == msgspec.to_builtins(digest(json.dumps(DOCUMENT).encode()))
    managed.change(tmp_path, lambda before: None)
    becomes(control, None)
    count = server.requests
    time.sleep(2.5)  # more than two periods
    assert server.requests <= count + 1  # one may have been under way
    assert managed.load(tmp_path) is None  # nothing was written any more


def test_the_digest_is_of_the_document() -> None:
    found = digest(json.dumps(DOCUMENT).encode())
    assert (found.tick_unix_ms, found.load_avg_1m, found.degradation_score) == (7, 0.5, 1.5)
    assert (found.gpus, found.gpus_up, found.cpu_util_percent) == (3, 1, None)
    assert digest(json.dumps({**DOCUMENT, "gpus": None}).encode()).gpus is None


def test_the_configuration_attaches_too_and_what_is_learned_is_kept(
    tmp_path: Path, server: Controller, controls: Callable[..., Control]
) -> None:
    server.first_token = "own-token"
    config = Config(
        managed_server=server.address,
        managed_join_token=JOIN,
        managed_ca_file=server.write_ca(tmp_path),
    )
    control = controls(tmp_path, config)
    becomes(control, "connected")
    wait_for(lambda: server.beats() > 0, "a heartbeat")
    found = managed.load(tmp_path)
    assert found is not None
    assert (found.origin, found.token, found.join_token) == ("configuration", "own-token", None)
    node = control.block().node_id
    control.stop()

    server.join = None
    again = controls(tmp_path, config)
    becomes(again, "connected")
    assert again.block().node_id == node
    assert list(server.tokens) == [node]
    assert server.heard[-1][2] == "own-token"
    again.configure(Config())
    becomes(again, None)


def test_a_new_token_is_kept_before_the_old_one_is_void(
    tmp_path: Path, server: Controller, controls: Callable[..., Control]
) -> None:
    connect(tmp_path, server)
    control = controls(tmp_path)
    becomes(control, "connected")
    server.rotation = "fresh"
    wait_for(lambda: server.tokens.get("n") == {"fresh"}, "the new token is in use")
    found = managed.load(tmp_path)
    assert found is not None
    assert found.token == "fresh"
    server.join = None
    control.stop()
    again = controls(tmp_path)
    becomes(again, "connected")


def test_a_token_that_is_withdrawn_gives_way_to_the_one_to_join_with(
    tmp_path: Path, server: Controller, controls: Callable[..., Control]
) -> None:
    server.first_token = "own-token"
    connect(tmp_path, server)
    control = controls(tmp_path)
    wait_for(lambda: server.beats() > 0, "a heartbeat")
    server.first_token = "another"
    server.tokens = {"n": set()}
    wait_for(lambda: server.heard[-1][2] == "another", "it has joined anew")
    becomes(control, "connected")
    server.join, server.tokens = "changed", {}
    becomes(control, "refused")
    connect(tmp_path, server, join_token="changed")  # by another command
    becomes(control, "connected")


def test_a_controller_that_forgot_the_node_hears_of_it_again(
    tmp_path: Path, server: Controller, controls: Callable[..., Control]
) -> None:
    connect(tmp_path, server)
    becomes(controls(tmp_path), "connected")
    server.tokens.clear()
    wait_for(lambda: "n" in server.tokens, "it has registered again")


def test_one_that_was_away_for_long_and_forgot_the_node_is_asked_again_soon(
    tmp_path: Path, controls: Callable[..., Control], monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[int] = []
    monkeypatch.setattr(attachment, "pause", lambda failures: waits.append(failures) or 0.02)
    with Controller() as first:
        connect(tmp_path, first)
        becomes(controls(tmp_path), "connected")
    wait_for(lambda: len(waits) > 5, "it was away for some time")
    with Controller(first.port, first.ca) as second:
        wait_for(lambda: second.beats() > 0, "it is known again")
    assert waits.index(1, 1) > 5  # the answer that it is not known is a first failure again


def test_one_that_registers_the_node_and_does_not_know_it_then_is_asked_ever_more_rarely(
    tmp_path: Path,
    server: Controller,
    controls: Callable[..., Control],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waits: list[int] = []
    monkeypatch.setattr(attachment, "pause", lambda failures: waits.append(failures) or 0.02)
    answer = server.answer
    monkeypatch.setattr(
        server, "answer", lambda *words: (404, {}) if words[0] == "POST" else answer(*words)
    )
    connect(tmp_path, server)
    controls(tmp_path)
    wait_for(lambda: len(waits) > 4, "it has tried")
    assert waits[:5] == [1, 2, 3, 4, 5]


def test_a_directory_that_the_node_id_cannot_be_kept_in_is_said_with_the_way_out(
    tmp_path: Path,
    server: Controller,
    controls: Callable[..., Control],
    caplog: pytest.LogCaptureFixture,
) -> None:
    (tmp_path / "file").write_text("")
    config = Config(managed_server=server.address, managed_ca_file=server.write_ca(tmp_path))
    becomes(controls(tmp_path / "file" / "state", config), "unreachable")
    assert "Not a directory, so this node's id cannot be kept" in caplog.text
    assert "set managed_node_id" in caplog.text


def test_a_controller_that_is_killed_and_comes_back(
    tmp_path: Path, controls: Callable[..., Control]
) -> None:
    with Controller() as first:
        connect(tmp_path, first)
        control = controls(tmp_path)
        becomes(control, "connected")
    becomes(control, "unreachable")
    heard = control.block().last_contact_unix_ms
    assert heard
    with Controller(first.port) as second:
        wait_for(lambda: second.beats() > 0, "a heartbeat for the second")
        becomes(control, "connected")
    assert (control.block().last_contact_unix_ms or 0) > heard


@pytest.mark.parametrize(
    "trick", ["failing", "redirecting", "huge", "no JSON", "token", "closing", "silent", "hanging"]
)
def test_no_lie_of_a_controller_gets_through(
    trick: str,
    tmp_path: Path,
    server: Controller,
    controls: Callable[..., Control],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(wire, "CONNECT", 0.3)
    monkeypatch.setattr(wire, "ANSWER", 0.3)
    caplog.set_level(logging.INFO)
    connect(tmp_path, server)
    control = controls(tmp_path)
    becomes(control, "connected")
    before = managed.load(tmp_path)
    assert before is not None
    server.trick = {**vars(reference), **TRICKS}[trick]
    becomes(control, "unreachable")
    count = server.requests
    wait_for(lambda: server.requests > count + 2, "it tries again")
    found = managed.load(tmp_path)
    assert found is not None
    assert (found.server, found.cluster_id, found.token) == (before.server, CLUSTER, before.token)
    assert found.policy is None
    assert sum("not heard" in each.getMessage() for each in caplog.records) == 1
    assert not any(each.exc_info for each in caplog.records)
    server.trick = None
    becomes(control, "connected")


def test_a_token_is_in_no_log(
    tmp_path: Path,
    server: Controller,
    controls: Callable[..., Control],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    connect(tmp_path, server)
    server.trick = reference.echoing
    control = controls(tmp_path)
    becomes(control, "refused")
    server.trick = None
    becomes(control, "connected")
    assert JOIN not in caplog.text


def test_one_that_hangs_is_left_alone_when_another_takes_its_place(
    tmp_path: Path, server: Controller, controls: Callable[..., Control]
) -> None:
    server.trick = reference.hanging
    connect(tmp_path, server)
    control = controls(tmp_path)
    wait_for(lambda: server.requests > 0, "it hangs")
    with Controller() as other:
        connect(tmp_path, other)
        becomes(control, "connected")
    start = time.monotonic()
    control.stop()
    assert time.monotonic() - start < 5


def test_a_damaged_file_is_said_once_and_left_as_it_is(
    tmp_path: Path,
    server: Controller,
    controls: Callable[..., Control],
    caplog: pytest.LogCaptureFixture,
) -> None:
    path = tmp_path / managed.NAME
    path.write_text('{"server": "token-within')
    control = controls(tmp_path, Config(managed_server=server.address))
    time.sleep(0.2)
    assert state(control) is None
    said = [each for each in caplog.records if each.levelno >= logging.WARNING]
    assert [each.getMessage() for each in said] == [f"{path} is damaged: the node is standalone"]
    assert path.read_text() == '{"server": "token-within'
    path.unlink()
    connect(tmp_path, server)
    becomes(control, "connected")
    with managed.locked(tmp_path):
        path.write_text("{}")
    becomes(control, None)
    time.sleep(0.1)
    assert path.read_text() == "{}"


def test_a_directory_that_cannot_be_written_keeps_nothing_from_working(
    tmp_path: Path,
    server: Controller,
    controls: Callable[..., Control],
    caplog: pytest.LogCaptureFixture,
) -> None:
    (tmp_path / "state").write_text("a file is in the way")
    ca = server.write_ca(tmp_path)
    config = Config(managed_server=server.address, managed_ca_file=ca, managed_join_token=JOIN)
    control = controls(tmp_path / "state", config)
    becomes(control, "unreachable")
    assert "the controller is not heard" in caplog.text
    control.configure(msgspec.structs.replace(config, managed_node_id="named"))
    becomes(control, "connected")


def test_a_policy_turns_sets_of_metrics_on_and_off(
    tmp_path: Path, server: Controller, controls: Callable[..., Control]
) -> None:
    server.policy = {"version": 4, "metric_sets": {"gpu": False, "app": True}}
    connect(tmp_path, server)
    control = controls(tmp_path)
    config = Config(enable_gpu_amd=True)
    wait_for(lambda: not control.over(config).enable_gpu, "the policy is taken")
    now = control.over(config)
    assert (now.enable_gpu_amd, now.enable_app, now.enable_cpu) == (False, True, True)
    changes: list[None] = []
    control.changed = lambda: changes.append(None)
    server.policy = {"version": 5, "metric_sets": {"run": "rm -rf /"}}
    wait_for(lambda: server.heard[-1][0] == "GET", "it asks for the policy")
    server.policy = {"version": 6, "metric_sets": {"gpu": False, "app": True}}
    wait_for(lambda: server.nodes["n"]["policy_version"] == 6, "it has the newest policy")
    assert changes == []  # the sets are the same
    control.stop()

    again = controls(tmp_path)  # before the controller is heard
    assert not again.over(config).enable_gpu
    again.changed = lambda: changes.append(None)
    managed.change(tmp_path, lambda before: None)
    becomes(again, None)
    wait_for(lambda: bool(changes), "a change is made known")
    assert again.over(config) == config


def test_pauses_grow_up_to_a_bound() -> None:
    for failures in (1, 2, 3, 50, 10**6):
        most = min(attachment.MOST, attachment.FIRST * 2.0 ** min(failures - 1, 20))
        assert all(most / 2 <= pause(failures) <= most for _ in range(20))


def test_what_a_command_wrote_is_not_overwritten(tmp_path: Path, server: Controller) -> None:
    connect(tmp_path, server)
    control = Control(Config(), {"STATE_DIRECTORY": str(tmp_path)})
    session = control.session
    assert session is not None
    session._keep("mine")
    found = managed.load(tmp_path)
    assert found is not None
    assert found.token == "mine"
    connect(tmp_path, server, token="theirs")
    session._keep("mine again")
    assert (managed.load(tmp_path) or found).token == "theirs"
    connect(tmp_path, server, token="mine")
    session.end()
    session._keep("too late")
    assert (managed.load(tmp_path) or found).token == "mine"
