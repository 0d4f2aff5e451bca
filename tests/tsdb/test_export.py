"""Exports in each format, against the samples that were written."""

from __future__ import annotations

import csv
import io
import json
import math
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as prometheus

from esnode.tsdb.export import BESIDE, PIECE, Export
from esnode.tsdb.layout import OPEN, WINDOW, name
from esnode.tsdb.reader import Unwritten
from esnode.tsdb.seal import seal
from esnode.tsdb.select import SelectError, Selection, select
from tests.tsdb.written import (
    DECLARED,
    START,
    History,
    by_window,
    flushes,
    line,
    made_up,
    metric,
    write,
)

HISTORY = made_up()
FORMS = ("prometheus", "openmetrics", "jsonl", "csv")
ENDS = dict.fromkeys(FORMS, b"# EOF\n") | {"jsonl": b'{"eof":true}\n'}


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tsdb")


@pytest.fixture(scope="module")
def pending(path: Path) -> Mapping[int, Unwritten]:
    return write(path, HISTORY, unwritten=3)


def read(form: str, text: bytes) -> list[tuple[bytes, int, float]]:
    """(series, milliseconds, value) of an export, as others read it, in its order."""
    assert text.endswith(ENDS[form])
    found = []
    if form == "jsonl":
        for row in text.splitlines()[:-1]:
            read_line = json.loads(row)
            series = metric(read_line["metric"].pop("__name__"), **read_line["metric"])
            pairs = zip(read_line["timestamps"], read_line["values"], strict=True)
            found += [(series, moment, float(value)) for moment, value in pairs]
    elif form == "csv":
        rows = list(csv.reader(io.StringIO(text.decode(), newline="")))
        assert rows[0] == ["metric", "labels", "timestamp_ms", "value"]
        assert rows[-1] == ["# EOF"]
        for called, labels, moment, value in rows[1:-1]:
            found.append((metric(called, **json.loads(labels)), int(moment), float(value)))
    else:
        parser = prometheus if form == "prometheus" else openmetrics
        for family in parser(text.decode()):
            for sample in family.samples:
                series = metric(sample.name, **sample.labels)
                moment = round(float(sample.timestamp) * 1000)
                found.append((series, moment, sample.value))
    return found


def expected(history: History, selection: Selection) -> dict[bytes, list[tuple[int, float]]]:
    kept = {
        series: [
            (moment, value)
            for moment, value in samples
            if selection.start <= moment <= selection.end
        ]
        for series, samples in history.items()
        if selection.wanted(series)
    }
    return {series: samples for series, samples in kept.items() if samples}


def grouped(rows: list[tuple[bytes, int, float]]) -> History:
    found: History = {}
    for series, moment, value in rows:
        found.setdefault(series, []).append((moment, value))
    return found


