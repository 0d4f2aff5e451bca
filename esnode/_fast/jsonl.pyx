# cython: language_level=3, binding=True
"""Series as JSON Lines: rendered from snapshots, scanned, and merged as text.

The format is that of docs/reference/tsdb-format.md. Numbers are printed once, when a snapshot is
rendered; whatever happens to a line later moves text.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF
from libc.errno cimport EINTR, errno
from libc.math cimport isinf
from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc, qsort, realloc
from libc.string cimport memchr, memcmp, memcpy, memset
from posix.types cimport off_t
from posix.unistd cimport pread

from esnode._fast.page cimport PyBytes_AsString, PyBytes_FromStringAndSize, finish
from esnode._fast.table cimport Layout, Snapshot

cdef extern from "num.h" nogil:
    enum: NUM_MAX
    char *num_write_double(char *out, double v)
    char *num_write_u64(char *out, uint64_t v)

cdef extern from "line.h" nogil:
    struct line:
        const char *metric
        const char *values
        const char *stamps
        size_t metric_size, values_size, stamps_size
        int64_t samples, low, high
        int rising
    void crc32_fill(uint32_t table[8][256])
    uint32_t crc32_add(uint32_t table[8][256], uint32_t crc, const char *at, size_t n)
    int line_parse(uint32_t table[8][256], const char *at, const char *end, line *found)
    uint64_t line_hash(const char *at, size_t size)

cdef uint32_t TABLE[8][256]
crc32_fill(TABLE)

cdef enum:
    STAMP_MAX = 21              # a timestamp and its comma
    REST_MAX = 64               # what else a line has behind its values and timestamps
    WINDOW = 1 << 16            # bytes that are read at once when lines are gathered
    SIZE_BITS = 24              # of a line's length, beside its offset in one number
    LINE_MAX = (1 << 24) - 2    # bytes of a line; a longer one counts as damage


def series_hash(bytes metric):
    """FNV-1a with 64 bits of a metric object: the series' name in an index."""
    return line_hash(PyBytes_AS_STRING(metric), PyBytes_GET_SIZE(metric))


# --- rendering ---------------------------------------------------------------------------------


@cython.final
cdef class Heads:
    """How the lines of a layout's rows begin, end to end, and the sums of these texts."""

    cdef bytes text
    cdef int64_t *at
    cdef uint32_t *sums
    cdef Py_ssize_t rows

    def __cinit__(self, Layout layout, metric_object):
        cdef Py_ssize_t row
        cdef const char *text
        heads = [
            b'{"metric":' + metric_object(metric, labels) + b',"values":['
            for metric, labels in layout.rows
        ]
        self.text = b"".join(heads)
        self.rows = len(heads)
        self.at = <int64_t *>PyMem_Malloc((self.rows + 1) * sizeof(int64_t))
        self.sums = <uint32_t *>PyMem_Malloc((self.rows + 1) * sizeof(uint32_t))
        if self.at == NULL or self.sums == NULL:
            raise MemoryError
        text = self.text
        self.at[0] = 0
        for row in range(self.rows):
            self.at[row + 1] = self.at[row] + <int64_t>len(heads[row])
            self.sums[row] = crc32_add(
                TABLE, 0, text + self.at[row], self.at[row + 1] - self.at[row])

    def __dealloc__(self):
        PyMem_Free(self.at)
        PyMem_Free(self.sums)


cdef struct Run:
    Py_ssize_t size
    const double **values       # of each snapshot
    int32_t *stamp_at           # where each timestamp's text begins in stamps, and the last ends
    char *stamps                # each followed by a comma


cdef char *write_row(
    char *out, Py_ssize_t row, const char *head, size_t head_size, uint32_t crc, Run *run,
    int64_t *samples,
) noexcept nogil:
    """A row's line; nothing where it has no value."""
    cdef char *start = out
    cdef char *body
    cdef Py_ssize_t i, present = 0
    cdef int32_t size
    cdef double value
    out += head_size
    body = out
    for i in range(run.size):
        value = run.values[i][row]
        if value != value:
            continue
        present += 1
        if isinf(value):        # JSON has no word for it; this is VictoriaMetrics' text
            if value < 0:
                memcpy(out, b'"-Infinity"', 11)
                out += 11
            else:
                memcpy(out, b'"Infinity"', 10)
                out += 10
        else:
            out = num_write_double(out, value)
        out[0] = b','
        out += 1
    if present == 0:
        return start
    memcpy(start, head, head_size)
    memcpy(out - 1, b'],"timestamps":[', 16)
    out += 15
    if present == run.size:
        size = run.stamp_at[run.size]
        memcpy(out, run.stamps, size)
        out += size
    else:
        for i in range(run.size):
            value = run.values[i][row]
            if value == value:
                size = run.stamp_at[i + 1] - run.stamp_at[i]
                memcpy(out, run.stamps + run.stamp_at[i], size)
                out += size
    (out - 1)[0] = b']'
    crc = crc32_add(TABLE, crc, body, out - body)
    memcpy(out, b',"crc":', 7)
    out = num_write_u64(out + 7, crc)
    memcpy(out, b'}\n', 2)
    samples[0] += present
    return out + 2


