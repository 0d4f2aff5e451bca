# cython: language_level=3, binding=True
"""What needs the previous reading: ratios of two differences, and totals that must not step back."""

cimport cython
from libc.math cimport NAN
from libc.stdint cimport int32_t
from libc.stdlib cimport free, realloc

from esnode._fast.table cimport Table


cdef struct Ratio:
    int32_t out, over, under
    double last_over, last_under


@cython.final
cdef class Ratios:
    """Rows that are scale * (difference of one slot) / (difference of another) between ticks.

    A ratio is absent on the first tick, without a difference below, and outside 0..limit.
    """

    cdef Table table
    cdef double scale, limit
    cdef Ratio *ratios
    cdef Py_ssize_t size

    def __cinit__(self, Table table not None, double scale, double limit):
        self.table = table
        self.scale = scale
        self.limit = limit

    def __dealloc__(self):
        free(self.ratios)

    def add(self, int out, int over, int under):
        """Computes slot `out` from the differences of slots `over` and `under`."""
        cdef void *moved = realloc(self.ratios, (self.size + 1) * sizeof(Ratio))
        if moved == NULL:
            raise MemoryError
        self.ratios = <Ratio *>moved
        self.ratios[self.size] = Ratio(
            self.table.check(out), self.table.check(over), self.table.check(under), NAN, NAN)
        self.size += 1

    def drop(self, int out):
        """Lets go of slot `out`."""
        cdef Py_ssize_t i
        for i in range(self.size):
            if self.ratios[i].out == out:
                self.size -= 1
                self.ratios[i] = self.ratios[self.size]
                return

    def update(self):
        """Computes every ratio; called once a tick, after the readings."""
        cdef Ratio *ratio
        cdef double over, under, value
        cdef Py_ssize_t i
        with nogil:
            for i in range(self.size):
                ratio = &self.ratios[i]
                over = self.table.values[ratio.over]
                under = self.table.values[ratio.under]
                value = NAN
                if under - ratio.last_under > 0:
                    value = self.scale * (over - ratio.last_over) / (under - ratio.last_under)
                    if not 0 <= value <= self.limit:
                        value = NAN
                self.table.values[ratio.out] = value
                ratio.last_over = over
                ratio.last_under = under


cdef struct Total:
    int32_t slot
    double last, base, modulus


@cython.final
cdef class Totals:
    """Slots whose source steps back without having been reset.

    A fall of at most `glitch` keeps the last value until the source has caught up; kernels let
    idle and iowait fall. With a `modulus`, a fall of more than half of it is a counter of that
    many values starting over, and counting goes on above it. Any other fall is a reset.
    """

    cdef Table table
    cdef public double glitch
    cdef double modulus
    cdef Total *totals
    cdef Py_ssize_t size

    def __cinit__(self, Table table not None, double glitch=0, double modulus=0):
        self.table = table
        self.glitch = glitch
        self.modulus = modulus

    def __dealloc__(self):
        free(self.totals)

    def add(self, int slot, double modulus=0):
        """Watches a slot; a modulus of its own goes before that of all."""
        cdef void *moved = realloc(self.totals, (self.size + 1) * sizeof(Total))
        if moved == NULL:
            raise MemoryError
        self.totals = <Total *>moved
        self.totals[self.size] = Total(self.table.check(slot), NAN, 0, modulus or self.modulus)
        self.size += 1

    def drop(self, int slot):
        """Lets go of a slot."""
        cdef Py_ssize_t i
        for i in range(self.size):
            if self.totals[i].slot == slot:
                self.size -= 1
                self.totals[i] = self.totals[self.size]
                return

    def update(self):
        """Corrects the slots; called after every reading. An absent value stays absent."""
        cdef Total *total
        cdef double raw, value, fall
        cdef Py_ssize_t i
        with nogil:
            for i in range(self.size):
                total = &self.totals[i]
                raw = self.table.values[total.slot]
                if raw != raw:
                    continue
                value = raw + total.base
                fall = total.last - value
                if fall > 0:
                    if total.modulus > 0 and fall > total.modulus / 2:
                        total.base += total.modulus
                        value += total.modulus
                    elif fall <= self.glitch:
                        value = total.last
                    else:
                        value = raw
                        total.base = 0
                self.table.values[total.slot] = total.last = value
