"""What node_exporter reads from a tree."""

from __future__ import annotations

import shutil
import subprocess
import urllib.request
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families as parse

from tests.running import PATIENCE, free_port, wait_for

#: name, labels, value
Sample = tuple[str, dict[str, str], float]


def node_exporter(root: Path, *collectors: str) -> list[Sample]:
    """One page of some collectors, with the tree's /proc and /sys."""
    program = shutil.which("prometheus-node-exporter") or shutil.which("node_exporter")
    if program is None:
        pytest.skip("node_exporter is not installed (Debian package prometheus-node-exporter)")
    (root / "proc").mkdir(exist_ok=True)
    port = free_port()
    process = subprocess.Popen(
        [
            *(program, f"--web.listen-address=127.0.0.1:{port}", "--collector.disable-defaults"),
            *(f"--collector.{name}" for name in collectors),
            *(f"--path.sysfs={root}/sys", f"--path.procfs={root}/proc"),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    page = ""

    def answers() -> bool:
        nonlocal page
        assert process.poll() is None, "node_exporter has ended"
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=1) as answer:
                page = answer.read().decode()
        except OSError:
            return False
        return True

    try:
        wait_for(answers, "node_exporter answers")
    finally:
        process.terminate()
        process.wait(PATIENCE)
    return [(s.name, s.labels, s.value) for family in parse(page) for s in family.samples]