def render(list snapshots, metric_object, Py_ssize_t first=0, Py_ssize_t limit=1 << 20):
    """Lines of the rows from ``first`` on: (text, the row to go on with, samples).

    snapshots: of one layout, in the order of their times, which all differ. metric_object: of
    (metric, label values), as bytes; asked once for each row of a layout. limit: bytes that the
    text has at most, unless one line alone is longer. The end of the rows is ``len(snapshot)``.
    """
    cdef Layout layout
    cdef Snapshot snapshot
    cdef Heads heads
    cdef Run run
    cdef PyObject *page
    cdef char *start
    cdef char *out
    cdef const char *texts
    cdef Py_ssize_t i, row, end, rest, bound = 0
    cdef int64_t samples = 0, stamp
    if not snapshots:
        return b"", 0, 0
    layout = (<Snapshot?>snapshots[0]).layout
    heads = layout.renderings.get("jsonl")
    if heads is None:
        heads = layout.renderings["jsonl"] = Heads(layout, metric_object)
    run.size = len(snapshots)
    room = bytearray(run.size * (sizeof(double *) + sizeof(int32_t) + STAMP_MAX) + 64)
    run.values = <const double **><char *>room
    run.stamp_at = <int32_t *>(run.values + run.size)
    run.stamps = <char *>(run.stamp_at + run.size + 1)
    out = run.stamps
    stamp = 0
    for i in range(run.size):
        snapshot = <Snapshot?>snapshots[i]
        if snapshot.layout is not layout or (i and snapshot.unix_ms <= stamp):
            raise ValueError("snapshots of one layout, in order, are asked for")
        stamp = snapshot.unix_ms
        run.values[i] = snapshot.values
        run.stamp_at[i] = <int32_t>(out - run.stamps)
        if stamp < 0:
            out[0] = b'-'
            out += 1
        out = num_write_u64(out, <uint64_t>(stamp if stamp >= 0 else -stamp))
        out[0] = b','
        out += 1
    run.stamp_at[run.size] = <int32_t>(out - run.stamps)
    rest = run.size * (NUM_MAX + STAMP_MAX) + REST_MAX
    end = first
    while end < heads.rows:
        bound += heads.at[end + 1] - heads.at[end] + rest
        if bound > limit and end > first:
            break
        end += 1
    page = PyBytes_FromStringAndSize(NULL, bound)
    start = out = PyBytes_AsString(page)
    texts = heads.text
    with nogil:
        for row in range(first, end):
            out = write_row(
                out, row, texts + heads.at[row], heads.at[row + 1] - heads.at[row],
                heads.sums[row], &run, &samples)
    return finish(page, out), end, samples


# --- scanning ----------------------------------------------------------------------------------


cdef struct Series:
    uint64_t hash
    int64_t samples, size
    int wanted


