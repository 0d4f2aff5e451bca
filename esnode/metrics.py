"""What a metric is: its name, kind, help and label names."""

from __future__ import annotations

import re
from typing import Literal

import msgspec

Kind = Literal["gauge", "counter", "histogram"]

#: Suffixes that name a unit, as OpenMetrics wants them: base units, singular where it says so.
UNITS = ("bytes", "seconds", "joules", "watts", "volts", "celsius", "hertz", "percent", "ratio")

_METRIC = re.compile(r"[a-z][a-z0-9_]*")
_LABEL = re.compile(r"[a-z][a-z0-9_]*")


class Metric(msgspec.Struct, frozen=True):
    """One family of series. ``help`` is a single sentence without quotes or newlines."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        bad_label = next((label for label in self.labels if not _LABEL.fullmatch(label)), None)
        if not _METRIC.fullmatch(self.name) or bad_label:
            raise ValueError(f"{self.name}: not a metric name, or a bad label: {bad_label}")
        if (self.kind == "counter") != self.name.endswith("_total"):
            raise ValueError(f"{self.name}: a counter, and only a counter, ends in _total")
        if not self.help or any(c in self.help for c in '"\\\n'):
            raise ValueError(f"{self.name}: help is one plain sentence")

    @property
    def base(self) -> str:
        """The name without a counter's ``_total``: OpenMetrics' name of the family."""
        return self.name.removesuffix("_total")

    @property
    def unit(self) -> str | None:
        """The base unit, which is the last word of the name where it has one."""
        return next((unit for unit in UNITS if self.base.endswith("_" + unit)), None)


def gauge(name: str, help: str, labels: tuple[str, ...] = ()) -> Metric:
    """A value that goes up and down."""
    return Metric(name, "gauge", help, labels)


def counter(name: str, help: str, labels: tuple[str, ...] = ()) -> Metric:
    """A running total that only its source resets; its name ends in ``_total``."""
    return Metric(name, "counter", help, labels)
