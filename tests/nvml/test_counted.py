"""The calls that the agent counts by function, against the fake's own counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from esnode._fast.table import Snapshot
from esnode.collectors.nvidia.gpus import CALLS, SECONDS, Gpus
from esnode.config import Config
from esnode.host import Host
from esnode.metrics import Metric
from esnode.sampler import Lane
from tests.fakenvml import Fake, library


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[Fake]:
    fake = Fake(library(), tmp_path / "nvml")
    fake.set_gpus(["H100", "T4"])
    yield fake
    fake.reset()


def values(snapshot: Snapshot, metric: Metric) -> dict[str, float]:
    return {labels[0]: value for each, labels, value in snapshot.items() if each == metric}


def test_calls(fake: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each function once, with all its calls and their time, of GPUs that have gone, too."""
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path))
    root = str(tmp_path / "host")
    host = Host(f"{root}/proc", f"{root}/sys", root)
    lane = Lane("gpu", [Gpus(host, Config(nvml_library=str(fake.path)))], 5)
    before = lane.read(True)
    fake.forget_calls()
    fake.option("busy_ns", 50_000)
    lane.read(True)
    fake.remove(1)
    after = lane.read(True)

    counted: Counter[str] = Counter()
    for (name, _), count in fake.calls().items():
        counted[name] += count
    first, last = values(before, CALLS), values(after, CALLS)
    assert {name: n - first.get(name, 0) for name, n in last.items() if n != first.get(name)} == (
        dict(counted)
    )
    first, last = values(before, SECONDS), values(after, SECONDS)
    assert last.keys() == values(after, CALLS).keys()
    for name, count in counted.items():
        assert last[name] - first.get(name, 0) >= count * 50e-6
