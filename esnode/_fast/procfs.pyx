# cython: language_level=3, binding=True
"""Readers of kernel files: bound once to slots of a table, then one call a reading.

Every reader preads a descriptor that it keeps open, scans the text and stores doubles, without the
GIL and without a Python object per value. What cannot be parsed leaves its slots absent.

A reader's read() returns flags: CHANGED when changes() has news, MALFORMED when something in the
file was not what the reader is bound to. It raises OSError when the file cannot be read.
"""

cimport cython
from libc.errno cimport EFBIG, EINVAL, EISDIR, errno
from libc.stdint cimport int32_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcmp, memcpy
from posix.fcntl cimport O_CLOEXEC, O_NOCTTY, O_NONBLOCK, O_RDONLY, open as c_open
from posix.stat cimport S_ISDIR, S_ISREG, fstat, struct_stat
from posix.unistd cimport close as c_close, pread

from esnode._fast.table cimport Table

import os

cdef extern from "scan.h" nogil:
    ctypedef struct span:
        const char *at
        const char *end
    bint scan_line(span *text, span *line)
    bint scan_field(span *line, span *field)
    bint scan_until_last(span *line, char mark, span *field)
    void scan_after(span *field, char mark)

cdef extern from "num.h" nogil:
    enum num_kind:
        NUM_NONE
        NUM_VALUE
        NUM_OVERFLOW
        NUM_TEXT
    num_kind num_read(const char *at, const char *end, uint64_t *units, unsigned *places)
    double num_value(uint64_t units, unsigned places)
    enum: NUM_PLACES

cdef extern from "keymap.h" nogil:
    ctypedef struct keymap:
        pass
    int32_t keymap_get(const keymap *map, const char *key, size_t size)
    int keymap_reset(keymap *map, uint32_t n)
    void keymap_add(keymap *map, const char *key, size_t size, int32_t value)
    void keymap_free(keymap *map)

cdef extern from *:
    """
    typedef __int128 wide;
    """
    ctypedef long long wide

cdef extern from "origin.h" nogil:
    enum:
        OF_KERNEL
        OF_DISK
    int origin_of_open(int fd)
    void origin_spare_atime(int fd)

cdef extern from "<poll.h>" nogil:
    struct pollfd:
        int fd
        short events, revents
    int poll(pollfd *fds, unsigned long n, int timeout)
    enum: POLLPRI

CHANGED = C_CHANGED
MALFORMED = C_MALFORMED

cdef enum:
    FIELDS = 64                 # columns of a line that can be bound
    KEYS = 16384                # keys that a reader with news learns at most
    SMALL = 4096
    HUGE = 16 * 1024 * 1024     # no kernel file is that large


