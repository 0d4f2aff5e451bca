# cython: language_level=3, binding=True
"""Small files of one value each, by folder: the devices of /sys.

A folder's files are read one after the other by a worker of a crew, so that a device that hangs
holds up no other. Descriptors are kept as long as there are enough of them.
"""

cimport cython
from libc.errno cimport (
    EACCES, EAGAIN, EBADF, EINVAL, ENODATA, ENODEV, ENOENT, ENOTDIR, ENXIO, EOPNOTSUPP, EPERM,
    ESTALE, ETIMEDOUT, errno)
from libc.math cimport NAN
from libc.stdint cimport int32_t, int64_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memcpy
from posix.fcntl cimport O_CLOEXEC, O_DIRECTORY, O_NOCTTY, O_NONBLOCK, O_RDONLY, open as c_open
from posix.stat cimport S_ISREG, fstat, struct_stat
from posix.unistd cimport close as c_close, pread

from esnode._fast.crew cimport (
    CREW_STACK, crew, crew_abandon, crew_close, crew_new, crew_now, crew_running, crew_start,
    crew_task, crew_wait)
from esnode._fast.table cimport Table

cdef extern from "num.h" nogil:
    enum num_kind:
        NUM_VALUE
    num_kind num_read(const char *at, const char *end, uint64_t *units, unsigned *places)
    double num_value(uint64_t units, unsigned places)
    enum: NUM_PLACES

cdef extern from "<fcntl.h>" nogil:
    enum: O_PATH

cdef extern from "origin.h" nogil:
    enum:
        OF_KERNEL
        OF_DISK
    int origin_of(const char *path)
    void origin_spare_atime(int fd)

cdef extern from *:
    """
    /* Descriptors that all readers together keep, and may keep. */
    static int kept, most = 1 << 30, refused;

    static int keep(void) {
        if (__atomic_add_fetch(&kept, 1, __ATOMIC_RELAXED) <= most)
            return 1;
        __atomic_sub_fetch(&kept, 1, __ATOMIC_RELAXED);
        __atomic_store_n(&refused, 1, __ATOMIC_RELAXED);
        return 0;
    }

    static void kept_no_more(void) {
        __atomic_sub_fetch(&kept, 1, __ATOMIC_RELAXED);
    }

    /* Tells a folder from itself after files in it have come, gone or been replaced, or it has
     * been moved away; 0 of one that was removed. The clock of file systems moves in steps of up
     * to 10 ms: after a change that recent another one might not show, so every stamp differs. */
    static uint64_t stamp_of(int fd) {
        struct stat st;
        struct timespec now;
        if (fstat(fd, &st) < 0 || st.st_nlink == 0)
            return 0;
        clock_gettime(CLOCK_REALTIME, &now);
        uint64_t stamp = (uint64_t)st.st_ctim.tv_sec * 1000000000 + (uint64_t)st.st_ctim.tv_nsec;
        uint64_t time = (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
        int is_fresh = (int64_t)(time - stamp) < 20000000;
        stamp ^= (uint64_t)st.st_ino << 24 ^ (uint64_t)st.st_dev << 48;
        return (is_fresh ? stamp + time : stamp) | 1;
    }
    """
    bint keep() nogil
    void kept_no_more() nogil
    uint64_t stamp_of(int fd) nogil
    int most, refused

#: The error of a file whose text is not a value.
MALFORMED = -1

cdef enum:
    C_MALFORMED = -1
    SIZE = 512                  # of a text, at most
    # What a file holds.
    NUMBER = 0
    STATE = 1
    TEXT = 2
    # How it fared.
    NEW = 0
    GOOD = 1
    REFUSED = 2

cdef enum:
    ENOTSUPP = 524              # of the kernel's own, and some drivers let it out

cdef struct State:
    double number
    int32_t slot

cdef struct Item:
    const char *path
    int folder
    int fd
    int error                   # of the last reading: errno, 0 or MALFORMED
    unsigned char form, fare
    bint is_signed, changed
    int32_t slot
    int first, end              # states
    double num, den, value
    char *text
    int size

