# cython: language_level=3, binding=True
"""NVIDIA GPUs, read through libnvidia-ml.so.1, which this module alone is linked to.

Every call to the library is made by a task of a crew, so that one which never returns keeps its
thread and the GPU it is about, and nothing else. A task fills buffers of its own; the lane copies
them when it has come back.
"""

cimport cython
from libc.math cimport NAN, pow
from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memset, strcmp, strcpy
from posix.fcntl cimport F_DUPFD_CLOEXEC, fcntl
from posix.time cimport nanosleep, timespec
from posix.unistd cimport close, read, write

from esnode._fast.crew cimport (
    crew, crew_abandon, crew_close, crew_new, crew_now, crew_running, crew_start, crew_task,
    crew_wait)
from esnode._fast.table cimport Table

cdef extern from "<sys/eventfd.h>" nogil:
    int eventfd(unsigned int initval, int flags)
    enum: EFD_CLOEXEC, EFD_NONBLOCK

cdef extern from "mailbox.h" nogil:
    ctypedef struct mail:
        double time
        unsigned long long type, data
        unsigned int gi, ci
        void *device
        char uuid[80]
    ctypedef struct mailbox:
        pass
    bint mailbox_knows(mailbox *box, void *device)
    void mailbox_know(mailbox *box, void *device)
    mail *mailbox_room(mailbox *box)
    void mailbox_put(mailbox *box)
    const mail *mailbox_peek(mailbox *box)
    void mailbox_drop(mailbox *box)
    unsigned long mailbox_lost(mailbox *box)

cdef extern from "nvml_calls.h" nogil:
    ctypedef void *nvmlDevice_t
    ctypedef void *nvmlGpuInstance_t
    ctypedef void *nvmlEventSet_t
    ctypedef void *nvmlGpmSample_t
    enum:
        NVML_SUCCESS
        NVML_ERROR_UNINITIALIZED, NVML_ERROR_INVALID_ARGUMENT, NVML_ERROR_NOT_SUPPORTED
        NVML_ERROR_NOT_FOUND, NVML_ERROR_DRIVER_NOT_LOADED, NVML_ERROR_TIMEOUT
        NVML_ERROR_FUNCTION_NOT_FOUND, NVML_ERROR_GPU_IS_LOST, NVML_ERROR_RESET_REQUIRED
        NVML_ERROR_LIB_RM_VERSION_MISMATCH, NVML_ERROR_ARGUMENT_VERSION_MISMATCH
        NVML_NVLINK_MAX_LINKS, NVML_GPM_METRIC_MAX
        NVML_GPM_SUPPORT_VERSION, NVML_GPM_METRICS_GET_VERSION
        NVML_VALUE_TYPE_DOUBLE, NVML_VALUE_TYPE_UNSIGNED_INT, NVML_VALUE_TYPE_UNSIGNED_LONG
        NVML_VALUE_TYPE_UNSIGNED_LONG_LONG, NVML_VALUE_TYPE_SIGNED_LONG_LONG
        NVML_VALUE_TYPE_SIGNED_INT, NVML_VALUE_TYPE_UNSIGNED_SHORT
        NVML_VARIANTS, NVML_OUTPUTS, NVML_N_CALLS
    ctypedef union nvmlValue_t:
        double dVal
        int siVal
        unsigned int uiVal
        unsigned long long ullVal
        long long sllVal
        unsigned short usVal
    ctypedef struct nvmlFieldValue_t:
        unsigned int fieldId, scopeId
        int valueType, nvmlReturn
        nvmlValue_t value
    ctypedef struct nvmlSample_t:
        unsigned long long timeStamp
        nvmlValue_t sampleValue
    ctypedef struct nvmlEventData_t:
        nvmlDevice_t device
        unsigned long long eventType, eventData
        unsigned int gpuInstanceId, computeInstanceId
    ctypedef struct nvmlProcessInfo_t:
        unsigned int pid
        unsigned long long usedGpuMemory
    ctypedef struct nvmlDeviceAttributes_t:
        unsigned int multiprocessorCount
    ctypedef struct nvmlGpuInstancePlacement_t:
        unsigned int start, size
    ctypedef struct nvmlGpuInstanceInfo_t:
        nvmlGpuInstancePlacement_t placement
    ctypedef struct nvmlPciInfo_t:
        char busId[32]
    ctypedef struct nvmlGpmSupport_t:
        unsigned int version, isSupportedDevice
    ctypedef struct nvmlGpmMetric_t:
        unsigned int metricId
        int nvmlReturn
        double value
    ctypedef struct nvmlGpmMetricsGet_t:
        unsigned int version, numMetrics
        nvmlGpmSample_t sample1, sample2
        nvmlGpmMetric_t *metrics
    ctypedef struct nvml_target:
        nvmlDevice_t handle
        unsigned long long reasons
        int links, fans, mig
    ctypedef int (*nvml_run)(nvml_target *target, const int *argument, double *out) noexcept
    ctypedef struct nvml_variant:
        const char *function
        nvml_run run
    ctypedef struct nvml_call:
        const char *name
        int outputs, bits
        nvml_variant *variants
    nvml_call *NVML_CALLS
    double nvml_u32(unsigned int value)
    double nvml_u64(unsigned long long value)
    double nvml_i32(int value)
    double nvml_i64(long long value)
    double nvml_f64(double value)

    int nvmlInit_v2()
    int nvmlShutdown()
    int nvmlDeviceGetCount_v2(unsigned int *count)
    int nvmlDeviceGetHandleByIndex_v2(unsigned int index, nvmlDevice_t *device)
    int nvmlDeviceGetUUID(nvmlDevice_t device, char *uuid, unsigned int length)
    # What follows may be missing.
    int (*nvmlSystemGetDriverVersion)(char *version, unsigned int length)
    int (*nvmlSystemGetNVMLVersion)(char *version, unsigned int length)
    int (*nvmlSystemGetCudaDriverVersion_v2)(int *version)
    int (*nvmlSystemGetCudaDriverVersion)(int *version)
    int (*nvmlDeviceGetName)(nvmlDevice_t device, char *text, unsigned int length)
    int (*nvmlDeviceGetSerial)(nvmlDevice_t device, char *text, unsigned int length)
    int (*nvmlDeviceGetBoardPartNumber)(nvmlDevice_t device, char *text, unsigned int length)
    int (*nvmlDeviceGetVbiosVersion)(nvmlDevice_t device, char *text, unsigned int length)
    int (*nvmlDeviceGetModuleId)(nvmlDevice_t device, unsigned int *value)
    int (*nvmlDeviceGetMinorNumber)(nvmlDevice_t device, unsigned int *value)
    int (*nvmlDeviceGetNumaNodeId)(nvmlDevice_t device, unsigned int *value)
    int (*nvmlDeviceGetArchitecture)(nvmlDevice_t device, unsigned int *value)
    int (*nvmlDeviceGetNumFans)(nvmlDevice_t device, unsigned int *value)
    int (*nvmlDeviceGetCudaComputeCapability)(nvmlDevice_t device, int *major, int *minor)
    int (*nvmlDeviceGetPciInfo_v3)(nvmlDevice_t device, nvmlPciInfo_t *pci)
    int (*nvmlDeviceGetFieldValues)(nvmlDevice_t device, int n, nvmlFieldValue_t *values)
    int (*nvmlDeviceGetSamples)(
        nvmlDevice_t device, int type, unsigned long long last, int *value_type,
        unsigned int *count, nvmlSample_t *samples)
    int (*nvmlDeviceGetNvLinkState)(nvmlDevice_t device, unsigned int link, int *state)
    int (*nvmlDeviceGetMigMode)(
        nvmlDevice_t device, unsigned int *current, unsigned int *pending)
    int (*nvmlDeviceGetMaxMigDeviceCount)(nvmlDevice_t device, unsigned int *count)
    int (*nvmlDeviceGetMigDeviceHandleByIndex)(
        nvmlDevice_t device, unsigned int index, nvmlDevice_t *instance)
    int (*nvmlDeviceGetGpuInstanceId)(nvmlDevice_t device, unsigned int *id)
    int (*nvmlDeviceGetComputeInstanceId)(nvmlDevice_t device, unsigned int *id)
    int (*nvmlDeviceGetAttributes_v2)(nvmlDevice_t device, nvmlDeviceAttributes_t *attributes)
    int (*nvmlDeviceGetGpuInstanceById)(
        nvmlDevice_t device, unsigned int id, nvmlGpuInstance_t *instance)
    int (*nvmlGpuInstanceGetInfo)(nvmlGpuInstance_t instance, nvmlGpuInstanceInfo_t *info)
    int (*nvmlDeviceGetComputeRunningProcesses_v3)(
        nvmlDevice_t device, unsigned int *count, nvmlProcessInfo_t *processes)
    int (*nvmlDeviceGetGraphicsRunningProcesses_v3)(
        nvmlDevice_t device, unsigned int *count, nvmlProcessInfo_t *processes)
    int (*nvmlGpmQueryDeviceSupport)(nvmlDevice_t device, nvmlGpmSupport_t *support)
    int (*nvmlGpmSampleAlloc)(nvmlGpmSample_t *sample)
    int (*nvmlGpmSampleFree)(nvmlGpmSample_t sample)
    int (*nvmlGpmSampleGet)(nvmlDevice_t device, nvmlGpmSample_t sample)
    int (*nvmlGpmMigSampleGet)(nvmlDevice_t device, unsigned int gi, nvmlGpmSample_t sample)
    int (*nvmlGpmMetricsGet)(nvmlGpmMetricsGet_t *metrics)
    int (*nvmlEventSetCreate)(nvmlEventSet_t *set)
    int (*nvmlEventSetFree)(nvmlEventSet_t set)
    int (*nvmlDeviceGetSupportedEventTypes)(nvmlDevice_t device, unsigned long long *types)
    int (*nvmlDeviceRegisterEvents)(
        nvmlDevice_t device, unsigned long long types, nvmlEventSet_t set)
    int (*nvmlEventSetWait_v2)(nvmlEventSet_t set, nvmlEventData_t *data, unsigned int timeout)
    int (*nvmlEventSetWait)(nvmlEventSet_t set, nvmlEventData_t *data, unsigned int timeout)

cdef enum:
    STACK = 1 << 20             # the library's own calls may need more than a system call
    MOST = 64                   # GPUs
    INSTANCES = 16              # MIG instances of a GPU
    FIELDS_MOST = 512           # of a batch
    SAMPLES_MOST = 256          # of a ring, taken by one call
    PROCESSES = 256             # of a GPU and kind
    BUCKETS = 60                # that a window is divided into
    RINGS = 2
    TEXT = 96
    GONE = 255                  # a variant: none is left to try
    ALONE = 2
    EVENT_WAIT = 500            # ms

cdef int64_t ONCE_NS = -2_000_000_000
cdef int64_t FOREVER = 0x7FFFFFFFFFFFFFFF
cdef int64_t GPM_APART = 100_000_000    # ns between two samples at least
cdef enum:
    IS_ERROR_RATE = 1
    IS_WORD = 2
    IS_COUNTER = 4
    IS_FLAG = 8
#: What the value of an entry is: flags.
ERROR_RATE = IS_ERROR_RATE      # mantissa and exponent of NVLink's bit error rates
WORD = IS_WORD                  # a number that stands for one of several words
COUNTER = IS_COUNTER            # a total; a field of it that has 32 bits only starts over
FLAG = IS_FLAG                  # any other number than 0 is 1

