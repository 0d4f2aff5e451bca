"""The driver's own library, or a reason to skip."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pynvml as nv
import pytest

from esnode.collectors.base import Unavailable
from esnode.collectors.nvidia import driver

HERE = Path(__file__).parent


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves these tests out where others run, too: those load the fake, and a process can have
    one library of that name. tests/nvml/test_hardware_tests.py runs them in one of their own."""
    ours = [item for item in items if item.path.is_relative_to(HERE)]
    if len(ours) < len(items):
        config.hook.pytest_deselected(items=ours)
        items[:] = [item for item in items if item not in ours]


@pytest.fixture(scope="session")
def nvml() -> Iterator[None]:
    """nvidia-ml-py, initialised, with the library that the agent finds."""
    try:
        driver.load("")
        nv.nvmlInit()
    except (Unavailable, nv.NVMLError) as error:
        pytest.skip(f"no NVIDIA driver: {error}")
    if not nv.nvmlDeviceGetCount():
        pytest.skip("the driver has no GPU")
    yield
    nv.nvmlShutdown()


@pytest.fixture
def handles(nvml: None) -> list[nv.c_nvmlDevice_t]:
    """Every GPU, as nvidia-ml-py knows it."""
    return [nv.nvmlDeviceGetHandleByIndex(index) for index in range(nv.nvmlDeviceGetCount())]
