"""The stream of events, behind a real server that is told what to publish."""

from __future__ import annotations

import http.client
import json
import math
import os
import re
import resource
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest

from esnode.http import events
from esnode.http.events import KEPT, KINDS, Kept, Streams, parse
from esnode.http.response import Gone, Refusal, Response
from tests import process
from tests.running import PATIENCE, Agent, Answer, environment, free_port, wait_for

#: Clients at once; as many as there are to be take a while to connect.
MANY = 1000 if os.environ.get("ESNODE_SOAK") else 300
#: More than the kernel keeps for a client that does not read.
LARGE = "x" * 100_000


class Message(NamedTuple):
    """One event as a client sees it."""

    kind: str
    id: int | None
    data: Any


class Asked(NamedTuple):
    """A request, as a handler gets it."""

    query_string: str = ""
    method: str = "GET"
    client: str = "192.0.2.1:5"
    headers: Mapping[str, str] = MappingProxyType({})


class Unix(http.client.HTTPConnection):
    """Over a unix socket, whose path is the host."""

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.host)


class Follower:
    """A client of the stream, as strict as EventSource."""

    def __init__(self, address: str, query: str = "", **headers: str) -> None:
        kind = Unix if address.startswith("/") else http.client.HTTPConnection
        self.connection = kind(address, timeout=PATIENCE)
        named = {name.replace("_", "-"): text for name, text in headers.items()}
        self.connection.request("GET", f"/events{query}", headers=named)
        self.response = self.connection.getresponse()
        self.retry: int | None = None

    def __enter__(self) -> Follower:
        return self

    def __exit__(self, *unused: object) -> None:
        self.close()

    def close(self) -> None:
        self.response.close()
        self.connection.close()

    def message(self) -> Message | None:
        """The next event; None at the end of the stream."""
        kind, number, data = "message", None, []
        while line := self.response.readline():
            assert line.endswith(b"\n") and b"\r" not in line
            text = line[:-1].decode()
            name, _, value = text.partition(": ")
            if not text and data:
                return Message(kind, number, json.loads("\n".join(data)))
            if not text:
                kind, number = "message", None
            if text.startswith(":"):
                continue  # a comment
            if name == "retry":
                self.retry = int(value)
            elif name == "event":
                kind = value
            elif name == "id":
                number = int(value)
            elif name == "data":
                data.append(value)
            else:
                assert not text, f"an odd line: {text!r}"
        assert not data, "an event was cut"
        return None

    def messages(self, number: int) -> list[Message]:
        found = [self.message() for _ in range(number)]
        assert None not in found, "the stream has ended"
        return [message for message in found if message]

    def opened(self) -> Follower:
        """Waits for the first line, which says that the client is known."""
        assert self.response.status == 200, self.response.read()
        assert self.response.readline() == b"retry: 3000\n"
        return self


