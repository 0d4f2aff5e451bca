"""Exports the history as text: the wanted series in a range of time, in bounded memory."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from operator import itemgetter
from pathlib import Path

import msgspec

from .._fast.export import FORMS, Writer
from ..dialects import OPENMETRICS, series_prefix
from ..metrics import Metric
from .layout import metric_name
from .reader import Line, Report, Unwritten, blocks, ignore, lines
from .select import SelectError, Selection

#: Bytes of a piece of an export, or a line's samples more.
PIECE = 1 << 18
#: Blocks that are read side by side, half a megabyte each.
BESIDE = 60

EOF = b"# EOF\n"
JSONL_EOF = b'{"eof":true}\n'
CSV_HEADER = b"metric,labels,timestamp_ms,value\n"

#: Bytes at the beginning of a line before its metric object.
HEAD = b'{"metric":'


class Export:
    """The text of one export, piece by piece; iterated over once.

    form: ``prometheus``, ``openmetrics``, ``jsonl`` or ``csv``. The first, the last and jsonl go
    block by block, and within a block series by series; openmetrics goes family by family.
    ``metrics``: what is declared, by name; of others the kind is told by the name. ``pending``:
    what is not written yet, by the start of their window. ``eof``: whether the end is
    marked. Raises SelectError.
    """

    def __init__(
        self,
        path: Path,
        selection: Selection,
        form: str = "prometheus",
        metrics: Mapping[str, Metric] | None = None,
        pending: Mapping[int, Unwritten] | None = None,
        eof: bool = True,
        report: Report = ignore,
    ) -> None:
        self.path = path
        self.selection = selection
        self.form = form
        self.metrics = metrics or {}
        self.eof = eof
        self.report = report
        #: Samples that were exported up to now, and the latest time among them.
        self.samples = 0
        self.last = selection.start - 1
        self.blocks = [
            block
            for block in blocks(path, pending)
            if block.start <= selection.end and block.end > selection.start
        ]
        if form == "openmetrics" and len(self.blocks) > BESIDE:
            raise SelectError(
                "from",
                f"openmetrics is put together of at most {BESIDE} blocks, and here are"
                f" {len(self.blocks)}: ask for a shorter range, or for another format",
            )

    def __iter__(self) -> Iterator[bytes]:
        writer = Writer(FORMS[self.form])
        if self.form == "csv":
            writer.put(CSV_HEADER)
        start, end = self.selection.start, self.selection.end
        last, prefix, family, header = b"", b"", "", b""
        for metric, line in self._lines():
            if metric != last:
                last, prefix = metric, PREFIXES[self.form](metric)
                if self.form == "openmetrics" and (name := metric_name(metric)) != family:
                    family, header = name, self._header(name)
            size = writer.size
            writer.put(header)
            try:
                added = writer.add(prefix, line, len(HEAD) + len(metric), start, end)
            except ValueError as error:
                added = 0
                self.report(self.path, f"{metric.decode(errors='replace')}: {error}")
            if not added:
                writer.cut(size)  # the header of a family without samples
                continue
            header = b""
            self.samples += added
            self.last = max(self.last, writer.last)
            if writer.size >= PIECE:
                yield writer.take()
        if self.eof:
            writer.put(JSONL_EOF if self.form == "jsonl" else EOF)
        yield writer.take()

    def _lines(self) -> Iterator[Line]:
        wanted = None if self.selection.everything else self.selection.wanted
        sources = (lines(block, wanted, self.report) for block in self.blocks)
        if self.form == "openmetrics":
            return heapq.merge(*sources, key=itemgetter(0))
        return chain.from_iterable(sources)

    def _header(self, name: str) -> bytes:
        metric = self.metrics.get(name)
        if metric is not None:
            return OPENMETRICS.header(metric)
        if name.endswith("_total"):
            return f"# TYPE {name.removesuffix('_total')} counter\n".encode()
        return f"# TYPE {name} unknown\n".encode()


def _text_prefix(metric: bytes) -> bytes:
    labels = msgspec.json.decode(metric, type=dict[str, str])
    return series_prefix(labels.pop("__name__"), labels.items())


def _csv_prefix(metric: bytes) -> bytes:
    """Name and labels; these as a JSON object, in quotes for it has commas and quotes itself."""
    labels = msgspec.json.decode(metric, type=dict[str, str])
    name = labels.pop("__name__").encode()
    return b'%s,"%s",' % (name, msgspec.json.encode(labels).replace(b'"', b'""'))


#: What stands before each sample of a series.
PREFIXES: dict[str, Callable[[bytes], bytes]] = {
    "prometheus": _text_prefix,
    "openmetrics": _text_prefix,
    "csv": _csv_prefix,
    "jsonl": lambda metric: HEAD + metric,
}
