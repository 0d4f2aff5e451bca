"""How a row is spelled in each text format: headers, prefixes, tails.

A dialect turns a metric and its label values into text once, when a row is added. What varies from
reading to reading, the number, is put between prefix and tail by ``_fast.encode``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec

from .metrics import Metric

Labels = tuple[str | None, ...]


class Dialect(msgspec.Struct, frozen=True, eq=False):
    """The fixed parts of a text format."""

    name: str
    content_type: str
    header: Callable[[Metric], bytes]
    prefix: Callable[[Metric, Labels], bytes]
    tail: bytes
    end: bytes


_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})


def row_prefix(metric: Metric, labels: Labels) -> bytes:
    """``name{label="value",…} ``; a label whose value is None is left out."""
    present = [
        (name, value)
        for name, value in zip(metric.labels, labels, strict=True)
        if value is not None
    ]
    return series_prefix(metric.name, present)


def series_prefix(name: str, labels: Iterable[tuple[str, str]]) -> bytes:
    """``name{label="value",…} `` of labels with their values."""
    pairs = ",".join(f'{label}="{value.translate(_ESCAPES)}"' for label, value in labels)
    return (f"{name}{{{pairs}}} " if pairs else f"{name} ").encode()


def _text_header(metric: Metric) -> bytes:
    return f"# HELP {metric.name} {metric.help}\n# TYPE {metric.name} {metric.kind}\n".encode()


def _openmetrics_header(metric: Metric) -> bytes:
    unit = f"# UNIT {metric.base} {metric.unit}\n" if metric.unit else ""
    return (
        f"# HELP {metric.base} {metric.help}\n# TYPE {metric.base} {metric.kind}\n{unit}"
    ).encode()


#: https://prometheus.io/docs/instrumenting/exposition_formats/
TEXT = Dialect(
    "text", "text/plain; version=0.0.4; charset=utf-8", _text_header, row_prefix, b"\n", b""
)
#: https://prometheus.io/docs/specs/om/open_metrics_spec/
OPENMETRICS = Dialect(
    "openmetrics",
    "application/openmetrics-text; version=1.0.0; charset=utf-8",
    _openmetrics_header,
    row_prefix,
    b"\n",
    b"# EOF\n",
)
