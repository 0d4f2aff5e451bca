"""The route of exports, behind a real server that sends made-up ones."""

from __future__ import annotations

import http.client
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import zstandard
from isal import isal_zlib

from esnode.http.export import MOST, parse
from esnode.http.response import Refusal, Response
from tests import process
from tests.http.streams import FAILS_AT_ONCE, FAILS_AT_THE_END, PIECE, REFUSED
from tests.http.test_app import Client
from tests.running import PATIENCE, Answer, environment, free_port, wait_for

END = b"# EOF\n"
#: Pieces of an export that no socket's buffers hold.
LONG = 3000
#: Bytes that a slow client takes before it is looked at what it costs.
TAKEN = 1 << 30 if os.environ.get("ESNODE_SOAK") else 6 << 20


class Server:
    """A server of made-up exports, in a process of its own."""

    def __init__(self) -> None:
        self.port = free_port()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.http.streams", str(self.port)],
            cwd=Path(__file__).parents[2],
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == b"ready\n"
        wait_for(lambda: self.get(0).status == 200, "it serves")

    def request(
        self, pieces: int, to: str = "", method: str = "GET", **headers: str
    ) -> http.client.HTTPResponse:
        """The answer's head; the rest is read by whoever wants it."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        named = {name.replace("_", "-"): text for name, text in headers.items()}
        path = f"/tsdb/export?from={pieces}" + (f"&to={to}" if to else "")
        connection.request(method, path, headers=named)
        return connection.getresponse()

    def get(self, pieces: int, to: str = "", method: str = "GET", **headers: str) -> Answer:
        try:
            response = self.request(pieces, to, method, **headers)
        except ConnectionError:
            return Answer(0, {}, b"")
        with response:
            return Answer(response.status, dict(response.getheaders()), response.read())

    def connect(self, pieces: int) -> socket.socket:
        """A client that has asked for an export and does not read."""
        client = socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE)
        client.sendall(f"GET /tsdb/export?from={pieces} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        return client

    def memory(self) -> int:
        """Bytes that are resident."""
        return process.resident(self.process.pid)

    @property
    def descriptors(self) -> int:
        return process.descriptors(self.process.pid)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.process.kill()
    server.process.wait()


@pytest.mark.parametrize("pieces", [0, 1, 3, 4, 5, 100, LONG])
def test_answers_of_any_length_are_whole(pieces: int, server: Server) -> None:
    answer = server.get(pieces)
    assert answer.status == 200
    assert answer.body == PIECE * pieces + END
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize("pieces", [1, 500])
def test_compressed_on_request(pieces: int, server: Server) -> None:
    gzip = server.get(pieces, accept_encoding="gzip")
    assert gzip.headers["content-encoding"] == "gzip"
    assert isal_zlib.decompress(gzip.body, wbits=31) == PIECE * pieces + END
    zstd = server.get(pieces, accept_encoding="zstd")
    assert zstd.headers["content-encoding"] == "zstd"
    with zstandard.ZstdDecompressor().stream_reader(zstd.body) as reader:
        assert reader.read() == PIECE * pieces + END
    assert max(len(gzip.body), len(zstd.body)) < 0.1 * len(PIECE) * pieces


def test_head_exports_nothing(server: Server) -> None:
    answer = server.get(LONG, FAILS_AT_ONCE, method="HEAD")
    assert (answer.status, answer.body) == (200, b"")


def test_a_range_that_the_history_refuses_is_400(server: Server) -> None:
    answer = server.get(1, REFUSED)
    assert (answer.status, answer.body) == (400, b"from: refused\n")


def test_a_failure_is_500_or_an_answer_without_its_end(server: Server) -> None:
    assert server.get(LONG, FAILS_AT_ONCE).status == 500
    assert server.get(2, FAILS_AT_THE_END).status == 500
    assert server.get(100, FAILS_AT_THE_END).body == PIECE * 100


def test_slow_clients_cost_no_memory_and_more_of_them_are_refused(server: Server) -> None:
    server.get(LONG)
    before, descriptors = server.memory(), server.descriptors
    clients = [server.connect(LONG * 100) for _ in range(MOST)]
    wait_for(lambda: server.get(0).status == 429, "all are under way")
    refused = server.get(0)
    assert refused.headers["retry-after"] == "5"
    assert b"exports are under way" in refused.body
    grown = 0
    for client in clients:  # each takes a little at a time, and then no more
        taken = 0
        while taken < TAKEN:
            got = len(client.recv(1 << 16))
            assert got
            if taken // (1 << 20) != (taken + got) // (1 << 20):
                time.sleep(0.001)
                grown = max(grown, server.memory() - before)
            taken += got
    for client in clients:
        client.close()
    wait_for(lambda: server.get(0).status == 200, "the clients are gone")
    wait_for(lambda: server.descriptors <= descriptors, "their pipes are closed")
    assert grown < 32 << 20


def test_clients_that_vanish_at_once(server: Server) -> None:
    descriptors = server.descriptors
    for _ in range(20):
        server.connect(LONG).close()
    wait_for(lambda: server.get(5).body == PIECE * 5 + END, "the clients are forgotten")
    wait_for(lambda: server.descriptors <= descriptors, "their pipes are closed")


def test_the_end_of_the_agent_does_not_wait_for_exports() -> None:
    server = Server()
    with server.connect(LONG * 100) as client:
        assert client.recv(100).startswith(b"HTTP/1.1 200")
        assert server.process.stdin is not None
        server.process.stdin.close()
        assert server.process.wait(2) == 0


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("from=yesterday", "from: 'yesterday' is no time"),
        ("to=", "to: '' is no time"),
        ("from=2&to=1", "from: 2 is after to, 1"),
        ("from=1&from=2", "from: given more than once"),
        ("metrics=a,", "metrics: '' is no name"),
        ("match=a{b=~%22c%22}", "=~ is not supported"),
        ("match[]=%7B", "match: '{'"),
        ("format=xml", "format: 'xml' is unknown; there are prometheus, openmetrics, jsonl, csv"),
        ("format=", "format: '' is unknown"),
        ("eof=yes", "eof: 'yes' is neither"),
        ("metric=a", "metric: unknown parameter; there are from, to, metrics, match"),
        ("a=&" * 1001, "more than 1000 parameters"),
    ],
)
def test_a_bad_parameter_is_400_and_named(query: str, text: str) -> None:
    with pytest.raises(Refusal) as caught:
        parse(query)
    status, _, body = caught.value.response
    assert status == 400
    assert isinstance(body, bytes)
    assert text in body.decode()


def test_parameters() -> None:
    selection, form, eof = parse(
        "from=1&to=2026-11-22T12%3A00%3A00%2B01%3A00&metrics=a,b*&match=x&match[]=y&eof=1"
        "&format=jsonl"
    )
    assert (form, eof) == ("jsonl", True)
    assert (selection.start, selection.end) == (1000, 1_795_345_200_000)
    assert (selection.names, selection.prefixes) == ({"a"}, ("b",))
    assert len(selection.selectors) == 2
    assert parse("")[1:] == ("prometheus", True)
    assert parse("format=jsonl")[1:] == ("jsonl", False)


def test_without_a_history_it_says_how_to_keep_one() -> None:
    response: Response = Client().get("/tsdb/export?from=nonsense")
    assert response.status == 404
    assert isinstance(response.body, bytes)
    assert b"enable_local_tsdb = true" in response.body
    assert b"--enable-local-tsdb" in response.body
