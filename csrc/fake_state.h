/* What the fake of NVIDIA's library knows: one plain struct, shared with whom scripts it.
 *
 * It is mapped from the file that the environment variable FAKE_NVML_STATE names, or is memory of
 * the process. Values are single atomic words, and what is added becomes visible by its
 * generation, written last. A handle names a slot and that generation, so it is stale once the GPU
 * or MIG instance was removed.
 */
#ifndef ESNODE_FAKE_STATE_H
#define ESNODE_FAKE_STATE_H

#define NVML_OPTIONAL
#include "fake_nvml.h"
#include "nvml_abi.h"

#include <errno.h>
#include <linux/futex.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* What nvidia-ml-py and monitors call besides. */
#define MORE_FUNCTIONS(F) \
    F(nvmlInit, (void)) \
    F(nvmlInitWithFlags, (unsigned)) \
    F(nvmlSystemGetProcessName, (unsigned, char *, unsigned)) \
    F(nvmlDeviceGetHandleByUUID, (const char *, nvmlDevice_t *)) \
    F(nvmlDeviceGetHandleByPciBusId_v2, (const char *, nvmlDevice_t *)) \
    F(nvmlDeviceGetIndex, (nvmlDevice_t, unsigned *)) \
    F(nvmlDeviceIsMigDeviceHandle, (nvmlDevice_t, unsigned *)) \
    F(nvmlDeviceGetDeviceHandleFromMigDeviceHandle, (nvmlDevice_t, nvmlDevice_t *)) \
    F(nvmlDeviceGetBrand, (nvmlDevice_t, int *)) \
    F(nvmlDeviceGetPcieThroughput, (nvmlDevice_t, int, unsigned *)) \
    F(nvmlDeviceGetGpuMaxPcieLinkGeneration, (nvmlDevice_t, unsigned *)) \
    F(nvmlDeviceGetPowerManagementLimit, (nvmlDevice_t, unsigned *)) \
    F(nvmlDeviceGetPowerState, (nvmlDevice_t, nvmlPstates_t *)) \
    F(nvmlDeviceGetDisplayMode, (nvmlDevice_t, nvmlEnableState_t *)) \
    F(nvmlDeviceGetDisplayActive, (nvmlDevice_t, nvmlEnableState_t *)) \
    F(nvmlDeviceGetDriverModel, (nvmlDevice_t, int *, int *)) \
    F(nvmlDeviceGetDriverModel_v2, (nvmlDevice_t, int *, int *)) \
    F(nvmlDeviceGetMPSComputeRunningProcesses_v3, \
      (nvmlDevice_t, unsigned *, nvmlProcessInfo_t *)) \
    F(nvmlDeviceGetProcessUtilization, (nvmlDevice_t, void *, unsigned *, unsigned long long)) \
    F(nvmlDeviceGetNvLinkVersion, (nvmlDevice_t, unsigned, unsigned *)) \
    F(nvmlDeviceGetNvLinkCapability, (nvmlDevice_t, unsigned, int, unsigned *)) \
    F(nvmlDeviceGetNvLinkRemotePciInfo_v2, (nvmlDevice_t, unsigned, nvmlPciInfo_t *)) \
    F(nvmlDeviceGetNvLinkErrorCounter, (nvmlDevice_t, unsigned, int, unsigned long long *))

#define NUMBER(name, arguments) F_##name,
enum { NVML_FUNCTIONS(NUMBER, NUMBER) MORE_FUNCTIONS(NUMBER) FUNCTIONS };
#define NUMBER_P(name) P_##name,
#define NUMBER_T(name) T_##name,
#define NUMBER_O(name) O_##name,
#define NUMBER_B(name) B_##name,
#define BIT(name) name = 1 << B_##name,
enum { FAKE_PROPERTIES(NUMBER_P) PROPERTIES };
enum { FAKE_TEXTS(NUMBER_T) TEXTS };
enum { FAKE_OPTIONS(NUMBER_O) OPTIONS };
enum { FAKE_FEATURES(NUMBER_B) FEATURES };
enum { FAKE_FEATURES(BIT) };

enum { LINKS = 18, NONE = FAKE_GPUS, METRICS = NVML_GPM_METRIC_MAX + 1, SAMPLES = 1024, SETS = 64 };

typedef _Atomic uint64_t word;

typedef struct { /* a GPU, or a MIG instance on it */
    _Atomic unsigned generation; /* 0: there is none */
    word value[PROPERTIES];
    char text[TEXTS][NVML_DEVICE_NAME_V2_BUFFER_SIZE];
    _Atomic double metric[METRICS];
    _Atomic int metric_code[METRICS];
} unit;

typedef struct {
    word value;
    _Atomic int set; /* else the model decides */
    int code, type;
} cell;

typedef struct {
    _Atomic int on;
    _Atomic int code, times, hang;
    _Atomic int64_t sleep_ns, spin_ns;
} script;

typedef struct {
    word at, value;
} sample;

typedef struct {
    _Atomic int condition;
    unit units[1 + FAKE_INSTANCES];
    cell field[1 + LINKS][FAKE_FIELDS]; /* in total, and of each link or scope */
    word ring_head[2];
    sample ring[2][FAKE_RING];
    _Atomic unsigned processes[2];
    nvmlProcessInfo_t process[2][FAKE_PROCESSES];
} gpu;

typedef struct {
    int slot;
    unsigned gi, ci;
    uint64_t type, data;
} event;

typedef struct {
    _Atomic unsigned ready; /* 1: being set up, 2 */
    unsigned size;
    _Atomic unsigned generation, bell, scripts;
    _Atomic int epoch, init, stale;
    _Atomic int64_t gpm_samples;
    char driver_version[NVML_SYSTEM_DRIVER_VERSION_BUFFER_SIZE];
    word option[OPTIONS];
    word calls[FAKE_GPUS + 1][FUNCTIONS];
    script script[FAKE_GPUS + 1][FUNCTIONS];
    _Atomic int event_lock;
    _Atomic unsigned events; /* pushed since the beginning */
    event event[FAKE_EVENTS];
    gpu gpu[FAKE_GPUS];
} state_t;

#define HIDDEN __attribute__((visibility("hidden")))
HIDDEN extern state_t *state;
HIDDEN extern _Atomic int epoch; /* the driver's, when this process initialised the library */

static inline int64_t now_ns(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

static inline void sleep_ns(int64_t ns) {
    struct timespec t = {ns / 1000000000, ns % 1000000000};
    while (nanosleep(&t, &t) && errno == EINTR)
        ;
}

#endif