cdef struct Folder:
    const char *path
    int fd
    uint64_t stamp

cdef struct Task:
    crew_task base              # first: the crew knows a task by it
    bint kernels, keeps, answered, changed
    int64_t took                # ns
    int n_items, n_folders
    Item *items
    Folder *folders
    State *states
    char *paths
    char *texts


cdef void shut(int *fd) noexcept nogil:
    if fd[0] >= 0:
        c_close(fd[0])
        kept_no_more()
        fd[0] = -1


cdef void release(crew_task *base) noexcept nogil:
    cdef Task *task = <Task *>base
    cdef int i
    for i in range(task.n_items):
        shut(&task.items[i].fd)
    for i in range(task.n_folders):
        shut(&task.folders[i].fd)
    free(task.items)
    free(task.folders)
    free(task.states)
    free(task.paths)
    free(task.texts)
    free(task)


cdef void watch(Task *task, int f) noexcept nogil:
    """Lets go of the descriptors of a folder in which files have been replaced or removed, or that
    is another one. The kernel's own files are never replaced under an open descriptor."""
    cdef Folder *folder = &task.folders[f]
    cdef uint64_t stamp = 0
    cdef int i, fd
    if folder.fd >= 0:
        if stamp_of(folder.fd) == folder.stamp:
            return
        shut(&folder.fd)
    fd = c_open(folder.path, O_PATH | O_DIRECTORY | O_CLOEXEC)
    if fd >= 0:
        stamp = stamp_of(fd)
        if task.keeps and keep():
            folder.fd = fd
        else:
            c_close(fd)
    if stamp != folder.stamp and folder.stamp:
        task.changed = True
        for i in range(task.n_items):
            if task.items[i].folder == f:
                shut(&task.items[i].fd)
    folder.stamp = stamp


cdef int fetch(Task *task, Item *item, char *text) noexcept nogil:
    """Reads a file; sets item.error, and returns the size of its text."""
    cdef struct_stat st
    cdef Py_ssize_t got
    cdef int fd
    item.error = 0
    if item.fd >= 0:
        got = pread(item.fd, text, SIZE, 0)
        if got >= 0:
            return <int>got
        item.error = errno
        if item.error not in (ENODEV, ENOENT, ESTALE, EBADF):
            return 0
        shut(&item.fd)          # its device has gone, and another one may be there
    fd = c_open(item.path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY)
    if fd < 0:
        item.error = errno
        return 0
    item.error = 0
    got = 0
    if fstat(fd, &st) < 0 or not S_ISREG(st.st_mode):
        item.error = EINVAL     # a FIFO or a tty would block
    else:
        got = pread(fd, text, SIZE, 0)
        if got < 0:
            item.error = errno
            got = 0
    if item.error == 0 and (task.kernels or task.folders[item.folder].fd >= 0) and keep():
        item.fd = fd
        if not task.kernels:
            origin_spare_atime(fd)
    else:
        c_close(fd)
    return <int>got


cdef bint blank(char c) noexcept nogil:
    return c == c' ' or c == c'\n' or c == c'\t' or c == 0


cdef int parse(Item *item, const char *at, int size) noexcept nogil:
    """Takes the number of a text, the first word of a state; 0, or MALFORMED."""
    cdef const char *end = at + size
    cdef const char *stop
    cdef uint64_t units
    cdef unsigned places
    cdef bint minus = False
    if size == SIZE:
        return C_MALFORMED
    while end > at and blank((end - 1)[0]):
        end -= 1
    while at < end and blank(at[0]):
        at += 1
    if end - at >= 3 and memcmp(at, b"N/A", 3) == 0:
        return 0
    if item.form == STATE:
        stop = at
        while stop < end and stop[0] != c':':
            stop += 1
        end = stop
    if at < end and at[0] == c'-':
        minus = True
        at += 1
    if num_read(at, end, &units, &places) != NUM_VALUE or places >= NUM_PLACES:
        return C_MALFORMED
    if minus and not item.is_signed:
        return 0                # such as -1 for what the driver does not know
    item.value = num_value(units, places) * item.num / item.den
    if minus:
        item.value = -item.value
    return 0