# Steps: what is read at once.
cdef enum:
    CALL, FIELDS, GPM, RING, LIST

# Functions that are no calls of the table, as they are counted; after those of the table.
cdef enum:
    F_INIT, F_SHUTDOWN, F_COUNT, F_HANDLE, F_UUID, F_DRIVER, F_CUDA2, F_CUDA, F_NAME, F_SERIAL
    F_PART, F_VBIOS, F_MODULE, F_MINOR, F_NUMA, F_ARCHITECTURE, F_FANS, F_CAPABILITY, F_PCI
    F_FIELDS, F_SAMPLES, F_LINK, F_MIG_MODE, F_MIG_MAX, F_MIG_HANDLE, F_GI, F_CI, F_ATTRIBUTES
    F_GI_HANDLE, F_GI_INFO, F_COMPUTE, F_GRAPHICS, F_GPM_SUPPORT, F_GPM_ALLOC, F_GPM_FREE
    F_GPM_GET, F_GPM_MIG_GET, F_GPM_METRICS, F_EVENT_TYPES, F_REGISTER
    N_OTHERS

cdef enum:
    N_CALLS_TABLE = NVML_N_CALLS * NVML_VARIANTS
    N_FUNCTIONS = N_CALLS_TABLE + N_OTHERS

OTHERS = (
    "nvmlInit_v2", "nvmlShutdown", "nvmlDeviceGetCount_v2", "nvmlDeviceGetHandleByIndex_v2",
    "nvmlDeviceGetUUID", "nvmlSystemGetDriverVersion", "nvmlSystemGetCudaDriverVersion_v2",
    "nvmlSystemGetCudaDriverVersion", "nvmlDeviceGetName", "nvmlDeviceGetSerial",
    "nvmlDeviceGetBoardPartNumber", "nvmlDeviceGetVbiosVersion", "nvmlDeviceGetModuleId",
    "nvmlDeviceGetMinorNumber", "nvmlDeviceGetNumaNodeId", "nvmlDeviceGetArchitecture",
    "nvmlDeviceGetNumFans", "nvmlDeviceGetCudaComputeCapability", "nvmlDeviceGetPciInfo_v3",
    "nvmlDeviceGetFieldValues", "nvmlDeviceGetSamples", "nvmlDeviceGetNvLinkState",
    "nvmlDeviceGetMigMode", "nvmlDeviceGetMaxMigDeviceCount",
    "nvmlDeviceGetMigDeviceHandleByIndex", "nvmlDeviceGetGpuInstanceId",
    "nvmlDeviceGetComputeInstanceId", "nvmlDeviceGetAttributes_v2", "nvmlDeviceGetGpuInstanceById",
    "nvmlGpuInstanceGetInfo", "nvmlDeviceGetComputeRunningProcesses_v3",
    "nvmlDeviceGetGraphicsRunningProcesses_v3", "nvmlGpmQueryDeviceSupport", "nvmlGpmSampleAlloc",
    "nvmlGpmSampleFree", "nvmlGpmSampleGet", "nvmlGpmMigSampleGet", "nvmlGpmMetricsGet",
    "nvmlDeviceGetSupportedEventTypes", "nvmlDeviceRegisterEvents",
)
assert len(OTHERS) == N_OTHERS

CODES = {
    1: "UNINITIALIZED", 2: "INVALID_ARGUMENT", 3: "NOT_SUPPORTED", 4: "NO_PERMISSION",
    6: "NOT_FOUND", 7: "INSUFFICIENT_SIZE", 8: "INSUFFICIENT_POWER", 9: "DRIVER_NOT_LOADED",
    10: "TIMEOUT", 11: "IRQ_ISSUE", 12: "LIBRARY_NOT_FOUND", 13: "FUNCTION_NOT_FOUND",
    14: "CORRUPTED_INFOROM", 15: "GPU_IS_LOST", 16: "RESET_REQUIRED", 17: "OPERATING_SYSTEM",
    18: "LIB_RM_VERSION_MISMATCH", 19: "IN_USE", 20: "MEMORY", 21: "NO_DATA",
    23: "INSUFFICIENT_RESOURCES", 25: "ARGUMENT_VERSION_MISMATCH", 27: "NOT_READY",
    28: "GPU_NOT_FOUND", 29: "INVALID_STATE", 999: "UNKNOWN",
}

cdef struct Entry:              # one value of a step
    uint32_t id, scope          # a field or metric; the scope of a field
    int position                # of its value; -1: not wanted
    int sum                     # the position that it is added to; -1: none
    int words                   # that a number may stand for
    int flags
    bint link                   # whether scope is a link
    double num, den

cdef struct Step:
    int kind, call
    int[3] argument
    int64_t period              # ns
    int first, n                # entries
    bint whole                  # of no meaning in MIG mode
    bint common                 # asks the library, and not the device
    bint link, fan              # whether the argument is a link, or a fan


@cython.final
cdef class Plan:
    """What to read of a GPU, or of a MIG instance: steps, each of which fills some positions.

    A step is one call, or one batch of fields. Its period is in seconds; 0: with every reading, a
    scrape's too; -1: with every tick; -2: until it has been read. Two steps may fill the same position: the second one
    is for devices that do not support the first. An entry is (position, num, den, flags, words):
    its value is what was read times num over den. With words, which need the flag WORD, position is
    the first of as many: the one that the number stands for becomes 1, the others are absent.
    """

    cdef Step *steps
    cdef Entry *entries
    cdef int n_steps, n_entries, positions

    def __dealloc__(self):
        free(self.steps)
        free(self.entries)

    cdef Step *_step(self, int kind, double period, bint whole) except NULL:
        cdef void *moved = realloc(self.steps, (self.n_steps + 1) * sizeof(Step))
        cdef Step *step
        if moved == NULL:
            raise MemoryError
        self.steps = <Step *>moved
        step = &self.steps[self.n_steps]
        memset(step, 0, sizeof(Step))
        step.kind = kind
        step.period = <int64_t>(period * 1e9)
        step.first = self.n_entries
        step.whole = whole
        self.n_steps += 1
        return step

    cdef int _entry(self, uint32_t id, int64_t scope, bint link, int total, entry) except -1:
        cdef void *moved = realloc(self.entries, (self.n_entries + 1) * sizeof(Entry))
        cdef Entry *e
        if moved == NULL:
            raise MemoryError
        self.entries = <Entry *>moved
        e = &self.entries[self.n_entries]
        memset(e, 0, sizeof(Entry))
        e.id = id
        e.scope = <uint32_t>scope
        e.link = link
        e.sum = total
        e.position, e.num, e.den, e.flags, e.words = entry
        if e.words < 1 or e.position + e.words > 1 << 16:
            raise ValueError(f"{entry} is no entry")
        self.positions = max(self.positions, e.position + e.words, total + 1)
        self.n_entries += 1
        self.steps[self.n_steps - 1].n += 1

    def call(self, str name not None, double period, entries, argument=(), bint whole=False,
             bint link=False, bint fan=False):
        """One call of the table, by name; an entry for each of its outputs, None where one is not
        wanted. whole: not in MIG mode. link, fan: the argument is one, and the GPU may have
        fewer."""
        cdef Step *step
        cdef int i
        for i in range(NVML_N_CALLS):
            if NVML_CALLS[i].name == name.encode():
                break
        else:
            raise ValueError(f"{name}: no such call")
        if len(entries) != NVML_CALLS[i].outputs or len(argument) > 3:
            raise ValueError(f"{name}: {NVML_CALLS[i].outputs} values, not {len(entries)}")
        step = self._step(CALL, period, whole)
        step.call = i
        step.link, step.fan = link, fan
        step.common = name == "conf_compute"
        for k, value in enumerate(argument):
            step.argument[k] = value
        for entry in entries:
            self._entry(0, 0, False, -1, entry or (-1, 1, 1, 0, 1))

    def fields(self, double period, entries, bint whole=False):
        """A batch of fields: (field, scope, link, total, entry) each. link: scope is a link; total:
        a position to which the value is added, or -1."""
        self._step(FIELDS, period, whole)
        if len(entries) > FIELDS_MOST:
            raise ValueError(f"{len(entries)} fields are too many")
        for id, scope, link, total, entry in entries:
            self._entry(id, scope, link, total, entry)

    def gpm(self, double period, entries):
        """Metrics of two GPM samples: (metric, entry) each."""
        self._step(GPM, period, False)
        if len(entries) >= NVML_GPM_METRIC_MAX // 4:
            raise ValueError(f"{len(entries)} metrics are too many")
        for id, entry in entries:
            self._entry(id, 0, False, -1, entry)

    def ring(self, double period, int kind, entries, bint whole=False):
        """Minimum, mean and maximum of a ring of samples, over the window."""
        cdef int i, rings = 0
        cdef Step *step
        for i in range(self.n_steps):
            rings += self.steps[i].kind == RING
        if rings == RINGS or len(entries) != 3:
            raise ValueError("too many rings, or not three entries")
        step = self._step(RING, period, whole)
        step.argument[0] = kind
        step.argument[1] = rings
        for entry in entries:
            self._entry(0, 0, False, -1, entry)

    def processes(self, double period, int kind, entry):
        """The processes on a GPU: 0 with compute contexts, 1 with graphics. The entry takes their
        number."""
        cdef Step *step = self._step(LIST, period, False)
        if not 0 <= kind <= 1:
            raise ValueError(f"{kind}: no such kind of processes")
        step.argument[0] = kind
        self._entry(0, 0, False, -1, entry)


cdef struct Bucket:
    int64_t number
    double low, high, total, count

cdef struct Ring:
    unsigned long long last     # time stamp of the newest sample
    Bucket[BUCKETS] buckets

cdef struct Subject:            # a GPU or a MIG instance, as it is read
    nvml_target target
    const Step *steps
    const Entry *entries
    int n_steps, n_entries, positions
    double *values              # by position
    int32_t *slots              # the table's, by position; -1: none yet
    uint32_t *claimed           # by position: the reading in which a step was responsible for it
    unsigned char *variant      # by step: the one to try; GONE
    unsigned char *split        # by step: how a batch is called
    int64_t *due                # by step: ns
    unsigned char *off          # by entry: not supported
    double *last                # by entry, of counters of 32 bits
    double *base
    uint32_t reading
    Ring *rings
    nvmlGpmSample_t[2] gpm
    int64_t gpm_at              # when the newest sample was taken; 0: none
    int gpm_newest
    bint wanted, decided        # by the lane
    int index, gi, ci           # of an instance
    char[TEXT] uuid
    char[TEXT] name
    int start, size             # placement
    double multiprocessors

cdef struct Process:
    uint32_t pid
    double memory               # NAN: unknown

