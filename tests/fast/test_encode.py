"""The encoder: its pages against a plain rendering, and as others read them."""

from __future__ import annotations

import math
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parse_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families as parse_text

from esnode._fast.encode import encode
from esnode._fast.table import Snapshot, Table
from esnode.dialects import OPENMETRICS, TEXT, Dialect
from esnode.metrics import Metric
from tests.fast.pages import HEAT, LOAD, SEEN, Row, plain

Series = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def snapshot(rows: list[Row]) -> Snapshot:
    table = Table([("first", [HEAT, SEEN]), ("second", [LOAD])])
    for metric, labels, value in rows:
        table.set(table.add(metric, labels), value)
    return table.freeze(0, 0)


def parsed(page: bytes, dialect: Dialect) -> Series:
    text = page.decode()
    if dialect is OPENMETRICS:
        families = list(parse_openmetrics(text + "# EOF\n"))  # type: ignore[no-untyped-call]
    else:
        families = list(parse_text(text))
    samples = [sample for family in families for sample in family.samples]
    # The reader makes Python integers of whole numbers; a server makes doubles.
    series = {(s.name, tuple(sorted(s.labels.items()))): float(s.value) for s in samples}
    assert len(series) == len(samples), "a series twice"
    return series


def written(rows: list[Row]) -> Series:
    series = {}
    for metric, labels, value in rows:
        pairs = zip(metric.labels, labels, strict=True)
        if not math.isnan(value):
            series[metric.name, tuple(sorted((n, v) for n, v in pairs if v is not None))] = value
    return series


ROWS: list[Row] = [
    (HEAT, (), -1.5),
    (SEEN, ("a", "b"), 2.0**63),
    (SEEN, ("a", None), math.nan),
    (SEEN, (None, "b"), 0),
    (SEEN, (None, None), 0.1),
    (SEEN, ('quote " slash \\ line \n end\\', "Käse é 日本 \U0001f600"), 5e-324),
    (LOAD, ("",), math.inf),
    (LOAD, ("\\n",), -math.inf),
]


@pytest.mark.parametrize("dialect", [TEXT, OPENMETRICS], ids=lambda d: d.name)
def test_a_page_is_what_it_should_be(dialect: Dialect) -> None:
    page = encode(snapshot(ROWS), dialect)
    assert page.decode() == plain(ROWS, dialect is OPENMETRICS)


def test_spelling() -> None:
    """Once written out, so that page and plain rendering cannot err alike."""
    rows: list[Row] = [(SEEN, ('a"\\\n', None), 12.5), (HEAT, (), 3)]
    assert encode(snapshot(rows), TEXT) == (
        b"# HELP heat_celsius Heat.\n# TYPE heat_celsius gauge\nheat_celsius 3\n"
        b"# HELP seen_bytes_total Seen.\n# TYPE seen_bytes_total counter\n"
        b'seen_bytes_total{who="a\\"\\\\\\n"} 12.5\n'
    )
    assert encode(snapshot(rows), OPENMETRICS) == (
        b"# HELP heat_celsius Heat.\n# TYPE heat_celsius gauge\n# UNIT heat_celsius celsius\n"
        b"heat_celsius 3\n"
        b"# HELP seen_bytes Seen.\n# TYPE seen_bytes counter\n# UNIT seen_bytes bytes\n"
        b'seen_bytes_total{who="a\\"\\\\\\n"} 12.5\n'
    )


def test_absent_rows_and_families_without_rows_vanish() -> None:
    assert encode(snapshot([]), TEXT) == b""
    assert encode(snapshot([(HEAT, (), math.nan)]), TEXT) == b""
    page = encode(
        snapshot([(HEAT, (), math.nan), (LOAD, ("a",), 1), (LOAD, ("b",), math.nan)]), TEXT
    )
    assert page == b'# HELP load Load.\n# TYPE load gauge\nload{who="a"} 1\n'


def test_one_layout_with_other_values() -> None:
    """The rendering is kept with the layout; headers come and go with the values."""
    table = Table([("first", [HEAT, SEEN]), ("second", [LOAD])])
    slots = [table.add(HEAT), table.add(LOAD, ("a",))]
    for rows in ([(HEAT, (), 1.0)], [(LOAD, ("a",), 2.0)], [], [(HEAT, (), 3.0)]):
        table.begin(True)
        for metric, _, value in rows:
            table.set(slots[metric is LOAD], value)
        taken = table.freeze(0, 0)
        assert encode(taken, TEXT).decode() == plain(list(rows))
        assert encode(taken, OPENMETRICS).decode() == plain(list(rows), openmetrics=True)


@pytest.mark.parametrize(
    ("groups", "metrics"),
    [({"first"}, {HEAT, SEEN}), ({"second"}, {LOAD}), (["first", "second"], {HEAT, SEEN, LOAD})],
)
def test_groups(groups: set[str], metrics: set[Metric]) -> None:
    page = encode(snapshot(ROWS), TEXT, groups)
    assert page.decode() == plain([row for row in ROWS if row[0] in metrics])
    assert encode(snapshot(ROWS), TEXT, {"nobody"}) == b""
    assert encode(snapshot(ROWS), TEXT, set()) == b""


@pytest.mark.parametrize("dialect", [TEXT, OPENMETRICS], ids=lambda d: d.name)
def test_five_thousand_rows_read_back_exactly(dialect: Dialect) -> None:
    rows: list[Row] = []
    for i in range(5000):
        (value,) = struct.unpack("<d", struct.pack("<Q", i * 0x9E3779B97F4A7C15 % 2**64))
        # OpenMetrics has no counters below nothing; absent is NaN.
        rows.append((SEEN, (f"who {i}", "\\" * (i % 3) + '"'), abs(value)))
        rows.append((LOAD, (f"{i}",), value))
    page = encode(snapshot(rows), dialect)
    assert page.decode() == plain(rows, dialect is OPENMETRICS)
    assert parsed(page, dialect) == written(rows)


LABELS = st.one_of(
    st.none(), st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)
)


@settings(max_examples=200, deadline=None)
@given(
    st.dictionaries(
        st.tuples(LABELS, LABELS), st.just(math.nan) | st.floats(min_value=0), max_size=8
    )
)
def test_any_label_reads_back(found: dict[tuple[str | None, str | None], float]) -> None:
    rows: list[Row] = [(SEEN, labels, value) for labels, value in found.items()]
    page = encode(snapshot(rows), TEXT)
    assert page.decode() == plain(rows)
    # A \r inside a value is no end of line in the format; its reader in Python thinks otherwise.
    if not any("\r" in text for labels in found for text in labels if text):
        assert parsed(page, TEXT) == written(rows)
