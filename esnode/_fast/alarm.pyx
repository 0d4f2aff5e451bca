# cython: language_level=3, binding=True
"""A timer that an event loop watches and any thread may set, without waking the loop."""

cimport cython
from libc.errno cimport errno
from posix.time cimport itimerspec
from posix.unistd cimport close, read

import os

cdef extern from "<sys/timerfd.h>" nogil:
    int timerfd_create(int clock, int flags)
    int timerfd_settime(int fd, int flags, const itimerspec *new, itimerspec *old)
    enum: TFD_CLOEXEC, TFD_NONBLOCK

cdef extern from "<time.h>" nogil:
    enum: CLOCK_MONOTONIC


@cython.final
cdef class Alarm:
    """A timerfd: readable once the time set has passed. See timerfd_create(2)."""

    cdef int fd

    def __cinit__(self):
        self.fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK)
        if self.fd < 0:
            raise OSError(errno, os.strerror(errno))

    def __dealloc__(self):
        if self.fd >= 0:
            close(self.fd)

    def fileno(self):
        """The descriptor to watch."""
        return self.fd

    def set(self, double seconds):
        """Rings once after this many seconds, instead of what was set; 0 or less: not at all."""
        cdef itimerspec when
        when.it_interval.tv_sec = when.it_interval.tv_nsec = 0
        when.it_value.tv_sec = when.it_value.tv_nsec = 0
        if seconds > 0:
            seconds = min(max(seconds, 1e-9), 1e9)
            when.it_value.tv_sec = <long>seconds
            when.it_value.tv_nsec = <long>((seconds - <long>seconds) * 1e9)
        timerfd_settime(self.fd, 0, &when, NULL)

    def clear(self):
        """Makes the descriptor unreadable until it rings again."""
        cdef unsigned long long rings
        read(self.fd, &rings, sizeof(rings))