cdef struct Slot:               # what is at an index of the library
    crew_task base              # first: the crew knows a task by it
    Fleet *fleet
    uint32_t index
    bint tick
    bint finished               # whether the task has made its reading
    bint done, stuck            # the lane's: it has, and a call to it has not returned
    bint late                   # it had not when it was last waited for
    bint asked                  # there is something to read that was not
    bint placed                 # whether index is where it is now
    bint check                  # which GPU it is, is to be known before it is read
    bint hidden                 # the GPU hangs in another slot, where it was before others left
    bint renewed                # it has another UUID than the lane knows
    bint listed                 # whether its MIG instances have been listed
    bint stale                  # whether the handle must be got anew
    bint described, registered
    int lost                    # the error of a GPU that cannot be read; 0
    int code                    # of the library: it must be initialised anew, or worse
    int failed_function, failed_code, failures, answers
    int64_t at                  # when the last call had come back
    int gpm                     # whether it is supported: 1, 0, -1 unknown
    int topology                # another number when MIG instances came or went
    int n_instances
    int max_instances
    Subject gpu
    Subject[INSTANCES] instances
    int[2] n_processes
    Process *processes          # PROCESSES of each kind
    int[6] numbers              # module, minor, numa, architecture, major, minor; -1: unknown
    char[TEXT] serial
    char[TEXT] part
    char[TEXT] vbios
    char[TEXT] pci
    uint64_t[N_FUNCTIONS] calls
    uint64_t[N_FUNCTIONS] ns


cdef struct Fleet:
    Slot *slots[MOST]
    int n
    bint mig, events
    int64_t window              # ns
    nvmlEventSet_t set
    const Step *steps           # of a MIG instance
    const Entry *entries
    int n_steps, n_entries, positions


# ------------------------------------------------------------------------------ counting and errors

cdef inline void count(Slot *slot, int function) noexcept nogil:
    """Counts a call that has just come back; its time is that since the one before."""
    cdef int64_t now = crew_now()
    slot.calls[function] += 1
    slot.ns[function] += now - slot.at
    slot.at = now


cdef inline int counted(Slot *slot, int other, int code) noexcept nogil:
    count(slot, N_CALLS_TABLE + other)
    return code


cdef inline bint permanent(int code) noexcept nogil:
    """Whether asking again is of no use until the driver or the device has changed."""
    return (code == NVML_ERROR_NOT_SUPPORTED or code == NVML_ERROR_FUNCTION_NOT_FOUND
            or code == NVML_ERROR_ARGUMENT_VERSION_MISMATCH)


cdef bint fatal(Slot *slot, int code) noexcept nogil:
    """Whether an error ends the reading of this GPU; remembers it."""
    if code == NVML_ERROR_GPU_IS_LOST or code == NVML_ERROR_RESET_REQUIRED:
        slot.lost = code
        slot.stale = slot.stale or code == NVML_ERROR_GPU_IS_LOST
        return True
    if (code == NVML_ERROR_UNINITIALIZED or code == NVML_ERROR_DRIVER_NOT_LOADED
            or code == NVML_ERROR_LIB_RM_VERSION_MISMATCH):
        slot.lost = slot.code = code
        return True
    return False


cdef bint fails(Slot *slot, int function, int code) noexcept nogil:
    """Notes how a call went; whether it ends the reading of this GPU."""
    if fatal(slot, code):
        return True
    slot.answers += code == NVML_SUCCESS
    if code == NVML_ERROR_INVALID_ARGUMENT:     # also what a handle of before gets
        slot.stale = True
    if code != NVML_SUCCESS and not permanent(code):
        if slot.failures == 0:
            slot.failed_function = function
            slot.failed_code = code
        slot.failures += 1
    return False


# --------------------------------------------------------------------------- subjects and values

cdef int subject_init(Subject *s, const Step *steps, int n_steps, const Entry *entries,
                      int n_entries, int positions) noexcept nogil:
    """Makes room; -1 where there is none."""
    cdef int i
    memset(s, 0, sizeof(Subject))
    s.steps, s.entries = steps, entries
    s.n_steps, s.n_entries, s.positions = n_steps, n_entries, positions
    s.values = <double *>calloc(positions + 1, sizeof(double))
    s.slots = <int32_t *>calloc(positions + 1, sizeof(int32_t))
    s.claimed = <uint32_t *>calloc(positions + 1, sizeof(uint32_t))
    s.variant = <unsigned char *>calloc(n_steps + 1, 1)
    s.split = <unsigned char *>calloc(n_steps + 1, 1)
    s.due = <int64_t *>calloc(n_steps + 1, sizeof(int64_t))
    s.off = <unsigned char *>calloc(n_entries + 1, 1)
    s.last = <double *>calloc(n_entries + 1, sizeof(double))
    s.base = <double *>calloc(n_entries + 1, sizeof(double))
    s.rings = <Ring *>calloc(RINGS, sizeof(Ring))
    if (s.values == NULL or s.slots == NULL or s.claimed == NULL or s.variant == NULL
            or s.split == NULL or s.due == NULL or s.off == NULL or s.last == NULL
            or s.base == NULL or s.rings == NULL):
        subject_free(s)
        return -1
    for i in range(positions):
        s.slots[i] = -1
    subject_reset(s)
    return 0


cdef void subject_free(Subject *s) noexcept nogil:
    free(s.values)
    free(s.slots)
    free(s.claimed)
    free(s.variant)
    free(s.split)
    free(s.due)
    free(s.off)
    free(s.last)
    free(s.base)
    free(s.rings)
    memset(s, 0, sizeof(Subject))


cdef void subject_absent(Subject *s) noexcept nogil:
    """Makes every value absent, and due."""
    cdef int i
    for i in range(s.positions):
        s.values[i] = NAN
    for i in range(s.n_steps):
        s.due[i] = 0


cdef void subject_forget(Subject *s) noexcept nogil:
    """Forgets what is not supported."""
    memset(s.variant, 0, s.n_steps)
    memset(s.split, 0, s.n_steps)
    memset(s.off, 0, s.n_entries)
    subject_absent(s)


cdef void subject_reset(Subject *s) noexcept nogil:
    """Forgets everything that was read."""
    cdef int i
    subject_forget(s)
    for i in range(s.n_entries):
        s.last[i] = NAN
        s.base[i] = 0
    memset(s.rings, 0, RINGS * sizeof(Ring))
    s.target.reasons = 0
    s.gpm_at = 0


cdef double unwrap(Subject *s, int i, double raw) noexcept nogil:
    """A counter of 32 bits as one that does not start over: a fall of more than half is a wrap,
    any other a reset."""
    if raw == raw:
        if raw < s.last[i]:
            s.base[i] = s.base[i] + 4294967296.0 if s.last[i] - raw > 2147483648.0 else 0
        s.last[i] = raw
        raw += s.base[i]
    return raw


cdef void put(Subject *s, int i, double raw, bint wraps=False) noexcept nogil:
    """Stores what was read for an entry."""
    cdef const Entry *e = &s.entries[i]
    cdef int k
    if e.flags & IS_COUNTER and raw < 0:    # NVML_VALUE_NOT_AVAILABLE is -1
        raw = NAN
    if wraps:
        raw = unwrap(s, i, raw)
    if e.flags & IS_WORD:
        for k in range(e.words):
            s.values[e.position + k] = 1 if raw == k else NAN
        return
    if e.flags & IS_ERROR_RATE and raw == raw:
        raw = ((<uint64_t>raw >> 8) & 0xF) * pow(10, -<double>(<uint64_t>raw & 0xFF))
    elif e.flags & IS_FLAG and raw == raw:
        raw = raw != 0
    else:
        raw = raw * e.num / e.den
    if e.position >= 0:
        s.values[e.position] = raw
    if e.sum >= 0:
        s.values[e.sum] += raw  # NAN stays: a sum without one of its parts would be a lie


cdef inline bint free_for(Subject *s, int position) noexcept nogil:
    """Whether a position is wanted, and no earlier step of this reading is responsible for it."""
    return position >= 0 and s.claimed[position] != s.reading


cdef void clear(Subject *s, const Step *step) noexcept nogil:
    """Makes the values of a step absent."""
    cdef int i, k
    cdef const Entry *e
    for i in range(step.first, step.first + step.n):
        e = &s.entries[i]
        if free_for(s, e.position):
            for k in range(e.words):
                s.values[e.position + k] = NAN
        if free_for(s, e.sum):
            s.values[e.sum] = NAN


# ------------------------------------------------------------------------------------- the steps

cdef bint read_call(Slot *slot, Subject *s, int at) noexcept nogil:
    """One call of the table; whether the reading may go on."""
    cdef const Step *step = &s.steps[at]
    cdef double[NVML_OUTPUTS] out
    cdef int i, code = NVML_ERROR_FUNCTION_NOT_FOUND, variant = s.variant[at]
    while variant < NVML_VARIANTS and NVML_CALLS[step.call].variants[variant].run != NULL:
        for i in range(NVML_OUTPUTS):
            out[i] = NAN
        code = NVML_CALLS[step.call].variants[variant].run(&s.target, step.argument, out)
        if code != NVML_ERROR_FUNCTION_NOT_FOUND:
            count(slot, step.call * NVML_VARIANTS + variant)
        if not permanent(code):
            break
        variant += 1
    s.variant[at] = GONE if permanent(code) else variant
    if code == NVML_SUCCESS:
        for i in range(step.n):
            put(s, step.first + i, out[i], NVML_CALLS[step.call].bits == 32)
    slot.answers -= step.common and code == NVML_SUCCESS
    return not fails(slot, step.call * NVML_VARIANTS + variant, code)


cdef double value_of(int type, const nvmlValue_t *value) noexcept nogil:
    if type == NVML_VALUE_TYPE_DOUBLE:
        return nvml_f64(value.dVal)
    if type == NVML_VALUE_TYPE_UNSIGNED_INT:
        return nvml_u32(value.uiVal)
    if type == NVML_VALUE_TYPE_UNSIGNED_LONG or type == NVML_VALUE_TYPE_UNSIGNED_LONG_LONG:
        return nvml_u64(value.ullVal)
    if type == NVML_VALUE_TYPE_SIGNED_LONG_LONG:
        return nvml_i64(value.sllVal)
    if type == NVML_VALUE_TYPE_SIGNED_INT:
        return nvml_i32(value.siVal)
    if type == NVML_VALUE_TYPE_UNSIGNED_SHORT:
        return value.usVal if value.usVal != 0xFFFF else NAN
    return NAN


cdef bint take_field(Slot *slot, Subject *s, int i, nvmlFieldValue_t *field) noexcept nogil:
    """Stores the value of a field, or notes its error; whether the reading may go on."""
    cdef double raw
    if field.nvmlReturn != NVML_SUCCESS:
        if s.entries[i].sum >= 0:
            s.values[s.entries[i].sum] = NAN
        return not fails(slot, N_CALLS_TABLE + F_FIELDS, field.nvmlReturn)
    raw = value_of(field.valueType, &field.value)
    put(s, i, raw, s.entries[i].flags & IS_COUNTER and field.valueType == NVML_VALUE_TYPE_UNSIGNED_INT)
    return True


cdef inline bint unknown(int code) noexcept nogil:
    """What drivers answer for a field that they, or the device, do not have."""
    return (permanent(code) or code == NVML_ERROR_INVALID_ARGUMENT
            or code == NVML_ERROR_NOT_FOUND)


