# cython: language_level=3, binding=True
"""Snapshots as text: a prefix rendered once, a number, a tail."""

cimport cython
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from cpython.object cimport PyObject
from libc.stdint cimport int64_t
from libc.string cimport memcpy

from esnode._fast.page cimport PyBytes_AsString, PyBytes_FromStringAndSize, finish
from esnode._fast.table cimport Layout, Snapshot

cdef extern from "num.h" nogil:
    enum: NUM_MAX
    char *num_write_double(char *out, double v)


@cython.final
cdef class Rendering:
    """A layout in one dialect: its headers and prefixes, end to end, and where each starts."""

    cdef bytes headers, prefixes, tail
    cdef int64_t *header_at
    cdef int64_t *prefix_at
    cdef int64_t *family_at
    cdef Py_ssize_t families, bound

    def __cinit__(self, Layout layout, dialect):
        headers = [dialect.header(metric) for metric, *_ in layout.families]
        prefixes = [dialect.prefix(metric, labels) for metric, labels in layout.rows]
        self.headers = b"".join(headers)
        self.prefixes = b"".join(prefixes)
        self.tail = dialect.tail
        self.families = len(headers)
        self.header_at = offsets([len(header) for header in headers])
        self.prefix_at = offsets([len(prefix) for prefix in prefixes])
        self.family_at = offsets([last - first for _, _, first, last in layout.families])
        self.bound = (
            len(self.headers) + len(self.prefixes) + len(prefixes) * (NUM_MAX + len(self.tail))
        )

    def __dealloc__(self):
        PyMem_Free(self.header_at)
        PyMem_Free(self.prefix_at)
        PyMem_Free(self.family_at)


cdef int64_t *offsets(list sizes) except NULL:
    """Running sums of sizes, from 0: where each part starts, and where the last one ends."""
    cdef int64_t *at = <int64_t *>PyMem_Malloc((len(sizes) + 1) * sizeof(int64_t))
    cdef Py_ssize_t i
    if at == NULL:
        raise MemoryError
    at[0] = 0
    for i in range(len(sizes)):
        at[i + 1] = at[i] + <int64_t>sizes[i]
    return at


cdef char *write_family(
    char *out, Rendering r, Py_ssize_t family, const double *values,
    const char *headers, const char *prefixes, const char *tail, Py_ssize_t tail_size,
) noexcept nogil:
    cdef int64_t row, size
    cdef bint empty = True
    for row in range(r.family_at[family], r.family_at[family + 1]):
        if values[row] != values[row]:
            continue
        if empty:
            empty = False
            size = r.header_at[family + 1] - r.header_at[family]
            memcpy(out, headers + r.header_at[family], size)
            out += size
        size = r.prefix_at[row + 1] - r.prefix_at[row]
        memcpy(out, prefixes + r.prefix_at[row], size)
        out = num_write_double(out + size, values[row])
        memcpy(out, tail, tail_size)
        out += tail_size
    return out


def encode(Snapshot snapshot, dialect, groups=None):
    """The rows of a snapshot that have a value, as bytes in a dialect, without the dialect's end.

    groups: only the families of these groups; all when None.
    """
    cdef Layout layout = snapshot.layout
    cdef Rendering r = layout.renderings.get(dialect.name)
    cdef list wanted
    cdef PyObject *page
    cdef char *out
    cdef const char *headers
    cdef const char *prefixes
    cdef const char *tail
    cdef Py_ssize_t i, tail_size
    if r is None:
        r = layout.renderings[dialect.name] = Rendering(layout, dialect)
    headers = r.headers
    prefixes = r.prefixes
    tail = r.tail
    tail_size = len(r.tail)
    page = PyBytes_FromStringAndSize(NULL, r.bound)
    out = PyBytes_AsString(page)
    if groups is None:
        with nogil:
            for i in range(r.families):
                out = write_family(
                    out, r, i, snapshot.values, headers, prefixes, tail, tail_size)
    else:
        wanted = [i for i, (_, group, _, _) in enumerate(layout.families) if group in groups]
        for i in wanted:
            out = write_family(out, r, i, snapshot.values, headers, prefixes, tail, tail_size)
    return finish(page, out)


def text_of(double value):
    """A double as the encoder writes it, in bytes."""
    cdef char text[NUM_MAX]
    cdef Py_ssize_t size = num_write_double(text, value) - text
    return <bytes>text[:size]
