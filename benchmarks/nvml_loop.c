/* The floor under a tick of GPUs: makes the calls of a script in one thread, and keeps nothing.
 *
 * A line of the script, the first argument, is `each|once COUNT FUNCTION [NUMBER[:SCOPE]]…`: how
 * often a minute a function is called, for each GPU or once, and the fields or metrics that it is
 * asked for. The second argument is how many ticks a minute has. For each line on stdin, a number of
 * minutes, it prints its CPU time and the time, of one tick, in seconds. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "../csrc/nvml_calls.h"

void leap(long seconds); /* of leap.c, which is preloaded */

enum { GPUS = 64, LINES = 256, FIELDS = 512, SAMPLES = 256 };

typedef struct {
    int each, count, n;
    char function[64];
    nvml_run run; /* of the table; NULL for those that are below */
    unsigned id[FIELDS], scope[FIELDS];
} line;

static line script[LINES];
static int lines, gpus;
static struct {
    nvml_target target;
    nvmlGpmSample_t sample[2];
    int newest;
    unsigned long long last;
} gpu[GPUS];

static void check(nvmlReturn_t code, const char *function) {
    if (code != NVML_SUCCESS) {
        fprintf(stderr, "%s: error %d\n", function, code);
        exit(1);
    }
}

static double seconds(clockid_t clock) {
    struct timespec now;
    clock_gettime(clock, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static void read_script(const char *path) {
    static char text[1 << 14];
    char scale[8];
    FILE *file = fopen(path, "r");
    if (!file) {
        perror(path);
        exit(1);
    }
    for (; lines < LINES && fgets(text, sizeof text, file); lines++) {
        line *l = &script[lines];
        int at, more;
        if (sscanf(text, "%7s %d %63s%n", scale, &l->count, l->function, &at) != 3)
            exit(2);
        l->each = scale[0] == 'e';
        for (; l->n < FIELDS && sscanf(text + at, "%u%n", &l->id[l->n], &more) == 1; l->n++) {
            at += more;
            if (text[at] == ':' && sscanf(text + at, ":%u%n", &l->scope[l->n], &more) == 1)
                at += more;
        }
        for (int i = 0; i < NVML_N_CALLS; i++)
            for (int k = 0; k < NVML_VARIANTS && NVML_CALLS[i].variants[k].run; k++)
                if (!strcmp(NVML_CALLS[i].variants[k].function, l->function))
                    l->run = NVML_CALLS[i].variants[k].run;
    }
    fclose(file);
}

static void ask(const line *l, int i) {
    static const int argument[3];
    static nvmlFieldValue_t batch[FIELDS];
    static nvmlSample_t samples[SAMPLES];
    static nvmlGpmMetricsGet_t metrics;
    double out[NVML_OUTPUTS];
    nvmlDevice_t handle = gpu[i].target.handle;
    nvmlValueType_t type;
    unsigned n = SAMPLES;
    nvmlReturn_t code;
    if (l->run) {
        code = l->run(&gpu[i].target, argument, out);
    } else if (!strcmp(l->function, "nvmlDeviceGetCount_v2")) {
        code = nvmlDeviceGetCount_v2(&n);
    } else if (!strcmp(l->function, "nvmlDeviceGetFieldValues")) {
        for (int k = 0; k < l->n; k++)
            batch[k].fieldId = l->id[k], batch[k].scopeId = l->scope[k];
        code = nvmlDeviceGetFieldValues(handle, l->n, batch);
    } else if (!strcmp(l->function, "nvmlDeviceGetSamples")) {
        code = nvmlDeviceGetSamples(handle, 0, gpu[i].last, &type, &n, samples);
        if (code == NVML_SUCCESS)
            gpu[i].last = samples[n - 1].timeStamp;
        else if (code == NVML_ERROR_NOT_FOUND)
            code = NVML_SUCCESS;
    } else if (!strcmp(l->function, "nvmlGpmSampleGet")) {
        gpu[i].newest ^= 1;
        code = nvmlGpmSampleGet(handle, gpu[i].sample[gpu[i].newest]);
    } else if (!strcmp(l->function, "nvmlGpmMetricsGet")) {
        metrics.version = NVML_GPM_METRICS_GET_VERSION;
        metrics.numMetrics = (unsigned)l->n;
        metrics.sample1 = gpu[i].sample[!gpu[i].newest];
        metrics.sample2 = gpu[i].sample[gpu[i].newest];
        for (int k = 0; k < l->n; k++)
            metrics.metrics[k].metricId = l->id[k];
        code = nvmlGpmMetricsGet(&metrics);
    } else {
        code = NVML_ERROR_FUNCTION_NOT_FOUND;
    }
    check(code, l->function);
}

static void tick(int number, int ticks) {
    leap(60 / ticks);
    for (int i = 0; i < gpus; i++)
        for (int k = 0; k < lines; k++) {
            const line *l = &script[k];
            /* spread over the minute */
            int times = l->count * (number + 1) / ticks - l->count * number / ticks;
            for (; times > 0 && (l->each || i == 0); times--)
                ask(l, i);
        }
}

int main(int argc, char **argv) {
    unsigned count = 0;
    int minutes, ticks = argc > 2 ? atoi(argv[2]) : 0;
    if (ticks < 1)
        return 2;
    check(nvmlInit_v2(), "nvmlInit_v2");
    check(nvmlDeviceGetCount_v2(&count), "nvmlDeviceGetCount_v2");
    gpus = count < GPUS ? (int)count : GPUS;
    for (int i = 0; i < gpus; i++) {
        check(nvmlDeviceGetHandleByIndex_v2((unsigned)i, &gpu[i].target.handle), "a handle");
        for (int k = 0; k < 2; k++) {
            check(nvmlGpmSampleAlloc(&gpu[i].sample[k]), "nvmlGpmSampleAlloc");
            check(nvmlGpmSampleGet(gpu[i].target.handle, gpu[i].sample[k]), "nvmlGpmSampleGet");
            leap(1);
        }
    }
    read_script(argv[1]);
    while (scanf("%d", &minutes) == 1) {
        double cpu = seconds(CLOCK_PROCESS_CPUTIME_ID), began = seconds(CLOCK_MONOTONIC);
        for (int i = 0; i < minutes * ticks; i++)
            tick(i % ticks, ticks);
        double n = (double)minutes * ticks;
        printf("%.9f %.9f\n", (seconds(CLOCK_PROCESS_CPUTIME_ID) - cpu) / n,
               (seconds(CLOCK_MONOTONIC) - began) / n - 60 / ticks);
        fflush(stdout);
    }
    return 0;
}
