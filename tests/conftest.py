"""For every test: what the agent keeps goes to a directory of the run."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(autouse=True, scope="session")
def state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where agents of this run keep their state; a test may set another one."""
    with pytest.MonkeyPatch.context() as patch:
        directory = tmp_path_factory.mktemp("state")
        patch.delenv("STATE_DIRECTORY", raising=False)
        patch.setenv("XDG_STATE_HOME", str(directory))
        yield directory


@pytest.fixture(scope="module", autouse=True)
def collected() -> None:
    """What earlier files left as garbage is closed before a test counts descriptors or threads."""
    gc.collect()


@pytest.fixture
def hung(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A directory on a disk that does not answer."""
    from .collectors.fuse import FileSystem

    point = tmp_path_factory.mktemp("hung")
    try:
        system = FileSystem(point).__enter__()
    except OSError as error:
        pytest.skip(f"no FUSE: {error}")
    system.stop()
    yield point
    system.__exit__()
