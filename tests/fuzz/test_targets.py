"""The fuzzer's targets without it: seeds, what it once found, and bytes of Hypothesis' choice."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.target import ACTS
from tests.fuzz.targets import TARGETS

FOUND = Path(__file__).parent / "found"


@pytest.mark.parametrize("name", TARGETS)
def test_seeds(name: str, tmp_path: Path) -> None:
    seeds = list(TARGETS[name].seeds())
    assert seeds
    for seed in seeds:
        TARGETS[name](seed, tmp_path / "file")


@pytest.mark.parametrize("path", sorted(FOUND.glob("*/*")), ids=lambda path: path.parent.name)
def test_what_was_found_is_mended(path: Path, tmp_path: Path) -> None:
    TARGETS[path.parent.name](path.read_bytes(), tmp_path / "file")


@st.composite
def damaged(draw: st.DrawFn, name: str, seeds: list[bytes]) -> bytes:
    """A seed in which some bytes are others, or gone, or there twice."""
    target = TARGETS[name]
    data = draw(st.sampled_from(seeds))
    piece = st.one_of(
        st.sampled_from([*target.words, b" ", b"\n", *ACTS]),
        st.binary(max_size=8),
        st.sampled_from(seeds),
    )
    for _ in range(draw(st.integers(0, 6))):
        start = draw(st.integers(0, len(data)))
        end = draw(st.integers(start, min(len(data), start + 30)))
        act = draw(st.sampled_from(["other", "other", "twice", "gone"]))
        middle = {"other": draw(piece), "twice": data[start:end] * 2, "gone": b""}[act]
        data = data[:start] + middle + data[end:]
    return data


@pytest.mark.parametrize("name", TARGETS)
def test_damaged_seeds(name: str, tmp_path: Path) -> None:
    @settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
    @given(damaged(name, list(TARGETS[name].seeds())))
    def feed(data: bytes) -> None:
        TARGETS[name](data, tmp_path / "file")

    feed()