class Server:
    """A server that publishes what it is told to, in a process of its own."""

    def __init__(self, address: str = "", **limits: float) -> None:
        where = address or str(free_port())
        self.address = address or f"127.0.0.1:{where}"
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  # as long as the server
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.http.follows", where, json.dumps(limits)],
            cwd=Path(__file__).parents[2],
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == b"ready\n", self.log
        wait_for(lambda: self.get("?follow=false").status == 200, "it serves")

    @property
    def log(self) -> str:
        return os.pread(self._log.fileno(), 1 << 20, 0).decode()

    def publish(
        self, kind: str, data: object = None, times: int = 1, pause: float = 0
    ) -> dict[str, Any]:
        """Publishes some data, with NUMBER in it counted; how the streams are then."""
        assert self.process.stdin and self.process.stdout
        line = json.dumps([kind, data, times, pause])
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()
        answer: dict[str, Any] = json.loads(self.process.stdout.readline())
        return answer

    def look(self) -> dict[str, Any]:
        """How the streams are."""
        return self.publish("")

    def follow(self, query: str = "", **headers: str) -> Follower:
        """A client that the server knows, when this returns."""
        return Follower(self.address, query, **headers).opened()

    def get(self, query: str = "", method: str = "GET", **headers: str) -> Answer:
        """An answer that ends."""
        kind = Unix if self.address.startswith("/") else http.client.HTTPConnection
        connection = kind(self.address, timeout=PATIENCE)
        try:
            connection.request(method, f"/events{query}", headers=headers)
            response = connection.getresponse()
            return Answer(response.status, dict(response.getheaders()), response.read())
        except ConnectionRefusedError:
            return Answer(0, {}, b"")
        finally:
            connection.close()

    def stuck(self, query: str = "") -> socket.socket:
        """A client that has asked for the stream and reads nothing."""
        if self.address.startswith("/"):
            client = socket.socket(socket.AF_UNIX)
            client.connect(self.address)
        else:
            client = socket.socket()
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 14)
            host, port = self.address.split(":")
            client.connect((host, int(port)))
        client.settimeout(PATIENCE)
        before = self.look()["clients"]
        client.sendall(f"GET /events{query} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        wait_for(lambda: self.look()["clients"] > before, "the client is known")
        return client

    def memory(self) -> int:
        """Bytes that are resident."""
        return process.resident(self.process.pid)

    @property
    def descriptors(self) -> int:
        return process.descriptors(self.process.pid)

    def end(self) -> float:
        """Has it end; the seconds that takes."""
        start = time.monotonic()
        assert self.process.stdin
        self.process.stdin.close()
        assert self.process.wait(PATIENCE) == 0, self.log
        return time.monotonic() - start


@contextmanager
def server(address: str = "", **limits: float) -> Iterator[Server]:
    running = Server(address, **limits)
    try:
        yield running
    finally:
        running.process.kill()
        running.process.wait()
        print(running.log)


@pytest.fixture(params=["TCP", "unix"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Of the loopback, or of a unix socket."""
    return str(tmp_path / "socket") if request.param == "unix" else ""


def test_events_come_in_order_with_rising_numbers(address: str) -> None:
    with server(address) as running, running.follow() as client:
        running.publish("status", {"number": 1})
        found = client.messages(1)
        running.publish("gpu", '{"text":\r\n\n"two lines of JSON"}')
        running.publish("degradation", {"flag": "swap"})
        running.publish("status", {"number": 2})
        found += client.messages(3)
    assert [message.kind for message in found] == ["status", "gpu", "degradation", "status"]
    assert found[1].data == {"text": "two lines of JSON"}
    assert found[3].data == {"number": 2}
    numbers = [message.id for message in found]
    assert numbers == sorted(set(numbers))
    assert abs(numbers[0] / 1000 - time.time()) < 60
    headers = client.response.headers
    assert headers["content-type"] == "text/event-stream; charset=utf-8"
    assert headers["cache-control"] == "no-store"


def test_a_new_client_gets_the_newest_status_and_what_follows_it() -> None:
    with server() as running:
        running.publish("gpu", {"number": 1})
        running.publish("status", {"number": 2}, times=2)
        running.publish("gpu", {"number": 3})
        with running.follow() as client:
            assert [message.data["number"] for message in client.messages(2)] == [2, 3]
        with running.follow("?kinds=gpu") as client:
            running.publish("degradation", {"number": 4})
            running.publish("gpu", {"number": 5})
            assert client.message().data == {"number": 5}
        assert running.look()["asked"] == 0


def test_a_status_that_is_old_is_not_sent_but_asked_for() -> None:
    with server(tick=0.05) as running:
        running.publish("status", {"number": 1})
        time.sleep(0.2)
        with running.follow("?kinds=status") as client, running.follow() as other:
            wait_for(lambda: running.look()["asked"] == 1, "the agent is asked for a status")
            running.publish("status", {"number": 2})
            for each in (client, other):
                assert each.message().data == {"number": 2}
            assert running.look()["asked"] == 1, "for both"


def test_a_client_that_comes_back_misses_nothing() -> None:
    with server() as running:
        running.publish("gpu", {"number": "NUMBER"}, times=3)
        replay = running.get("?follow=false&kinds=gpu")
        numbers = [int(line[4:]) for line in replay.body.split(b"\n") if line.startswith(b"id: ")]
        assert len(numbers) == 3
        last = str(numbers[0])
        running.publish("status", {"number": 9})
        for query, headers in (("?since=" + last, {}), ("?since=0", {"Last_Event_ID": last})):
            with running.follow(query, **headers) as client:
                found = client.messages(3)
                assert [message.id for message in found[:2]] == numbers[1:]
                assert found[2].kind == "status"
                running.publish("degradation", {"number": 10})
                assert client.message().kind == "degradation"
                last = str(numbers[0])
        # All of it was seen: neither an event nor a status comes twice.
        newest = str(found[2].id)
        with running.follow("?kinds=gpu,status", Last_Event_ID=newest) as client:
            running.publish("gpu", {"number": 11})
            assert client.message().data == {"number": 11}


def test_a_client_that_has_seen_no_event_yet_misses_nothing_either() -> None:
    with server(KEEP_ALIVE=0.2, TOGETHER=0.1) as running:
        running.publish("gpu", {"number": 1})
        with running.follow("?kinds=gpu") as client:
            lines = islice(iter(client.response.readline, b""), 100)
            numbers = (int(line[4:]) for line in lines if line.startswith(b"id: "))
            first = next(numbers)
            running.publish("degradation", {"number": 2})
            later = next(number for number in numbers if number > first)
        running.publish("gpu", {"number": 3})
        for last in (first, later):
            with running.follow("?kinds=gpu", Last_Event_ID=str(last)) as client:
                assert client.message().data == {"number": 3}


def test_what_is_not_kept_any_more_is_said() -> None:
    with server(EVENTS=4) as running:
        running.publish("gpu", {"number": "NUMBER"}, times=3)
        before = running.follow("?since=1&kinds=gpu")
        gap, *rest = before.messages(4)
        assert (gap.kind, gap.data["after_unix_ms"]) == ("gap", 1000)
        assert gap.id == gap.data["until_unix_ms"] < rest[0].id
        first = rest[0].id
        running.publish("gpu", {"number": "1NUMBER"}, times=3)
        with running.follow(Last_Event_ID=str(first)) as client:
            gap, *rest = client.messages(5)
        assert gap.kind == "gap" and gap.data["after_unix_ms"] == first
        assert [message.data["number"] for message in rest] == ["2", "10", "11", "12"]
        assert gap.id < rest[0].id
        # Who has the newest of the lost ones has lost nothing.
        with running.follow(Last_Event_ID=str(gap.id)) as client:
            assert client.message().data == {"number": "2"}
        # Status has no past, and so no gap in it.
        with running.follow("?kinds=status&since=1") as client:
            running.publish("status", {})
            assert client.message().kind == "status"
        before.close()


def test_a_number_of_the_future_means_that_the_clock_was_put_back() -> None:
    with server() as running:
        running.publish("gpu", {"number": 1})
        later = str(int(time.time() * 1000) + 3_600_000)
        with running.follow("?kinds=gpu", Last_Event_ID=later) as client:
            assert [message.kind for message in client.messages(2)] == ["gap", "gpu"]
        with running.follow(f"?kinds=gpu&since={later}") as client:
            running.publish("gpu", {"number": 2})
            assert client.message().data == {"number": 2}


def test_what_is_kept_can_be_had_without_following() -> None:
    with server() as running:
        running.publish("status", {"number": 0})
        running.publish("gpu", {"number": 1, "text": "y" * 5000}, times=100)
        running.publish("degradation", {"number": 2})
        body = running.get("?follow=false").body
        kinds = [line for line in body.splitlines() if line.startswith(b"event: ")]
        assert kinds == [b"event: gpu"] * 100 + [b"event: degradation"]
        assert running.get("?follow=false&since=1").body.count(b"event: gap") == 1
        only = running.get("?follow=false&kinds=degradation").body
        assert only.count(b"event: ") == 1
        assert running.get("?follow=false", "HEAD").body == b""
        assert running.look()["clients"] == 0


def test_head_says_what_get_would_and_takes_no_place() -> None:
    with server(most=1) as running:
        for _ in range(3):
            answer = running.get(method="HEAD")
            assert (answer.status, answer.body) == (200, b"")
            assert answer.headers["content-type"].startswith("text/event-stream")
        assert running.get("?interval=x", "HEAD").status == 400
        assert running.get(method="POST").status == 405
        assert running.look()["clients"] == 0


def test_a_slower_interval_is_one_status_in_some_ticks() -> None:
    with server() as running:
        slow = running.follow("?interval=3600")
        fast = running.follow("?kinds=status")
        for number in range(5):
            assert running.publish("status", {"number": number})["listened"]
            assert fast.message().data == {"number": number}
        running.publish("gpu", {"number": "gpu"})
        assert [message.data["number"] for message in slow.messages(2)] == [0, "gpu"]
        fast.close()
        wait_for(lambda: not running.look()["listened"], "nobody waits for a status")
        slow.close()


def test_the_interval_is_kept_with_ticks_that_are_a_little_early() -> None:
    with server() as running, running.follow("?interval=0.2&kinds=status") as client:
        running.publish("status", {"number": "NUMBER"}, times=24, pause=0.05)
        running.publish("gpu", {})
        found = []
        while len(found) < 4:
            found.append(int(client.message().data["number"]))
        steps = [after - before for before, after in zip(found, found[1:], strict=False)]  # noqa: RUF007
        assert min(steps) >= 2, "fewer ticks than an interval has"


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("interval=0", "interval: '0'"),
        ("interval=nan", "interval: 'nan'"),
        ("interval=-1", "interval: '-1'"),
        ("interval=1e9", "interval: '1e9'"),
        ("interval=", "interval: ''"),
        ("interval=5&kinds=gpu", "interval: it is that of status"),
        ("interval=5&interval=6", "interval: given more than once"),
        ("kinds=", "kinds: ''"),
        ("kinds=gpu,xid", "kinds: 'xid' is unknown; there are status, gpu, degradation"),
        ("kinds=status&follow=false", "kinds: status is not kept"),
        ("since=yesterday", "since: 'yesterday' is no time"),
        ("since=", "since: ''"),
        ("follow=no", "follow: 'no'"),
        ("x%0Ay=1", "x\ny: unknown parameter"),
        ("&".join(["a=1"] * 200), "more than 100 parameters"),
    ],
)
def test_a_wrong_parameter_is_named(query: str, text: str) -> None:
    with pytest.raises(Refusal) as refused:
        parse(query, None)
    assert refused.value.response.status == 400
    body = refused.value.response.body
    assert isinstance(body, bytes) and body.decode().startswith(text)


@pytest.mark.parametrize("number", ["x", "-1", "1.5", "٣", "9" * 20])
def test_a_wrong_last_event_id_is_named(number: str) -> None:
    with pytest.raises(Refusal, match="Last-Event-ID: "):
        parse("", number)


def test_the_parameters_say_what_they_should() -> None:
    assert parse("", None) == (frozenset(KINDS), 0, None, False, True)
    assert parse("", "") == (frozenset(KINDS), 0, None, False, True), "EventSource without one"
    assert parse("follow=false", None).kinds == frozenset(KEPT)
    wish = parse("kinds=status,%20gpu&interval=2.5&since=2026-11-22T00:00:00Z&follow=true", None)
    assert wish == ({"status", "gpu"}, 2.5, 1795305600000, False, True)
    assert parse("since=5", "17").since == 17


def test_a_client_that_goes_frees_its_place_at_once(address: str) -> None:
    with server(address, KEEP_ALIVE=1000) as running:
        descriptors = running.descriptors
        clients = [running.follow("?interval=3600") for _ in range(5)]
        assert running.look()["clients"] == 5
        for client in clients:
            client.close()
        wait_for(lambda: running.look()["clients"] == 0, "all places are free")
        wait_for(lambda: running.descriptors <= descriptors, "no descriptor is left")
        with running.follow() as client:
            running.publish("gpu", {})
            assert client.message().kind == "gpu"


def test_a_reset_in_the_middle_of_an_event_frees_the_place(address: str) -> None:
    with server(address) as running:
        client = running.stuck()
        running.publish("status", {"text": LARGE}, times=5)
        client.recv(1000)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        client.close()
        wait_for(lambda: running.look()["clients"] == 0, "the place is free")


def test_a_comment_keeps_an_idle_connection_alive() -> None:
    with server(KEEP_ALIVE=0.2, TOGETHER=0.1) as running, running.follow("?kinds=gpu") as client:
        for _ in range(2):
            while not (line := client.response.readline()).startswith(b":"):
                assert line == b"\n" or line.startswith(b"id: ")
        running.publish("gpu", {"number": 1})
        assert client.message().data == {"number": 1}


def test_places_are_limited_in_all_and_by_address() -> None:
    with server(most=3, most_of_one=2) as running, ExitStack() as stack:
        port = int(running.address.rpartition(":")[2])

        def follow(source: str) -> Follower | None:
            # Other addresses of the loopback are other clients.
            follower = Follower.__new__(Follower)
            connection = http.client.HTTPConnection(
                "127.0.0.1", port, timeout=PATIENCE, source_address=(source, 0)
            )
            connection.request("GET", "/events")
            follower.connection, follower.response = connection, connection.getresponse()
            stack.callback(follower.close)
            if follower.response.status == 200:
                return follower.opened()
            assert follower.response.status == 429
            assert int(follower.response.headers["retry-after"]) > 0
            said.append(follower.response.read().decode())
            return None

        said: list[str] = []
        first = follow("127.0.0.1")
        assert first and follow("127.0.0.1")
        assert follow("127.0.0.1") is None
        assert said.pop().startswith("2 clients follow from 127.0.0.1")
        assert follow("127.0.0.2")
        assert follow("127.0.0.3") is None
        assert said.pop().startswith("3 clients follow")
        first.close()
        wait_for(lambda: running.look()["clients"] == 2, "a place is free")
        assert follow("127.0.0.1")


def test_clients_leave_descriptors_for_others() -> None:
    streams = Streams(1024, 1024, 5)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)

    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        for _ in range(64):
            streams.handle(Asked(), lambda response: None)
        with pytest.raises(Refusal, match="64 clients follow"):
            streams.handle(Asked(), lambda response: None)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        streams.stop()


def test_clients_that_read_nothing_cost_no_memory(address: str) -> None:
    with server(address, STALLED=1000) as running, running.follow("?kinds=status") as other:
        stuck = [running.stuck() for _ in range(3)]
        for _ in range(5):
            running.publish("status", {"text": LARGE})
            other.message()
        before = running.memory()
        for number in range(5):  # as much as 150 MB for the three
            running.publish("status", {"text": LARGE}, times=100, pause=0.001)
            running.publish("status", {"last": number})
            while other.message().data.get("last") != number:
                pass
        assert running.look()["clients"] == 4
        assert running.memory() - before < 10 << 20
        for client in stuck:
            client.close()
        wait_for(lambda: running.look()["clients"] == 1, "their places are free")


def test_a_client_that_reads_nothing_is_dropped(address: str) -> None:
    limits = {"STALLED": 0.5, "QUIET": 2}
    with server(address, **limits) as running, running.follow("?kinds=status") as other:
        stuck = [running.stuck() for _ in range(3)]

        def told() -> int:
            more = re.findall(r"dropped (\d+) more slow readers of events", running.log)
            return running.log.count("dropped a slow reader") + sum(map(int, more))

        def dropped() -> bool:
            streams = running.publish("status", {"text": LARGE})
            other.message()
            return bool(streams["dropped"] == 3)

        wait_for(dropped, "they are dropped")
        wait_for(lambda: running.look()["clients"] == 1, "their places are free")
        assert "it took nothing for" in running.log
        wait_for(lambda: told() == 3, "the log tells of each")
        for client in stuck:
            with suppress(ConnectionResetError):
                while client.recv(1 << 20):
                    pass  # what was on its way, and the end
        running.publish("status", {"number": 7})
        assert other.message().data == {"number": 7}, "the others go on"


def test_a_reader_that_pauses_gets_all_events_and_the_newest_status(address: str) -> None:
    with server(address, STALLED=60) as running, running.follow() as client:
        for number in range(20):
            running.publish("status", {"status": number, "text": LARGE}, times=5)
            running.publish("gpu", {"gpu": number})
        found = []
        while not found or found[-1].data.get("status") != "end":
            found.append(client.message())
            if len(found) == 1:
                running.publish("status", {"status": "end"})
        numbers = [message.id for message in found]
        assert numbers == sorted(set(numbers))
        seen = [message.data["gpu"] for message in found if message.kind == "gpu"]
        assert seen == list(range(20))
        assert len(found) < 100, "statuses that were out of date were sent"
        assert running.look()["dropped"] == 0


def test_a_long_replay_comes_whole() -> None:
    with server() as running:
        running.publish("gpu", {"number": "NUMBER", "text": "z" * 1000}, times=1000)
        with running.follow("?since=1&kinds=gpu") as client:
            gap, *rest = client.messages(1001)
        assert gap.kind == "gap"
        assert [int(message.data["number"]) for message in rest] == list(range(1000))


def test_hundreds_of_clients_get_every_status() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with server(most_of_one=MANY, KEEP_ALIVE=1000) as running, ExitStack() as stack:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        clients = [stack.enter_context(running.follow("?kinds=status")) for _ in range(MANY)]
        assert running.get().status == 429
        for number in range(3):
            running.publish("status", {"number": number, "text": "a" * 15_000})
            for client in clients:
                assert client.message().data["number"] == number
        stack.close()
        wait_for(lambda: running.look()["clients"] == 0, "all places are free")


def test_the_end_ends_all_streams_at_once(address: str) -> None:
    with server(address) as running:
        clients = [running.follow("?interval=3600") for _ in range(5)]
        stuck = running.stuck()
        running.publish("status", {"text": LARGE}, times=20, pause=0.02)
        assert running.end() < 5
        for client in clients:
            assert client.message().kind == "status"
            assert client.message() is None, "the stream's last chunk was sent"
        stuck.close()


def test_who_comes_after_the_end_is_refused() -> None:
    streams = Streams(10, 10, 5)
    streams.stop()

    with pytest.raises(Refusal, match="the agent ends"):
        streams.handle(Asked(), lambda response: None)


class Slot:
    """An outlet that takes what it is told to."""

    pulse = math.inf

    def __init__(self) -> None:
        self.texts: list[bytes] = []
        self.takes = True
        self.gone = False

    def watch(self, gone: object) -> None:
        pass

    def ready(self) -> bool:
        return self.takes

    def send(self, data: bytes) -> None:
        if self.gone:
            raise Gone
        self.texts.append(data)

    def end(self) -> None:
        pass

    cut = end


def test_all_clients_get_the_same_object() -> None:
    streams = Streams(200, 200, 5)
    outlets = [Slot() for _ in range(150)]

    for outlet in outlets:

        def respond(response: Response, outlet: Slot = outlet) -> None:
            assert callable(response.body)
            response.body(outlet)

        streams.handle(Asked("kinds=status,gpu"), respond)
    wait_for(lambda: all(outlet.texts for outlet in outlets), "all have begun")
    streams.publish("status", b"{}")
    wait_for(lambda: all(len(outlet.texts) == 2 for outlet in outlets), "all have the status")
    assert len({id(outlet.texts[1]) for outlet in outlets}) == 1
    outlets[0].gone = True
    streams.publish("gpu", b"{}")
    wait_for(lambda: len(streams) == 149, "the one that has gone is forgotten")
    streams.stop()


def test_a_portion_is_cut_between_events_and_reaches_to_where_it_was_cut() -> None:
    def event(number: int, kind: str = "gpu") -> events.Event:
        return events.Event(number, kind, b"x" * 40_000, 0)

    kinds = frozenset(KINDS)
    kept = Kept([event(1), event(2), event(4)], 0, 9, event(3, "status"))
    first = kept.portion(kinds, 0, kept.status)
    assert (len(first.text), first.cursor, first.shown, first.more) == (40_000, 1, 0, True)
    third = kept.portion(kinds, 2, kept.status)
    assert (third.cursor, third.shown, third.more) == (3, 3, True)
    last = kept.portion(kinds, 3, None)
    assert (last.cursor, last.shown, last.more) == (9, 0, False)


def test_the_agent_sends_the_status_of_each_tick() -> None:
    with Agent("--scrape-interval", "0.5") as agent:
        with Follower(agent.address, "?kinds=status") as client:
            found = [message.data for message in client.opened().messages(3)]
        stamps = [data["last_scrape_unix_ms"] for data in found]
        assert stamps == sorted(set(stamps)), "one for each tick"
        assert found[0].keys() == json.loads(agent.get("/status").body).keys()


def test_the_agent_has_a_status_for_who_comes_between_two_ticks() -> None:
    with Agent("--scrape-interval", "1h") as agent:
        client = Follower(agent.address).opened()
        assert client.message().kind == "status"
        assert "/events" in agent.get("/").body.decode()
        code, seconds = agent.end()
        assert (code, seconds < 5) == (0, True)
        assert client.message() is None
        client.close()


def test_a_status_that_is_published_twice_is_sent_once() -> None:
    streams = Streams(10, 10, 5)
    outlet = Slot()

    def respond(response: Response) -> None:
        assert callable(response.body)
        response.body(outlet)

    streams.handle(Asked(), respond)
    document = b'{"number":1}'
    for data in (document, document, b'{"number":2}'):
        streams.publish("status", data)
        wait_for(lambda data=data: data in b"".join(outlet.texts), "it is sent")
    assert b"".join(outlet.texts).count(b"event: status") == 2
    streams.stop()
