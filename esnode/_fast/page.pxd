# A bytes object that is made too large, written to, and cut where it ends.

from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF

cdef extern from "Python.h":
    # Spelled with bare pointers: a bytes object may be resized only while nobody else has it.
    PyObject *PyBytes_FromStringAndSize(const char *, Py_ssize_t) except NULL
    char *PyBytes_AsString(PyObject *) except NULL
    int _PyBytes_Resize(PyObject **, Py_ssize_t) except -1


cdef inline bytes finish(PyObject *page, char *out):
    """The page, cut where it ends."""
    _PyBytes_Resize(&page, out - PyBytes_AsString(page))
    result = <object>page
    Py_DECREF(result)
    return result