cdef void ask(crew_task *base) noexcept nogil:
    """Reads a folder's files; touches nothing but its task."""
    cdef Task *task = <Task *>base
    cdef Item *item
    cdef char[SIZE] text
    cdef int64_t start = crew_now()
    cdef int i, size
    if not task.kernels:
        for i in range(task.n_folders):
            watch(task, i)
    for i in range(task.n_items):
        item = &task.items[i]
        if item.fare == REFUSED:
            continue
        item.value = NAN
        size = fetch(task, item, text)
        if item.form == TEXT:   # one that cannot be read is empty
            item.error = 0
            if size != item.size or memcmp(text, item.text, size):
                item.changed = True
                item.size = size
                memcpy(item.text, text, size)
        elif item.error == 0:
            item.error = parse(item, text, size)
    task.took = crew_now() - start
    task.answered = True


cdef bint is_unsupported(int error) noexcept nogil:
    """What a driver says to who asks for something that this device has not."""
    return error in (EACCES, EPERM, EINVAL, EOPNOTSUPP, ENOTSUPP)


cdef bint is_absent(int error) noexcept nogil:
    return error in (ENOENT, ENOTDIR, ENODEV, ENXIO, ENODATA)


def limit(int descriptors):
    """How many descriptors all readers together may keep; beyond, files are opened for each
    reading."""
    global most
    most = descriptors


def limited():
    """Whether a reader has met the limit."""
    return bool(refused)


cdef const char *copy(Task *task, Py_ssize_t *at, bytes name):
    """A path's copy in the task's own memory."""
    cdef char *to = task.paths + at[0]
    memcpy(to, <const char *>name, len(name))
    at[0] += len(name) + 1
    return to


@cython.final
cdef class _Crew:
    cdef crew *crew

    def __cinit__(self):
        self.crew = crew_new(CREW_STACK)
        if self.crew == NULL:
            raise MemoryError

    def __dealloc__(self):
        if self.crew != NULL:
            crew_close(self.crew)


@cython.final
@cython.no_gc  # its crew must be there when it is let go of; there are no cycles through it
cdef class _Bound:
    """A folder as its owner sees it; the task may be running meanwhile."""
    cdef _Crew crew
    cdef Task *task
    cdef double *values         # of the last answer, by item
    cdef bint quick, asked, changed
    cdef list names             # of the items, with their folder
    cdef dict texts             # path -> the last text
    cdef dict errors            # of answers since the last reading

    def __dealloc__(self):
        if self.task != NULL:
            crew_abandon(self.crew.crew, &self.task.base)
        free(self.values)

    cdef int64_t running(self) noexcept:
        return 0 if self.quick else crew_running(self.crew.crew, &self.task.base)


