# cython: language_level=3, binding=True
"""Lines of the history as the formats of an export; texts of numbers are taken over as they are."""

cimport cython
from cpython.mem cimport PyMem_RawFree, PyMem_RawRealloc
from libc.stdint cimport int64_t
from libc.string cimport memchr, memcmp, memcpy, memmove

cdef enum Form:
    PROMETHEUS  # prefix value milliseconds
    OPENMETRICS  # prefix value seconds
    CSV  # prefix milliseconds,value
    JSONL  # prefix"values":[…],"timestamps":[…]}

FORMS = {"prometheus": PROMETHEUS, "openmetrics": OPENMETRICS, "csv": CSV, "jsonl": JSONL}

cdef enum:
    # More than any format adds to the texts of a sample beside the prefix.
    AROUND = 8
    # Letters of a timestamp that are read; 18 digits always fit.
    DIGITS = 18
    # Lines of at least so many bytes are worth letting other threads run.
    LONG = 4096
    # Letters of the texts below.
    SIZE_VALUES = 11
    SIZE_TIMESTAMPS = 16
    SIZE_INFINITY = 10
    SIZE_SUM = 7

cdef const char *VALUES = b',"values":['
cdef const char *TIMESTAMPS = b'],"timestamps":['
cdef const char *INFINITY = b'"Infinity"'
# An open block's lines have a sum at their ends, which who reads them from the file has checked.
cdef const char *SUM = b',"crc":'


cdef inline bint digit(const char *at) noexcept nogil:
    return c"0" <= at[0] <= c"9"


cdef const char *number(const char *at, const char *end) noexcept nogil:
    """The end of a JSON number, or of an infinity in quotes; NULL where there is none."""
    cdef const char *first
    if at < end and at[0] == c"-":
        at += 1
    elif end - at > 1 and at[0] == c'"' and at[1] == c"-":
        at += 1
        if end - at < SIZE_INFINITY - 1 or memcmp(at + 1, INFINITY + 1, SIZE_INFINITY - 1):
            return NULL
        return at + SIZE_INFINITY
    elif end - at >= SIZE_INFINITY and not memcmp(at, INFINITY, SIZE_INFINITY):
        return at + SIZE_INFINITY
    first = at
    while at < end and digit(at):
        at += 1
    if at == first or (first[0] == c"0" and at - first > 1):
        return NULL
    if at < end and at[0] == c".":
        first = at + 1
        at = first
        while at < end and digit(at):
            at += 1
        if at == first:
            return NULL
    if at < end and (at[0] == c"e" or at[0] == c"E"):
        at += 1
        if at < end and (at[0] == c"+" or at[0] == c"-"):
            at += 1
        first = at
        while at < end and digit(at):
            at += 1
        if at == first:
            return NULL
    return at


cdef inline char *put(char *out, const char *text, Py_ssize_t size) noexcept nogil:
    memcpy(out, text, size)
    return out + size


cdef inline char *put_value(char *out, const char *text, Py_ssize_t size) noexcept nogil:
    """A value; the infinities as Prometheus spells them."""
    if text[0] == c'"':
        return put(out, b"-Inf" if text[1] == c"-" else b"+Inf", 4)
    return put(out, text, size)


cdef inline char *put_json(char *out, const char *text, Py_ssize_t size) noexcept nogil:
    """A value; an infinity as a number out of range, which every VictoriaMetrics reads as one: for
    "Infinity", those up to 1.79 at least leave out the line."""
    if text[0] == c'"':
        return put(out, b"-1e999", 6) if text[1] == c"-" else put(out, b"1e999", 5)
    return put(out, text, size)


cdef inline char *put_seconds(char *out, const char *text, Py_ssize_t size) noexcept nogil:
    """Milliseconds as seconds, with a decimal point before the last three digits."""
    if size > 3:
        out = put(out, text, size - 3)
    else:
        out = put(out, b"0", 1)
    out = put(out, b".000", 4)
    memcpy(out - min(size, 3), text + size - min(size, 3), min(size, 3))
    return out


