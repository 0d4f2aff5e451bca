"""A fake that is scripted within this process, and nodes that have its GPUs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests import fakenvml
from tests.fakenvml import Fake

from .lane import Node


@pytest.fixture
def nvml() -> Iterator[Fake]:
    """Without GPUs; the driver is loaded."""
    fake = Fake(fakenvml.library())
    fake.reset()
    yield fake
    fake.release()
    fake.reset()


@pytest.fixture
def node(nvml: Fake, tmp_path: Path) -> Iterator[Callable[..., Node]]:
    """Makes a node; it is closed at the end."""
    made: list[Node] = []

    def make(**keys: object) -> Node:
        made.append(Node(nvml, tmp_path, **keys))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for each in made:
        each.close()
