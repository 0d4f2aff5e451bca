"""What the console knows: the newest document, whether the agent answers, and what was before."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

from ..cli.screen import Line, part, total
from ..status import Gpu, Status

#: Values of a trend that are kept: of a tick each.
KEPT = 120


class Entry(NamedTuple):
    """What has happened, as a line; ``gpu``: the UUID of the GPU that it happened to."""

    unix_ms: int
    gpu: str | None
    line: Line


class Profile(NamedTuple):
    """A key of a set of metrics, and where its value is from. ``turned_on``: with its set, as all
    are turned off with it."""

    set: str
    key: str
    on: bool
    origin: str
    turned_on: bool = True


class Seen:
    """Changed on one thread only, the one that draws."""

    def __init__(self, agent: str = "", elsewhere: str = "") -> None:
        #: The agent's address.
        self.agent = agent
        #: Why it is not this node's to change; empty where it is.
        self.elsewhere = elsewhere
        self.status: Status | None = None
        #: Why there is no answer, and since when in Unix milliseconds; None while there is.
        self.problem: str | None = None
        self.silent_since: int | None = None
        #: By name, the oldest first.
        self.trends: dict[str, deque[float | None]] = {}
        self.log: list[Entry] = []
        self.profiles: list[Profile] = []
        #: Why there are none, or none that can be changed.
        self.profiles_problem: str | None = None

    def take(self, status: Status) -> None:
        """An answer; of a tick that is known already there is nothing new to keep."""
        before = self.status
        self.status, self.problem, self.silent_since = status, None, None
        if before is not None and before.last_scrape_unix_ms == status.last_scrape_unix_ms:
            return
        found = dict(figures(status))
        for name in [name for name in self.trends if name not in found]:
            del self.trends[name]
        for name, value in found.items():
            self.trends.setdefault(name, deque(maxlen=KEPT)).append(value)

    def miss(self, problem: str, now_ms: int) -> None:
        """No answer."""
        self.problem = problem
        if self.silent_since is None:
            self.silent_since = now_ms

    def trend(self, name: str) -> deque[float | None]:
        return self.trends.get(name) or deque()


def ident(gpu: Gpu) -> str:
    """What tells a GPU from others, also after a restart."""
    return gpu.uuid or gpu.gpu


def gpu_watts(status: Status) -> float | None:
    return total([gpu.power_watts for gpu in status.gpus or ()])


def package_watts(status: Status) -> float | None:
    return total([each.watts for each in status.cpu_package_power_watts or ()])


def figures(status: Status) -> Iterator[tuple[str, float | None]]:
    """The values whose trends are kept."""
    yield "cpu", status.cpu_util_percent
    yield "memory", part(status.mem_used_bytes, status.mem_total_bytes)
    yield "rx", status.net_rx_bytes_per_sec
    yield "tx", status.net_tx_bytes_per_sec
    yield "node power", status.node_power_watts
    yield "gpu power", gpu_watts(status)
    yield "tokens", status.app_tokens_per_sec
    for gpu in status.gpus or ():
        yield f"util {ident(gpu)}", gpu.util_percent
        yield f"memory {ident(gpu)}", part(gpu.memory_used_bytes, gpu.memory_total_bytes)
        yield f"power {ident(gpu)}", gpu.power_watts
        yield f"celsius {ident(gpu)}", gpu.temperature_celsius
    for each in status.interfaces or ():
        yield f"net {each.iface}", sum_of(each.rx_bytes_per_sec, each.tx_bytes_per_sec)
    for port in status.infiniband or ():
        both = sum_of(port.rx_bytes_per_sec, port.tx_bytes_per_sec)
        yield f"port {port.device} {port.port}", both
    for disk in status.disks or ():
        yield f"disk {disk.device} {disk.mount}", disk.busy_percent


def sum_of(first: float | None, second: float | None) -> float | None:
    return None if first is None or second is None else first + second
