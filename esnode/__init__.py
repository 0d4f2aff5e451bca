"""ESNODE-Core: one agent per node for the metrics of a GPU server."""

__version__ = "0.1.0"
