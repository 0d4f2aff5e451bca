"""How the extension is linked to NVIDIA's library: what it needs, and what may be missing."""

from __future__ import annotations

import re
import subprocess
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import esnode._fast

MODULE = next(
    path
    for suffix in EXTENSION_SUFFIXES
    if (path := Path(esnode._fast.__path__[0], f"nvml{suffix}")).exists()
)
ABI = Path(__file__).parents[2] / "csrc" / "nvml_abi.h"


def readelf(option: str) -> str:
    return subprocess.run(
        ["readelf", "--wide", option, MODULE], check=True, capture_output=True, text=True
    ).stdout


def test_the_library_is_a_needed_one() -> None:
    """Without a driver the import fails cleanly; otherwise the first call would crash."""
    assert re.search(r"\(NEEDED\)\s+Shared library: \[libnvidia-ml\.so\.1\]", readelf("--dynamic"))


def test_no_other_module_needs_it() -> None:
    for path in MODULE.parent.glob("*.so"):
        found = subprocess.run(
            ["readelf", "--dynamic", path], check=True, capture_output=True, text=True
        ).stdout
        assert ("libnvidia-ml" in found) == (path.name.split(".")[0] == "nvml")


def test_only_the_required_functions_are_strong() -> None:
    binding = {
        match[2]: match[1]
        for match in re.finditer(r" (WEAK|GLOBAL)\s+DEFAULT\s+UND (nvml\w+)", readelf("--dyn-syms"))
    }
    text = ABI.read_text()
    required = set(re.findall(r"REQUIRED\((nvml\w+)", text))
    optional = set(re.findall(r"OPTIONAL\((nvml\w+)", text))
    assert len(required) == 5
    assert {name for name, kind in binding.items() if kind == "GLOBAL"} == required
    assert {name for name, kind in binding.items() if kind == "WEAK"} == optional