@cython.final
cdef class Values:
    """Reads the files of some folders; a folder that hangs holds up none.

    A folder that has not answered for `timeout` seconds has no values; until then it keeps those of
    its last answer. quick: reading these files never waits, and needs no worker. Files on a local
    disk are read like that, too: they are copies.

    A file whose first reading is refused as not permitted or not supported is not asked again.
    """

    cdef Table table
    cdef _Crew crew
    cdef int64_t timeout, patience
    cdef bint quick, started, waiting
    cdef dict bound             # path -> _Bound
    cdef readonly set refused

    def __cinit__(self, Table table not None, double timeout, double patience, bint quick=False):
        self.table = table
        self.timeout = <int64_t>(timeout * 1e9)
        self.patience = <int64_t>(patience * 1e9)
        self.quick = quick
        self.bound = {}
        #: Paths of the files that are not asked again.
        self.refused = set()
        self.crew = _Crew()

    def bind(self, bytes path not None, cells):
        """Reads the files of a folder and of those below it from now on.

        A cell is (name, slot[, num[, den[, signed]]]): a file's number times num, over den, goes to
        the slot; one below zero is absent unless it is signed. (name, {number: slot}): the slot of
        the number before the first colon is 1, the others 0. (name,): a text.
        """
        cdef _Bound bound
        cdef Task *task
        cdef Item *item
        cdef int i = 0, n_states, at_state = 0, n_texts = 0
        cdef Py_ssize_t at_path = 0
        if path in self.bound:
            raise ValueError(f"{path!r} is bound already")
        cells = [cell for cell in cells if path + b"/" + cell[0] not in self.refused]
        names = [path + b"/" + cell[0] for cell in cells]
        for name in (path, *names):
            if b"\0" in name:
                raise ValueError(f"{name!r} has a zero byte")
        folders = list(dict.fromkeys(name.rpartition(b"/")[0] for name in names))
        n_states = sum(len(cell[1]) for cell in cells if len(cell) > 1 and isinstance(cell[1], dict))
        for cell in cells:
            if len(cell) > 1:
                for slot in cell[1].values() if isinstance(cell[1], dict) else cell[1:2]:
                    self.table.check(slot)
        task = <Task *>calloc(1, sizeof(Task))
        if task == NULL:
            raise MemoryError
        bound = _Bound.__new__(_Bound)
        bound.crew = self.crew
        bound.task = task
        task.base.run = ask
        task.base.release = release
        task.items = <Item *>calloc(len(cells) + 1, sizeof(Item))
        task.folders = <Folder *>calloc(len(folders) + 1, sizeof(Folder))
        task.states = <State *>calloc(n_states + 1, sizeof(State))
        task.paths = <char *>calloc(sum(len(name) + 1 for name in names + folders) + 1, 1)
        task.texts = <char *>calloc(sum(len(cell) == 1 for cell in cells) + 1, SIZE)
        bound.values = <double *>calloc(len(cells) + 1, sizeof(double))
        if not (task.items and task.folders and task.states and task.paths and task.texts
                and bound.values):
            raise MemoryError
        bound.names = names
        bound.texts = {}
        bound.errors = {}
        origin = origin_of(path)
        task.kernels = origin == OF_KERNEL
        # Others, such as FUSE, may answer who reads through an old descriptor from a cache.
        task.keeps = origin in (OF_KERNEL, OF_DISK)
        bound.quick = self.quick or origin == OF_DISK
        for name in folders:
            task.folders[i] = Folder(copy(task, &at_path, name), -1, 0)
            i += 1
        task.n_folders = i
        i = 0
        for name, cell in zip(names, cells):
            item = &task.items[i]
            item.path = copy(task, &at_path, name)
            item.folder = folders.index(name.rpartition(b"/")[0])
            item.fd = -1
            item.value = bound.values[i] = NAN
            item.num = item.den = 1
            if len(cell) == 1:
                item.form = TEXT
                item.text = task.texts + SIZE * n_texts
                n_texts += 1
            elif isinstance(cell[1], dict):
                item.form = STATE
                item.first = at_state
                for number, slot in cell[1].items():
                    task.states[at_state] = State(number, slot)
                    at_state += 1
                item.end = at_state
            else:
                _, item.slot, item.num, item.den, item.is_signed = (
                    tuple(cell) + (1, 1, False)[len(cell) - 2:])
            i += 1
        task.n_items = i
        self.bound[path] = bound

    def drop(self, bytes path not None):
        """Lets go of a folder and its slots."""
        del self.bound[path]

    def busy(self, bytes path not None):
        """Whether a folder that was to be read is still being read: a look at it may hang, too."""
        return (<_Bound>self.bound[path]).running() != 0

    def paths(self):
        """The files that are read."""
        return [name for bound in self.bound.values() for name in (<_Bound>bound).names]

    def text(self, bytes path not None, bytes name not None):
        """The last text of a file bound as such; None without one."""
        return (<_Bound>self.bound[path]).texts.get(path + b"/" + name)

    def start(self, bint tick=True):
        """Starts to read every folder that is not still being read; one that took longer than the
        patience for it the last time only with a tick."""
        cdef _Bound bound
        cdef int n = 0
        cdef crew_task **tasks
        self._wait()
        tasks = <crew_task **>calloc(len(self.bound) + 1, sizeof(crew_task *))
        if tasks == NULL:
            raise MemoryError
        for bound in self.bound.values():
            if bound.quick:
                with nogil:
                    ask(&bound.task.base)
            elif bound.running() == 0:
                self._take(bound)       # it may have come back after the last reading
                if bound.task.took <= self.patience or tick:
                    tasks[n] = &bound.task.base
                    n += 1
                    bound.asked = True
        if n:
            crew_start(self.crew.crew, tasks, n)
        free(tasks)
        self.started = True
        self.waiting = n > 0

    def read(self):
        """Fills the slots, after start(). Returns ({path: errno or MALFORMED} of the files that could
        be read before, or should be, and of a folder that hangs, ETIMEDOUT; folders in which
        something else than a number has changed)."""
        cdef _Bound bound
        cdef int64_t running
        if not self.started:
            self.start()
        self.started = False
        self._wait()
        errors = {}
        changed = []
        for path, bound in self.bound.items():
            running = bound.running()
            if running == 0:
                self._take(bound)
                if bound.asked:         # and there was no worker left to do so
                    bound.asked = False
                    forget(bound)
                    errors[path] = EAGAIN
            elif running > self.timeout:
                forget(bound)
                errors[path] = ETIMEDOUT
            if bound.errors:
                errors.update(bound.errors)
                bound.errors.clear()
            if bound.changed:
                bound.changed = False
                changed.append(path)
            self._store(bound)
        return errors, changed

    cdef void _wait(self) noexcept:
        """Waits for what was started. After this nobody begins to read a folder."""
        if self.waiting:
            with nogil:
                crew_wait(self.crew.crew, self.patience, 0)
        self.waiting = False

    cdef int _take(self, _Bound bound) except -1:
        """Takes over a folder's answer, if there is one."""
        cdef Task *task = bound.task
        cdef Item *item
        cdef int i
        if not task.answered:
            return 0
        bound.changed |= task.changed
        bound.asked = task.answered = task.changed = False
        for i in range(task.n_items):
            item = &task.items[i]
            bound.values[i] = item.value
            if item.error:
                if item.fare == NEW and is_unsupported(item.error):
                    item.fare = REFUSED
                    self.refused.add(bound.names[i])
                elif item.fare == GOOD or (item.fare == NEW and not is_absent(item.error)):
                    bound.errors[bound.names[i]] = item.error
                    if is_absent(item.error):
                        item.fare = NEW     # it has gone; this is told once
                        bound.changed = True
            else:
                item.fare = GOOD
            if item.changed:
                item.changed = False
                bound.changed = True
                bound.texts[bound.names[i]] = item.text[:item.size]
        if task.took > self.timeout:
            forget(bound)               # the first of its files were read long ago
        return 0

    cdef void _store(self, _Bound bound) noexcept:
        """Fills a folder's slots."""
        cdef Item *item
        cdef double value
        cdef int i, s
        for i in range(bound.task.n_items):
            item = &bound.task.items[i]
            value = bound.values[i]
            if item.form == NUMBER:
                self.table.values[item.slot] = value
            elif item.form == STATE:
                for s in range(item.first, item.end):
                    self.table.values[bound.task.states[s].slot] = (
                        value if value != value else value == bound.task.states[s].number)


cdef void forget(_Bound bound) noexcept:
    """Makes a folder's values absent."""
    cdef int i
    for i in range(bound.task.n_items):
        bound.values[i] = NAN