cdef bint read_fields(Slot *slot, Subject *s, int at) noexcept nogil:
    """A batch of fields in one call. Where none of a batch has a value, each is asked alone, once:
    one that is not known to a driver may spoil all others."""
    cdef const Step *step = &s.steps[at]
    cdef nvmlFieldValue_t[FIELDS_MOST] batch
    cdef int[FIELDS_MOST] entry
    cdef int i, k, bad, n = 0, good = 0, code = NVML_SUCCESS
    cdef const Entry *e
    if nvmlDeviceGetFieldValues == NULL:
        s.variant[at] = GONE
        return True
    for i in range(step.first, step.first + step.n):
        e = &s.entries[i]
        if s.off[i] or (e.link and <int>e.scope >= s.target.links):
            continue
        if not free_for(s, e.position) and not free_for(s, e.sum):
            continue            # an earlier step reads it
        if e.sum >= 0:
            s.values[e.sum] = 0
        memset(&batch[n], 0, sizeof(nvmlFieldValue_t))
        batch[n].fieldId = e.id
        batch[n].scopeId = e.scope
        entry[n] = i
        n += 1
    if n == 0:
        s.variant[at] = GONE
        return True
    if s.split[at] != ALONE:
        code = counted(slot, F_FIELDS, nvmlDeviceGetFieldValues(s.target.handle, n, batch))
        if code != NVML_SUCCESS and not unknown(code):
            clear(s, step)
            return not fails(slot, N_CALLS_TABLE + F_FIELDS, code)
        if code == NVML_SUCCESS:
            for i in range(n):
                good += not unknown(batch[i].nvmlReturn)
    if code == NVML_ERROR_INVALID_ARGUMENT:
        slot.stale = True
    if good == 0 and (n > 1 or code != NVML_SUCCESS):
        for i in range(n):
            # Of a field that two links do not know, no other link is asked.
            code = NVML_ERROR_NOT_SUPPORTED
            bad = 0
            for k in range(i):
                bad += batch[k].fieldId == batch[i].fieldId and unknown(batch[k].nvmlReturn)
            if bad < 2:
                code = counted(slot, F_FIELDS,
                               nvmlDeviceGetFieldValues(s.target.handle, 1, &batch[i]))
            if code != NVML_SUCCESS:
                batch[i].nvmlReturn = code
        s.split[at] += s.split[at] < ALONE
    good = 0
    for i in range(n):
        if unknown(batch[i].nvmlReturn):
            s.off[entry[i]] = True
        else:
            good += 1
            slot.answers += batch[i].nvmlReturn == NVML_SUCCESS
            if not take_field(slot, s, entry[i], &batch[i]):
                return False
    if good == 0:
        s.variant[at] = GONE
        clear(s, step)
    return True


cdef bint read_gpm(Slot *slot, Subject *s, int at) noexcept nogil:
    """Metrics between the sample of the tick before and a new one."""
    cdef const Step *step = &s.steps[at]
    cdef nvmlGpmMetricsGet_t *metrics
    cdef nvmlGpmSupport_t support
    cdef int[NVML_GPM_METRIC_MAX] entry
    cdef int64_t now = crew_now()
    cdef int i, code, alone, other = 1 - s.gpm_newest, n = 0
    if slot.gpm < 0:
        slot.gpm = 0
        if (nvmlGpmQueryDeviceSupport != NULL and nvmlGpmSampleAlloc != NULL
                and nvmlGpmSampleFree != NULL and nvmlGpmSampleGet != NULL
                and nvmlGpmMetricsGet != NULL):
            support.version = NVML_GPM_SUPPORT_VERSION
            support.isSupportedDevice = 0
            code = counted(
                slot, F_GPM_SUPPORT, nvmlGpmQueryDeviceSupport(slot.gpu.target.handle, &support))
            if code == NVML_SUCCESS:
                slot.gpm = support.isSupportedDevice != 0
            elif not permanent(code):
                slot.gpm = -1
                return not fails(slot, N_CALLS_TABLE + F_GPM_SUPPORT, code)
    if slot.gpm <= 0 or (s.gi >= 0 and nvmlGpmMigSampleGet == NULL):
        s.variant[at] = GONE
        return True
    if s.gpm_at and now - s.gpm_at < GPM_APART:
        return True
    clear(s, step)
    for i in range(2):
        if s.gpm[i] == NULL:
            code = counted(slot, F_GPM_ALLOC, nvmlGpmSampleAlloc(&s.gpm[i]))
            if code != NVML_SUCCESS:
                s.gpm[i] = NULL
                return not fails(slot, N_CALLS_TABLE + F_GPM_ALLOC, code)
    if s.gi >= 0:
        code = counted(slot, F_GPM_MIG_GET, nvmlGpmMigSampleGet(
            slot.gpu.target.handle, <unsigned int>s.gi, s.gpm[other]))
    else:
        code = counted(slot, F_GPM_GET, nvmlGpmSampleGet(s.target.handle, s.gpm[other]))
    if code != NVML_SUCCESS:
        s.gpm_at = 0
        if permanent(code):
            s.variant[at] = GONE
        return not fails(slot, N_CALLS_TABLE + F_GPM_GET, code)
    s.gpm_newest = other
    if s.gpm_at:
        metrics = <nvmlGpmMetricsGet_t *>calloc(1, sizeof(nvmlGpmMetricsGet_t))
        if metrics == NULL:
            return True
        metrics.version = NVML_GPM_METRICS_GET_VERSION
        metrics.sample1 = s.gpm[1 - other]
        metrics.sample2 = s.gpm[other]
        for i in range(step.first, step.first + step.n):
            if not s.off[i] and free_for(s, s.entries[i].position):
                metrics.metrics[n].metricId = s.entries[i].id
                entry[n] = i
                n += 1
        metrics.numMetrics = n
        code = counted(slot, F_GPM_METRICS, nvmlGpmMetricsGet(metrics)) if n else NVML_SUCCESS
        if unknown(code) and s.split[at] < ALONE:
            # The driver does not know one of them, or, where none has a value alone, a sample is
            # of another instance that had the same place.
            s.split[at] += 1
            metrics.numMetrics = 1
            for i in range(n - 1, -1, -1):
                metrics.metrics[0].metricId = s.entries[entry[i]].id
                alone = counted(slot, F_GPM_METRICS, nvmlGpmMetricsGet(metrics))
                if alone != NVML_SUCCESS:
                    metrics.metrics[0].nvmlReturn = (
                        NVML_ERROR_NOT_SUPPORTED if unknown(alone) else alone)
                elif metrics.metrics[0].nvmlReturn == NVML_SUCCESS:
                    code = NVML_SUCCESS
                metrics.metrics[i] = metrics.metrics[0]
        if code == NVML_SUCCESS:
            for i in range(n):
                if metrics.metrics[i].nvmlReturn == NVML_SUCCESS:
                    put(s, entry[i], nvml_f64(metrics.metrics[i].value))
                elif permanent(metrics.metrics[i].nvmlReturn):
                    s.off[entry[i]] = True
        free(metrics)
        if code != NVML_SUCCESS and fails(slot, N_CALLS_TABLE + F_GPM_METRICS, code):
            return False
    s.gpm_at = now
    return True


cdef bint read_ring(Slot *slot, Subject *s, int at) noexcept nogil:
    """Takes the new samples of a ring, and puts together what the window has."""
    cdef const Step *step = &s.steps[at]
    cdef Ring *ring = &s.rings[step.argument[1]]
    cdef nvmlSample_t[SAMPLES_MOST] samples
    cdef unsigned int i, n = SAMPLES_MOST
    cdef int code, type = NVML_VALUE_TYPE_UNSIGNED_INT
    cdef int64_t now = crew_now(), width = slot.fleet.window // BUCKETS + 1, number
    cdef Bucket *bucket
    cdef double value, low = NAN, high = NAN, total = 0, counted_samples = 0
    cdef unsigned long long newest = 0, age, window = slot.fleet.window // 1000
    if nvmlDeviceGetSamples == NULL:
        s.variant[at] = GONE
        return True
    memset(samples, 0, sizeof(samples))
    code = counted(slot, F_SAMPLES, nvmlDeviceGetSamples(
        s.target.handle, step.argument[0], ring.last, &type, &n, samples))
    if code == NVML_ERROR_NOT_FOUND:    # nothing new
        n = 0
    elif code != NVML_SUCCESS:
        if permanent(code):
            s.variant[at] = GONE
        return not fails(slot, N_CALLS_TABLE + F_SAMPLES, code)
    n = min(n, <unsigned int>SAMPLES_MOST)
    for i in range(n):
        newest = max(newest, samples[i].timeStamp)
    for i in range(n):
        value = value_of(type, &samples[i].sampleValue)
        age = newest - samples[i].timeStamp     # the driver's clock may be another than ours
        if value != value or samples[i].timeStamp <= ring.last or age > window:
            continue
        number = (now - <int64_t>age * 1000) // width
        bucket = &ring.buckets[number % BUCKETS]
        if bucket.number != number:
            memset(bucket, 0, sizeof(Bucket))
            bucket.number = number
        if bucket.count == 0 or value < bucket.low:
            bucket.low = value
        if bucket.count == 0 or value > bucket.high:
            bucket.high = value
        bucket.total += value
        bucket.count += 1
    ring.last = max(ring.last, newest)
    for i in range(BUCKETS):
        bucket = &ring.buckets[i]
        if bucket.count and bucket.number > now // width - BUCKETS:
            low = bucket.low if not low <= bucket.low else low
            high = bucket.high if not high >= bucket.high else high
            total += bucket.total
            counted_samples += bucket.count
    put(s, step.first, low)
    put(s, step.first + 1, total / counted_samples if counted_samples else NAN)
    put(s, step.first + 2, high)
    return True


cdef bint read_list(Slot *slot, Subject *s, int at) noexcept nogil:
    """The processes of one kind."""
    cdef const Step *step = &s.steps[at]
    cdef int i, code, kind = step.argument[0], function = F_GRAPHICS if kind else F_COMPUTE
    cdef unsigned int n = PROCESSES
    cdef Process *process
    cdef nvmlProcessInfo_t *found
    slot.n_processes[kind] = 0
    if (nvmlDeviceGetGraphicsRunningProcesses_v3 == NULL if kind
            else nvmlDeviceGetComputeRunningProcesses_v3 == NULL):
        s.variant[at] = GONE
        return True
    found = <nvmlProcessInfo_t *>calloc(PROCESSES, sizeof(nvmlProcessInfo_t))
    if found == NULL:
        return True
    if kind:
        code = nvmlDeviceGetGraphicsRunningProcesses_v3(s.target.handle, &n, found)
    else:
        code = nvmlDeviceGetComputeRunningProcesses_v3(s.target.handle, &n, found)
    counted(slot, function, code)
    if code == NVML_SUCCESS:
        n = min(n, <unsigned int>PROCESSES)
        for i in range(<int>n):
            process = &slot.processes[kind * PROCESSES + i]
            process.pid = found[i].pid
            process.memory = nvml_u64(found[i].usedGpuMemory)
        slot.n_processes[kind] = n
        put(s, step.first, n)
    elif permanent(code):
        s.variant[at] = GONE
    free(found)
    return not fails(slot, N_CALLS_TABLE + function, code)


