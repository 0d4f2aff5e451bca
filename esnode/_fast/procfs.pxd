cdef enum:
    C_CHANGED = 1
    C_MALFORMED = 2

cdef class File:
    cdef readonly str path
    cdef bytes _path
    cdef const char *name       # of _path
    cdef int fd
    cdef bint kernels, on_disk
    cdef char *text
    cdef Py_ssize_t size, capacity
    cdef void close(self) noexcept nogil
    cdef int _open(self) noexcept nogil
    cdef int _pread(self) noexcept nogil
    cdef int load(self) noexcept nogil
    cdef int raise_for(self, int error) except -1
