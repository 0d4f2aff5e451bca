# cython: language_level=3, binding=True
"""statvfs of many mounts, each with a deadline of its own."""

cimport cython
from libc.errno cimport ENODEV, ETIMEDOUT, errno
from libc.math cimport NAN
from libc.stdint cimport int32_t, int64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy
from posix.stat cimport stat, struct_stat

from esnode._fast.crew cimport (
    CREW_STACK, crew, crew_abandon, crew_close, crew_new, crew_running, crew_start, crew_task,
    crew_wait)
from esnode._fast.table cimport Table

cdef extern from "<sys/statvfs.h>" nogil:
    struct c_statvfs "statvfs":
        unsigned long f_bsize, f_frsize, f_blocks, f_bfree, f_bavail, f_files, f_ffree, f_flag
    int c_statvfs_of "statvfs" (const char *path, c_statvfs *result)
    enum: ST_RDONLY

cdef enum:
    PATH_MAX = 4096
    UNASKED = -1
    N_OTHERS = 8

cdef struct Task:
    crew_task base              # first: the crew knows a task by it
    int error                   # errno, 0, or UNASKED
    c_statvfs result
    unsigned long[N_OTHERS] others
    int n_others
    char[PATH_MAX] path


cdef void ask(crew_task *base) noexcept nogil:
    cdef Task *task = <Task *>base
    cdef struct_stat st
    cdef int i
    if c_statvfs_of(task.path, &task.result):
        task.error = errno
        return
    task.error = 0
    if task.n_others and stat(task.path, &st) == 0:
        for i in range(task.n_others):
            if <unsigned long>st.st_dev == task.others[i]:
                task.error = ENODEV


cdef void release(crew_task *base) noexcept nogil:
    free(base)


#: What a mount's slots are, in order.
VALUES = (
    "total", "used", "free", "available", "inodes", "inodes_free", "readonly", "timeout")

cdef enum:
    N_VALUES = 8
    TIMEOUT = 7


@cython.final
cdef class _Mount:
    cdef Task *task
    cdef int32_t[N_VALUES] slots
    cdef double[N_VALUES] values
    cdef int error              # of the last answer
    cdef bint quick


@cython.final
@cython.no_gc_clear  # what is bound must be there when it is let go of
cdef class Mounts:
    """Asks every mount for its figures, one after the other; a mount that hangs holds up none.

    A mount bound as quick is asked on the spot: its file system answers from memory.

    A mount that has not answered for `timeout` seconds has no values but its timeout of 1. Until
    then it keeps those of its last answer.
    """

    cdef Table table
    cdef crew *crew
    cdef int64_t timeout, patience
    cdef dict mounts            # path -> _Mount
    cdef bint started

    def __cinit__(self, Table table not None, double timeout, double patience):
        self.table = table
        self.timeout = <int64_t>(timeout * 1e9)
        self.patience = <int64_t>(patience * 1e9)
        self.mounts = {}
        self.crew = crew_new(CREW_STACK)
        if self.crew == NULL:
            raise MemoryError

    def __dealloc__(self):
        if self.crew != NULL:
            for mount in self.mounts.values():
                crew_abandon(self.crew, &(<_Mount>mount).task.base)
            crew_close(self.crew)

    def bind(self, bytes path not None, slots, bint quick=False, others=()):
        """Fills slots, in the order of VALUES, from the mount at an absolute path.

        others: device numbers (st_dev) of the mounts below it. Where the path turns out to be on
        one of them the mount is not to be seen there, and its error is ENODEV.
        """
        cdef _Mount mount
        cdef int i
        if path in self.mounts or len(path) >= PATH_MAX or len(slots) != N_VALUES:
            raise ValueError(f"{path!r} is bound already, too long, or has not {N_VALUES} slots")
        mount = _Mount.__new__(_Mount)
        mount.quick = quick
        for i in range(N_VALUES):
            mount.slots[i] = self.table.check(slots[i])
            mount.values[i] = NAN
        mount.task = <Task *>calloc(1, sizeof(Task))
        if mount.task == NULL:
            raise MemoryError
        mount.task.base.run = ask
        mount.task.base.release = release
        mount.task.error = UNASKED
        for device in others[:N_OTHERS]:
            mount.task.others[mount.task.n_others] = device
            mount.task.n_others += 1
        memcpy(mount.task.path, <const char *>path, len(path))
        self.mounts[path] = mount

    def drop(self, bytes path not None):
        """Lets go of a mount and its slots."""
        crew_abandon(self.crew, &(<_Mount>self.mounts.pop(path)).task.base)

    def start(self):
        """Starts to ask every mount that is not still being asked."""
        cdef _Mount mount
        cdef int n = 0
        cdef crew_task **tasks = <crew_task **>calloc(len(self.mounts) + 1, sizeof(crew_task *))
        if tasks == NULL:
            raise MemoryError
        for mount in self.mounts.values():
            if mount.quick:
                with nogil:
                    ask(&mount.task.base)
            elif crew_running(self.crew, &mount.task.base) == 0:
                if mount.task.error != UNASKED:
                    take(mount)         # it came back after the last reading
                mount.task.error = UNASKED
                tasks[n] = &mount.task.base
                n += 1
        crew_start(self.crew, tasks, n)
        free(tasks)
        self.started = True

    def read(self):
        """Fills the slots with the answers, after start(). Returns {path: errno} of the mounts that
        refused to answer; ETIMEDOUT of those that hang."""
        cdef _Mount mount
        cdef int64_t running
        cdef int i
        if not self.started:
            self.start()
        self.started = False
        with nogil:
            crew_wait(self.crew, self.patience, 0)
        errors = {}
        for path, mount in self.mounts.items():
            running = crew_running(self.crew, &mount.task.base)
            if running == 0:
                take(mount)
            elif running > self.timeout:
                for i in range(N_VALUES):
                    mount.values[i] = NAN
                mount.values[TIMEOUT] = 1
                mount.error = ETIMEDOUT
            for i in range(N_VALUES):
                self.table.values[mount.slots[i]] = mount.values[i]
            if mount.error:
                errors[path] = mount.error
        return errors


cdef void take(_Mount mount) noexcept:
    """Takes over a mount's answer."""
    cdef c_statvfs *answer = &mount.task.result
    cdef double unit = <double>(answer.f_frsize or answer.f_bsize)
    cdef int i
    mount.error = mount.task.error
    for i in range(N_VALUES):
        mount.values[i] = NAN
    if mount.error == UNASKED:
        mount.error = 0
        return
    mount.values[TIMEOUT] = 0
    if mount.error:
        return
    mount.values[0] = answer.f_blocks * unit
    if answer.f_bfree <= answer.f_blocks:
        mount.values[1] = <double>(answer.f_blocks - answer.f_bfree) * unit
    mount.values[2] = answer.f_bfree * unit
    mount.values[3] = answer.f_bavail * unit
    if answer.f_files:          # file systems without a table of inodes say 0
        mount.values[4] = answer.f_files
        mount.values[5] = answer.f_ffree
    mount.values[6] = (answer.f_flag & ST_RDONLY) != 0
