"""A host tree in a temporary directory."""

from pathlib import Path

import pytest

from tests.hosts import Tree


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)
