from os import PathLike
from typing import final

from typing_extensions import Self

from .procfs import File
from .table import Table

@final
class Softnet:
    file: File
    def __new__(
        cls,
        table: Table,
        path: str | PathLike[str],
        processed: int,
        dropped: int,
        squeezed: int,
    ) -> Self: ...
    def read(self) -> int: ...
