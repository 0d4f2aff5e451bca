"""The driver: finding NVML's library, and the version of the kernel's module."""

from __future__ import annotations

import importlib
import os
import re
import stat
import struct
from pathlib import Path
from types import ModuleType
from typing import BinaryIO

from ..._fast import library as loader
from ...host import Host
from ..base import Refused, Unavailable
from ..device import text

NAME = "libnvidia-ml.so.1"
#: What is linked to it.
EXTENSION = "esnode._fast.nvml"

_MACHINE = os.uname().machine
#: Where containers and drivers have it when the loader does not know of it.
PLACES = (
    "/usr/local/nvidia/lib64",  # of the older container runtimes, and of GKE
    "/usr/local/nvidia/lib",
    f"/run/nvidia/driver/usr/lib/{_MACHINE}-linux-gnu",  # of the GPU operator's driver container
    "/run/nvidia/driver/usr/lib64",
    "/usr/lib/wsl/lib",
    f"/usr/lib/{_MACHINE}-linux-gnu/nvidia/current",  # Debian's alternatives
    f"/usr/lib/{_MACHINE}-linux-gnu",  # and where the loader's cache is old
    "/usr/lib64",
)

#: e_machine in <elf.h>.
_MACHINES = {3: "i386", 40: "arm", 62: "x86_64", 183: "aarch64"}
_PT_LOAD = 1
_SEGMENT = struct.Struct("=IIQQQQQQ")  # type, flags, offset, addresses, sizes, alignment
_VERSION = re.compile(r"(?<!\S)\d+\.\d+(?:\.\d+)*(?!\S)")


def load(library: str, extension: str = EXTENSION) -> ModuleType:
    """The extension, with NVML from the path ``library``, or, where that is empty, from where the
    loader finds it, else from the first of the usual places that has it.

    Raises :class:`Unavailable`; another call looks again, in the same process."""
    if library:
        return _load(str(Path(library).absolute()), extension)
    try:
        return importlib.import_module(extension)
    except ModuleNotFoundError as error:
        raise Unavailable(f"{extension}: {error}") from None
    except ImportError as error:
        # The loader names the library that it did not find; of one that it found, it says more.
        known = str(error)
        is_absent = known.startswith(f"{NAME}: cannot open")
        failures = [] if is_absent else [Unavailable(f"{NAME}: {known}")]
    for place in PLACES:
        path = f"{place}/{NAME}"
        if os.path.lexists(path):
            try:
                return _load(path, extension)
            except Unavailable as error:
                failures.append(error)
    if failures:
        is_refused = any(isinstance(error, Refused) for error in failures)
        raise (Refused if is_refused else Unavailable)("; ".join(map(str, failures)))
    raise Unavailable(f"{NAME}: neither the loader nor {', '.join(PLACES)} has it")


def _load(path: str, extension: str) -> ModuleType:
    """The extension, with NVML from a path."""
    try:
        with open(path, "rb", opener=_opener) as file:
            _check(file)
        loader.open_library(os.fsencode(path))
    except PermissionError as error:
        raise Refused(f"{path}: {error.strerror}") from None
    except (OSError, ValueError) as error:
        # The loader's words, unlike the system's, begin with the path.
        cause = getattr(error, "strerror", None) or str(error).removeprefix(f"{path}: ")
        raise Unavailable(f"{path}: {cause}") from None
    try:
        return importlib.import_module(extension)
    except ImportError as error:
        raise Unavailable(f"{path}: {error}") from None


def _opener(path: str, flags: int) -> int:
    """Opens a file; a FIFO is not waited for."""
    return os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY)


def _check(file: BinaryIO) -> None:
    """Raises ValueError for what the loader would wait for, call missing, or crash on: a FIFO, a
    library of another architecture, and one that is cut short. See elf(5)."""
    about = os.fstat(file.fileno())
    if not stat.S_ISREG(about.st_mode):
        raise ValueError("not a regular file")
    head = file.read(64)
    if head[:4] != b"\x7fELF" or len(head) < 64:
        raise ValueError("not an ELF file")
    with Path(loader.__file__).open("rb") as own:
        ours = own.read(20)
    if head[4:6] != ours[4:6] or head[18:20] != ours[18:20]:
        raise ValueError(f"a library for {_machine(head)}, and this is {_machine(ours)}")
    if head[4] == 2:  # of 64 bits
        (table,) = struct.unpack_from("=Q", head, 32)
        size, count = struct.unpack_from("=HH", head, 54)
        if size != _SEGMENT.size:
            raise ValueError("not an ELF file")
        file.seek(table)
        segments = file.read(size * count)
        if len(segments) < size * count or any(
            kind == _PT_LOAD and offset + length > about.st_size
            for kind, _, offset, _, _, length, _, _ in _SEGMENT.iter_unpack(segments)
        ):
            raise ValueError("the file is cut short")


def _machine(head: bytes) -> str:
    """The architecture that the head of an ELF file tells."""
    number = int.from_bytes(head[18:20], "big" if head[5] == 2 else "little")
    return _MACHINES.get(number, f"machine {number}") + (" (32 bits)" if head[4] == 1 else "")


def kernel_version(host: Host) -> str | None:
    """The version of the kernel's module, such as 550.54.15; None when it is not loaded.

    /sys has the module's own; /proc/driver/nvidia may be a copy that a container runtime has made
    when the container started. Raises OSError where we are short of descriptors."""
    version = text(host.sys("module/nvidia/version"))
    if version is None:
        match = _VERSION.search(text(host.proc("driver/nvidia/version")) or "")
        version = match[0] if match else None
    return version