@cython.final
cdef class File:
    """A file that is read whole, again and again, through one descriptor."""

    def __cinit__(self, path):
        self.fd = -1
        self.path = os.fspath(path)
        self._path = os.fsencode(path)
        self.name = self._path

    def __dealloc__(self):
        self.close()
        free(self.text)

    cdef void close(self) noexcept nogil:
        if self.fd >= 0:
            c_close(self.fd)
            self.fd = -1

    cdef int _open(self) noexcept nogil:
        """0, or an errno. Nothing but a regular file is read: a FIFO or a tty would block."""
        cdef struct_stat st
        cdef int error = 0, origin
        self.fd = c_open(self.name, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY)
        if self.fd < 0:
            return errno
        origin = origin_of_open(self.fd)
        self.kernels = origin == OF_KERNEL
        self.on_disk = origin == OF_DISK
        if self.on_disk:
            origin_spare_atime(self.fd)
        if fstat(self.fd, &st) < 0:
            error = errno
        elif S_ISDIR(st.st_mode):
            error = EISDIR
        elif not S_ISREG(st.st_mode):
            error = EINVAL
        elif st.st_size > HUGE:
            error = EFBIG
        if error:
            self.close()
        return error

    cdef int _pread(self) noexcept nogil:
        """Reads to the end of the file; 0, or an errno."""
        cdef Py_ssize_t got, capacity
        cdef char *moved
        self.size = 0
        while True:
            if self.size == self.capacity:
                if self.capacity >= HUGE:
                    return EFBIG
                capacity = 2 * self.capacity if self.capacity else SMALL
                moved = <char *>realloc(self.text, capacity)
                if moved == NULL:
                    return EFBIG
                self.text = moved
                self.capacity = capacity
            got = pread(self.fd, self.text + self.size, self.capacity - self.size, self.size)
            if got < 0:
                return errno
            self.size += got
            if got == 0 or (self.on_disk and self.size < self.capacity):
                return 0

    cdef int load(self) noexcept nogil:
        """Reads the file into text[:size]; 0, or an errno. A descriptor that fails is reopened
        once: its file may have been replaced."""
        cdef struct_stat st
        cdef int error
        if self.fd >= 0 and not self.kernels and (fstat(self.fd, &st) < 0 or st.st_nlink == 0):
            self.close()  # deleted, or replaced by another file
        if self.fd >= 0:
            error = self._pread()
            if error == 0:
                return 0
            self.close()
        error = self._open()
        if error == 0:
            error = self._pread()
            if error:
                self.close()
        if error:
            self.size = 0
            if error == EFBIG:
                free(self.text)
                self.text = NULL
                self.capacity = 0
        return error

    def changed(self):
        """Whether a file that the kernel tells changes of (mountinfo) may have changed since the
        last call; always true of one that is not the kernel's own, or not open."""
        cdef pollfd watch
        if self.fd < 0 or not self.kernels:
            return True
        watch.fd = self.fd
        watch.events = POLLPRI
        return poll(&watch, 1, 0) != 0 and watch.revents != 0

    def read(self):
        """The contents; raises OSError."""
        cdef int error
        with nogil:
            error = self.load()
        self.raise_for(error)
        return self.text[:self.size]

    cdef int raise_for(self, int error) except -1:
        if error:
            raise OSError(error, os.strerror(error), self.path)
        return 0


cdef struct Cell:
    # slot = sum of columns `plus`, less columns `minus`, times num, over den
    uint64_t plus, minus
    double num, den
    int32_t slot, first


cdef uint64_t mask_of(columns) except? 0:
    cdef uint64_t mask = 0
    for column in columns:
        if not 0 <= column < FIELDS:
            raise ValueError(f"column {column}")
        mask |= <uint64_t>1 << <int>column
    return mask


cdef int fill(Cell *cell, tuple spec, Table table) except -1:
    """Fills a cell from (columns, slot[, num[, den[, less]]]); returns the end of its columns."""
    columns, slot, num, den, less = spec + (1, 1, ())[len(spec) - 2:]
    columns = (columns,) if isinstance(columns, int) else tuple(columns)
    cell.plus = mask_of(columns)
    cell.minus = mask_of(less)
    cell.first = min(columns)
    cell.slot = table.check(slot)
    cell.num = num
    cell.den = den
    return (cell.plus | cell.minus).bit_length()


cdef struct Fields:
    uint64_t[FIELDS] units
    unsigned[FIELDS] places
    unsigned char[FIELDS] kind


cdef inline void read_field(span *field, Fields *fields, int i, char after) noexcept nogil:
    if after:
        scan_after(field, after)
    fields.kind[i] = num_read(field.at, field.end, &fields.units[i], &fields.places[i])


cdef inline void read_fields(
        span *line, Fields *fields, int first, int end, char after) noexcept nogil:
    """Reads the fields of a line into columns first..end; those beyond the line are NUM_NONE."""
    cdef span field
    cdef int i = first
    while i < end and scan_field(line, &field):
        read_field(&field, fields, i, after)
        i += 1
    while i < end:
        fields.kind[i] = NUM_NONE
        i += 1


