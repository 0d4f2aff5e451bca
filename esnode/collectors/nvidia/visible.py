"""Which GPUs and MIG instances to show, as `gpu_visible_devices` and `mig_config_devices` say."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

import msgspec


class Mig(msgspec.Struct, frozen=True):
    """A MIG instance: its UUID, its number among those of its GPU, and what it is made of."""

    uuid: str
    number: int
    gi: int
    ci: int


class Gpu(msgspec.Struct, frozen=True):
    """A GPU as NVML lists it, with its MIG instances."""

    index: int
    uuid: str
    migs: tuple[Mig, ...] = ()


#: Whether an entry names a GPU, with None, or a MIG instance of it.
_Names = Callable[[Gpu, Mig | None], bool]

_INDEX = re.compile(r"([0-9]{1,9})(?::([0-9]{1,9}))?")
#: A MIG instance by its GPU's UUID, as drivers before R470 named it.
_OLD = re.compile(r"mig-(gpu-[0-9a-f-]*)(?:/([0-9]{1,9})(?:/([0-9]{1,9}))?)?")


class Visible:
    """Entries by comma, in any case: ``all`` and ``none``; a GPU by index or UUID; a MIG instance
    by UUID, as ``MIG-GPU-<UUID>/<GI>/<CI>``, or by both indexes as ``0:1``. The beginning of a UUID
    stands for all that begin so. No entry at all is ``all``.

    An entry that names a GPU shows all its instances. One that names an instance shows its GPU,
    too, as a container that is given an instance sees the GPU that it is on, whose temperature,
    power and errors are its own; but it shows no other instance of that GPU.
    """

    def __init__(self, text: str) -> None:
        entries = [entry for part in text.split(",") if (entry := part.strip())]
        words = {entry.lower() for entry in entries}
        self._all = not entries or "all" in words
        self._entries = {
            entry: _names(entry.lower())
            for entry in entries
            if entry.lower() not in ("all", "none")
        }
        self._matched: set[str] = set()
        #: Whether GPUs are told apart by their instances, which are then to be listed.
        self.by_mig = not self._all and any(word[:4] == "mig-" or ":" in word for word in words)

    def gpu(self, gpu: Gpu) -> bool:
        """Whether a GPU is shown."""
        return self._find(gpu, (None, *gpu.migs))

    def mig(self, gpu: Gpu, mig: Mig) -> bool:
        """Whether a MIG instance of a GPU is shown."""
        return self._find(gpu, (mig,))

    def unmatched(self) -> list[str]:
        """The entries that have named no GPU or instance up to now, as they are written."""
        return [entry for entry in self._entries if entry not in self._matched]

    def _find(self, gpu: Gpu, parts: Iterable[Mig | None]) -> bool:
        found = {
            entry for part in parts for entry, names in self._entries.items() if names(gpu, part)
        }
        self._matched |= found
        return self._all or bool(found)


def _names(entry: str) -> _Names:
    """What an entry names; nothing when it is not understood."""
    if match := _INDEX.fullmatch(entry):
        index = int(match[1])
        if match[2] is None:
            return lambda gpu, mig: gpu.index == index
        number = int(match[2])
        return lambda gpu, mig: mig is not None and (gpu.index, mig.number) == (index, number)
    if match := _OLD.fullmatch(entry):
        parent, gi, ci = match[1], match[2], match[3]
        return lambda gpu, mig: (
            mig is not None
            and gpu.uuid.lower().startswith(parent)
            and (gi is None or mig.gi == int(gi))
            and (ci is None or mig.ci == int(ci))
        )
    if entry.startswith("mig-"):
        return lambda gpu, mig: mig is not None and mig.uuid.lower().startswith(entry)
    if entry.startswith("gpu-"):
        return lambda gpu, mig: gpu.uuid.lower().startswith(entry)
    return lambda gpu, mig: False
