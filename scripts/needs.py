"""What `make` needs of a machine, a line for each that is missing; runs on any Python 3."""

import importlib.util
import os
import shutil
import sys
import sysconfig
from pathlib import Path

HERE = f"{sys.version_info[0]}.{sys.version_info[1]}"


def missing():
    """Yields what is missing, and which package brings it."""
    if sys.version_info < (3, 10):  # noqa: UP036
        yield f"Python 3.10 or newer: {sys.executable} is {HERE} (make run PYTHON=python3.11)"
        return
    if not importlib.util.find_spec("ensurepip"):  # without it, half an environment is made
        yield f"the module venv (apt install python{HERE}-venv)"
    if not Path(sysconfig.get_path("include"), "Python.h").exists():
        yield f"Python's headers (apt install python{HERE}-dev, dnf install python3-devel)"
    compiler = (os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc").split()[0]
    if not shutil.which(compiler):
        yield f"a C compiler: no {compiler} (apt install gcc, dnf install gcc)"


lacks = list(missing())
for lack in lacks:
    print("missing:", lack, file=sys.stderr)
sys.exit(bool(lacks))
