"""Some families, and a page of them as one would write it without a thought for speed."""

from __future__ import annotations

import math

from esnode._fast.encode import text_of
from esnode.metrics import Metric, counter, gauge

HEAT = gauge("heat_celsius", "Heat.")
SEEN = counter("seen_bytes_total", "Seen.", ("who", "where"))
LOAD = gauge("load", "Load.", ("who",))

Row = tuple[Metric, tuple[str | None, ...], float]


def plain(rows: list[Row], openmetrics: bool = False) -> str:
    page = ""
    for metric in (HEAT, SEEN, LOAD):
        present = [row for row in rows if row[0] is metric and not math.isnan(row[2])]
        if not present:
            continue
        name = metric.name.removesuffix("_total") if openmetrics else metric.name
        page += f"# HELP {name} {metric.help}\n# TYPE {name} {metric.kind}\n"
        unit = {"heat_celsius": "celsius", "seen_bytes_total": "bytes"}.get(metric.name)
        if openmetrics and unit:
            page += f"# UNIT {name} {unit}\n"
        for _, labels, value in present:
            pairs = []
            for label, text in zip(metric.labels, labels, strict=True):
                if text is not None:
                    for mark, escape in (("\\", r"\\"), ('"', r"\""), ("\n", r"\n")):
                        text = text.replace(mark, escape)
                    pairs.append(f'{label}="{text}"')
            braces = "{" + ",".join(pairs) + "}" if pairs else ""
            page += f"{metric.name}{braces} {text_of(value).decode()}\n"
    return page
