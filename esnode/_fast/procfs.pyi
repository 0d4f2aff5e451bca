from collections.abc import Iterable, Mapping
from os import PathLike
from typing import Any, final

from typing_extensions import Self

from .table import Table

CHANGED: int
MALFORMED: int

# (columns, slot[, num[, den[, less columns]]])
_Cell = tuple[Any, ...]
_Path = str | PathLike[str]

@final
class File:
    path: str
    def __new__(cls, path: _Path) -> Self: ...
    def changed(self) -> bool: ...
    def read(self) -> bytes: ...

@final
class Rows:
    file: File
    def __new__(
        cls,
        table: Table,
        path: _Path,
        key: int = 0,
        until: bytes | None = None,
        news: bytes | None = None,
        shape: Iterable[int] = ...,
        after: bytes | None = None,
    ) -> Self: ...
    def bind(self, key: bytes, *cells: _Cell, lasting: bool = False) -> None: ...
    def drop(self, key: bytes) -> None: ...
    def read(self) -> int: ...
    def rescan(self) -> int: ...
    def changes(self) -> tuple[list[bytes], list[bytes]]: ...

@final
class Line:
    file: File
    def __new__(cls, table: Table, path: _Path, *cells: _Cell) -> Self: ...
    def read(self) -> int: ...

@final
class Pairs:
    file: File
    def __new__(cls, table: Table, path: _Path, names: Mapping[bytes, int]) -> Self: ...
    def read(self) -> int: ...
