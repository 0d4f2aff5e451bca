"""Memory, allocations, distances and usage of NUMA nodes, from /sys/devices/system/node."""

from __future__ import annotations

import re

from .._fast.procfs import File, Rows
from .._fast.table import OWNER, READING, TICK
from ..metrics import Metric, counter, gauge
from .base import Collector, Unavailable
from .device import listing, text

NODE = ("node",)

#: Families that are one line of a node's meminfo, in kB.
MEMORY = {
    "MemTotal": gauge("esnode_numa_memory_total_bytes", "Memory of the node.", NODE),
    "MemFree": gauge(
        "esnode_numa_memory_free_bytes", "Memory of the node that nothing uses.", NODE
    ),
    "MemUsed": gauge("esnode_numa_memory_used_bytes", "Memory of the node in use.", NODE),
}
USAGE = gauge("esnode_numa_cpu_usage_percent", "Mean usage of the node's cores.", NODE)
ALLOCATIONS = counter(
    "esnode_numa_allocations_total", "Pages that were allocated on the node.", ("node", "kind")
)
DISTANCE = gauge(
    "esnode_numa_distance", "Distance to a node's memory; 10 is local.", ("node", "to")
)

#: Lines of numastat and what we call them.
KINDS = {
    "numa_hit": "hit",
    "numa_miss": "miss",
    "numa_foreign": "foreign",
    "interleave_hit": "interleave_hit",
    "local_node": "local",
    "other_node": "other",
}
#: The rows that the usage is the mean of.
CORE_USAGE = "esnode_cpu_usage_percent"

#: Cores that a range may have.
MOST = 8192

_NODE = re.compile(r"node(\d{1,6})")
_DISTANCE = re.compile(r"\d{1,9}")
_RANGE = re.compile(r"(\d{1,6})(?:-(\d{1,6}))?")


class Node:
    """A node as it is bound."""

    def __init__(self, number: str) -> None:
        self.number = number
        self.readers: list[Rows] = []
        self.rows: list[tuple[Metric, tuple[str, ...]]] = []
        self.cores: list[str] = []
        self.slots: list[int] = []  # of the cores' usage
        self.usage = -1


class Numa(Collector):
    name = "numa"
    switch = "enable_cpu"
    metrics = (*MEMORY.values(), USAGE, ALLOCATIONS, DISTANCE)

    def bind(self) -> None:
        self.nodes: dict[str, Node] = {}
        self.online = File(self.host.sys("devices/system/cpu/online"))
        self.seen: tuple[list[str], bytes] = [], b""
        self.version = -1
        self.look()
        if not self.nodes:
            raise Unavailable(f"{self.path('')}: no nodes")

    def path(self, name: str) -> str:
        return self.host.sys(f"devices/system/node/{name}")

    def look(self) -> None:
        """Follows nodes and cores that come and go; all nodes anew, as a change concerns their
        distances as well."""
        numbers = self.names()
        seen = numbers, contents(self.online)
        if seen == self.seen:
            return
        self.seen = seen
        for node in self.nodes.values():
            for metric, labels in node.rows:
                self.table.remove(metric, labels)
        self.nodes = {number: self.node(number, numbers) for number in numbers}

    def names(self) -> list[str]:
        """The nodes' numbers, in order."""
        matches = map(_NODE.fullmatch, listing(self.path("")))
        return sorted((match[1] for match in matches if match), key=int)

    def node(self, number: str, numbers: list[str]) -> Node:
        """A node's rows and readers."""
        node = Node(number)
        path = self.path(f"node{number}")

        def add(metric: Metric, labels: tuple[str, ...], keep: int = READING) -> int:
            node.rows.append((metric, labels))
            return self.table.add(metric, labels, keep)

        meminfo = Rows(self.table, f"{path}/meminfo", key=2)
        for key, metric in MEMORY.items():
            meminfo.bind(f"{key}:".encode(), (3, add(metric, (number,)), 1024))
        numastat = Rows(self.table, f"{path}/numastat")
        for key, kind in KINDS.items():
            numastat.bind(key.encode(), (1, add(ALLOCATIONS, (number, kind))))
        node.readers = [meminfo, numastat]
        distances = (text(f"{path}/distance") or "").split()
        if len(distances) == len(numbers) and all(map(_DISTANCE.fullmatch, distances)):
            for to, distance in zip(numbers, distances, strict=True):
                self.table.set(add(DISTANCE, (number, to), OWNER), float(distance))
        node.cores = cores(text(f"{path}/cpulist") or "")
        if node.cores:
            node.usage = add(USAGE, (number,), TICK)
        return node

    def find_usage(self) -> None:
        """Finds the rows of the cores, which are another collector's."""
        if self.version != self.table.version:
            self.version = self.table.version
            for node in self.nodes.values():
                slots = [self.table.find(CORE_USAGE, (core,)) for core in node.cores]
                node.slots = [slot for slot in slots if slot is not None]

    def sample(self, tick: bool) -> None:
        if tick:
            self.look()
            self.find_usage()
        for node in self.nodes.values():
            for reader in node.readers:
                self.read(reader)
            if tick and node.usage >= 0:
                known = [value for value in map(self.table.get, node.slots) if value == value]
                if known:
                    self.table.set(node.usage, sum(known) / len(known))


def contents(file: File) -> bytes:
    """What a file holds; nothing when it cannot be read."""
    try:
        return file.read()
    except OSError:
        return b""


def cores(text: str) -> list[str]:
    """The numbers in a list such as ``0-3,8``; none when it is not one, or not of this world."""
    numbers: list[str] = []
    for part in text.split(","):
        match = _RANGE.fullmatch(part)
        if match:
            first, last = int(match[1]), int(match[2] or match[1])
            numbers += map(str, range(first, min(last, first + MOST) + 1))
    return numbers