@cython.final
cdef class Writer:
    """Collects the text of many lines until it is taken.

    form: one of FORMS. A prefix is what stands before each sample, up to the blank (PROMETHEUS,
    OPENMETRICS) or comma (CSV) before its first number; for JSONL the beginning of the line, with
    the metric object.
    """

    cdef Form form
    cdef char *text
    cdef Py_ssize_t capacity
    cdef readonly Py_ssize_t size
    cdef readonly int64_t last

    def __cinit__(self, int form):
        self.form = <Form>form

    def __dealloc__(self):
        PyMem_RawFree(self.text)

    def add(self, bytes prefix not None, bytes line not None, Py_ssize_t at,
            int64_t start, int64_t end):
        """Adds the samples of a line from start to end, both included; their number.

        at: where the metric object ends in the line. Nothing from before 1970 is added. Afterwards
        ``last`` is the latest timestamp that was added, start - 1 where there was none. Raises
        ValueError for a line that is not of the history's form, and adds nothing of it.
        """
        cdef const char *text = line
        cdef const char *before = prefix
        cdef Py_ssize_t size = len(line), before_size = len(prefix), found
        if at < 0 or at > size:
            raise ValueError("a line without its metric")
        if size >= LONG:
            with nogil:
                found = self.convert(before, before_size, text + at, text + size, start, end)
        else:
            found = self.convert(before, before_size, text + at, text + size, start, end)
        if found == -2:
            raise MemoryError
        if found < 0:
            raise ValueError("a line that is not of the history's form")
        return found

    def put(self, bytes text not None):
        """Adds a text as it is."""
        if not self.reserve(len(text)):
            raise MemoryError
        memcpy(self.text + self.size, <const char *>text, len(text))
        self.size += len(text)

    def cut(self, Py_ssize_t size):
        """Forgets what was added after so many bytes."""
        if 0 <= size < self.size:
            self.size = size

    def take(self):
        """The text that was collected; the writer is empty then."""
        text = self.text[:self.size] if self.size else b""
        self.size = 0
        return text

    cdef bint reserve(self, Py_ssize_t more) noexcept nogil:
        cdef Py_ssize_t wanted
        cdef char *text
        if self.capacity - self.size >= more:
            return True
        wanted = self.size + more + self.capacity // 2
        text = <char *>PyMem_RawRealloc(self.text, wanted)
        if text == NULL:
            return False
        self.text = text
        self.capacity = wanted
        return True

    cdef Py_ssize_t convert(
        self, const char *prefix, Py_ssize_t prefix_size, const char *at, const char *end,
        int64_t start, int64_t stop,
    ) noexcept nogil:
        """Walks over values and timestamps side by side; -1 for another form, -2 for no memory."""
        cdef const char *value
        cdef const char *value_end
        cdef const char *time
        cdef const char *time_end
        cdef char *out
        cdef char *times = NULL
        cdef Py_ssize_t count = 1, written = 0, times_at = 0, size
        cdef int64_t moment, last = start - 1
        cdef const char *digits
        cdef const char *scan
        cdef bint before_1970
        if end - at < SIZE_VALUES or memcmp(at, VALUES, SIZE_VALUES):
            return -1
        value = at + SIZE_VALUES
        time = <const char *>memchr(value, c"]", end - value)
        if time == NULL or end - time < SIZE_TIMESTAMPS or memcmp(time, TIMESTAMPS, SIZE_TIMESTAMPS):
            return -1
        time += SIZE_TIMESTAMPS
        scan = value
        while True:
            scan = <const char *>memchr(scan, c",", time - SIZE_TIMESTAMPS - scan)
            if scan == NULL:
                break
            count += 1
            scan += 1
        # The numbers' own texts are within the line; for JSONL the timestamps stand aside at first.
        if self.form == JSONL:
            times_at = prefix_size + SIZE_VALUES + (time - value)
            count = 0
        if not self.reserve(2 * (end - at) + prefix_size + 64 + count * (prefix_size + AROUND)):
            return -2
        out = self.text + self.size
        if self.form == JSONL:
            times = out + times_at
            out = put(put(out, prefix, prefix_size), VALUES, SIZE_VALUES)
        while True:
            value_end = number(value, end)
            if value_end == NULL:
                return -1
            time_end = time
            before_1970 = time_end[0] == c"-"
            time_end += before_1970
            digits = time_end
            moment = 0
            while time_end < end and digit(time_end) and time_end - digits < DIGITS:
                moment = moment * 10 + (time_end[0] - c"0")
                time_end += 1
            if time_end == digits or time_end == end or digit(time_end):
                return -1
            if digits[0] == c"0" and time_end - digits > 1:
                return -1
            if start <= moment <= stop and not before_1970:
                written += 1
                last = max(last, moment)
                if self.form == JSONL:
                    out = put(put_json(out, value, value_end - value), b",", 1)
                    times = put(put(times, time, time_end - time), b",", 1)
                else:
                    out = put(out, prefix, prefix_size)
                    if self.form == CSV:
                        out = put(put(out, time, time_end - time), b",", 1)
                        out = put_value(out, value, value_end - value)
                    else:
                        out = put(put_value(out, value, value_end - value), b" ", 1)
                        if self.form == PROMETHEUS:
                            out = put(out, time, time_end - time)
                        else:
                            out = put_seconds(out, time, time_end - time)
                    out = put(out, b"\n", 1)
            value = value_end + 1
            time = time_end + 1
            if value_end[0] == c"]" and time_end[0] == c"]":
                break
            if value_end[0] != c"," or time_end[0] != c",":
                return -1
        if end > time and (end - 1)[0] == c"\n":
            end -= 1
        if end - time > SIZE_SUM and not memcmp(time, SUM, SIZE_SUM):
            digits = time + SIZE_SUM
            time = digits
            while time < end and digit(time):
                time += 1
            if time == digits:
                return -1
        if end - time != 1 or time[0] != c"}":
            return -1
        self.last = last
        if written == 0:
            return 0
        if self.form == JSONL:
            # In place of the comma behind the last value, the timestamps.
            out = put(out - 1, TIMESTAMPS, SIZE_TIMESTAMPS)
            size = times - (self.text + self.size + times_at)
            memmove(out, self.text + self.size + times_at, size)
            out = put(out + size - 1, b"]}\n", 3)
        self.size = out - self.text
        return written
