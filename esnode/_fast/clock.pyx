# cython: language_level=3, binding=True
"""What the kernel knows of its clock's error, from adjtimex(2)."""

from libc.errno cimport errno
from libc.string cimport memset

import os

cdef extern from "<sys/timex.h>":
    struct timex:
        unsigned modes
        long offset, maxerror
        int status
    int adjtimex(timex *state)
    enum:
        TIME_ERROR
        STA_NANO
        STA_UNSYNC


def read():
    """(offset in seconds, maximum error in seconds, whether the clock is synchronized). Raises
    OSError, where a sandbox forbids to ask."""
    cdef timex state
    memset(&state, 0, sizeof(state))    # modes 0: changes nothing
    cdef int answer = adjtimex(&state)
    if answer < 0:
        raise OSError(errno, os.strerror(errno))
    return (
        state.offset / (1e9 if state.status & STA_NANO else 1e6),
        state.maxerror / 1e6,
        answer != TIME_ERROR and not state.status & STA_UNSYNC,
    )
