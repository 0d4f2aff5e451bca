"""Capabilities of the calling thread, for tests of files that we may not read."""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Callable, Iterator

LIBC = ctypes.CDLL(None, use_errno=True)
#: linux/capability.h
VERSION_3 = 0x20080522
DAC_OVERRIDE, DAC_READ_SEARCH = 1, 2


class Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class Sets(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_uint32) for name in ("effective", "permitted", "inheritable"))


@contextlib.contextmanager
def bound_by_permissions() -> Iterator[None]:
    """The mode of a file counts for this thread, also if it is root's."""
    header = Header(VERSION_3, 0)
    sets = (Sets * 2)()

    def call(function: Callable[..., int]) -> None:
        if function(ctypes.byref(header), sets):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

    call(LIBC.capget)
    before = sets[0].effective
    sets[0].effective &= ~(1 << DAC_OVERRIDE | 1 << DAC_READ_SEARCH)
    call(LIBC.capset)
    try:
        yield
    finally:
        sets[0].effective = before
        call(LIBC.capset)
