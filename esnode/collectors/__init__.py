"""The collectors, in the order of their rows on the page."""

from __future__ import annotations

from .base import Collector
from .cpu import Cpu
from .disk import Disk
from .memory import Memory
from .mounts import Mount
from .network import Network
from .node import Node

COLLECTORS: tuple[type[Collector], ...] = (Node, Cpu, Memory, Disk, Mount, Network)
