"""Exports of real blocks by a running agent to clients that are slow, stop or vanish.

14 MB of text here; with `make soak` more than 1 GB, and the time after which the agent gives a
client up is the real one.
"""

from __future__ import annotations

import os
import socket
import struct
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from esnode._fast.jsonl import render
from esnode.http import export
from esnode.http.export import MOST
from esnode.tsdb.layout import OPEN, WINDOW, metric_object, name, window
from esnode.tsdb.seal import seal
from tests import running
from tests.running import Agent, wait_for
from tests.tsdb.history import many

SOAK = bool(os.environ.get("ESNODE_SOAK"))
#: Blocks, and the series and ticks of each.
BLOCKS, ROWS, TICKS = (10, 2000, 1440) if SOAK else (1, 400, 720)
#: Ticks that are rendered at once.
TOGETHER = 60
MEMORY = 32 << 20
#: Bytes that a slow client takes at once, and seconds until it takes the next.
STEP, PAUSE = 1 << 16, 0.002
#: Connections just closed, and what a busy machine made the agent hire for a moment.
FEW = 3
#: The last moment of the blocks: what the agent records itself comes after it.
END = window(int(time.time() * 1000)) - 1


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A history of sealed blocks."""
    path = tmp_path_factory.mktemp("tsdb")
    source = many(ROWS)
    for number in range(BLOCKS):
        start = END + 1 - (number + 1) * WINDOW
        (path / name(start)).mkdir()
        with (path / name(start) / OPEN).open("wb") as file:
            for first in range(0, TICKS, TOGETHER):
                snapshots = [
                    source.tick(start + 5000 * tick, (tick * row / 8 for row in range(ROWS)))
                    for tick in range(first, first + TOGETHER)
                ]
                row = 0
                while row < ROWS:
                    text, row, _ = render(snapshots, metric_object, row)
                    file.write(text)
        for _ in seal(path, start):
            pass
    return path


@pytest.fixture
def agent(path: Path) -> Iterator[Agent]:
    with Agent("--enable-local-tsdb", "--local-tsdb-path", str(path)) as agent:
        assert agent.get(f"/tsdb/export?to={END}&metrics=load").status == 200
        yield agent


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has an agent give a client up earlier."""
    if not SOAK:
        command = [sys.executable, "-m", "tests.tsdb.impatient"]
        monkeypatch.setattr(running, "command", lambda *flags: [*command, *flags])
        monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))


class Hold:
    """What an agent holds at a moment, to be compared with another."""

    def __init__(self, agent: Agent) -> None:
        self.agent = agent
        self.before = self.now()

    def now(self) -> tuple[int, int]:
        threads = Path(f"/proc/{self.agent.process.pid}/task").iterdir()
        return self.agent.descriptors, len(list(threads))

    def wait(self, what: slice = slice(None)) -> None:
        """Waits until it holds no more descriptors and threads than before."""

        def done() -> bool:
            pairs = list(zip(self.now(), self.before, strict=True))
            return all(now <= before + FEW for now, before in pairs[what])

        wait_for(done, f"no more than {self.before} descriptors and threads; {self.now()}", 30)


DESCRIPTORS = slice(1)


def begin(agent: Agent) -> socket.socket:
    """A client that has asked for all and has taken the first bytes of it, as soon as it may."""
    end = time.monotonic() + running.PATIENCE
    while True:
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, STEP)
        client.settimeout(running.PATIENCE)
        client.connect((agent.host, agent.port))
        request = f"GET /tsdb/export?to={END} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
        client.sendall(request.encode())
        answer = client.recv(100)
        if answer.startswith(b"HTTP/1.1 200"):
            return client
        client.close()
        assert answer.startswith(b"HTTP/1.1 429")
        assert time.monotonic() < end
        time.sleep(0.05)


def status(agent: Agent) -> int:
    return agent.get(f"/tsdb/export?to={END}&metrics=nothing").status


def test_a_slow_client_gets_all_and_costs_no_memory(agent: Agent) -> None:
    hold, before = Hold(agent), agent.memory
    grown = lines = size = 0
    end = b""
    with begin(agent) as client:
        while piece := client.recv(STEP):
            lines += piece.count(b"\n")
            size += len(piece)
            end = (end + piece)[-100:]
            grown = max(grown, agent.memory - before)
            time.sleep(PAUSE)
    assert b"# EOF\n" in end
    assert size > (1 << 30 if SOAK else 10 << 20)
    # The head's lines, and two of each chunk, come on top.
    assert lines > BLOCKS * ROWS * TICKS
    assert grown < MEMORY
    hold.wait(DESCRIPTORS)


def test_clients_that_stop_forever_are_given_up(impatient: None, agent: Agent) -> None:
    hold = Hold(agent)
    clients = [begin(agent) for _ in range(MOST)]
    assert status(agent) == 429
    limit = running.PATIENCE + 2 * export.STALLED
    wait_for(lambda: status(agent) == 200, "they are given up", limit)
    if SOAK:  # the server's own threads end after ten seconds without work
        time.sleep(15)
        hold.wait(slice(1, 2))
    # Their connections stay until they are closed: the server has bytes of theirs to send.
    again = begin(agent)
    for client in (*clients, again):
        client.close()
    hold.wait(DESCRIPTORS)


def test_clients_that_abort_are_forgotten(agent: Agent) -> None:
    hold = Hold(agent)
    threads = []
    for _ in range(6):
        clients = [begin(agent) for _ in range(MOST)]
        assert status(agent) == 429
        for client in clients:  # with a reset
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.close()
        wait_for(lambda: status(agent) == 200, "they are forgotten")
        threads.append(hold.now()[1])
    # The server's own threads stay for ten seconds, and the next clients have the same ones: else
    # there were MOST more each time.
    assert threads[-1] - threads[0] < 5 * MOST
    hold.wait(slice(None) if SOAK else DESCRIPTORS)