cdef bint read_subject(Slot *slot, Subject *s) noexcept nogil:
    """Every step that is due; whether the GPU could be read."""
    cdef const Step *step
    cdef const Entry *e
    cdef int64_t now = crew_now()
    cdef int at, i, failures
    cdef bint wanted, again
    s.reading += 1
    for at in range(s.n_steps):
        step = &s.steps[at]
        if (s.variant[at] == GONE or (step.link and step.argument[0] >= s.target.links)
                or (step.fan and step.argument[0] >= s.target.fans)):
            continue
        if step.whole and slot.gpu.target.mig:
            clear(s, step)
            s.due[at] = 0
            continue
        wanted = step.n == 0
        for i in range(step.first, step.first + step.n):
            e = &s.entries[i]
            if not s.off[i] and (free_for(s, e.position) or free_for(s, e.sum)):
                wanted = True
                break
        if not wanted:
            continue
        if step.period == 0 or (slot.tick and now >= s.due[at]):
            if step.kind != GPM:
                clear(s, step)
            failures = slot.failures
            if step.kind == CALL:
                again = read_call(slot, s, at)
            elif step.kind == FIELDS:
                again = read_fields(slot, s, at)
            elif step.kind == GPM:
                again = read_gpm(slot, s, at)
            elif step.kind == RING:
                again = read_ring(slot, s, at)
            else:
                again = read_list(slot, s, at)
            if not again:
                return False
            if slot.failures == failures and step.period == ONCE_NS:
                s.due[at] = FOREVER
            elif slot.failures == failures and step.period > 0:     # ticks may come a little early
                s.due[at] = now + step.period - step.period // 10
        if s.variant[at] != GONE:
            for i in range(step.first, step.first + step.n):
                e = &s.entries[i]
                if not s.off[i] and not (e.link and <int>e.scope >= s.target.links):
                    if e.position >= 0:
                        s.claimed[e.position] = s.reading
                    if e.sum >= 0:
                        s.claimed[e.sum] = s.reading
    return True


# ------------------------------------------------------------------------- a GPU and its instances

cdef void describe(Slot *slot) noexcept nogil:
    """Reads what a GPU is. What cannot be read stays unknown."""
    cdef nvmlDevice_t handle = slot.gpu.target.handle
    cdef nvmlPciInfo_t pci
    cdef nvmlFieldValue_t field
    cdef unsigned int value
    cdef int i, state
    for i in range(6):
        slot.numbers[i] = -1
    slot.gpu.name[0] = slot.serial[0] = slot.part[0] = slot.vbios[0] = slot.pci[0] = 0
    if nvmlDeviceGetName != NULL:
        state = counted(slot, F_NAME, nvmlDeviceGetName(handle, slot.gpu.name, TEXT))
        if state != NVML_SUCCESS:
            slot.gpu.name[0] = 0
        if fatal(slot, state):
            return
    if nvmlDeviceGetSerial != NULL and counted(
            slot, F_SERIAL, nvmlDeviceGetSerial(handle, slot.serial, TEXT)):
        slot.serial[0] = 0
    if nvmlDeviceGetBoardPartNumber != NULL and counted(
            slot, F_PART, nvmlDeviceGetBoardPartNumber(handle, slot.part, TEXT)):
        slot.part[0] = 0
    if nvmlDeviceGetVbiosVersion != NULL and counted(
            slot, F_VBIOS, nvmlDeviceGetVbiosVersion(handle, slot.vbios, TEXT)):
        slot.vbios[0] = 0
    if nvmlDeviceGetPciInfo_v3 != NULL and counted(
            slot, F_PCI, nvmlDeviceGetPciInfo_v3(handle, &pci)) == NVML_SUCCESS:
        pci.busId[31] = 0
        strcpy(slot.pci, pci.busId)
    # Each is unknown at the largest value of its type, too: that is -1.
    if nvmlDeviceGetModuleId != NULL and counted(
            slot, F_MODULE, nvmlDeviceGetModuleId(handle, &value)) == NVML_SUCCESS:
        slot.numbers[0] = <int>value
    if nvmlDeviceGetMinorNumber != NULL and counted(
            slot, F_MINOR, nvmlDeviceGetMinorNumber(handle, &value)) == NVML_SUCCESS:
        slot.numbers[1] = <int>value
    if nvmlDeviceGetNumaNodeId != NULL and counted(
            slot, F_NUMA, nvmlDeviceGetNumaNodeId(handle, &value)) == NVML_SUCCESS:
        slot.numbers[2] = <int>value
    if nvmlDeviceGetArchitecture != NULL and counted(
            slot, F_ARCHITECTURE, nvmlDeviceGetArchitecture(handle, &value)) == NVML_SUCCESS:
        slot.numbers[3] = <int>value
    if nvmlDeviceGetCudaComputeCapability != NULL and counted(
            slot, F_CAPABILITY, nvmlDeviceGetCudaComputeCapability(
                handle, &slot.numbers[4], &slot.numbers[5])):
        slot.numbers[4] = slot.numbers[5] = -1
    # Drivers that cannot count fans know of one.
    slot.gpu.target.fans = nvmlDeviceGetNumFans == NULL
    if nvmlDeviceGetNumFans != NULL and counted(
            slot, F_FANS, nvmlDeviceGetNumFans(handle, &value)) == NVML_SUCCESS and value < 64:
        slot.gpu.target.fans = <int>value
    slot.gpu.target.links = 0
    memset(&field, 0, sizeof(field))
    field.fieldId = 91          # NVML_FI_DEV_NVLINK_LINK_COUNT
    if (nvmlDeviceGetFieldValues != NULL
            and counted(slot, F_FIELDS, nvmlDeviceGetFieldValues(handle, 1, &field)) == 0
            and field.nvmlReturn == NVML_SUCCESS and 0 < field.value.uiVal):
        slot.gpu.target.links = min(<int>min(field.value.uiVal, 1000u), NVML_NVLINK_MAX_LINKS)
    elif nvmlDeviceGetNvLinkState != NULL:
        for i in range(NVML_NVLINK_MAX_LINKS):
            if counted(slot, F_LINK, nvmlDeviceGetNvLinkState(handle, i, &state)):
                break
            slot.gpu.target.links += 1
    slot.described = True


cdef bint resolve(Slot *slot) noexcept nogil:
    """Gets the handle of the GPU that is at the index now. Another GPU than before has nothing
    of the one before. Whether it may be read; another one not before the lane has seen it."""
    cdef bint renewed
    cdef char[TEXT] uuid
    cdef nvmlDevice_t handle
    cdef int code
    code = counted(slot, F_HANDLE, nvmlDeviceGetHandleByIndex_v2(slot.index, &handle))
    if code == NVML_SUCCESS:
        memset(uuid, 0, TEXT)
        code = counted(slot, F_UUID, nvmlDeviceGetUUID(handle, uuid, TEXT - 1))
    if code != NVML_SUCCESS:
        if not fails(slot, N_CALLS_TABLE + F_HANDLE, code):
            slot.lost = code
        return False
    renewed = strcmp(uuid, slot.gpu.uuid) != 0
    if renewed:
        strcpy(slot.gpu.uuid, uuid)
        subject_reset(&slot.gpu)
        slot.described = slot.registered = slot.listed = False
        slot.gpu.wanted = slot.gpu.decided = False
        slot.renewed = True
        slot.gpm = -1
        forget_instances(slot)
    elif handle != slot.gpu.target.handle:
        subject_forget(&slot.gpu)
        slot.gpu.gpm_at = 0
    slot.gpu.target.handle = handle
    slot.stale = False
    return not renewed


cdef void release_samples(Subject *s) noexcept nogil:
    cdef int i
    for i in range(2):
        if s.gpm[i] != NULL and nvmlGpmSampleFree != NULL:
            nvmlGpmSampleFree(s.gpm[i])
        s.gpm[i] = NULL
    s.gpm_at = 0


cdef inline void topology_changes(Slot *slot) noexcept nogil:
    """Notes that instances have come or gone; the lane decides anew what is to be read."""
    slot.topology += 1
    slot.gpu.decided = False


cdef void forget_instances(Slot *slot) noexcept nogil:
    cdef int i
    for i in range(slot.n_instances):
        release_samples(&slot.instances[i])
        subject_free(&slot.instances[i])
    if slot.n_instances:
        topology_changes(slot)
    slot.n_instances = 0
    slot.max_instances = -1


cdef bint describe_instance(Slot *slot, Subject *s) noexcept nogil:
    """Reads what an instance is; whether it is still there."""
    cdef nvmlDeviceAttributes_t attributes
    cdef nvmlGpuInstance_t handle
    cdef nvmlGpuInstanceInfo_t info
    cdef unsigned int value
    cdef int code
    if (nvmlDeviceGetGpuInstanceId == NULL or nvmlDeviceGetComputeInstanceId == NULL
            or counted(slot, F_GI, nvmlDeviceGetGpuInstanceId(s.target.handle, &value))):
        return False
    s.gi = <int>value
    if counted(slot, F_CI, nvmlDeviceGetComputeInstanceId(s.target.handle, &value)):
        return False
    s.ci = <int>value
    if nvmlDeviceGetName != NULL and counted(
            slot, F_NAME, nvmlDeviceGetName(s.target.handle, s.name, TEXT)):
        s.name[0] = 0
    s.multiprocessors = NAN
    if nvmlDeviceGetAttributes_v2 != NULL and counted(
            slot, F_ATTRIBUTES, nvmlDeviceGetAttributes_v2(s.target.handle, &attributes)) == 0:
        s.multiprocessors = nvml_u32(attributes.multiprocessorCount)
    s.start = s.size = -1
    if nvmlDeviceGetGpuInstanceById != NULL and nvmlGpuInstanceGetInfo != NULL:
        code = counted(slot, F_GI_HANDLE, nvmlDeviceGetGpuInstanceById(
            slot.gpu.target.handle, <unsigned int>s.gi, &handle))
        if code == NVML_SUCCESS and counted(
                slot, F_GI_INFO, nvmlGpuInstanceGetInfo(handle, &info)) == NVML_SUCCESS:
            s.start, s.size = <int>info.placement.start, <int>info.placement.size
    return True


cdef bint is_same_instance(Slot *slot, Subject *s, nvmlDevice_t handle) noexcept nogil:
    """Whether another handle is that of the same instance."""
    cdef Subject other
    memset(&other, 0, sizeof(other))
    other.target.handle = handle
    return (describe_instance(slot, &other) and other.gi == s.gi and other.ci == s.ci
            and other.start == s.start and other.size == s.size
            and strcmp(other.name, s.name) == 0)


