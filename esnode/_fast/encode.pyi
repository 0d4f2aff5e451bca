from collections.abc import Collection
from typing import final

from typing_extensions import Self

from ..dialects import Dialect
from .table import Layout, Snapshot

@final
class Rendering:
    def __new__(cls, layout: Layout, dialect: Dialect) -> Self: ...

def encode(
    snapshot: Snapshot, dialect: Dialect, groups: Collection[str] | None = None
) -> bytes: ...
def text_of(value: float) -> bytes: ...
