from typing import final

from typing_extensions import Self

DEVICES: tuple[str, ...]

@final
class Power:
    path: str
    def __new__(cls, path: str, timeout: float = 5, max_age: float = 15) -> Self: ...
    def ask(self) -> None: ...
    def answer(self) -> float | None: ...
