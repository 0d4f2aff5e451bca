from libc.stdint cimport int32_t, int64_t

cdef class Layout:
    cdef readonly tuple rows
    cdef readonly tuple families
    cdef readonly dict renderings
    cdef int32_t *slots
    cdef Py_ssize_t size

cdef class Snapshot:
    cdef readonly Layout layout
    cdef readonly double monotonic
    cdef readonly int64_t unix_ms
    cdef readonly Py_ssize_t present
    cdef double *values

cdef class Table:
    cdef double *values
    cdef unsigned char *keep
    cdef Py_ssize_t size, capacity
    cdef dict _families
    cdef dict _slots
    cdef dict _hidden
    cdef list _free
    cdef Layout _layout
    cdef readonly int64_t version
    cdef int check(self, Py_ssize_t slot) except -1
    cdef int _slot(self, unsigned char keep) except -1
