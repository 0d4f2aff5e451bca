"""The layers of the design: who may import whom."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import esnode

ROOT = Path(esnode.__file__).parent

#: What stands below each module or package, `name.*` for what is in one; the longest name counts.
#: A name allows what is in it, too. `__init__` is the version; `__main__` is the top and hands over
#: to the command line.
LAYERS = {
    "__init__": (),
    "__main__": ("config", "logs", "__init__", "agent", "cli"),
    "cli": (
        *("agent", "catalog", "cli", "client", "config", "console", "control", "sets", "state"),
        *("status", "tsdb", "web", "xids", "__init__"),
    ),
    # It tries for itself what the agent would read.
    "cli.diagnostics": (
        *("_fast.clock", "agent", "cli", "client", "collectors", "config", "host", "status"),
        *("tsdb.layout", "web"),
    ),
    "console": ("config", "client", "status", "cli.screen", "__init__", "console"),
    "client": ("__init__", "config", "web"),
    "agent": (
        *("_fast", "catalog", "collectors", "config", "control", "derive", "dialects", "host"),
        *("http", "logs", "recent", "reload", "rounds", "sampler", "store", "tsdb", "view"),
        "__init__",
    ),
    "reload": ("config",),
    # The catalog is every collector's declarations, and what else is a page of the reference.
    "catalog": ("collectors", "config", "derive", "metrics", "status", "xids"),
    "http": ("_fast.peer", "config", "dialects", "http", "store", "tsdb.select", "web"),
    "tsdb": ("_fast", "dialects", "logs", "metrics", "state", "tsdb"),
    "control": ("config", "control", "sets", "state", "status", "__init__"),
    "status": (),
    "store": ("_fast.table", "_fast.encode", "dialects", "sampler"),
    "sampler": ("_fast.table", "collectors.base", "logs", "metrics"),
    "derive": ("_fast.table", "collectors.base", "config", "host", "metrics", "xids"),
    "rounds": ("_fast.table", "sampler"),
    "view": ("_fast.table", "config", "derive", "recent", "sampler", "status", "store", "xids"),
    "recent": (),
    "collectors": ("collectors",),
    "collectors.nvidia.*": (
        *("_fast", "collectors.base", "collectors.device", "collectors.nvidia"),
        *("config", "host", "metrics", "state", "xids"),
    ),
    "collectors.*": ("_fast", "collectors.base", "collectors.device", "config", "host", "metrics"),
    "metrics": (),
    "host": (),
    "config": (),
    "web": ("config",),
    "logs": (),
    "sets": (),
    "state": (),
    "xids": (),
    "dialects": ("metrics",),
    "_fast": (),
}


def modules() -> Iterator[tuple[str, ast.Module]]:
    """(dotted name below esnode, source) of each module."""
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        if parts[-1] == "__init__" and len(parts) > 1:
            parts = parts[:-1]
        yield ".".join(parts), ast.parse(path.read_text(), str(path))


def imports(name: str, source: ast.Module) -> Iterator[str]:
    """What a module imports of ours, wherever in it, by dotted name below esnode."""
    is_package = (ROOT / Path(*name.split("."))).is_dir()
    package = [] if name == "__init__" else name.split(".")[: None if is_package else -1]
    known = {module for module, _ in SOURCES}
    for node in ast.walk(source):
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = (node.module or "").split(".") if node.module else []
            if node.level:
                base = ["esnode", *package[: len(package) - node.level + 1], *base]
            found = [".".join([*base, alias.name]) for alias in node.names]
        else:
            continue
        for dotted in found:
            if dotted == "esnode" or dotted.startswith("esnode."):
                ours = dotted.removeprefix("esnode").lstrip(".")
                head, _, last = ours.rpartition(".")
                # `from .metrics import gauge` is metrics; `from .collectors import cpu` is not.
                found_here = ours in known or is_extension(ours) or not last
                yield (ours if found_here else head) or "__init__"


def is_extension(dotted: str) -> bool:
    return (ROOT / Path(*dotted.split("."))).with_suffix(".pyx").exists()


def may(name: str, found: str) -> bool:
    """Whether a module may import another one; StopIteration when it has no place in the table."""
    parts = name.split(".")
    packages = [".".join(parts[:size]) for size in range(len(parts) - 1, 0, -1)]
    places = [name, *(f"{package}.*" for package in packages), parts[0]]
    below = next(LAYERS[place] for place in places if place in LAYERS)
    return any(found == part or found.startswith(f"{part}.") for part in below)


SOURCES = list(modules())


@pytest.mark.parametrize(("name", "source"), SOURCES, ids=[name for name, _ in SOURCES])
def test_a_module_imports_only_what_stands_below_it(name: str, source: ast.Module) -> None:
    for found in imports(name, source):
        assert may(name, found) or found == name, found


@pytest.mark.parametrize(
    ("name", "line", "found"),
    [
        ("collectors.cpu", "from .disk import Disk", "collectors.disk"),
        ("collectors.cpu", "from . import disk", "collectors.disk"),
        ("collectors.cpu", "from ..sampler import Lane", "sampler"),
        ("collectors.cpu", "from .nvidia import driver", "collectors.nvidia.driver"),
        ("collectors.nvidia.driver", "from ..disk import Disk", "collectors.disk"),
        ("collectors.nvidia.driver", "from ...sampler import Lane", "sampler"),
        ("http.app", "from ..collectors.cpu import Cpu", "collectors.cpu"),
        ("http.app", "def f():\n    import esnode.agent", "agent"),
        ("store", "from .collectors import COLLECTORS", "collectors"),
        ("agent", "from .cli import run", "cli"),
        ("metrics", "from ._fast import table", "_fast.table"),
        ("_fast", "from esnode.metrics import gauge", "metrics"),
    ],
)
def test_a_forbidden_import_is_seen(name: str, line: str, found: str) -> None:
    assert list(imports(name, ast.parse(line))) == [found]
    assert not may(name, found)


@pytest.mark.parametrize(
    "path", sorted((ROOT / "_fast").glob("*.p[yx][xd]")), ids=lambda path: path.name
)
def test_the_extensions_know_nothing_of_our_python(path: Path) -> None:
    for line in path.read_text().splitlines():
        match = re.match(r"\s*(from|cimport|import)\s+((esnode|\.)[\w.]*)", line)
        if match:
            assert match[2].startswith("esnode._fast."), line


def test_the_c_sources_know_nothing_of_python() -> None:
    sources = [*(ROOT.parent / "csrc").glob("*.[ch]")]
    assert sources
    for path in sources:
        assert "Python.h" not in re.sub(r"/\*.*?\*/", "", path.read_text(), flags=re.DOTALL)
