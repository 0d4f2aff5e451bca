"""scripts/needs.py: what `make` misses is said in a line, before half an environment is made."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

NEEDS = Path(__file__).parents[1] / "scripts/needs.py"


def needs(**environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, NEEDS],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_machine_that_has_all_hears_nothing() -> None:
    done = needs()
    assert (done.returncode, done.stderr) == (0, "")


def test_a_missing_compiler_is_named() -> None:
    done = needs(CC="no-such-compiler -m64")
    assert done.returncode == 1
    assert done.stderr.startswith("missing: a C compiler: no no-such-compiler (")
    assert done.stderr.count("\n") == 1


def test_the_environment_is_made_only_after_the_look() -> None:
    rule = (NEEDS.parents[1] / "Makefile").read_text().partition("\n$(BIN)/python:\n")[2]
    assert rule.splitlines()[0].strip() == "@$(PYTHON) scripts/needs.py"
