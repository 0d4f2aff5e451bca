"""The fake of NVIDIA's library with nvidia-ml-py on it, and the agent's GPU lane."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pynvml as nv
import pytest

from esnode.collectors.nvidia import readings
from esnode.collectors.nvidia.readings import Query
from tests import fakenvml
from tests.fakenvml import Fake

from .node import Node


@pytest.fixture(scope="session")
def path() -> Path:
    return fakenvml.library()


@pytest.fixture
def fake(path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fake]:
    """Without GPUs, and initialised for nvidia-ml-py."""
    fake = Fake(path)
    monkeypatch.setattr(nv, "nvmlLib", ctypes.CDLL(str(path)))
    monkeypatch.setattr(nv, "_nvmlGetFunctionPointer_cache", {})
    while nv.nvmlLib.nvmlShutdown() == 0:
        pass  # another test's lane may have left it open: a GPU that hung
    nv.nvmlInit()
    yield fake
    fake.reset()
    nv.nvmlShutdown()


@pytest.fixture
def node(fake: Fake, tmp_path: Path) -> Iterator[Callable[..., Node]]:
    """Makes the lane of a configuration."""
    made: list[Node] = []

    def make(**keys: Any) -> Node:
        made.append(Node(fake.path, tmp_path, **keys))
        return made[-1]

    yield make
    fake.release()
    for each in made:
        each.close()
    assert fake.gpm_samples() == 0


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """What has a slower period is asked at each tick, too."""
    queries = readings.gpu_queries

    def faster(*keys: bool) -> Iterator[Query]:
        for query in queries(*keys):
            yield query._replace(period=readings.TICK) if query.period > 0 else query

    monkeypatch.setattr(readings, "gpu_queries", faster)
