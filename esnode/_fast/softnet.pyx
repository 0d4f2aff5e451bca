# cython: language_level=3, binding=True
"""The packet counters of net/softnet_stat, which start over at 2^32, summed over the CPUs."""

cimport cython
from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport calloc, free

from esnode._fast.procfs cimport C_MALFORMED, File
from esnode._fast.table cimport Table

cdef extern from "scan.h" nogil:
    ctypedef struct span:
        const char *at
        const char *end
    bint scan_line(span *text, span *line)
    bint scan_field(span *line, span *field)

cdef extern from "num.h" nogil:
    bint num_read_hex(const char *at, const char *end, uint32_t *value)

cdef enum:
    COUNTERS = 3                # columns 0..2: processed, dropped, squeezed
    NUMBER = 12                 # the column of the CPU's number; older kernels have none
    CPUS = 8192                 # no kernel is built for more

cdef struct Counter:
    uint64_t total
    uint32_t raw, fresh         # the last one that counted, and this reading's

cdef struct Cpu:
    Counter[COUNTERS] counters
    uint32_t turn               # the reading that last met it
    bint known


cdef void advance(Counter *counter, bint known) noexcept nogil:
    """Half a cycle forward is progress; what looks like more is a reset."""
    cdef uint32_t step = counter.fresh - counter.raw
    if known and step < <uint32_t>1 << 31:
        counter.total += step
    else:
        counter.total = counter.fresh
    counter.raw = counter.fresh


@cython.final
cdef class Softnet:
    """Fills the slots of packets processed, packets dropped and rounds squeezed.

    A CPU that goes offline loses its line, but not what it has counted. A line that cannot be
    understood costs the reading: without one CPU the sums would fall.
    """

    cdef Table table
    cdef readonly File file
    cdef int[COUNTERS] slots
    cdef Cpu *cpus              # by number; pages of it that no CPU needs stay untouched
    cdef int end                # of the CPUs that were met
    cdef uint32_t turn

    def __cinit__(self, Table table not None, path, int processed, int dropped, int squeezed):
        self.table = table
        self.file = File(path)
        self.slots = [table.check(processed), table.check(dropped), table.check(squeezed)]
        self.cpus = <Cpu *>calloc(CPUS, sizeof(Cpu))
        if self.cpus == NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self.cpus)

    def read(self):
        """Reads the file and fills the slots; 0 or MALFORMED. Raises OSError."""
        cdef int error
        cdef bint good = False
        with nogil:
            error = self.file.load()
            if error == 0:
                good = self._scan()
            if good:
                self._count()
        self.file.raise_for(error)
        return 0 if good else C_MALFORMED

    cdef bint _scan(self) noexcept nogil:
        """Reads every line; False when one is not of the file's kind."""
        cdef span text, line
        cdef uint32_t n = 0
        self.turn += 1
        text.at = self.file.text
        text.end = self.file.text + self.file.size
        while scan_line(&text, &line):
            if not self._line(&line, n):
                return False
            n += 1
        return n > 0 and text.at == text.end

    cdef bint _line(self, span *line, uint32_t number) noexcept nogil:
        cdef span field
        cdef uint32_t[NUMBER + 1] columns
        cdef Cpu *cpu
        cdef int i, n = 0
        while n <= NUMBER and scan_field(line, &field):
            if not num_read_hex(field.at, field.end, &columns[n]):
                return False
            n += 1
        if n < COUNTERS:
            return False
        if n > NUMBER:
            number = columns[NUMBER]
        if number >= CPUS or self.cpus[number].turn == self.turn:
            return False
        cpu = &self.cpus[number]
        cpu.turn = self.turn
        for i in range(COUNTERS):
            cpu.counters[i].fresh = columns[i]
        self.end = max(self.end, <int>number + 1)
        return True

    cdef void _count(self) noexcept nogil:
        """Takes over what _scan() has read, and stores the sums."""
        cdef uint64_t[COUNTERS] sums
        cdef Cpu *cpu
        cdef int i, n
        for i in range(COUNTERS):
            sums[i] = 0
        for n in range(self.end):
            cpu = &self.cpus[n]
            for i in range(COUNTERS):
                if cpu.turn == self.turn:
                    advance(&cpu.counters[i], cpu.known)
                sums[i] += cpu.counters[i].total
            cpu.known |= cpu.turn == self.turn
        for i in range(COUNTERS):
            self.table.values[self.slots[i]] = <double>sums[i]
