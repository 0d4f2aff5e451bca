"""Requests that no honest client sends, over raw sockets: an answer of 4xx, or the end."""

from __future__ import annotations

import contextlib
import random
import re
import socket
import string
import time
from collections.abc import Iterator

import pytest

from .guarded import Guarded
from .running import Agent

GET = b"GET /metrics HTTP/1.1\r\nHost: a\r\n"
#: Longer than any header that is taken.
HUGE = b"x" * (1 << 19)


@pytest.fixture(scope="module")
def agent() -> Iterator[Guarded]:
    with Guarded() as agent:
        yield agent
        assert "Traceback" not in agent.log
        assert "panicked" not in agent.log


#: After it the server closes.
LAST = b"GET /nope HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


def send(agent: Agent, data: bytes, timeout: float = 2.0) -> bytes:
    """All that comes back until the server closes, or nothing comes for a while."""
    with agent.connect(timeout) as client:
        received = b""
        with contextlib.suppress(OSError):
            client.sendall(data)
            if not data.endswith(LAST):
                client.shutdown(socket.SHUT_WR)
            while part := client.recv(1 << 16):
                received += part
        return received


def statuses(received: bytes) -> list[int]:
    return [int(number) for number in re.findall(rb"^HTTP/1\.[01] (\d{3}) ", received, re.M)]


@pytest.mark.parametrize(
    "data",
    [
        GET + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        GET + b"Content-Length: 3, 4\r\n\r\nabcd",
        GET + b"Content-Length: -1\r\n\r\n",
        GET + b"Content-Length: +3\r\n\r\nabc",
        GET + b"Content-Length: 99999999999999999999999\r\n\r\n",
        GET + b"Content-Length: 0x3\r\n\r\nabc",
        GET + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        GET + b"Transfer-Encoding: gzip\r\n\r\n",
        GET + b"A: a\0b\r\n\r\n",
        GET + b"A\0: b\r\n\r\n",
        b"GET /metrics\0 HTTP/1.1\r\nHost: a\r\n\r\n",
        GET + b"A b: c\r\n\r\n",
        GET + b"A : c\r\n\r\n",
        GET + b": c\r\n\r\n",
        GET + b"A\r\n\r\n",
        GET + b" folded: line\r\n\r\n",
        GET + b"A: b\r\n folded\r\n\r\n",
        GET + b"A: b\rC: d\r\n\r\n",
        GET + b"A: " + HUGE + b"\r\n\r\n",
        GET + HUGE + b": a\r\n\r\n",
        GET + b"".join(b"A%d: a\r\n" % number for number in range(5000)) + b"\r\n",
        b"GET /" + HUGE + b" HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET " + b"/" * 70_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /metrics HTTP/9.9\r\nHost: a\r\n\r\n",
        b"GET /metrics HTTP/2.0\r\nHost: a\r\n\r\n",
        b"GET /metrics\r\n\r\n",
        b"GET  /metrics HTTP/1.1\r\nHost: a\r\n\r\n",
        b"G\xc3\x89T /metrics HTTP/1.1\r\nHost: a\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"\x00" * 1000,
        b"\r\n" * 1000,
        b"\xff" * 1000,
        b"SSH-2.0-OpenSSH_9\r\n",
    ],
)
def test_what_is_no_http_is_refused_or_ended(data: bytes, agent: Guarded) -> None:
    found = statuses(send(agent, data))
    assert all(400 <= status < 500 for status in found), found
    assert agent.get().status == 200


@pytest.mark.parametrize(
    "data",
    [
        GET + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        GET + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        GET.replace(b"\r\n", b"\n") + b"\n",
        GET + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
        GET + b"Transfer-Encoding: chunked\r\n\r\nZZ\r\nabc\r\n0\r\n\r\n",
        GET + b"Transfer-Encoding: chunked\r\n\r\n3;" + b"x" * 50_000 + b"\r\nabc\r\n0\r\n\r\n",
    ],
)
def test_an_ambiguous_body_smuggles_no_second_request(data: bytes, agent: Guarded) -> None:
    """What follows is either a request of its own, or not looked at; never part of both."""
    found = statuses(send(agent, data + b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"))
    assert found in ([], [200], [400], [200, 400], [200, 404]), found
    assert agent.get().status == 200


def test_a_body_is_not_taken_for_a_request(agent: Guarded) -> None:
    inner = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
    for head, body in (
        (b"Content-Length: %d\r\n\r\n" % len(inner), inner),
        (b"Transfer-Encoding: chunked\r\n\r\n", b"%x\r\n%s\r\n0\r\n\r\n" % (len(inner), inner)),
        # Of the two, the length must not count: RFC 9112, section 6.3.
        (
            b"Content-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"%x\r\n%s\r\n0\r\n\r\n" % (len(inner), inner),
        ),
    ):
        assert 404 not in statuses(send(agent, GET + head + body))


def test_pipelined_requests_are_answered_in_order(agent: Guarded) -> None:
    wanted = []
    data = b""
    for number in range(200):
        path, status = ((b"/readyz", 200), (b"/nope", 404), (b"/metrics?collect[]=", 400))[
            number % 3
        ]
        data += b"GET " + path + b" HTTP/1.1\r\nHost: a\r\n\r\n"
        wanted.append(status)
    assert statuses(send(agent, data + LAST, 10)) == [*wanted, 404]


def test_clients_that_dribble_hold_up_nobody(agent: Guarded) -> None:
    clients = [agent.connect() for _ in range(300)]
    try:
        slowest = 0.0
        for letter in GET[:20]:
            for client in clients:
                client.send(bytes([letter]))
            began = time.monotonic()
            assert agent.get(timeout=5).status == 200
            slowest = max(slowest, time.monotonic() - began)
        assert slowest < 2
    finally:
        for client in clients:
            client.close()


def test_random_paths_and_methods_add_no_series_and_no_log() -> None:
    with Guarded() as agent:
        before = agent.series().keys()
        lines = agent.log.count("\n")
        memory = agent.memory
        draw = random.Random(1)
        letters = string.ascii_letters + string.digits + "/%.-_~!$&'()*+,;=:@?"
        data = b""
        for _ in range(10_000):
            path = "/" + "".join(draw.choices(letters, k=draw.randrange(40)))
            method = "".join(draw.choices(string.ascii_uppercase, k=draw.randrange(1, 12)))
            data += f"{method} {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode()
        found = statuses(send(agent, data + LAST, 30))
        assert set(found) <= {200, 404, 405}
        assert len(found) == 10_001
        assert agent.series().keys() == before
        assert agent.log.count("\n") == lines
        assert agent.memory - memory < 16 << 20


def test_random_bytes_end_no_agent(agent: Guarded) -> None:
    draw = random.Random(2)
    parts = [GET, b"\r\n", b"\n", b"\0", b":", b" ", b"\xff", b"Content-Length: ", b"0", b"9" * 30]
    parts += [b"Transfer-Encoding: chunked\r\n", b"HTTP/1.1", b"GET", b"Expect: 100-continue\r\n"]
    for _ in range(300):
        data = b"".join(draw.choices(parts, k=draw.randrange(1, 12)))
        found = statuses(send(agent, data, 0.5))
        assert all(status in (100, 200) or 400 <= status < 500 for status in found), (data, found)
    assert agent.get().status == 200