cdef bint store(Table table, const Cell *cell, const Fields *fields) noexcept nogil:
    """Evaluates a cell. Its first column must be there; the others count as nothing where an older
    kernel's line ends before them. False, and nothing stored, when a column is no number."""
    cdef wide total = 0
    cdef double value
    cdef uint64_t left = cell.plus | cell.minus
    cdef int i = 0
    if fields.kind[cell.first] == NUM_NONE:
        return True
    if left == <uint64_t>1 << cell.first and not cell.minus:
        i = cell.first
        if fields.kind[i] != NUM_VALUE or fields.places[i] >= NUM_PLACES:
            return False
        value = num_value(fields.units[i], fields.places[i])
    else:
        while left:
            if left & 1 and fields.kind[i] != NUM_NONE:
                if fields.kind[i] != NUM_VALUE or fields.places[i]:
                    return False
                if cell.minus >> i & 1:
                    total -= fields.units[i]
                else:
                    total += fields.units[i]
            left >>= 1
            i += 1
        if total < 0:
            return False
        value = <double>total
    table.values[cell.slot] = value * cell.num / cell.den
    return True


cdef struct Entry:
    int32_t cell, end           # into the reader's cells
    uint32_t seen               # the reading that last met the key
    bint lasting


@cython.final
cdef class Rows:
    """A file of lines that hold a key: meminfo, vmstat, stat, diskstats, net/dev.

    key: the column of the key; until: the key is all text before the last such character instead,
    and is column 0. A cell is (columns, slot[, num[, den[, less]]]): the sum of one or several
    columns, less others, times num, over den. Columns count from 0 and lie below 64.

    news: how the keys begin that changes() is to report; None for a file whose keys are known.
    shape: the columns that must be numbers for a line to bring a new key.
    after: a column's number stands after the first such character of its field, as in "total=7";
    a field without one is taken whole.
    """

    cdef Table table
    cdef readonly File file
    cdef int key
    cdef char until, after
    cdef bytes news
    cdef const char *start      # of news; NULL without
    cdef Py_ssize_t start_size
    cdef uint64_t shape
    cdef dict bound             # key -> its cells, as bound
    cdef bint stale             # the C side is not what `bound` says
    cdef keymap map
    cdef Entry *entries
    cdef Cell *cells
    cdef int end                # columns to read
    cdef set lasting
    cdef uint32_t known, passing            # keys, and those of them that are not lasting
    cdef uint32_t turn, seen, seen_passing  # this reading's number, and the keys it met

    def __cinit__(self, Table table not None, path, int key=0, bytes until=None, bytes news=None,
                  shape=(), bytes after=None):
        self.table = table
        self.file = File(path)
        if not 0 <= key < FIELDS:
            raise ValueError(f"column {key}")
        self.key = 0 if until else key
        self.until = until[0] if until else 0
        self.after = after[0] if after else 0
        self.news = news
        if news is not None:
            self.start = news
            self.start_size = len(news)
        self.shape = mask_of(shape)
        self.bound = {}
        self.lasting = set()
        self.stale = True

    def __dealloc__(self):
        keymap_free(&self.map)
        free(self.entries)
        free(self.cells)

    def bind(self, bytes key not None, *cells, bint lasting=False):
        """Fills the cells' slots from the line of a key; without a cell the key is just known.
        A lasting key is never gone."""
        cdef Cell cell
        if key in self.bound:
            raise ValueError(f"{key!r} is bound twice")
        for spec in cells:
            fill(&cell, spec, self.table)
        self.bound[key] = cells
        if lasting:
            self.lasting.add(key)
        self.stale = True

    def drop(self, bytes key not None):
        """Lets go of a key and its slots."""
        del self.bound[key]
        self.lasting.discard(key)
        self.stale = True

    cdef int _compile(self) except -1:
        cdef Py_ssize_t n = 0, i = 0
        cells = [cell for specs in self.bound.values() for cell in specs]
        free(self.entries)
        free(self.cells)
        self.entries = <Entry *>malloc((len(self.bound) + 1) * sizeof(Entry))
        self.cells = <Cell *>malloc((len(cells) + 1) * sizeof(Cell))
        if self.entries == NULL or self.cells == NULL or keymap_reset(&self.map, len(self.bound)):
            raise MemoryError
        self.known = <uint32_t>len(self.bound)
        self.end = max(self.key + 1, self.shape.bit_length())
        for key, specs in self.bound.items():
            self.entries[i] = Entry(
                <int32_t>n, <int32_t>(n + len(specs)), self.turn, key in self.lasting)
            keymap_add(&self.map, <char *>(<bytes>key), len(key), <int32_t>i)
            for spec in specs:
                self.end = max(self.end, fill(&self.cells[n], spec, self.table))
                n += 1
            i += 1
        self.passing = self.known - <uint32_t>len(self.lasting)
        self.stale = False
        return 0

    def read(self):
        """Reads the file and fills the slots; returns flags, see the module."""
        cdef int error, flags = 0
        if self.stale:
            self._compile()
        with nogil:
            error = self.file.load()
            if error == 0:
                flags = self._scan()
        self.file.raise_for(error)
        return flags

    def rescan(self):
        """Fills the slots from the text that read() has read."""
        if self.stale:
            self._compile()
        return self._scan()

    cdef bint _line(self, span *line, span *name, Fields *fields) noexcept nogil:
        """Takes the key off a line, and reads the columns before it."""
        cdef span field
        cdef int i
        if self.until:
            return scan_until_last(line, self.until, name)
        for i in range(self.key):
            if not scan_field(line, &field):
                return False
            read_field(&field, fields, i, self.after)
        return scan_field(line, name)

    cdef bint _shaped(self, span *line, Fields *fields) noexcept nogil:
        """Reads the columns after the key; False when the line has not the file's shape."""
        cdef uint64_t left = self.shape
        cdef int i = 0
        fields.kind[self.key] = NUM_TEXT
        read_fields(line, fields, self.key + 1, self.end, self.after)
        while left:
            if left & 1 and fields.kind[i] != NUM_VALUE and fields.kind[i] != NUM_OVERFLOW:
                return False
            left >>= 1
            i += 1
        return True

    cdef bint _is_news(self, span *name) noexcept nogil:
        return (
            self.start != NULL and name.end - name.at >= self.start_size
            and memcmp(name.at, self.start, self.start_size) == 0
        )

    cdef int _scan(self) noexcept nogil:
        cdef span text, line, name
        cdef Fields fields
        cdef Entry *entry
        cdef int flags = 0
        cdef int32_t i, c
        cdef bint shaped
        self.turn += 1
        self.seen = self.seen_passing = 0
        text.at = self.file.text
        text.end = self.file.text + self.file.size
        while scan_line(&text, &line):
            if not self._line(&line, &name, &fields):
                continue
            i = keymap_get(&self.map, name.at, name.end - name.at)
            if i < 0 and not self._is_news(&name):
                continue
            shaped = self._shaped(&line, &fields)
            if i < 0:
                flags |= C_CHANGED if shaped and self.known < KEYS else C_MALFORMED
                continue
            entry = &self.entries[i]
            for c in range(entry.cell, entry.end):
                if not store(self.table, &self.cells[c], &fields):
                    flags |= C_MALFORMED
            if entry.seen != self.turn:
                entry.seen = self.turn
                self.seen += 1
                self.seen_passing += not entry.lasting
        if text.at != text.end or self.file.size == 0 or (self.start == NULL and self.seen == 0):
            flags |= C_MALFORMED
        if self.start != NULL and self.seen_passing != self.passing:
            flags |= C_CHANGED
        return flags

    def changes(self):
        """(keys that read() met and are not bound, bound keys that it did not meet)."""
        cdef span text, line, name
        cdef Fields fields
        cdef Py_ssize_t i
        if self.news is None:
            raise ValueError("a reader without news has no changes")
        if self.stale:
            self._compile()
        fresh = {}
        text.at = self.file.text
        text.end = self.file.text + self.file.size
        while scan_line(&text, &line) and len(fresh) + len(self.bound) < KEYS:
            if self._line(&line, &name, &fields) and self._shaped(&line, &fields):
                key = name.at[:name.end - name.at]
                if key not in self.bound and key.startswith(self.news):
                    fresh[key] = None
        gone = [
            key for i, key in enumerate(self.bound)
            if self.entries[i].seen != self.turn and not self.entries[i].lasting]
        return list(fresh), gone


