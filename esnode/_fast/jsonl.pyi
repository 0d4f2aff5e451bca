from collections.abc import Callable
from typing import final

from typing_extensions import Self

from ..dialects import Labels
from ..metrics import Metric
from .table import Snapshot

def series_hash(metric: bytes) -> int: ...
def render(
    snapshots: list[Snapshot],
    metric_object: Callable[[Metric, Labels], bytes],
    first: int = 0,
    limit: int = ...,
) -> tuple[bytes, int, int]: ...

@final
class Heads: ...

@final
class Scan:
    metrics: list[bytes]
    damage: list[tuple[int, int]]
    lines: int
    samples: int
    low: int
    high: int
    end: int
    damaged: int
    def __new__(cls, wanted: Callable[[bytes], bool] | None = ..., keep: bool = ...) -> Self: ...
    def __len__(self) -> int: ...
    def feed(self, data: bytes) -> int: ...
    def summary(self) -> list[tuple[bytes, int, int] | None]: ...
    def gather(self, fd: int, numbers: list[int]) -> list[bytes]: ...

def merge(text: bytes, limit: int = ...) -> tuple[list[bytes], int]: ...
