"""The agent's version and the commit that it was built from."""

from __future__ import annotations

from importlib import metadata


def version() -> str:
    return metadata.version("esnode-core")