@cython.final
cdef class Line:
    """A file whose first line holds numbers at known columns: loadavg, statm."""

    cdef Table table
    cdef readonly File file
    cdef Cell *cells
    cdef Py_ssize_t size
    cdef int end

    def __cinit__(self, Table table not None, path, *cells):
        self.table = table
        self.file = File(path)
        self.cells = <Cell *>malloc((len(cells) + 1) * sizeof(Cell))
        if self.cells == NULL:
            raise MemoryError
        for spec in cells:
            self.end = max(self.end, fill(&self.cells[self.size], spec, table))
            self.size += 1

    def __dealloc__(self):
        free(self.cells)

    def read(self):
        """Reads the file and fills the slots; returns flags, see the module."""
        cdef int error, flags = 0
        with nogil:
            error = self.file.load()
            if error == 0:
                flags = self._scan()
        self.file.raise_for(error)
        return flags

    cdef int _scan(self) noexcept nogil:
        cdef span text, line
        cdef Fields fields
        cdef Py_ssize_t i
        cdef int flags = 0
        text.at = self.file.text
        text.end = self.file.text + self.file.size
        if not scan_line(&text, &line):
            return C_MALFORMED
        read_fields(&line, &fields, 0, self.end, 0)
        for i in range(self.size):
            if fields.kind[self.cells[i].first] == NUM_NONE:
                flags = C_MALFORMED
            elif not store(self.table, &self.cells[i], &fields):
                flags = C_MALFORMED
        return flags