cdef bint follow_instances(Slot *slot) noexcept nogil:
    """Follows the MIG instances that come and go; whether the GPU could be read."""
    cdef nvmlDevice_t handle
    cdef char[TEXT] uuid
    cdef bint[INSTANCES] here
    cdef Subject *s
    cdef int i, k, code
    cdef unsigned int value, pending
    cdef Fleet *fleet = slot.fleet
    if nvmlDeviceGetMigMode == NULL or nvmlDeviceGetMigDeviceHandleByIndex == NULL:
        return True
    if slot.max_instances != 0:
        code = counted(slot, F_MIG_MODE, nvmlDeviceGetMigMode(
            slot.gpu.target.handle, &value, &pending))
        if permanent(code):
            forget_instances(slot)
            slot.max_instances = 0
            return True
        if code != NVML_SUCCESS:
            return not fails(slot, N_CALLS_TABLE + F_MIG_MODE, code)
        slot.gpu.target.mig = value == 1
        if not slot.gpu.target.mig:
            forget_instances(slot)
            return True
    else:
        return True
    if slot.max_instances < 0:
        value = INSTANCES
        if nvmlDeviceGetMaxMigDeviceCount != NULL and counted(
                slot, F_MIG_MAX, nvmlDeviceGetMaxMigDeviceCount(
                    slot.gpu.target.handle, &value)):
            value = INSTANCES
        slot.max_instances = <int>min(value, <unsigned int>INSTANCES)
    for k in range(INSTANCES):
        here[k] = False
    for i in range(slot.max_instances):
        code = counted(slot, F_MIG_HANDLE, nvmlDeviceGetMigDeviceHandleByIndex(
            slot.gpu.target.handle, i, &handle))
        if code == NVML_SUCCESS:
            memset(uuid, 0, TEXT)
            code = counted(slot, F_UUID, nvmlDeviceGetUUID(handle, uuid, TEXT - 1))
        if code != NVML_SUCCESS:
            if fatal(slot, code):
                return False
            continue            # a hole, or an instance that is being destroyed
        for k in range(slot.n_instances):
            s = &slot.instances[k]
            # One that was made anew may have the UUID of the one before, and be another.
            if strcmp(uuid, s.uuid) == 0 and (
                    s.target.handle == handle or is_same_instance(slot, s, handle)):
                s.target.handle = handle
                here[k] = True
                if s.index != i:
                    s.index = i
                    topology_changes(slot)
                break
        else:
            if slot.n_instances == INSTANCES:
                continue
            s = &slot.instances[slot.n_instances]
            if subject_init(s, fleet.steps, fleet.n_steps, fleet.entries, fleet.n_entries,
                            fleet.positions):
                continue
            strcpy(s.uuid, uuid)
            s.target.handle = handle
            s.index = i
            if describe_instance(slot, s):
                here[slot.n_instances] = True
                slot.n_instances += 1
                topology_changes(slot)
            else:
                subject_free(s)
    k = 0
    for i in range(slot.n_instances):
        if here[i]:
            if k != i:
                slot.instances[k] = slot.instances[i]
            k += 1
        else:
            release_samples(&slot.instances[i])
            subject_free(&slot.instances[i])
            topology_changes(slot)
    slot.n_instances = k
    return True


cdef void listen_to(Slot *slot) noexcept nogil:
    """Registers for the events of a GPU."""
    cdef unsigned long long types = 0
    slot.registered = True
    if nvmlDeviceGetSupportedEventTypes == NULL or nvmlDeviceRegisterEvents == NULL:
        return
    if counted(slot, F_EVENT_TYPES, nvmlDeviceGetSupportedEventTypes(
            slot.gpu.target.handle, &types)) == NVML_SUCCESS and types:
        fails(slot, N_CALLS_TABLE + F_REGISTER, counted(slot, F_REGISTER, nvmlDeviceRegisterEvents(
            slot.gpu.target.handle, types, slot.fleet.set)))


cdef void read_gpu(Slot *slot) noexcept nogil:
    """Reads the GPU of a handle, and its instances."""
    cdef int i
    cdef bint mig = slot.gpu.target.mig, wanted = slot.gpu.wanted and slot.gpu.decided
    cdef Subject *s
    if not slot.described:
        describe(slot)
    if slot.lost or not slot.gpu.decided:
        return
    if wanted and slot.fleet.set != NULL and not slot.registered:
        listen_to(slot)
    if slot.fleet.mig and not follow_instances(slot):
        return
    slot.listed = True
    if not wanted or not read_subject(slot, &slot.gpu):
        return
    if mig != slot.gpu.target.mig:
        subject_forget(&slot.gpu)       # what it supports may have changed
        read_subject(slot, &slot.gpu)
    for i in range(slot.n_instances):
        s = &slot.instances[i]
        if s.wanted and s.decided and not read_subject(slot, s):
            return


cdef void read_slot(crew_task *base) noexcept nogil:
    """One reading of what is at an index."""
    cdef Slot *slot = <Slot *>base
    cdef int i
    slot.at = crew_now()
    slot.answers = 0
    if (not slot.stale or resolve(slot)) and not slot.check:
        read_gpu(slot)
        if not slot.lost and slot.failures and not slot.answers:
            # Nothing of it could be read: the handle may be that of a GPU which was replaced.
            i = slot.failed_code
            if resolve(slot):
                slot.lost = i
            slot.stale = slot.stale or slot.lost
    if slot.lost:
        subject_absent(&slot.gpu)
        for i in range(slot.n_instances):
            subject_absent(&slot.instances[i])
    slot.finished = True


cdef void leave_slot(crew_task *base) noexcept nogil:
    """Gives back what the library has lent for a GPU that has gone."""
    cdef Slot *slot = <Slot *>base
    release_samples(&slot.gpu)
    forget_instances(slot)


cdef void free_slot(crew_task *base) noexcept nogil:
    cdef Slot *slot = <Slot *>base
    cdef int i
    for i in range(slot.n_instances):
        subject_free(&slot.instances[i])
    subject_free(&slot.gpu)
    free(slot.processes)
    free(slot)


# ------------------------------------------------------------------------- the library as a whole

cdef enum:
    OPEN, LOOK, CLOSE

cdef struct Desk:               # what concerns the library, and no GPU
    crew_task base
    Fleet *fleet
    int verb, code
    bint done
    unsigned int n              # GPUs
    char[TEXT] version
    char[TEXT] library          # its own version
    int cuda
    int64_t at
    uint64_t[N_OTHERS] calls
    uint64_t[N_OTHERS] ns


cdef inline int booked(Desk *desk, int other, int code) noexcept nogil:
    cdef int64_t now = crew_now()
    desk.calls[other] += 1
    desk.ns[other] += now - desk.at
    desk.at = now
    return code


cdef void run_desk(crew_task *base) noexcept nogil:
    cdef Desk *desk = <Desk *>base
    cdef Slot *slot
    cdef int i, k
    desk.at = crew_now()
    if desk.verb == CLOSE:
        if desk.fleet.set != NULL:
            nvmlEventSetFree(desk.fleet.set)
            desk.fleet.set = NULL
        for i in range(desk.fleet.n):
            slot = desk.fleet.slots[i]
            release_samples(&slot.gpu)
            for k in range(slot.n_instances):
                release_samples(&slot.instances[k])
        desk.code = booked(desk, F_SHUTDOWN, nvmlShutdown())
        desk.done = True
        return
    if desk.verb == OPEN:
        desk.code = booked(desk, F_INIT, nvmlInit_v2())
        if desk.code != NVML_SUCCESS:
            desk.done = True
            return
        desk.cuda = 0
        desk.version[0] = 0
        if nvmlSystemGetDriverVersion != NULL and booked(
                desk, F_DRIVER, nvmlSystemGetDriverVersion(desk.version, TEXT)):
            desk.version[0] = 0
        desk.library[0] = 0
        if nvmlSystemGetNVMLVersion != NULL and nvmlSystemGetNVMLVersion(desk.library, TEXT):
            desk.library[0] = 0
        if nvmlSystemGetCudaDriverVersion_v2 != NULL:
            if booked(desk, F_CUDA2, nvmlSystemGetCudaDriverVersion_v2(&desk.cuda)):
                desk.cuda = 0
        elif nvmlSystemGetCudaDriverVersion != NULL:
            if booked(desk, F_CUDA, nvmlSystemGetCudaDriverVersion(&desk.cuda)):
                desk.cuda = 0
        if desk.fleet.events and nvmlEventSetCreate != NULL:
            if nvmlEventSetCreate(&desk.fleet.set):
                desk.fleet.set = NULL
    desk.code = booked(desk, F_COUNT, nvmlDeviceGetCount_v2(&desk.n))
    desk.done = True


cdef void free_desk(crew_task *base) noexcept nogil:
    free(base)


cdef struct Ear:                # the thread that waits for events
    crew_task base
    nvmlEventSet_t set
    int closing
    int bell                    # an eventfd of its own, for it may outlive the driver's
    mailbox box


cdef void free_ear(crew_task *base) noexcept nogil:
    close((<Ear *>base).bell)
    free(base)


cdef void hear(crew_task *base) noexcept nogil:
    """Takes events until it is told to stop."""
    cdef Ear *ear = <Ear *>base
    cdef nvmlEventData_t data
    cdef timespec pause
    cdef mail *event
    cdef int code
    cdef uint64_t one = 1
    pause.tv_sec, pause.tv_nsec = 0, 100_000_000
    while not ear.closing:
        memset(&data, 0, sizeof(data))
        if nvmlEventSetWait_v2 != NULL:
            code = nvmlEventSetWait_v2(ear.set, &data, EVENT_WAIT)
        else:
            code = nvmlEventSetWait(ear.set, &data, EVENT_WAIT)
            data.gpuInstanceId = data.computeInstanceId = 0xFFFFFFFF
        if code == NVML_SUCCESS:
            event = mailbox_room(&ear.box)
            if event != NULL:
                event.type, event.data = data.eventType, data.eventData
                event.gi, event.ci = data.gpuInstanceId, data.computeInstanceId
                event.device = data.device
                if mailbox_knows(&ear.box, data.device) or nvmlDeviceGetUUID(
                        data.device, event.uuid, 80):
                    event.uuid[0] = 0
                mailbox_put(&ear.box)
                write(ear.bell, &one, sizeof(one))
        elif code != NVML_ERROR_TIMEOUT:
            nanosleep(&pause, NULL)     # a lost GPU makes the wait end at once, again and again


def _text(const char *raw):
    """A text of the driver as a label's value; None when it is empty."""
    return (<bytes>raw).decode("utf-8", "backslashreplace").strip() or None


#: What the object of a GPU that has gone refers to: nothing is known of it.
cdef Slot nobody


