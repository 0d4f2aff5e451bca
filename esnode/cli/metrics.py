"""``esnode-core metrics``: the agent's page of metrics, or a part of it that is a page, too."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from fnmatch import fnmatchcase
from typing import NamedTuple
from urllib.parse import urlencode

import typer

from .. import config
from ..client import Client, Refused
from ..config import Arguments
from . import ask

PATH = "/metrics"


class Set(NamedTuple):
    """Families by name, with * for any letters, and the collectors that have them; none: all."""

    families: tuple[str, ...]
    collectors: tuple[str, ...] = ()


SETS = {
    "basic": Set(
        (
            *("esnode_node_info", "esnode_node_boot_time_seconds", "esnode_node_power_watts"),
            *("esnode_cpu_load_avg_*", "esnode_cpu_cores", "esnode_cpu_time_seconds_total"),
            *("esnode_memory_total_bytes", "esnode_memory_used_bytes"),
            *("esnode_memory_available_bytes", "esnode_swap_total_bytes", "esnode_swap_used_bytes"),
            *("esnode_disk_total_bytes", "esnode_disk_used_bytes", "esnode_disk_available_bytes"),
            *("esnode_disk_mount_timeout", "esnode_disk_readonly"),
            *("esnode_network_up", "esnode_network_?x_bytes_total"),
            *("esnode_gpus", "esnode_gpus_expected", "esnode_gpu_driver_up", "esnode_gpu_info"),
            *("esnode_gpu_up", "esnode_gpu_stuck", "esnode_gpu_utilization_percent"),
            *("esnode_gpu_memory_total_bytes", "esnode_gpu_memory_used_bytes"),
            *("esnode_gpu_temperature_celsius", "esnode_gpu_power_watts"),
            *("esnode_*_degradation*", "esnode_degradation_score", "esnode_agent_build_info"),
            "esnode_agent_collector_up",
        )
    ),
    "full": Set(("*",)),
    "gpu-only": Set(
        ("esnode_gpu_*", "esnode_gpus*", "esnode_mig_*", "esnode_nvswitch_*"),
        ("gpu", "degradation"),
    ),
    "power-only": Set(
        (
            *("esnode_*_power_*", "esnode_*_energy_*", "esnode_*_temperature_*"),
            *("esnode_hwmon_*", "esnode_gpu_throttle_*", "esnode_gpu_fan_*", "esnode_pdu_*"),
        ),
        ("power", "hwmon", "gpu"),
    ),
}


def add(app: typer.Typer, arguments: Arguments) -> None:
    @app.command("metrics")
    def show(
        which: str = typer.Argument("full", metavar="SET", help=f"One of {', '.join(SETS)}."),
        grep: str = typer.Option(
            None, "--grep", help="Only series whose name{labels} this regular expression finds."
        ),
        url: str = ask.URL,
    ) -> None:
        """Print the agent's metrics, or some of them, as a valid page; exit code 1 for none."""
        if which not in SETS:
            raise config.ConfigError(f"metrics {which}: allowed is {', '.join(SETS)}")
        try:
            pattern = re.compile(grep or "")
        except re.error as error:
            raise config.ConfigError(f"--grep: {error}") from None
        chosen = SETS[which]
        text = page(ask.agent(arguments, url), chosen.collectors).decode(errors="replace")
        if which != "full" or grep:
            text = "".join(filtered(text, chosen.families, pattern))
        if not text:
            typer.echo("esnode-core: no series is like that", err=True)
            raise typer.Exit(1)
        ask.write(text)


def page(client: Client, collectors: Iterable[str]) -> bytes:
    """The page of some collectors; all of it, where the agent does not have one of them."""
    query = urlencode([("collect[]", name) for name in collectors])
    if query:
        try:
            return client.get(f"{PATH}?{query}")
        except Refused as refusal:
            if refusal.status != 400:
                raise
    return client.get(PATH)


def filtered(page: str, names: Collection[str], pattern: re.Pattern[str]) -> Iterator[str]:
    """The lines of some families, of which at least one series is found, with their HELP and TYPE.

    Of a histogram or summary all series stay: some of them would make no sense."""
    for name, kind, head, rows in families(page):
        if not any(fnmatchcase(name, each) for each in names):
            continue
        found = [row for row in rows if pattern.search(row.rpartition(" ")[0])]
        if found:
            yield from head
            yield from rows if kind in ("histogram", "summary") else found


def families(page: str) -> Iterator[tuple[str, str, list[str], list[str]]]:
    """(name, kind, HELP and TYPE, series) of each family of a page in the text format."""
    name = kind = ""
    head: list[str] = []
    rows: list[str] = []
    for text in page.split("\n")[:-1]:  # a label may have other letters that end a line
        line = f"{text}\n"
        if not line.startswith("#"):
            rows.append(line)
            continue
        _, word, found, *_ = f"{text} . .".split(" ")
        if word not in ("HELP", "TYPE"):
            continue
        if found != name:
            yield name, kind, head, rows
            name, kind, head, rows = found, "", [], []
        head.append(line)
        kind = text.split(" ")[-1] if word == "TYPE" else kind
    yield name, kind, head, rows
