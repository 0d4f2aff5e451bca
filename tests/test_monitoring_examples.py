"""What the pages for operators say: queries and rules that Prometheus takes, names that exist."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from esnode.collectors import COLLECTORS
from esnode.collectors import agent as own
from esnode.metrics import Metric

DOCS = Path(__file__).parents[1] / "docs"
EXAMPLES = DOCS / "monitoring-examples.md"
METRICS: dict[str, Metric] = {
    metric.name: metric for cls in (*COLLECTORS, own.Agent) for metric in cls.metrics
}
#: What Prometheus itself adds.
TARGET = {"instance", "job"}

DEVICE = 'instance="a",gpu="0",uuid="GPU-1"'
#: By alert, series that make it fire, and series that do not.
FIRES: dict[str, tuple[dict[str, str], dict[str, str]]] = {
    "GpuDriverDown": (
        {'esnode_gpu_driver_up{instance="a"}': "0x20", "esnode_gpu_pci_devices": "8x20"},
        {"esnode_gpu_driver_up": "0x20", "esnode_gpu_pci_devices": "0x20"},
    ),
    "FewerGpusThanExpected": (
        {"esnode_gpus": "7x20", "esnode_gpus_expected": "8x20"},
        {"esnode_gpus": "8x20", "esnode_gpus_expected": "8x20"},
    ),
    "GpuXid": (
        {f'esnode_gpu_xid_errors_total{{{DEVICE},xid="79"}}': "0x10 1x10"},
        {f'esnode_gpu_xid_errors_total{{{DEVICE},xid="13"}}': "0x10 1x10"},
    ),
    "GpuPcieNarrow": (
        {
            f'esnode_gpu_pcie_link_width{{{DEVICE},bound="current"}}': "8x20",
            f'esnode_gpu_pcie_link_width{{{DEVICE},bound="max"}}': "16x20",
        },
        {
            f'esnode_gpu_pcie_link_width{{{DEVICE},bound="current"}}': "16x20",
            f'esnode_gpu_pcie_link_width{{{DEVICE},bound="max"}}': "16x20",
        },
    ),
    "GpuNearSlowdown": (
        {
            f"esnode_gpu_temperature_celsius{{{DEVICE}}}": "90x20",
            f'esnode_gpu_temperature_threshold_celsius{{{DEVICE},threshold="slowdown"}}': "92x20",
        },
        {
            f"esnode_gpu_temperature_celsius{{{DEVICE}}}": "60x20",
            f'esnode_gpu_temperature_threshold_celsius{{{DEVICE},threshold="slowdown"}}': "92x20",
            f"esnode_gpu_temperature_margin_celsius{{{DEVICE}}}": "30x20",
        },
    ),
    "GpuHeldDownByHeatOrPowerBrake": (
        {f'esnode_gpu_throttle_seconds_total{{{DEVICE},reason="hw_thermal_slowdown"}}': "0+30x40"},
        {f'esnode_gpu_throttle_seconds_total{{{DEVICE},reason="sw_power_cap"}}': "0+30x40"},
    ),
    "NvlinkDown": (
        {f'esnode_gpu_nvlink_up{{{DEVICE},link="3"}}': "1x10 0x10"},
        {f'esnode_gpu_nvlink_up{{{DEVICE},link="3"}}': "0x20"},
    ),
}


def rules() -> str:
    """The alerts, as a file of rules."""
    (text,) = re.findall(r"```yaml\n(groups:.*?)```", EXAMPLES.read_text(), re.DOTALL)
    return str(text)


def queries() -> list[str]:
    """The queries of the tables."""
    return re.findall(r"^\| [^|]+ \| `([^`]+)` \|$", EXAMPLES.read_text(), re.MULTILINE)


@pytest.fixture
def promtool() -> str:
    found = shutil.which("promtool")
    if found is None:
        pytest.skip("promtool is not installed (Debian package prometheus)")
    return found


def test_prometheus_takes_the_alerts_and_queries(promtool: str, tmp_path: Path) -> None:
    file = tmp_path / "rules.yml"
    file.write_text(rules())
    asked = tmp_path / "queries.yml"
    records = [{"record": f"query_{n}", "expr": query} for n, query in enumerate(queries())]
    assert len(records) > 20
    asked.write_text(json.dumps({"groups": [{"name": "queries", "rules": records}]}))
    done = subprocess.run([promtool, "check", "rules", file, asked], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("text", [rules(), *queries()])
def test_names_and_labels_are_those_of_our_metrics(text: str) -> None:
    for name, labels in re.findall(r"\b(esnode_\w+)(\{[^}]*\})?", text):
        metric = METRICS[name]
        assert set(re.findall(r"(\w+) *(?:=|!=|=~|!~)\"", labels)) <= {*metric.labels, *TARGET}
    known = {label for name in re.findall(r"\besnode_\w+", text) for label in METRICS[name].labels}
    for group in re.findall(r"(?:by|on|ignoring|group_left) \(([^)]*)\)", text):
        assert set(re.findall(r"\w+", group)) <= known | TARGET


@pytest.mark.parametrize("page", ["gpu.md", "power.md", "quickstart.md", "platform-matrix.md"])
def test_metrics_that_a_page_names_exist(page: str) -> None:
    for name in re.findall(r"`(esnode_\w*[a-z0-9])(?![\w…*])", (DOCS / page).read_text()):
        assert name in METRICS, name


def test_alerts_fire_when_they_should(promtool: str, tmp_path: Path) -> None:
    (tmp_path / "rules.yml").write_text(rules())
    tests = []
    for alert, cases in FIRES.items():
        for fires, series in zip((True, False), cases, strict=True):
            given = [
                {"series": with_instance(name), "values": values} for name, values in series.items()
            ]
            tests.append(
                {
                    "interval": "1m",
                    "input_series": given,
                    "promql_expr_test": [
                        {
                            "expr": f'count(ALERTS{{alertname="{alert}",alertstate="firing"}})',
                            "eval_time": "20m",
                            "exp_samples": [{"labels": "{}", "value": 1}] if fires else [],
                        }
                    ],
                }
            )
    file = tmp_path / "test.yml"
    file.write_text(
        json.dumps({"rule_files": ["rules.yml"], "evaluation_interval": "1m", "tests": tests})
    )
    done = subprocess.run([promtool, "test", "rules", file], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def with_instance(name: str) -> str:
    return name if "{" in name else f'{name}{{instance="a"}}'
