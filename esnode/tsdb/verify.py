"""Checks a history: every line, every frame and every index. It changes nothing."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

from .._fast.jsonl import series_hash
from . import reader
from .index import HEAD_SIZE, Family, Index, enter, identity
from .layout import INDEX, SEALED, metric_name
from .reader import Block
from .seal import empty

#: Times that a block is read again whose problems change.
AGAIN = 4


class Problem(NamedTuple):
    """What is wrong with a file, in words that say where in it."""

    path: Path
    text: str


class Line(msgspec.Struct, forbid_unknown_fields=True):
    """A line as JSON has it; infinities are the words Infinity and -Infinity."""

    metric: dict[str, str]
    values: list[float | str]
    timestamps: list[int]


def verify(path: Path) -> Iterator[Problem]:
    """The problems of all blocks below a path, which an agent may be writing to. Raises OSError."""
    for block in reader.blocks(path):
        yield from verify_block(block)


def verify_block(block: Block) -> list[Problem]:
    """The problems of one block. Raises OSError.

    A last line without its end is none: it may be that it is just being written. What an agent
    that writes, seals or removes the block meanwhile makes look wrong is none either: only what two
    readings in a row have found counts.
    """
    problems = read(block)
    before: set[Problem] = set()
    for _ in range(AGAIN):
        if before.issuperset(problems):
            break
        before, problems = set(problems), read(block)
    return [problem for problem in problems if problem in before]


def read(block: Block) -> list[Problem]:
    """What is wrong with a block on one reading."""
    problems: list[Problem] = []

    def report(path: Path, text: str) -> None:
        problems.append(Problem(path, text))

    sealed = block.sealed
    found = empty(block.start)
    last = b""
    stamp = block.start - 1
    decoder = msgspec.json.Decoder(Line)
    for metric, text in reader.lines(block, report=report):
        try:
            line = decoder.decode(text)
        except ValueError as error:
            report(block.path, f"a line of {metric.decode(errors='replace')}: {error}")
            continue
        if metric != last:
            if metric <= last:
                report(block.path, f"{metric.decode()} is out of order")
            stamp = block.start - 1
        fault = check(line, stamp, block.end)
        if fault:
            report(block.path, f"{metric.decode()}: {fault}")
        enter(found, metric, len(line.timestamps), metric != last)
        found.samples += len(line.timestamps)
        stamp = max(stamp, *line.timestamps) if line.timestamps else stamp
        last = metric
    if sealed and block.sealed:
        index = block.index
        try:
            with (block.path / SEALED).open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                id = identity(file.fileno())
        except FileNotFoundError:  # it was removed
            return []
        if index is None:
            report(block.path / INDEX, "is missing, or is none of this version")
        elif (index.start, index.end, index.sealed) != (block.start, block.end, True):
            report(block.path / INDEX, "is of another block")
        elif index.id != id:
            report(block.path / INDEX, "is of another sealing")
        else:
            problems += [Problem(block.path / INDEX, text) for text in compare(index, found, size)]
    return problems


def check(line: Line, after: int, end: int) -> str | None:
    """What is wrong with a line whose series goes on after a time; None where nothing is."""
    if len(line.values) != len(line.timestamps) or not line.values:
        return "not as many values as timestamps"
    if any(isinstance(value, str) and value not in INFINITIES for value in line.values):
        return "a value that is no number"
    if any(b <= a for a, b in zip([after, *line.timestamps], line.timestamps, strict=False)):
        return "samples out of order, or before the block"
    if line.timestamps[-1] >= end:
        return "samples after the block"
    return None


INFINITIES = ("Infinity", "-Infinity")


def compare(index: Index, found: Index, size: int) -> Iterator[str]:
    """Where a sealed block's index does not say what was found."""
    at = HEAD_SIZE
    for frame in index.frames:
        if frame.offset != at or frame.length <= 0:
            yield f"a frame at {frame.offset}, where {at} was expected"
        at = frame.offset + frame.length
    if (index.bytes, at) != (size, size):
        yield f"{index.bytes} bytes, with frames up to {at}, of a file of {size}"
    for name in sorted({*index.metrics, *found.metrics}):
        ours, theirs = (each.metrics.get(name, Family()) for each in (found, index))
        if (ours.samples, ours.series) != (theirs.samples, theirs.series):
            yield (
                f"{name}: {theirs.samples} samples of {theirs.series} series,"
                f" found {ours.samples} of {ours.series}"
            )
    if (index.samples, index.series) != (found.samples, found.series):
        yield (
            f"{index.samples} samples of {index.series} series,"
            f" found {found.samples} of {found.series}"
        )
    for hash, metric in index.labels.items():
        if hash not in found.labels:
            yield f"series {hash} is not in the block"
        elif hash != f"{series_hash(bytes(metric)):016x}":
            yield f"series {hash}: the hash is not that of its labels"
        elif metric_name(bytes(metric)) not in index.metrics:
            yield f"series {hash}: its metric is not in the index"