@cython.final
@cython.no_gc_clear
cdef class Gpu:
    """What is at an index of the library. Valid between two readings."""

    cdef Slot *slot
    cdef readonly object driver
    #: None before the GPU has told it.
    cdef readonly object uuid

    def __init__(self):
        raise TypeError("a driver makes its GPUs")

    @property
    def index(self):
        return self.slot.index

    @property
    def stuck(self):
        """Whether a call to it has not returned in time."""
        return self.slot.stuck

    @property
    def lost(self):
        """The error that ended its last reading; 0 when it could be read."""
        return self.slot.lost

    @property
    def answers(self):
        """Whether some call of the last reading was answered, or none was made that was not."""
        return self.slot.answers > 0 or self.slot.failures == 0

    @property
    def done(self):
        """Whether the last reading has been made."""
        return self.slot.done

    @property
    def topology(self):
        """Another number when MIG instances have come or gone."""
        return self.slot.topology

    @property
    def error(self):
        """(function, code) of the first passing error of the last reading; None without one."""
        if self.slot.failures:
            return function_name(self.slot.failed_function), self.slot.failed_code
        return None

    @property
    def described(self):
        """Whether it is known what it is, see :meth:`identity`."""
        return self.slot.described

    @property
    def decided(self):
        """Whether :meth:`want` has been called for the GPU that is here now."""
        return self.slot.gpu.decided

    @property
    def wanted(self):
        """Whether it is to be read."""
        return self.slot.gpu.wanted

    def identity(self):
        """What it is: name, serial, part, vbios, pci, and numbers, each None when unknown."""
        cdef Slot *slot = self.slot
        numbers = [None if slot.numbers[i] < 0 else slot.numbers[i] for i in range(6)]
        return {
            "name": _text(slot.gpu.name), "serial": _text(slot.serial), "part": _text(slot.part),
            "vbios": _text(slot.vbios), "pci": _text(slot.pci), "module": numbers[0],
            "minor": numbers[1], "numa": numbers[2], "architecture": numbers[3],
            "capability": None if None in numbers[4:] else tuple(numbers[4:]),
        }

    def instances(self):
        """Its MIG instances: (uuid, index, gi, ci, name, placement, multiprocessors, decided,
        wanted) each."""
        cdef Subject *s
        found = []
        for i in range(self.slot.n_instances):
            s = &self.slot.instances[i]
            placement = (s.start, s.size) if s.start >= 0 else None
            found.append((_text(s.uuid), s.index, s.gi, s.ci, _text(s.name), placement,
                          s.multiprocessors, bool(s.decided), bool(s.wanted)))
        return found

    cdef Subject *_subject(self, int instance) except NULL:
        if instance < 0:
            return &self.slot.gpu
        if instance >= self.slot.n_instances:
            raise IndexError(instance)
        return &self.slot.instances[instance]

    def want(self, bint wanted, int instance=-1):
        """Says whether the GPU, or one of its instances, is to be read."""
        cdef Subject *s = self._subject(instance)
        self.slot.asked = self.slot.asked or (wanted and not s.wanted) or (
            self.slot.fleet.mig and not self.slot.listed)
        s.wanted = wanted
        s.decided = True

    def bind(self, int position, int32_t slot, int instance=-1):
        """The table's slot of a position; -1 for none."""
        cdef Subject *s = self._subject(instance)
        if not 0 <= position < s.positions:
            raise IndexError(position)
        s.slots[position] = slot

    def unbind(self, int instance=-1):
        """Forgets every slot."""
        cdef Subject *s = self._subject(instance)
        cdef int i
        for i in range(s.positions):
            s.slots[i] = -1

    def value(self, int position, int instance=-1):
        """What was read; NaN when absent."""
        cdef Subject *s = self._subject(instance)
        if not 0 <= position < s.positions:
            raise IndexError(position)
        return s.values[position]

    def store(self, Table table not None, int instance=-1):
        """Puts what was read into the table. Returns the positions that have a value and no slot."""
        cdef Subject *s = self._subject(instance)
        cdef int i
        cdef list unbound = []
        for i in range(s.positions):
            if s.values[i] == s.values[i]:
                if s.slots[i] < 0:
                    unbound.append(i)
                else:
                    table.values[table.check(s.slots[i])] = s.values[i]
        return unbound

    def processes(self):
        """(pid, memory in bytes, kind) of each process; kind as in Plan.processes."""
        cdef int kind, i
        found = []
        for kind in range(2):
            for i in range(self.slot.n_processes[kind]):
                found.append((self.slot.processes[kind * PROCESSES + i].pid,
                              self.slot.processes[kind * PROCESSES + i].memory, kind))
        return found


