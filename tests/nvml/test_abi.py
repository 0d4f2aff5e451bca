"""csrc/nvml_abi.h against NVIDIA's header: every size, offset, value and function.

The header is in the package nvidia-nvml-dev. Both are asked by the same C program, compiled once
with each; what is compared is read from our header, so that nothing in it can be left out.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

OURS = Path(__file__).parents[2] / "csrc" / "nvml_abi.h"
PACKAGE = "nvidia-nvml-dev"
VERSION = "13.5.*"  # some limits grow with it


def header(folder: Path) -> Path | None:
    """NVIDIA's, from the installed package, or else as pip can fetch it."""
    try:
        for file in importlib.metadata.files(PACKAGE) or ():
            if file.name == "nvml.h":
                return Path(str(file.locate()))
    except importlib.metadata.PackageNotFoundError:
        pass
    fetch = "download --quiet --no-deps --timeout 5 --retries 0 --dest".split()  # noqa: SIM905
    try:
        subprocess.run(
            [sys.executable, "-m", "pip", *fetch, folder, f"{PACKAGE}=={VERSION}"],
            check=True,
            capture_output=True,
            timeout=30,
        )
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
        return None
    for wheel in folder.glob("*.whl"):
        zipfile.ZipFile(wheel).extractall(folder)
    return next(folder.rglob("nvml.h"), None)


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = header(tmp_path_factory.mktemp("header"))
    if found is None:
        pytest.skip(f"{PACKAGE} is neither installed nor to be had from pip")
    return found


def stripped(path: Path) -> str:
    text = re.sub(r"/\*.*?\*/|//[^\n]*", " ", path.read_text(), flags=re.DOTALL)
    return text.replace("\\\n", " ")


def fields(body: str) -> list[str]:
    """The fields' names in a struct's body, those of a nested struct with its name before."""
    names = []
    for inner, name in re.findall(r"struct\s*{(.*?)}\s*(\w+);", body, re.DOTALL):
        names += [name, *(f"{name}.{field}" for field in fields(inner))]
    for line in re.sub(r"struct\s*{.*?}\s*\w+;", "", body, flags=re.DOTALL).split(";"):
        names += [
            re.findall(r"\w+", part.split("[")[0])[-1] for part in line.split(",") if part.strip()
        ]
    return names


def declared() -> dict[str, list[str]]:
    """What our header declares: C expressions by kind."""
    text = stripped(OURS)
    structs = re.findall(r"typedef (?:struct|union) {((?:[^{}]|{[^}]*})*)} (\w+);", text)
    enums = ",".join(re.findall(r"enum {(.*?)}", text, re.DOTALL))
    return {
        "sizes": [
            f"sizeof({name})" for name in re.findall(r"(?:}|typedef [\w ]+[ *])\s*(nvml\w+);", text)
        ],
        "offsets": [
            ask.format(name, field)
            for body, name in structs
            for field in fields(body)
            for ask in ("offsetof({}, {})", "sizeof((({} *)0)->{})")
        ],
        "values": re.findall(r"(\w+) =", enums) + re.findall(r"#define (nvml\w+) 0x", text),
        "functions": re.findall(r"(?:REQUIRED|OPTIONAL)\((nvml\w+),", text),
    }


def answers(include: Path, expressions: list[str], folder: Path) -> dict[str, int]:
    lines = "".join(f'printf("%lld\\n", (long long)({e}));\n' for e in expressions)
    source = folder / "ask.c"
    source.write_text(
        "#include <stddef.h>\n#include <stdio.h>\n#define NVML_NO_UNVERSIONED_FUNC_DEFS\n"
        f'#include "{include}"\nint main(void) {{\n{lines}}}\n'
    )
    program = folder / "ask"
    subprocess.run([os.environ.get("CC", "cc"), "-w", "-o", program, source], check=True)
    said = subprocess.run([program], check=True, capture_output=True, text=True).stdout
    return dict(zip(expressions, map(int, said.split()), strict=True))


def test_what_is_read_from_our_header() -> None:
    """That the other tests compare anything."""
    found = declared()
    assert {kind: len(names) > 10 for kind, names in found.items()} == dict.fromkeys(found, True)
    assert "sizeof(nvmlGpmMetricsGet_t)" in found["sizes"]
    assert "sizeof(nvmlDevice_t)" in found["sizes"]
    assert "sizeof(nvmlReturn_t)" in found["sizes"]
    assert "offsetof(nvmlGpmMetric_t, metricInfo.unit)" in found["offsets"]
    assert "offsetof(nvmlMemory_v2_t, free)" in found["offsets"]
    assert "NVML_MEMORY_LOCATION_SRAM" in found["values"]
    assert "nvmlEventTypeGpuRecoveryAction" in found["values"]


@pytest.mark.parametrize("kind", ["sizes", "offsets", "values"])
def test_ours_is_theirs(kind: str, theirs: Path, tmp_path: Path) -> None:
    asked = declared()[kind]
    assert answers(OURS, asked, tmp_path) == answers(theirs, asked, tmp_path)


def test_functions_take_as_many_arguments(theirs: Path) -> None:
    def arguments(text: str) -> int:
        return 0 if text.strip() == "void" else text.count(",") + 1

    ours = dict(re.findall(r"(?:REQUIRED|OPTIONAL)\((nvml\w+),\s*\((.*?)\)\)", stripped(OURS)))
    prototypes = re.findall(r"nvmlReturn_t DECLDIR (nvml\w+)\s*\((.*?)\);", stripped(theirs), re.S)
    expected = {name: arguments(text) for name, text in prototypes}
    assert set(ours) == set(declared()["functions"])
    assert {name: arguments(text) for name, text in ours.items()} == {
        name: expected.get(name) for name in ours
    }