@cython.final
cdef class Scan:
    """What a text of lines holds: its series, and where their lines are.

    wanted: says of a metric object, once, whether its series is; all when None. keep: whether the
    places of lines are kept, for :meth:`gather`; twelve bytes a line.

    metrics: the metric objects of the series in the order of their appearance, wanted or not.
    lines, samples, low, high: of the wanted ones. end: the offset up to which the text was scanned.
    damaged: lines that are not such; damage: (offset, length) of the first thousand of them.
    """

    cdef readonly list metrics, damage
    cdef readonly int64_t lines, samples, low, high, end, damaged
    cdef object wanted
    cdef bint keep
    cdef Series *series
    cdef int32_t *buckets
    cdef uint64_t *places       # offset << SIZE_BITS | length
    cdef int32_t *owners
    cdef Py_ssize_t count, capacity, mask, held, room

    def __cinit__(self, wanted=None, keep=False):
        self.metrics = []
        self.damage = []
        self.wanted = wanted
        self.keep = keep
        self.capacity = 256
        self.mask = 1023
        self.series = <Series *>malloc(self.capacity * sizeof(Series))
        self.buckets = <int32_t *>malloc((self.mask + 1) * sizeof(int32_t))
        if self.series == NULL or self.buckets == NULL:
            raise MemoryError
        memset(self.buckets, 255, (self.mask + 1) * sizeof(int32_t))

    def __dealloc__(self):
        free(self.series)
        free(self.buckets)
        free(self.places)
        free(self.owners)

    def __len__(self):
        return self.count

    cdef Py_ssize_t find(self, uint64_t hash, const line *found):
        """The number of a series; -1 when it is new."""
        cdef Py_ssize_t at = hash & self.mask, number
        cdef bytes metric
        while self.buckets[at] >= 0:
            number = self.buckets[at]
            if self.series[number].hash == hash:
                metric = <bytes>self.metrics[number]
                if (
                    <size_t>PyBytes_GET_SIZE(metric) == found.metric_size
                    and not memcmp(PyBytes_AS_STRING(metric), found.metric, found.metric_size)
                ):
                    return number
            at = (at + 1) & self.mask
        return -1

    cdef Py_ssize_t enter(self, uint64_t hash, const line *found) except -1:
        """Takes a new series; its number."""
        cdef Py_ssize_t number = self.count, at, i
        cdef void *moved
        cdef Series *entry
        if number == self.capacity:
            moved = realloc(self.series, 2 * self.capacity * sizeof(Series))
            if moved == NULL:
                raise MemoryError
            self.series = <Series *>moved
            self.capacity *= 2
            moved = malloc(8 * self.capacity * sizeof(int32_t))
            if moved == NULL:
                raise MemoryError
            free(self.buckets)
            self.buckets = <int32_t *>moved
            self.mask = 8 * self.capacity - 1
            memset(self.buckets, 255, (self.mask + 1) * sizeof(int32_t))
            for i in range(number):
                at = self.series[i].hash & self.mask
                while self.buckets[at] >= 0:
                    at = (at + 1) & self.mask
                self.buckets[at] = <int32_t>i
        metric = found.metric[:found.metric_size]
        entry = &self.series[number]
        memset(entry, 0, sizeof(Series))
        entry.hash = hash
        entry.wanted = self.wanted is None or bool(self.wanted(metric))
        self.metrics.append(metric)
        at = hash & self.mask
        while self.buckets[at] >= 0:
            at = (at + 1) & self.mask
        self.buckets[at] = <int32_t>number
        self.count += 1
        return number

    cdef int place(self, Py_ssize_t number, int64_t offset, int64_t size) except -1:
        """Keeps where a line is."""
        cdef void *moved
        if self.held == self.room:
            self.room = self.room * 3 // 2 or 4096
            moved = realloc(self.places, self.room * sizeof(uint64_t))
            if moved == NULL:
                raise MemoryError
            self.places = <uint64_t *>moved
            moved = realloc(self.owners, self.room * sizeof(int32_t))
            if moved == NULL:
                raise MemoryError
            self.owners = <int32_t *>moved
        self.places[self.held] = <uint64_t>offset << SIZE_BITS | <uint64_t>size
        self.owners[self.held] = <int32_t>number
        self.held += 1
        return 0

    cdef int broken(self, int64_t offset, int64_t size) except -1:
        self.damaged += 1
        if len(self.damage) < 1000:
            self.damage.append((offset, size))
        return 0

    def feed(self, bytes data):
        """Scans the text that follows at ``end``; how many bytes of it: up to its last newline."""
        cdef const char *start = PyBytes_AS_STRING(data)
        cdef const char *stop = start + PyBytes_GET_SIZE(data)
        cdef const char *at = start
        cdef const char *newline
        cdef line found
        cdef int good
        cdef uint64_t hash = 0
        cdef Py_ssize_t number
        cdef Series *entry
        cdef int64_t size
        while at < stop:
            with nogil:
                newline = <const char *>memchr(at, b'\n', stop - at)
                good = 0
                if newline != NULL:
                    good = newline - at <= LINE_MAX and line_parse(TABLE, at, newline, &found)
                    if good:
                        hash = line_hash(found.metric, found.metric_size)
            if newline == NULL:
                break
            size = newline + 1 - at
            if not good:
                self.broken(self.end, size)
            else:
                number = self.find(hash, &found)
                if number < 0:
                    number = self.enter(hash, &found)
                entry = &self.series[number]
                if entry.wanted:
                    if not self.lines or found.low < self.low:
                        self.low = found.low
                    if not self.lines or found.high > self.high:
                        self.high = found.high
                    entry.samples += found.samples
                    entry.size += size
                    self.lines += 1
                    self.samples += found.samples
                    if self.keep:
                        self.place(number, self.end, size)
            self.end += size
            at = newline + 1
        return at - start

    def summary(self):
        """(metric object, samples, bytes) of the wanted series, in the order of their numbers; None
        for the others."""
        cdef Py_ssize_t i
        return [
            (self.metrics[i], self.series[i].samples, self.series[i].size)
            if self.series[i].wanted else None
            for i in range(self.count)
        ]

    def gather(self, int fd, list numbers):
        """The lines of some series, read again from the text's file: for each the text of its
        lines in their order. What cannot be read is left out. Raises OSError."""
        cdef char **outs
        cdef char *window
        cdef Py_ssize_t i, got, number
        cdef int64_t offset, size, base = 0, have = 0
        cdef int failed = 0
        cdef list pages = []
        room = bytearray(self.count * sizeof(char *) + 8)
        outs = <char **><char *>room
        for number in numbers:
            if number < 0 or number >= self.count or not self.series[number].wanted:
                raise IndexError(number)
            page = PyBytes_FromStringAndSize(NULL, self.series[number].size)
            outs[number] = PyBytes_AsString(page)
            pages.append(<object>page)
            Py_DECREF(<object>page)
        window = <char *>malloc(WINDOW)
        if window == NULL:
            raise MemoryError
        with nogil:
            for i in range(self.held):
                number = self.owners[i]
                if outs[number] == NULL:
                    continue
                offset = <int64_t>(self.places[i] >> SIZE_BITS)
                size = <int64_t>(self.places[i] & ((1 << SIZE_BITS) - 1))
                if offset < base or offset + size > base + have:
                    if size <= WINDOW:
                        got = read_at(fd, window, WINDOW, offset)
                        if got < 0:
                            failed = errno
                            break
                        base = offset
                        have = got
                    else:
                        got = read_at(fd, outs[number], size, offset)
                        if got < 0:
                            failed = errno
                            break
                        if got == size:
                            outs[number] += size
                        continue
                if offset + size <= base + have:
                    memcpy(outs[number], window + (offset - base), size)
                    outs[number] += size
        free(window)
        if failed:
            raise OSError(failed, "lines cannot be read again")
        texts = []
        for i, number in enumerate(numbers):
            whole = <bytes>pages[i]
            size = outs[number] - PyBytes_AS_STRING(whole)
            texts.append(whole if size == PyBytes_GET_SIZE(whole) else whole[:size])
        return texts