cdef str function_name(int function):
    """The name of a function, by its number in the counts."""
    if function >= N_CALLS_TABLE:
        return OTHERS[function - N_CALLS_TABLE]
    return NVML_CALLS[function // NVML_VARIANTS].variants[function % NVML_VARIANTS].function.decode()


# By name, the first number that stands for a function, and that by any: a call may try it in two
# versions of a struct, and what describes a GPU may be in the table as well.
cdef dict NUMBERS = {}
cdef int[N_FUNCTIONS] FIRST


cdef int number_functions() except -1:
    cdef int k
    for k in range(N_FUNCTIONS):
        FIRST[k] = k
        if k >= N_CALLS_TABLE or (
                NVML_CALLS[k // NVML_VARIANTS].variants[k % NVML_VARIANTS].run != NULL):
            FIRST[k] = NUMBERS.setdefault(function_name(k), k)
    return 0


number_functions()


@cython.final
@cython.no_gc_clear
cdef class Driver:
    """The library, initialised; its GPUs are read side by side.

    timeout: seconds that a reading may take. patience: how long one GPU may hold up the next.
    window: seconds, of the sample rings. events: whether to wait for them. mig: whether to follow
    MIG instances.
    """

    cdef Fleet *fleet
    cdef Desk *desk
    cdef Ear *ear
    #: Readable when there are events; the descriptor of an eventfd.
    cdef readonly int bell
    cdef crew *crew
    cdef crew *ears
    cdef int64_t timeout, patience, started, deadline
    cdef unsigned int fitted    # GPUs that there are slots for
    cdef bint shifted           # whether GPUs have other indexes now
    cdef bint moved             # whether that is known, and every index is asked for anew
    cdef Plan gpu_plan, mig_plan
    #: Of those that are there; all that have a slot.
    cdef readonly list gpus
    cdef list slots
    #: Whether the library is initialised; the error of the last attempt; its texts.
    cdef readonly bint open
    cdef readonly int code
    #: Whether an attempt to initialise it is under way.
    cdef readonly bint opening
    cdef uint64_t[N_FUNCTIONS] calls_before     # of GPUs that have gone
    cdef uint64_t[N_FUNCTIONS] ns_before
    cdef int32_t[N_FUNCTIONS] call_slots    # the table's, of calls and their seconds; -1: none yet
    cdef int32_t[N_FUNCTIONS] second_slots

    def __cinit__(self, Plan gpu_plan not None, Plan mig_plan not None, double timeout,
                  double patience, double window, bint events, bint mig):
        self.gpu_plan = gpu_plan
        self.mig_plan = mig_plan
        self.timeout = <int64_t>(timeout * 1e9)
        self.patience = <int64_t>(patience * 1e9)
        self.gpus = []
        self.slots = []
        memset(self.call_slots, 0xFF, sizeof(self.call_slots))
        self.fleet = <Fleet *>calloc(1, sizeof(Fleet))
        self.desk = <Desk *>calloc(1, sizeof(Desk))
        self.crew = crew_new(STACK)
        self.ears = crew_new(STACK)
        self.bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)
        if (self.fleet == NULL or self.desk == NULL or self.crew == NULL
                or self.ears == NULL or self.bell < 0):
            raise MemoryError
        self.fleet.window = <int64_t>(window * 1e9)
        self.fleet.events = events
        self.fleet.mig = mig
        self.fleet.steps, self.fleet.n_steps = mig_plan.steps, mig_plan.n_steps
        self.fleet.entries, self.fleet.n_entries = mig_plan.entries, mig_plan.n_entries
        self.fleet.positions = mig_plan.positions
        self.desk.base.run = run_desk
        self.desk.base.release = free_desk
        self.desk.fleet = self.fleet

    def __dealloc__(self):
        cdef int i
        cdef bint hangs = False
        if self.crew == NULL or self.fleet == NULL:
            return
        if self.ear != NULL:
            self.ear.closing = 1
            crew_abandon(self.ears, &self.ear.base)
        for i in range(self.fleet.n):
            hangs |= crew_running(self.crew, &self.fleet.slots[i].base) != 0
        hangs |= crew_running(self.crew, &self.desk.base) != 0
        for i in range(self.fleet.n):
            crew_abandon(self.crew, &self.fleet.slots[i].base)
        crew_abandon(self.crew, &self.desk.base)
        crew_close(self.crew)
        crew_close(self.ears)
        close(self.bell)
        if not hangs:
            free(self.fleet)    # else a call that comes back may still look at it
        else:
            Py_INCREF(self.gpu_plan)
            Py_INCREF(self.mig_plan)

    @property
    def version(self):
        """The driver's version; None when unknown."""
        return _text(self.desk.version)

    @property
    def library(self):
        """The version of the library; None when unknown."""
        return _text(self.desk.library)

    @property
    def cuda(self):
        """The version of CUDA that the driver has, as 12.4; None when unknown."""
        if self.desk.cuda <= 0:
            return None
        return f"{self.desk.cuda // 1000}.{self.desk.cuda % 1000 // 10}"

    @property
    def count(self):
        """GPUs that the library knows."""
        return self.desk.n

    cdef bint _is_busy(self):
        """Whether a call has not returned that the library cannot be closed under."""
        return any(crew_running(self.crew, &(<Gpu>gpu).slot.base) for gpu in self.slots) or (
            crew_running(self.crew, &self.desk.base) != 0)

    cdef void _run_desk(self, int verb):
        cdef crew_task *task = &self.desk.base
        cdef int64_t deadline = crew_now() + self.timeout
        self.desk.verb = verb
        self.desk.done = False
        with nogil:
            crew_start(self.crew, &task, 1)
            crew_wait(self.crew, self.patience, deadline)

    def attach(self):
        """Initialises the library. Whether it is; if not, `code` says why, or it is 0 while the
        library has not answered."""
        cdef int i
        cdef crew_task *task
        if self.open:
            return True
        if not self.opening:
            if self._is_busy():
                self.code = NVML_ERROR_TIMEOUT
                return False
            self.opening = True
            self._run_desk(OPEN)
        if crew_running(self.crew, &self.desk.base) or not self.desk.done:
            self.code = 0
            self.opening = crew_running(self.crew, &self.desk.base) != 0
            return False
        self.opening = False
        self.code = self.desk.code
        if self.code != NVML_SUCCESS:
            return False
        self.open = True
        for i in range(self.fleet.n):
            self.fleet.slots[i].stale = True
            self.fleet.slots[i].gpu.uuid[0] = 0     # all of it is to be read anew
            self.fleet.slots[i].gpu.target.handle = NULL
        if self.fleet.set != NULL:
            self.ear = <Ear *>calloc(1, sizeof(Ear))
            if self.ear == NULL:
                raise MemoryError
            self.ear.base.run = hear
            self.ear.base.release = free_ear
            self.ear.bell = fcntl(self.bell, F_DUPFD_CLOEXEC, 0)
            self.ear.set = self.fleet.set
            task = &self.ear.base
            crew_start(self.ears, &task, 1)
        return True

    def detach(self):
        """Closes the library, so that nothing of the driver is held open. Whether it is; False
        while a call has not returned."""
        if not self.open:
            return True
        if self._is_busy():
            return False
        if self.ear != NULL:
            self.ear.closing = 1
            with nogil:
                crew_wait(self.ears, 2 * EVENT_WAIT * 1_000_000, 0)
            if crew_running(self.ears, &self.ear.base):
                return False
            crew_abandon(self.ears, &self.ear.base)
            self.ear = NULL
        self._run_desk(CLOSE)
        if not self.desk.done:
            return False
        self.open = False
        for i in range(self.fleet.n):
            self.fleet.slots[i].registered = False
        return True

    cdef int _fit(self, crew_task **leaving) except -1:
        """Makes a slot for each index, after GPUs have come or gone, and lets go of the others:
        `leaving` takes their tasks. Returns the number of these.

        Which GPU is at which index is to be found out anew. One that hangs keeps its slot, in no
        place, for as long as it does."""
        cdef int i, k, n = 0, n_leaving = 0
        cdef Slot *slot
        cdef Gpu gpu
        cdef bint hangs = False
        self.moved = self.shifted or (self.desk.done and self.desk.n != self.fitted)
        self.shifted = False
        if self.moved:
            self.fitted = self.desk.n
        for each in self.slots:
            slot = (<Gpu>each).slot
            if self.moved:
                slot.placed = slot.placed and slot.index < self.desk.n and not (
                    crew_running(self.crew, &slot.base))
            hangs |= not slot.placed
        for each in self.slots:
            gpu = <Gpu>each
            slot = gpu.slot
            if self.moved and slot.placed:
                slot.stale = slot.asked = True
                slot.check |= hangs     # it may be the one that does
            if slot.placed or crew_running(self.crew, &slot.base):
                self.fleet.slots[n] = slot
                n += 1
                continue
            for k in range(N_FUNCTIONS):
                self.calls_before[k] += slot.calls[k]
                self.ns_before[k] += slot.ns[k]
            gpu.slot = &nobody
            slot.base.run = leave_slot
            slot.base.abandoned = 1         # its worker frees it
            leaving[n_leaving] = &slot.base
            n_leaving += 1
        self.slots = [each for each in self.slots if (<Gpu>each).slot != &nobody]
        self.fleet.n = n
        taken = {(<Gpu>each).slot.index for each in self.slots if (<Gpu>each).slot.placed}
        for i in range(<int>min(self.desk.n, <unsigned int>MOST)):
            if i not in taken and self.fleet.n < MOST:
                self._add(i)
        return n_leaving

    cdef int _place(self) except -1:
        """Finds out which GPUs are there, of those that have a slot. One that hangs, in no place,
        is there until all others have told what they are; what has its UUID then is hidden, unless
        its call has returned by now. One that does not tell what it is has the UUID that was there
        before, but not where that is found to be another's. There are no more of those that
        hang than the library counts: what hung in telling its UUID is left out first."""
        cdef Gpu gpu
        cdef bint unknown = False, hangs = False
        cdef int room = MOST
        cdef bint stale
        told = {}
        sure = {}
        for each in self.slots:
            gpu = <Gpu>each
            gpu.slot.hidden = False
            hangs |= gpu.slot.late or not gpu.slot.placed
            if gpu.slot.placed and gpu.slot.done and gpu.uuid is not None:
                told[gpu.uuid] = gpu
                if not gpu.slot.stale:
                    sure[gpu.uuid] = gpu
            unknown |= gpu.slot.placed and gpu.slot.stale and not gpu.slot.done
        for each in self.slots:
            gpu = <Gpu>each
            if gpu.slot.placed and gpu.slot.done and gpu.slot.stale and gpu.uuid in sure:
                told[gpu.uuid] = sure[gpu.uuid]
                gpu.slot.gpu.uuid[0] = 0
                gpu.uuid = None
        self.gpus = self.slots
        if not hangs:
            return 0
        if self.desk.done:
            room = self.desk.n
        self.gpus = []
        for each in self.slots:
            gpu = <Gpu>each
            if gpu.slot.late and gpu.uuid in told:
                (<Gpu>told[gpu.uuid]).slot.hidden = True
                self.shifted |= gpu.slot.placed
            if gpu.slot.placed or (unknown and gpu.uuid not in told):
                room -= gpu.slot.done and not gpu.slot.lost
        surplus = []
        for stale in (False, True):
            for each in self.slots:
                gpu = <Gpu>each
                if gpu.slot.late and gpu.slot.stale == stale and gpu.uuid not in told:
                    room -= 1
                    if room < 0:
                        surplus.append(gpu)
        for each in self.slots:
            gpu = <Gpu>each
            if gpu.slot.hidden or gpu in surplus:
                continue
            if gpu.slot.placed or (unknown if gpu.uuid not in told else gpu.slot.late):
                self.gpus.append(gpu)
        return 0

    cdef int _add(self, unsigned int index) except -1:
        cdef Plan plan = self.gpu_plan
        cdef Slot *slot = <Slot *>calloc(1, sizeof(Slot))
        cdef Gpu gpu
        if slot == NULL:
            raise MemoryError
        slot.processes = <Process *>calloc(2 * PROCESSES, sizeof(Process))
        if slot.processes == NULL or subject_init(
                &slot.gpu, plan.steps, plan.n_steps, plan.entries, plan.n_entries,
                plan.positions):
            free(slot.processes)
            free(slot)
            raise MemoryError
        slot.base.run = read_slot
        slot.base.release = free_slot
        slot.fleet = self.fleet
        slot.index = index
        slot.stale = slot.placed = slot.asked = True
        slot.gpm = -1
        slot.gpu.gi = slot.gpu.ci = -1
        slot.max_instances = -1
        self.fleet.slots[self.fleet.n] = slot
        self.fleet.n += 1
        gpu = Gpu.__new__(Gpu)
        gpu.slot = slot
        gpu.driver = self
        self.slots.append(gpu)
        return 0

    cdef bint _is_settled(self, Slot *slot):
        """Whether it is known what is to be read of what is in a slot."""
        return slot.gpu.uuid[0] and slot.gpu.decided and (slot.listed or not self.fleet.mig)

    def start(self, bint tick, bint again=False):
        """Starts a reading of every GPU that is not still being read. again: it goes on with the
        reading before, until the same time, with what is to be read of them besides."""
        cdef crew_task *tasks[2 * MOST + 1]
        cdef Slot *slot
        cdef int i, n
        cdef int64_t now = crew_now()
        cdef bint settled = True
        n = self._fit(tasks)
        if not again:
            self.started = now
        if not again and not crew_running(self.crew, &self.desk.base):
            self.desk.verb = LOOK
            self.desk.done = False
            tasks[n] = &self.desk.base
            n += 1
        for i in range(self.fleet.n):
            slot = self.fleet.slots[i]
            if crew_running(self.crew, &slot.base) or not slot.placed or (
                    slot.hidden and not slot.check):
                continue
            if slot.late and slot.finished and self._is_settled(slot) and not slot.asked:
                slot.done = True        # it is late, and not asked anew before that was told
                continue
            if again and not slot.asked:
                continue
            settled = settled and self._is_settled(slot)
            slot.tick = tick
            slot.finished = slot.done = slot.stuck = slot.asked = False
            slot.lost = slot.code = slot.failures = 0
            tasks[n] = &slot.base
            n += 1
        # What is found out on the way leaves half of the time for what follows from it.
        self.deadline = self.started + self.timeout
        if not settled:
            self.deadline -= (self.deadline - now) // 2
        crew_start(self.crew, tasks, n)

    def wait(self):
        """Waits for the reading, until the timeout. Returns the error of the library as a whole,
        such as UNINITIALIZED; 0 without one."""
        cdef int i, code = 0
        cdef int64_t now
        cdef Slot *slot
        cdef Gpu gpu
        with nogil:
            crew_wait(self.crew, self.patience, self.deadline)
        now = crew_now()
        for each in self.slots:
            gpu = <Gpu>each
            slot = gpu.slot
            slot.late = crew_running(self.crew, &slot.base) != 0
            # One that is slow gets on; its calls return.
            slot.stuck = slot.late and now - slot.at >= self.timeout // 4
            slot.done = slot.finished and not slot.late
            if slot.done:
                slot.asked |= slot.check        # now that it is known
                slot.check = False
                if slot.renewed:
                    slot.renewed = False
                    self.shifted |= gpu.uuid is not None and not self.moved
                    gpu.uuid = _text(slot.gpu.uuid)
                if self.ear != NULL and not slot.stale and gpu.uuid is not None:
                    mailbox_know(&self.ear.box, slot.gpu.target.handle)
                if slot.code:
                    code = slot.code
        self._place()
        if self.desk.done and self.desk.code:
            code = self.desk.code
        return code

    @property
    def unread(self):
        """Whether there is more to read, and time left for it: other GPUs than before, or more of
        them."""
        if crew_now() >= self.started + self.timeout:
            return False
        return (self.desk.done and self.desk.n != self.fitted) or self.shifted or any(
            (<Gpu>gpu).slot.done and (<Gpu>gpu).slot.asked for gpu in self.gpus)

    def events(self):
        """The events since the last call: (Unix time, type, data, uuid, gi, ci) each, and the
        number of those that were lost."""
        cdef const mail *event
        cdef uint64_t rings
        found = []
        if self.ear == NULL:
            return found, 0
        read(self.bell, &rings, sizeof(rings))      # before the box: what comes now rings again
        event = mailbox_peek(&self.ear.box)
        while event != NULL:
            found.append((event.time, event.type, event.data,
                          self._uuid_of(event.device) or _text(event.uuid),
                          None if event.gi == 0xFFFFFFFF else event.gi,
                          None if event.ci == 0xFFFFFFFF else event.ci))
            mailbox_drop(&self.ear.box)
            event = mailbox_peek(&self.ear.box)
        return found, mailbox_lost(&self.ear.box)

    cdef object _uuid_of(self, void *device):
        """The UUID of a GPU by its handle: one that hangs or is lost does not tell it any more."""
        for each in self.slots:
            if (<Gpu>each).slot.gpu.target.handle == device:
                return (<Gpu>each).uuid
        return None

    @property
    def listens(self):
        """Whether events are waited for."""
        return self.ear != NULL

    def bind(self, str function not None, int32_t calls, int32_t seconds):
        """The table's slots of the calls of a function, and of their time."""
        cdef int k = NUMBERS[function]
        self.call_slots[k], self.second_slots[k] = calls, seconds

    cdef void _count(self, uint64_t *n, uint64_t *ns) noexcept:
        """Calls and nanoseconds since the start, by the first number of each function."""
        cdef int i, k
        memset(n, 0, N_FUNCTIONS * sizeof(uint64_t))
        memset(ns, 0, N_FUNCTIONS * sizeof(uint64_t))
        for k in range(N_FUNCTIONS):
            n[FIRST[k]] += self.calls_before[k]
            ns[FIRST[k]] += self.ns_before[k]
            for i in range(self.fleet.n):
                n[FIRST[k]] += self.fleet.slots[i].calls[k]
                ns[FIRST[k]] += self.fleet.slots[i].ns[k]
            if k >= N_CALLS_TABLE:
                n[FIRST[k]] += self.desk.calls[k - N_CALLS_TABLE]
                ns[FIRST[k]] += self.desk.ns[k - N_CALLS_TABLE]

    def calls(self):
        """{function: (calls, seconds)} since the start."""
        cdef int k
        cdef uint64_t[N_FUNCTIONS] n
        cdef uint64_t[N_FUNCTIONS] ns
        self._count(n, ns)
        return {function_name(k): (n[k], ns[k] / 1e9) for k in range(N_FUNCTIONS) if n[k]}

    def resume(self, dict calls not None):
        """Counts on from what another one has counted, as its calls() has it."""
        cdef int k
        for name, (n, seconds) in calls.items():
            k = NUMBERS[name]
            self.calls_before[k] += <uint64_t>n
            self.ns_before[k] += <uint64_t>(seconds * 1e9 + 0.5)

    def store(self, Table table not None):
        """Puts the calls since the start and their seconds into the table. Returns the functions
        that were called and have no slots."""
        cdef int k
        cdef uint64_t[N_FUNCTIONS] n
        cdef uint64_t[N_FUNCTIONS] ns
        cdef list unbound = []
        self._count(n, ns)
        for k in range(N_FUNCTIONS):
            if n[k] == 0:
                continue
            if self.call_slots[k] < 0:
                unbound.append(function_name(k))
            else:
                table.values[table.check(self.call_slots[k])] = n[k]
                table.values[table.check(self.second_slots[k])] = ns[k] / 1e9
        return unbound


cdef extern from "Python.h":
    void Py_INCREF(object)
