"""Calls to a controller that answers, and to all sorts that do not."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from esnode.config import ConfigError
from esnode.control import wire
from esnode.control.controller import Controller
from esnode.control.wire import Refused, Trouble, Untrusted, Wire, address

from ..pki import authority
from ..running import free_port
from . import controller as reference
from .controller import CLUSTER, JOIN, TRICKS


@pytest.fixture
def server() -> Iterator[reference.Controller]:
    with reference.Controller() as running:
        yield running


def node(server: reference.Controller, tmp_path: Path, token: str | None = JOIN) -> Controller:
    return Controller(Wire(server.address, server.write_ca(tmp_path)), "n", None, token)


def test_a_node_registers_beats_asks_and_leaves(
    server: reference.Controller, tmp_path: Path
) -> None:
    server.policy = {"version": 3, "metric_sets": {"gpu": False}, "later": [1]}
    one = node(server, tmp_path)
    answer = one.register()
    assert (answer.node_id, answer.cluster_id) == ("n", CLUSTER)
    assert (answer.heartbeat_seconds, answer.policy_version) == (1, 3)
    assert one.heartbeat(123, 0, None).policy_version == 3
    decided = one.policy()
    assert (decided.version, decided.metric_sets.gpu, decided.metric_sets.host) == (3, False, None)
    one.leave()
    assert [(method, path, token) for method, path, token, _ in server.heard] == [
        ("PUT", "/v1/nodes/n", JOIN),
        ("POST", "/v1/nodes/n/heartbeat", JOIN),
        ("GET", "/v1/nodes/n/policy", JOIN),
        ("DELETE", "/v1/nodes/n", JOIN),
    ]
    assert server.heard[0][3]["protocol"] == 1
    with pytest.raises(Refused) as refused:
        one.heartbeat(123, 0, None)
    assert refused.value.status == 404


def test_a_name_with_odd_letters_stays_one_part_of_the_path(
    server: reference.Controller, tmp_path: Path
) -> None:
    one = node(server, tmp_path)
    odd = Controller(one.wire, "rack 1/../node?#%2F", None, JOIN)
    assert odd.register().node_id == odd.node_id
    assert list(server.tokens) == [odd.node_id]


@pytest.mark.parametrize("trick", TRICKS)
def test_no_lie_is_taken(trick: str, server: reference.Controller, tmp_path: Path) -> None:
    server.trick = TRICKS[trick]
    one = node(server, tmp_path)
    with pytest.raises(Trouble) as trouble:
        one.register()
    text = str(trouble.value)
    assert server.address in text
    assert text.isprintable()
    assert len(text) < 400
    assert (one.token, one.cluster_id) == (JOIN, None)
    assert server.requests == 1  # no redirection was followed


def test_a_token_that_is_sent_back_is_not_repeated(
    server: reference.Controller, tmp_path: Path
) -> None:
    server.trick = reference.echoing
    with pytest.raises(Refused) as refused:
        node(server, tmp_path).register()
    assert "Bearer ****" in str(refused.value)
    assert JOIN not in str(refused.value)


@pytest.mark.parametrize("trick", [reference.silent, reference.hanging, reference.dripping])
def test_patience_has_an_end(
    trick: reference.Trick,
    server: reference.Controller,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(wire, "CONNECT", 0.5)
    monkeypatch.setattr(wire, "ANSWER", 0.5)
    server.trick = trick
    start = time.monotonic()
    with pytest.raises(Trouble, match="in time"):
        node(server, tmp_path).register()
    assert time.monotonic() - start < 10


def test_a_controller_that_is_away(tmp_path: Path) -> None:
    one = Controller(Wire(f"127.0.0.1:{free_port()}"), "n", None, JOIN)
    with pytest.raises(Trouble, match=r"cannot be reached .*refused"):
        one.register()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_certificate_is_for_the_name_that_was_asked(
    host: str, server: reference.Controller, tmp_path: Path
) -> None:
    ca = server.write_ca(tmp_path)
    Controller(Wire(f"{host}:{server.port}", ca), "n", None, JOIN).register()


def test_a_certificate_of_somebody_else_is_not_accepted(
    server: reference.Controller, tmp_path: Path
) -> None:
    theirs = tmp_path / "theirs.pem"
    theirs.write_bytes(authority("theirs").certificate)
    for ca in (None, str(theirs)):
        with pytest.raises(Untrusted, match="--ca-file"):
            Controller(Wire(server.address, ca), "n", None, JOIN).register()
    assert server.heard == []


def test_a_certificate_of_another_name_is_not_accepted(tmp_path: Path) -> None:
    with reference.Controller(host="127.0.0.2") as server:
        with pytest.raises(Untrusted, match=r"127.0.0.2"):
            node(server, tmp_path).register()
        assert server.heard == []


def test_a_file_of_authorities_that_is_none(tmp_path: Path) -> None:
    broken = tmp_path / "broken.pem"
    broken.write_text("no certificate")
    for path in (broken, tmp_path / "missing.pem"):
        with pytest.raises(ConfigError, match=path.name):
            Wire("127.0.0.1:7443", str(path))


@pytest.mark.parametrize(
    ("node_id", "cluster_id", "token"),
    [
        *(("", None, None), (" n", None, None), ("n\n", None, None), ("knöten", None, None)),
        *(("n", "", None), ("n", "c" * 201, None), ("n", None, "a b"), ("n", None, "a\r\nX: 1")),
    ],
)
def test_what_cannot_be_sent(node_id: str, cluster_id: str | None, token: str | None) -> None:
    with pytest.raises(ConfigError) as error:
        Controller(Wire("127.0.0.1:7443"), node_id, cluster_id, token)
    assert token is None or token not in str(error.value)


def test_another_cluster_than_the_one_wanted(server: reference.Controller, tmp_path: Path) -> None:
    one = Controller(Wire(server.address, server.write_ca(tmp_path)), "n", "CLU-2", JOIN)
    with pytest.raises(Trouble, match=r"CLU-1.*CLU-2"):
        one.register()


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("esnode-master-01:7443", ("esnode-master-01", 7443)),
        ("[2001:db8::1]:7443", ("2001:db8::1", 7443)),
        ("10.0.0.1:65535", ("10.0.0.1", 65535)),
    ],
)
def test_addresses(text: str, found: tuple[str, int]) -> None:
    assert address(text) == found


@pytest.mark.parametrize(
    "text",
    [
        *("", "host", "host:", ":7443", "host:0", "host:65536", "host:port", "2001:db8::1:7443x"),
        *("https://host:7443", "host:7443/path", "user:pass@host:7443", "a b:1", "h\r\nX: 1:1"),
        *("2001:db8::1:7443", "[host]:7443", "host:٣"),
    ],
)
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(ConfigError, match="HOST:PORT"):
        address(text)