cdef Py_ssize_t read_at(int fd, char *out, Py_ssize_t size, int64_t offset) noexcept nogil:
    """What there is of [offset, offset + size); -1 with errno."""
    cdef Py_ssize_t got, total = 0
    while total < size:
        got = pread(fd, out + total, size - total, <off_t>(offset + total))
        if got < 0:
            if errno == EINTR:
                continue
            return -1
        if got == 0:
            break
        total += got
    return total


# --- merging -----------------------------------------------------------------------------------


cdef struct Piece:
    const char *values
    const char *stamps
    size_t values_size, stamps_size
    int64_t samples, stamp, order


cdef int compare(const void *a, const void *b) noexcept nogil:
    cdef const Piece *left = <const Piece *>a
    cdef const Piece *right = <const Piece *>b
    if left.stamp != right.stamp:
        return -1 if left.stamp < right.stamp else 1
    return -1 if left.order < right.order else left.order > right.order


cdef Py_ssize_t split(const line *found, Piece *pieces, Py_ssize_t order) noexcept nogil:
    """The samples of a line as pieces; how many."""
    cdef const char *value = found.values
    cdef const char *values_end = found.values + found.values_size
    cdef const char *stamp = found.stamps
    cdef const char *stamps_end = found.stamps + found.stamps_size
    cdef const char *stop
    cdef Py_ssize_t n = 0
    cdef int64_t time
    while n < found.samples:
        stop = <const char *>memchr(value, b',', values_end - value)
        if stop == NULL:
            stop = values_end
        pieces[n].values = value
        pieces[n].values_size = stop - value
        value = stop + 1
        stop = <const char *>memchr(stamp, b',', stamps_end - stamp)
        if stop == NULL:
            stop = stamps_end
        pieces[n].stamps = stamp
        pieces[n].stamps_size = stop - stamp
        time = 0
        if stamp[0] == b'-':
            while stamp + 1 < stop:
                stamp += 1
                time = 10 * time - (stamp[0] - 48)
        else:
            while stamp < stop:
                time = 10 * time + (stamp[0] - 48)
                stamp += 1
        stamp = stop + 1
        pieces[n].stamp = time
        pieces[n].samples = 1
        pieces[n].order = order + n
        n += 1
    return n


