"""`esnode-core events`: what the agent remembers, and following it over its end."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import threading
from urllib.parse import parse_qs, urlsplit

import pytest

from esnode.cli import events
from esnode.client import Message
from esnode.config import ConfigError

from .peers import HUNG, page, peer, request, says
from .running import PATIENCE, command, environment, free_port, run, wait_for

XID = {
    "unix_ms": 1_795_000_000_000,
    "kind": "xid",
    "gpu": "3",
    "uuid": "GPU-3",
    "pci_bus_id": "00000000:3b:00.0",
    "code": 79,
    "meaning": "The GPU has fallen off the bus.",
    "action": "Reboot the node.",
    "text": "GPU has fallen off the bus.",
    "source": "kernel",
}
FLAG = {
    "unix_ms": 1_795_000_001_000,
    "flag": "disk_degradation_latency",
    "labels": {"device": "md0"},
    "degraded": True,
    "reason": "md0 takes 120 ms for a read",
    "score": 1.5,
}


def sent(number: int, kind: str, data: object) -> bytes:
    return f"id: {number}\nevent: {kind}\ndata: {json.dumps(data)}\n\n".encode()


HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\nretry: 50\n\n"
TWO = sent(1, "gpu", XID) + sent(2, "degradation", FLAG)


class Asked:
    """What clients asked for, by connection: the query, and the last id."""

    def __init__(self) -> None:
        self.queries: list[dict[str, list[str]]] = []
        self.last: list[str] = []

    def add(self, connection: socket.socket) -> int:
        lines = request(connection).decode().split("\r\n")
        self.queries.append(parse_qs(urlsplit(lines[0].split()[1]).query))
        ids = [line.partition(": ")[2] for line in lines if line.startswith("Last-Event-ID")]
        self.last.append(ids[0] if ids else "")
        return len(self.last)


def test_lines_for_people() -> None:
    asked = Asked()

    def act(connection: socket.socket, stop: threading.Event) -> None:
        asked.add(connection)
        connection.sendall(HEAD + TWO)

    with peer(act) as address:
        done = run("--listen-address", address, "events")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "2026-11-18 11:06:40Z  GPU 3  Xid 79  The GPU has fallen off the bus.  (Reboot the node)",
        "2026-11-18 11:06:41Z  disk_degradation_latency device=md0  degraded"
        "  md0 takes 120 ms for a read  (score 1.5)",
    ]
    assert asked.queries == [{"kinds": ["gpu,degradation"], "follow": ["false"]}]


def test_json_is_a_line_each() -> None:
    with peer(says(HEAD + TWO)) as address:
        done = run("--listen-address", address, "events", "--json", "--kinds", "gpu")
    assert [json.loads(line) for line in done.stdout.splitlines()] == [
        {"id": 1, "event": "gpu", "data": XID},
        {"id": 2, "event": "degradation", "data": FLAG},
    ]


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]", b"{}", b"null", b'{"unix_ms":1e300}', b'"\xff"', b'{"gpu":1}']
)
def test_nonsense_is_left_out_or_shown_without_a_fault(data: bytes) -> None:
    for kind in ("gpu", "degradation", "status", "gap", "other"):
        for number in ("", "7"):
            message = Message(number, kind, data)
            assert "\n" not in events.line(message, False)
            assert "\n" not in events.raw(message)


def test_an_event_cannot_write_to_the_terminal() -> None:
    data = json.dumps({**XID, "meaning": "\x1b[2J\n\x07", "code": "\x1b"}).encode()
    assert events.line(Message("1", "gpu", data), False).isprintable()


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("1h", 996_400_000),
        ("1h30m", 994_600_000),
        ("90", 999_910_000),
        ("0", 1_000_000_000),
        ("1795000000", 1_795_000_000_000),
        ("1795000000.5", 1_795_000_000_500),
        ("1795000000123", 1_795_000_000_123),
        ("2026-11-18T11:06:40Z", 1_795_000_000_000),
        ("2026-11-18T12:06:40+01:00", 1_795_000_000_000),
    ],
)
def test_moments(text: str, wanted: int) -> None:
    assert events.moment(text, 1_000_000) == wanted


@pytest.mark.parametrize("text", ["", "yesterday", "-1h", "nan", "inf", "1x", "2026-13-01"])
def test_no_moments(text: str) -> None:
    with pytest.raises(ConfigError, match="--since"):
        events.moment(text, 1_000_000)


def test_following_goes_on_after_the_agents_end() -> None:
    """Three streams: the second is refused, the third goes on after the last id of the first."""
    asked = Asked()
    pieces = {1: HEAD + TWO, 3: HEAD + sent(5, "gpu", XID)}

    def act(connection: socket.socket, stop: threading.Event) -> None:
        number = asked.add(connection)
        if number == 2:
            connection.sendall(page(b"too many clients", "429 Too Many Requests"))
        else:
            connection.sendall(pieces.get(number, HEAD))
        if number >= 3:
            stop.wait(30)

    with peer(act) as address:
        process = subprocess.Popen(
            command("events", "--follow", "--since", "1h", "--json", "--url", f"http://{address}"),
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        with process:
            assert process.stdout is not None and process.stderr is not None
            ids = [json.loads(process.stdout.readline())["id"] for _ in range(3)]
            assert ids == [1, 2, 5]
            process.send_signal(signal.SIGINT)
            assert process.wait(PATIENCE) == 0
            said = process.stderr.read()
    assert asked.last == ["", "2", "2"]
    assert "since" in asked.queries[0]
    assert "since" not in asked.queries[1]
    assert said.splitlines() == [
        f"esnode-core: the agent on {address} ended the stream; trying again",
        "esnode-core: the agent is back",
    ]


def test_following_an_agent_that_has_gone_for_good_waits_for_it() -> None:
    with peer(says(HEAD)) as address:
        process = subprocess.Popen(
            command("events", "-f", "--url", f"http://{address}"),
            env=environment(),
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stderr is not None
        assert "trying again" in process.stderr.readline()
    with process:
        wait_for(lambda: process.poll() is None, "it goes on")
        process.terminate()
        process.wait(PATIENCE)


@pytest.mark.parametrize("follow", [[], ["--follow"]])
def test_agents_that_do_not_answer(follow: list[str]) -> None:
    done = run("--listen-address", f"127.0.0.1:{free_port()}", "events", *follow)
    assert (done.returncode, done.stdout) == (1, "")
    assert "no agent answers" in done.stderr
    with peer(HUNG["silent"]) as address:
        done = run("--listen-address", address, "events", *follow)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    with peer(says(page(b"not found", "404 Not Found"))) as address:
        done = run("--listen-address", address, "events", *follow)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "404" in done.stderr


def test_what_an_agent_does_not_know_is_said() -> None:
    data = b'{"after_unix_ms":1795000000000,"until_unix_ms":1795000060000}'
    line = events.line(Message("1795000060000", "gap", data), False)
    assert line == (
        "2026-11-18 11:07:40Z  not known: what happened from 2026-11-18 11:06:40Z to"
        " 2026-11-18 11:07:40Z"
    )


@pytest.mark.parametrize(
    "words", [["--kinds", "gpu,other"], ["--kinds", "status"], ["--since", "soon"], ["more"]]
)
def test_wrong_usage_is_code_2(words: list[str]) -> None:
    done = run("events", *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
