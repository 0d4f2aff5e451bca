/* Preloaded into a process that reads GPUs: its clocks can be put forward, so that a minute of ticks
 * takes no minute, and what its batches ask for can be written down. */
#include <dlfcn.h>
#include <stdio.h>
#include <time.h>

#define NVML_OPTIONAL
#include "../csrc/nvml_abi.h"

static int (*clock_of)(clockid_t, struct timespec *);
static long skipped;
static FILE *tape;

__attribute__((constructor)) static void start(void) {
    *(void **)&clock_of = dlsym(RTLD_NEXT, "clock_gettime");
}

void leap(long seconds);
void leap(long seconds) {
    skipped += seconds;
}

/* Writes down the batches from now on; NULL: no more. */
void leap_record(const char *path);
void leap_record(const char *path) {
    if (tape)
        fclose(tape);
    tape = path ? fopen(path, "w") : NULL;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    if (!clock_of)
        start();
    int failed = clock_of(clock, now);
    if (clock == CLOCK_MONOTONIC || clock == CLOCK_REALTIME)
        now->tv_sec += skipped;
    return failed;
}

nvmlReturn_t nvmlDeviceGetFieldValues(nvmlDevice_t device, int n, nvmlFieldValue_t *values) {
    static nvmlReturn_t (*real)(nvmlDevice_t, int, nvmlFieldValue_t *);
    if (!real)
        *(void **)&real = dlsym(RTLD_NEXT, "nvmlDeviceGetFieldValues");
    if (tape) {
        fprintf(tape, "nvmlDeviceGetFieldValues");
        for (int i = 0; i < n; i++)
            fprintf(tape, " %u:%u", values[i].fieldId, values[i].scopeId);
        fprintf(tape, "\n");
    }
    return real(device, n, values);
}

nvmlReturn_t nvmlGpmMetricsGet(nvmlGpmMetricsGet_t *metrics) {
    static nvmlReturn_t (*real)(nvmlGpmMetricsGet_t *);
    if (!real)
        *(void **)&real = dlsym(RTLD_NEXT, "nvmlGpmMetricsGet");
    if (tape) {
        fprintf(tape, "nvmlGpmMetricsGet");
        for (unsigned i = 0; i < metrics->numMetrics; i++)
            fprintf(tape, " %u", metrics->metrics[i].metricId);
        fprintf(tape, "\n");
    }
    return real(metrics);
}