cdef inline char *write_piece(char *out, const char *text, size_t size) noexcept:
    """A piece and the comma after it."""
    memcpy(out, text, size)
    out[size] = b','
    return out + size + 1


def merge(bytes text, int64_t limit=4096):
    """Lines of one series as few lines without sums: (lines, damaged).

    The samples are in the order of their times; of those of one millisecond the last one in the
    text counts. limit: samples after which a line ends. damaged: lines that are not such, or of
    another series than the first; they are left out.
    """
    cdef const char *at = PyBytes_AS_STRING(text)
    cdef const char *stop = at + PyBytes_GET_SIZE(text)
    cdef const char *newline
    cdef Py_ssize_t count = 0, capacity, i, k, n = 0, first, damaged = 0, total = 0
    cdef line *lines
    cdef Piece *pieces = NULL
    cdef bint ordered = True
    cdef char *out
    cdef PyObject *page
    cdef int64_t samples
    cdef size_t values_size, stamps_size
    cdef list result = []
    capacity = text.count(b"\n") + 1
    lines = <line *>malloc(capacity * sizeof(line))
    if lines == NULL:
        raise MemoryError
    try:
        with nogil:
            while at < stop:
                newline = <const char *>memchr(at, b'\n', stop - at)
                if newline == NULL:
                    newline = stop
                if not line_parse(TABLE, at, newline, &lines[count]) or (count and (
                    lines[count].metric_size != lines[0].metric_size
                    or memcmp(lines[count].metric, lines[0].metric, lines[0].metric_size)
                )):
                    damaged += 1
                else:
                    if not lines[count].rising or (
                        count and lines[count].low <= lines[count - 1].high
                    ):
                        ordered = False
                    total += lines[count].samples
                    count += 1
                at = newline + 1
        if not count:
            return result, damaged
        pieces = <Piece *>malloc((count if ordered else total) * sizeof(Piece))
        if pieces == NULL:
            raise MemoryError
        with nogil:
            if ordered:
                for i in range(count):
                    pieces[i].values = lines[i].values
                    pieces[i].stamps = lines[i].stamps
                    pieces[i].values_size = lines[i].values_size
                    pieces[i].stamps_size = lines[i].stamps_size
                    pieces[i].samples = lines[i].samples
                n = count
            else:
                for i in range(count):
                    n += split(&lines[i], pieces + n, n)
                qsort(pieces, n, sizeof(Piece), compare)
                total = n
                n = 0
                for i in range(total):
                    if i + 1 == total or pieces[i].stamp != pieces[i + 1].stamp:
                        pieces[n] = pieces[i]
                        n += 1
        first = 0
        while first < n:
            i = first
            samples = 0
            values_size = stamps_size = 0
            while i < n and (i == first or samples + pieces[i].samples <= limit):
                samples += pieces[i].samples
                values_size += pieces[i].values_size + 1
                stamps_size += pieces[i].stamps_size + 1
                i += 1
            page = PyBytes_FromStringAndSize(
                NULL, lines[0].metric_size + values_size + stamps_size + REST_MAX)
            out = PyBytes_AsString(page)
            memcpy(out, b'{"metric":', 10)
            memcpy(out + 10, lines[0].metric, lines[0].metric_size)
            out += 10 + lines[0].metric_size
            memcpy(out, b',"values":[', 11)
            out += 11
            for k in range(first, i):
                out = write_piece(out, pieces[k].values, pieces[k].values_size)
            memcpy(out - 1, b'],"timestamps":[', 16)
            out += 15
            for k in range(first, i):
                out = write_piece(out, pieces[k].stamps, pieces[k].stamps_size)
            memcpy(out - 1, b']}\n', 3)
            result.append(finish(page, out + 2))
            first = i
        return result, damaged
    finally:
        free(lines)
        free(pieces)
