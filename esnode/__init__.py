"""ESNODE-Core: one agent per node for every metric of a GPU server."""

__version__ = "0.1.0"