SELECTIONS = {
    "everything": select(),
    "a range": select(str(START + 1_000_000), str(START + WINDOW + 2_000_000)),
    "one window": select(str(START + WINDOW), str(START + 2 * WINDOW - 1)),
    "what is not written": select(str(START + 3 * WINDOW - 200_000)),
    "a metric": select(metrics=["esnode_gpu_power_watts"]),
    "metrics by prefix": select(metrics=["esnode_und*,esnode_gpu_up"]),
    "a selector": select(match=['{gpu="1"}', "esnode_undeclared_ratio"]),
    "all of it": select(
        str(START + 500_000), str(START + 9_000_000), ["esnode_gpu_*"], ['{gpu!="0"}']
    ),
    "nothing": select(metrics=["nothing*"]),
    "before": select("0", str(START - 1)),
    "after": select(str(START + 3 * WINDOW)),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("selection", SELECTIONS.values(), ids=SELECTIONS)
def test_an_export_is_what_was_written(
    form: str, selection: Selection, path: Path, pending: Mapping[int, Unwritten]
) -> None:
    export = Export(path, selection, form, DECLARED, pending)
    text = b"".join(export)
    found = grouped(read(form, text))
    # The order of a series' samples counts, and each is there once.
    assert found == expected(HISTORY, selection)
    assert export.samples == sum(map(len, found.values()))


def test_openmetrics_goes_family_by_family(path: Path, pending: Mapping[int, Unwritten]) -> None:
    text = b"".join(Export(path, select(), "openmetrics", DECLARED, pending)).decode()
    # The parser refuses families and series that are interleaved; of undeclared ones the name says
    # what they are.
    kinds = {family.name: (family.type, family.documentation) for family in openmetrics(text)}
    assert kinds == {
        "esnode_gpu_energy_joules": ("counter", "Energy used."),
        "esnode_gpu_power_watts": ("gauge", "Power draw."),
        "esnode_gpu_up": ("gauge", "Whether it answers."),
        "esnode_undeclared_ratio": ("unknown", ""),
        "esnode_undeclared": ("counter", ""),
    }
    assert text.count("# TYPE ") == text.count("# TYPE esnode_") == 5


def test_a_family_without_samples_in_the_range_is_not_named(path: Path, tmp_path: Path) -> None:
    series = metric("esnode_gpu_up", gpu="0"), metric("esnode_x")
    write(tmp_path, {series[0]: [(START, 1)], series[1]: [(START + 5000, 2)]})
    text = b"".join(Export(tmp_path, select(str(START + 1)), "openmetrics", DECLARED))
    assert text == b"# TYPE esnode_x unknown\nesnode_x 2 %d.000\n# EOF\n" % (START // 1000 + 5)


def test_the_default_is_one_sample_a_line_with_milliseconds(tmp_path: Path) -> None:
    write(tmp_path, {metric("a", b='"c"\\\n'): [(START, 0.1), (START + 7, -math.inf)]})
    assert b"".join(Export(tmp_path, select())).splitlines() == [
        b'a{b="\\"c\\"\\\\\\n"} 0.1 1763784000000',
        b'a{b="\\"c\\"\\\\\\n"} -Inf 1763784000007',
        b"# EOF",
    ]


@pytest.mark.parametrize("form", FORMS)
def test_the_mark_at_the_end_can_be_left_out(form: str, path: Path) -> None:
    with_mark = b"".join(Export(path, select(), form))
    assert b"".join(Export(path, select(), form, eof=False)) + ENDS[form] == with_mark


@pytest.mark.parametrize("form", FORMS)
def test_no_history_is_an_empty_export(form: str, tmp_path: Path) -> None:
    text = b"".join(Export(tmp_path / "nothing", select(), form))
    assert text.removeprefix(b"metric,labels,timestamp_ms,value\n") == ENDS[form]


def test_pieces_are_of_bounded_size(tmp_path: Path) -> None:
    series = metric("a", b="c" * 100)
    lines = [line(series, [(START + i, i), (START + i + 1, i)]) for i in range(0, 100_000, 2)]
    (tmp_path / name(START)).mkdir()
    (tmp_path / name(START) / OPEN).write_bytes(b"".join(lines))
    pieces = list(Export(tmp_path, select()))
    assert len(pieces) > 20
    assert max(map(len, pieces)) < 4 * PIECE


@pytest.mark.parametrize("form", FORMS)
def test_blocks_are_written_sealed_and_removed_meanwhile(
    form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("esnode.tsdb.export.PIECE", 1000)
    windows = by_window(HISTORY)
    for start, window in windows.items():
        folder = tmp_path / name(start)
        folder.mkdir()
        (folder / OPEN).write_bytes(flushes(window))
    export = Export(tmp_path, select(), form, DECLARED)
    pieces = iter(export)
    text = next(pieces)
    for start in windows:
        for _ in seal(tmp_path, start):
            pass
    text += next(pieces)
    pruned = START + WINDOW
    shutil.rmtree(tmp_path / name(pruned))
    (tmp_path / name(START + 2 * WINDOW) / OPEN).write_bytes(
        line(metric("esnode_gpu_up", gpu="0"), [(START + 3 * WINDOW - 1, 7)])
    )
    found = grouped(read(form, text + b"".join(pieces)))
    there = [samples for start, window in windows.items() if start != pruned for samples in window]
    assert set(there) <= set(found)
    for series, samples in HISTORY.items():
        kept = [each for each in samples if not pruned <= each[0] < pruned + WINDOW]
        # Those of the removed block, and those that were written just now, are there or are not.
        assert set(kept) <= set(found[series]) <= {*samples, (START + 3 * WINDOW - 1, 7)}
        assert found[series] == sorted(found[series])


def test_openmetrics_of_too_many_blocks_is_refused(tmp_path: Path) -> None:
    for i in range(BESIDE + 1):
        (tmp_path / name(START + i * WINDOW)).mkdir()
    with pytest.raises(SelectError, match=f"^from: .* {BESIDE} blocks, and here are {BESIDE + 1}"):
        Export(tmp_path, select(), "openmetrics")
    Export(tmp_path, select(end=str(START + WINDOW)), "openmetrics")
    Export(tmp_path, select(), "jsonl")


@pytest.mark.parametrize("form", FORMS)
def test_a_damaged_line_costs_itself_and_is_reported(form: str, tmp_path: Path) -> None:
    folder = tmp_path / name(START)
    folder.mkdir()
    good = line(metric("a"), [(START, 1)]), line(metric("c"), [(START, 3)])
    bad = line(metric("b"), [(START, 12345)]).replace(b"12345", b"12.3.5")
    (folder / OPEN).write_bytes(good[0] + bad + good[1])
    damage: list[str] = []
    export = Export(tmp_path, select(), form, report=lambda _, text: damage.append(text))
    assert [value for _, _, value in read(form, b"".join(export))] == [1, 3]
    assert len(damage) == 1
    assert '"b"' in damage[0]
