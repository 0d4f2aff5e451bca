"""ESNODE-Core: one agent per node for every metric of a GPU server."""
