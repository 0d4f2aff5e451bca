"""For the tests of the history: an agent that writes all the time."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import tests.running


@pytest.fixture
def restless(monkeypatch: pytest.MonkeyPatch) -> None:
    """Agents of the test flush five times a second."""
    monkeypatch.setenv("PYTHONPATH", str(Path(tests.__file__).parent.parent))
    monkeypatch.setattr(
        tests.running,
        "command",
        lambda *flags: [sys.executable, "-m", "tests.tsdb.restless", *flags],
    )
