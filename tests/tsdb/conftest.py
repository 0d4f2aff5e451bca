"""For the tests of the history: one that is written, and an agent that writes all the time."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import tests.running

from .written import write


@pytest.fixture(scope="module")
def path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A path with the HISTORY of the test's module."""
    path = tmp_path_factory.mktemp("tsdb")
    write(path, request.module.HISTORY)
    return path


@pytest.fixture
def restless(monkeypatch: pytest.MonkeyPatch) -> None:
    """Agents of the test flush five times a second."""
    monkeypatch.setenv("PYTHONPATH", str(Path(tests.__file__).parent.parent))
    monkeypatch.setattr(
        tests.running,
        "command",
        lambda *flags: [sys.executable, "-m", "tests.tsdb.restless", *flags],
    )
