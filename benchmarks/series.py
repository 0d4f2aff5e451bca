"""4,608 series of an imagined GPU node, for our encoder and for prometheus_client's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from esnode import metrics
from esnode._fast.table import Snapshot, Table

LABELS = ("gpu", "link", "uuid")
GPUS = [(str(i), f"GPU-{0x5F0A3C91 + i:08x}-7d1e-4b52-9c8e-{0x2B6F41D08A00 + i:012x}", 18)
        for i in range(16)]  # fmt: skip
FAMILIES = [
    declare(f"esnode_gpu_nvlink_{word}", f"An imagined reading of a link: {word}.", LABELS)
    for declare, words in (
        (metrics.counter, ("rx_bytes_total", "tx_bytes_total", "rx_packets_total",
                           "tx_packets_total", "replays_total", "recoveries_total",
                           "crc_errors_total", "ecc_errors_total")),
        (metrics.gauge, ("rx_bytes_per_second", "tx_bytes_per_second", "rx_busy_percent",
                         "tx_busy_percent", "bit_error_ratio", "power_watts",
                         "temperature_celsius", "voltage_volts")),
    )
    for word in words
]  # fmt: skip


def rows() -> Iterator[tuple[metrics.Metric, tuple[str, ...], float]]:
    """(metric, label values, value): counters are integers up to 2^50, gauges are not integers."""
    seed = 1
    for metric in FAMILIES:
        for gpu, uuid, links in GPUS:
            for link in range(links):
                seed = seed * 6364136223846793005 + 1442695040888963407 & (1 << 64) - 1
                whole = seed >> 14 >> seed % 37
                value = float(whole) if metric.kind == "counter" else (whole % 100_000 + 0.5) / 7
                yield metric, (gpu, str(link), uuid), value


def table() -> Table:
    """The series in a table, ready to be frozen."""
    result = Table([("gpu", FAMILIES)])
    for metric, labels, value in rows():
        result.set(result.add(metric, labels), value)
    return result


def snapshot() -> Snapshot:
    """The series as our encoder takes them."""
    return table().freeze(0.0, 0)


class Fixed(Collector):
    """Hands out families that are made already: only their rendering is measured."""

    def __init__(self, families: Sequence[Metric]) -> None:
        self.families = families

    def collect(self) -> Sequence[Metric]:
        return self.families


def registry() -> CollectorRegistry:
    """The series as ``prometheus_client.generate_latest`` takes them."""
    kinds = {"counter": CounterMetricFamily, "gauge": GaugeMetricFamily}
    families = {
        metric.name: kinds[metric.kind](metric.name, metric.help, labels=LABELS)
        for metric in FAMILIES
    }
    for metric, labels, value in rows():
        families[metric.name].add_metric(labels, value)
    result = CollectorRegistry()
    result.register(Fixed(list(families.values())))
    return result


def parse(page: bytes) -> dict[bytes, float]:
    """The values of a page by name and labels, to compare two pages of the same series."""
    lines = (line for line in page.splitlines() if not line.startswith(b"#"))
    return {name: float(value) for name, _, value in (line.rpartition(b" ") for line in lines)}
