"""A figure: ours and its peer in turns, and the row of the table that comes of it."""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

from .servers import Server

CC = shutil.which(os.environ.get("CC", "cc"))

T = TypeVar("T")
Measure = Callable[[], float]

NOISE = "noise: half the distance of the quartiles over the rounds, of ours and of the baseline"
FAULTS = (OSError, RuntimeError, subprocess.SubprocessError)


class Effort(NamedTuple):
    """How often everything is done."""

    rounds: int  # of what is short
    ticks: int  # in a round
    scrapes: int  # in a round
    loads: int  # rounds of parallel connections
    load_seconds: int
    latencies: int
    memory: tuple[int, int]  # scrapes before the first look and before the second
    starts: int


FULL = Effort(120, 250, 25, 8, 2, 500, (2_000, 10_000), 5)
QUICK = Effort(10, 100, 10, 2, 1, 100, (300, 1_000), 2)


class Bench(NamedTuple):
    """What the figures share."""

    effort: Effort
    exporter: Server | None
    directory: Path


class Row(NamedTuple):
    """A line of the table; ``ok`` is None where there is no target, or no baseline."""

    what: str
    result: str = ""
    baseline: str = ""
    ratio: str = ""
    target: str = ""
    noise: str = ""
    ok: bool | None = None
    remark: str = ""


class Rounds(NamedTuple):
    """What ours and the peer took in each round; a peer that is missing has no rounds."""

    ours: list[float]
    peer: list[float]


def alternate(rounds: int, measure: Callable[[T], float], ours: T, peer: T | None) -> Rounds:
    """Measures the two in turns, after one turn that does not count."""
    result = Rounds([], [])
    sides = [(ours, result.ours)]
    if peer is not None:
        sides.append((peer, result.peer))
    for side, _ in sides:
        measure(side)
    for _ in range(rounds):
        for side, values in sides:
            values.append(measure(side))
        sides.reverse()
    return result


def call(measure: Measure) -> float:
    return measure()


def seconds(value: float) -> str:
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value * 1e9:.3g} ns"


def megabytes(value: float) -> str:
    return f"{value / 1e6:.1f} MB"


def share(ratio: float) -> str:
    return f"{ratio:.3g}" if ratio >= 1 else f"1/{1 / ratio:.3g}"


def spread(values: Sequence[float]) -> str:
    """Half of the distance of the quartiles, in percent of the median."""
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return f"±{50 * (high - low) / middle:.0f}%"


def p99(values: Sequence[float]) -> float:
    return statistics.quantiles(values, n=100, method="inclusive")[98]


def compare(
    what: str,
    peer: str,
    rounds: Rounds,
    limit: float | None = None,
    figure: Callable[[Sequence[float]], float] = statistics.median,
    per: tuple[int, int] = (1, 1),
) -> Row:
    """The row of two costs in seconds; ``limit``: of ours over the peer's."""
    result = figure(rounds.ours) / per[0]
    target = f"≤ {share(limit)}" if limit else ""
    if not rounds.peer:
        return Row(what, seconds(result), f"no {peer}", target=target, remark="skipped")
    baseline = figure(rounds.peer) / per[1]
    ratio = result / baseline
    noise = "" if figure is p99 else f"{spread(rounds.ours)} {spread(rounds.peer)}"
    ok = ratio <= limit if limit else None
    return Row(
        what, seconds(result), f"{seconds(baseline)} {peer}", share(ratio), target, noise, ok
    )


def within(
    what: str, show: Callable[[float], str], result: float, limit: float, baseline: str = ""
) -> Row:
    """The row of a figure with a limit of its own."""
    return Row(what, show(result), baseline, target=f"≤ {show(limit)}", ok=result <= limit)


def compiled(source: str, directory: Path, *flags: str) -> Path:
    """The program, or library, of a C file beside this one. Raises OSError without a compiler."""
    if not CC:
        raise OSError("there is no C compiler")
    built = directory / Path(source).stem
    path = Path(__file__).with_name(source)
    subprocess.run([CC, "-O2", "-o", built, path, *flags], check=True)
    return built


def render(rows: Sequence[Row]) -> str:
    """The table, aligned."""
    verdicts = {True: "ok", False: "missed", None: ""}
    lines: list[tuple[str, ...]] = [
        ("figure", "result", "baseline", "ratio", "target", "noise", "")
    ]
    lines += [(*row[:6], row.remark or verdicts[row.ok]) for row in rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, tuple("-" * width for width in widths))
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )
