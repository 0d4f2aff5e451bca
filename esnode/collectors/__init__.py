"""The collectors, in the order of their rows on the page."""

from __future__ import annotations

from .base import Collector
from .clock import Clock
from .cpu import Cpu
from .disk import Disk
from .frequency import Frequency
from .hwmon import Hwmon
from .infiniband import Infiniband
from .links import Links
from .memory import Memory
from .models import Models
from .mounts import Mount
from .network import Network
from .nfs import Nfs
from .node import Node
from .nodepower import NodePower
from .numa import Numa
from .nvidia.gpus import Gpus
from .power import Power
from .pressure import Pressure
from .raid import Raid
from .sockets import Sockets
from .throttles import Throttles

COLLECTORS: tuple[type[Collector], ...] = (
    *(Node, Clock, Cpu, Pressure, Frequency, Throttles, Numa, Memory),
    *(Disk, Mount, Nfs, Models, Raid),
    *(Network, Sockets, Links, Infiniband),
    *(Power, NodePower, Hwmon),
    Gpus,
)