@cython.final
cdef class Pairs:
    """A file of line pairs, names above values, both starting with a title: net/snmp, netstat."""

    cdef Table table
    cdef readonly File file
    cdef keymap map
    cdef dict bound             # title + name -> slot
    cdef uint64_t sizes         # which sizes title + name have, modulo 64: most names have none
    cdef int32_t *slots

    def __cinit__(self, Table table not None, path, names):
        cdef Py_ssize_t i
        self.table = table
        self.file = File(path)
        self.bound = dict(names)
        self.slots = <int32_t *>malloc((len(self.bound) + 1) * sizeof(int32_t))
        if self.slots == NULL or keymap_reset(&self.map, len(self.bound)):
            raise MemoryError
        for i, (key, slot) in enumerate(self.bound.items()):
            keymap_add(&self.map, <char *>(<bytes>key), len(key), <int32_t>i)
            self.slots[i] = table.check(slot)
            self.sizes |= <uint64_t>1 << (len(key) & 63)

    def __dealloc__(self):
        keymap_free(&self.map)
        free(self.slots)

    def read(self):
        """Reads the file and fills the slots; returns flags, see the module."""
        cdef int error, flags = 0
        with nogil:
            error = self.file.load()
            if error == 0:
                flags = self._scan()
        self.file.raise_for(error)
        return flags

    cdef int _scan(self) noexcept nogil:
        cdef span text, names, values
        cdef int flags = 0
        text.at = self.file.text
        text.end = self.file.text + self.file.size
        while scan_line(&text, &names):
            if not scan_line(&text, &values) or not self._pair(&names, &values):
                flags = C_MALFORMED
        if text.at != text.end or self.file.size == 0:
            flags = C_MALFORMED
        return flags

    cdef bint _pair(self, span *names, span *values) noexcept nogil:
        cdef char[SMALL] key
        cdef span title, field
        cdef size_t size, length
        cdef uint64_t units
        cdef unsigned places
        cdef int32_t i
        cdef bint good = True
        if not scan_field(names, &title) or not scan_field(values, &field):
            return False
        size = title.end - title.at
        if size != <size_t>(field.end - field.at) or size > SMALL / 2 or memcmp(title.at, field.at, size):
            return False
        memcpy(key, title.at, size)
        while scan_field(names, &title):
            if not scan_field(values, &field):
                return False
            length = title.end - title.at
            if not self.sizes >> ((size + length) & 63) & 1:
                continue
            if length > SMALL / 2:
                continue
            memcpy(key + size, title.at, length)
            i = keymap_get(&self.map, key, size + length)
            if i >= 0:
                if num_read(field.at, field.end, &units, &places) == NUM_VALUE and places == 0:
                    self.table.values[self.slots[i]] = <double>units
                else:
                    good = False
        return good
