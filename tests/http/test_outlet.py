"""Outlets: what becomes of a pipe that the server reads, or does not."""

from __future__ import annotations

import os
from typing import Any

import pytest

from esnode.http.outlet import Pipe
from esnode.http.response import Gone

from ..process import descriptors
from ..running import wait_for


class Protocol:
    """A server that is asked to read a file, and does when it is told to."""

    def __init__(self) -> None:
        self.path = ""

    def response_file(self, status: int, headers: Any, path: str) -> None:
        self.path = path

    def open(self) -> int:
        return os.open(self.path, os.O_RDONLY)


def test_a_pipe_that_nobody_opens_has_no_client(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("esnode.http.outlet.OPENING", 0.1)
    before = descriptors()
    pipe = Pipe(Protocol(), 200, [])
    assert pipe.ready()
    pipe.send(b"first")

    def gone() -> bool:
        assert pipe.ready()
        try:
            pipe.send(b"more")
        except Gone:
            return True
        return False

    wait_for(gone, "it is seen")
    assert descriptors() == before


def test_a_pipe_whose_reader_is_slow_has_a_client(monkeypatch: pytest.MonkeyPatch) -> None:
    protocol = Protocol()
    pipe = Pipe(protocol, 200, [])
    pipe.send(b"first")
    reader = protocol.open()
    assert os.read(reader, 1) == b"f"
    monkeypatch.setattr("esnode.http.outlet.OPENING", -1)
    assert pipe.ready()
    pipe.send(b", second")
    assert os.read(reader, 100) == b"irst, second"
    os.close(reader)
    with pytest.raises(Gone):
        pipe.send(b"third")
    pipe.end()
