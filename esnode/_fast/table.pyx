# cython: language_level=3, binding=True, embedsignature=False
"""A lane's working values, and the immutable snapshots taken of them."""

cimport cython
from libc.math cimport NAN
from libc.stdint cimport int32_t, int64_t
from libc.stdlib cimport free, malloc, realloc

# When a slot is cleared: before every reading, before a tick's only, or by its owner only.
READING = 0
TICK = 1
OWNER = 2
cdef enum:
    FREE = 3                    # given back


@cython.final
cdef class Layout:
    """The rows of a table in page order. Shared by every snapshot until the topology changes.

    rows: (metric, label values) by row. families: (metric, group, first row, end row).
    """

    def __init__(self):
        raise TypeError("a table makes its layouts")

    def __dealloc__(self):
        free(self.slots)


cdef Layout new_layout(dict families, dict slots):
    cdef Layout layout = Layout.__new__(Layout)
    cdef Py_ssize_t i
    buckets = {name: [] for name in families}
    for (name, labels), slot in slots.items():
        buckets[name].append((labels, slot))
    rows = []
    order = []
    spans = []
    for name, (metric, group) in families.items():
        bucket = buckets[name]
        if bucket:
            spans.append((metric, group, len(rows), len(rows) + len(bucket)))
            rows.extend((metric, labels) for labels, _ in bucket)
            order.extend(slot for _, slot in bucket)
    layout.rows = tuple(rows)
    layout.families = tuple(spans)
    layout.renderings = {}
    layout.size = len(order)
    layout.slots = <int32_t *>malloc((layout.size + 1) * sizeof(int32_t))
    if layout.slots == NULL:
        raise MemoryError
    for i in range(layout.size):
        layout.slots[i] = order[i]
    return layout


@cython.final
cdef class Snapshot:
    """The values of a table at one moment, by row of its layout; NaN is absent.

    monotonic: seconds of the monotonic clock; unix_ms: wall clock; present: rows with a value.
    """

    def __init__(self):
        raise TypeError("a table makes its snapshots")

    def __dealloc__(self):
        free(self.values)

    def __len__(self):
        return self.layout.size

    def __getitem__(self, Py_ssize_t row):
        """The value of a row; NaN when absent."""
        if row < 0 or row >= self.layout.size:
            raise IndexError(row)
        return self.values[row]

    def items(self):
        """Yields (metric, label values, value) of the rows that have a value, in page order."""
        for row, (metric, labels) in enumerate(self.layout.rows):
            value = self.values[row]
            if value == value:
                yield metric, labels, value


@cython.final
cdef class Table:
    """Slots of doubles that readers fill, and the rows that some of them are.

    families: (group, metrics) pairs in page order; a row's metric must be one of them. Belongs to
    one thread; only snapshots are shared. version: another one when rows were added or removed.
    """

    def __cinit__(self, families):
        self._families = {}
        self._slots = {}
        self._hidden = {}
        self._free = []
        for group, metrics in families:
            for metric in metrics:
                if metric.name in self._families:
                    raise ValueError(f"{metric.name} is declared twice")
                self._families[metric.name] = (metric, group)

    def __dealloc__(self):
        free(self.values)
        free(self.keep)

    cdef int check(self, Py_ssize_t slot) except -1:
        """The slot; raises IndexError for one that the table has not."""
        if slot < 0 or slot >= self.size:
            raise IndexError(slot)
        return <int>slot

    cdef int _slot(self, unsigned char keep) except -1:
        cdef int slot
        cdef Py_ssize_t capacity
        cdef void *moved
        if self._free:
            slot = self._free.pop()
        else:
            if self.size == self.capacity:
                capacity = 2 * self.capacity or 64
                moved = realloc(self.values, capacity * sizeof(double))
                if moved == NULL:
                    raise MemoryError
                self.values = <double *>moved
                moved = realloc(self.keep, capacity)
                if moved == NULL:
                    raise MemoryError
                self.keep = <unsigned char *>moved
                self.capacity = capacity
            slot = <int>self.size
            self.size += 1
        self.values[slot] = NAN
        self.keep[slot] = keep
        return slot

    def add(self, metric, tuple labels=(), int keep=READING):
        """Adds a row and returns its slot.

        Raises ValueError for a series that is there already, an undeclared metric, or label values
        that do not match the metric's labels.
        """
        key = (metric.name, labels)
        if key in self._slots:
            raise ValueError(f"duplicate series: {metric.name}{labels}")
        if metric.name not in self._families:
            raise ValueError(f"{metric.name} is not declared in this table")
        if len(labels) != len(metric.labels):
            raise ValueError(f"{metric.name} has labels {metric.labels}, not {labels}")
        slot = self._slot(keep)
        self._slots[key] = slot
        self._layout = None
        self.version += 1
        return slot

    def hidden(self, metric=None):
        """Adds a slot that is no row, for values that others are derived from; returns it. It goes
        with the rows of a metric when these are cleared."""
        slot = self._slot(READING)
        if metric is not None:
            self._hidden[slot] = metric.name
        return slot

    def remove(self, metric, tuple labels=()):
        """Removes a row; its slot. Whoever fills it must let go of it before the next reading."""
        slot = self._slots.pop((metric.name, labels))
        self.forget(slot)
        self._layout = None
        self.version += 1
        return slot

    def find(self, name, tuple labels=()):
        """The slot of a row by its metric's name; None when there is no such row."""
        return self._slots.get((name, labels))

    def forget(self, int slot):
        """Gives a hidden slot back."""
        if self.keep[self.check(slot)] == FREE:
            raise ValueError(f"slot {slot} was given back already")
        self.values[slot] = NAN
        self.keep[slot] = FREE
        self._hidden.pop(slot, None)
        self._free.append(slot)

    def clear(self, metrics):
        """Removes every row of some families, and their hidden slots."""
        names = {metric.name for metric in metrics}
        for name, labels in list(self._slots):
            if name in names:
                self.remove(self._families[name][0], labels)
        for slot, name in list(self._hidden.items()):
            if name in names:
                self.forget(slot)

    def get(self, Py_ssize_t slot):
        """The value of a slot; NaN when absent."""
        return self.values[self.check(slot)]

    def set(self, Py_ssize_t slot, double value):
        """Stores a value in a slot."""
        self.values[self.check(slot)] = value

    def begin(self, bint tick):
        """Starts a reading: what it is to fill becomes absent. See READING, TICK and OWNER."""
        cdef Py_ssize_t i
        cdef unsigned char last = 1 if tick else 0
        with nogil:
            for i in range(self.size):
                if self.keep[i] <= last:
                    self.values[i] = NAN

    def freeze(self, double monotonic, int64_t unix_ms):
        """The values as an immutable Snapshot, stamped with the two clocks."""
        cdef Snapshot snapshot = Snapshot.__new__(Snapshot)
        cdef Py_ssize_t i, size, present = 0
        cdef const int32_t *slots
        cdef double value
        if self._layout is None:
            self._layout = new_layout(self._families, self._slots)
        snapshot.layout = self._layout
        snapshot.monotonic = monotonic
        snapshot.unix_ms = unix_ms
        size = self._layout.size
        slots = self._layout.slots
        snapshot.values = <double *>malloc((size + 1) * sizeof(double))
        if snapshot.values == NULL:
            raise MemoryError
        with nogil:
            for i in range(size):
                value = self.values[slots[i]]
                snapshot.values[i] = value
                present += value == value
        snapshot.present = present
        return snapshot
