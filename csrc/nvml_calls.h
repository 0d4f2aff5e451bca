/* The calls of NVIDIA's management library that give numbers, as one table.
 *
 * A call has variants, the newest first: one that is missing from the library, or not supported by
 * the device, is followed by the next. Each fills `out` with what it is declared to give; what the
 * driver marks as unknown, with the largest value of its type, is NAN.
 */
#ifndef ESNODE_NVML_CALLS_H
#define ESNODE_NVML_CALLS_H

#include <limits.h>
#include <math.h>
#include <string.h>

#include "nvml_abi.h"

typedef struct {
    nvmlDevice_t handle;
    unsigned long long reasons; /* clocks event reasons that it supports; 0: unknown */
    int links, fans;            /* how many it has */
    int mig;                    /* whether MIG mode is on */
} nvml_target;

typedef nvmlReturn_t (*nvml_run)(nvml_target *target, const int *argument, double *out);

enum { NVML_VARIANTS = 3, NVML_OUTPUTS = 16 };

typedef struct {
    const char *function;
    nvml_run run;
} nvml_variant;

typedef struct {
    const char *name;
    int outputs;
    int bits; /* 32 where a counter is that wide */
    nvml_variant variants[NVML_VARIANTS];
} nvml_call;

/* NAN is a float: beside it a number needs to be a double, or it is rounded to a float. */
static inline double nvml_u32(unsigned int value) {
    return value == UINT_MAX ? NAN : (double)value;
}

static inline double nvml_u64(unsigned long long value) {
    return value == ULLONG_MAX ? NAN : (double)value;
}

static inline double nvml_i32(int value) {
    return value == INT_MAX || value == INT_MIN ? NAN : (double)value;
}

static inline double nvml_i64(long long value) {
    return value == LLONG_MAX || value == LLONG_MIN ? NAN : (double)value;
}

/* Nothing that the driver counts is beyond 64 bits, and no number is infinite. */
static inline double nvml_f64(double value) {
    return fabs(value) < (double)ULLONG_MAX ? value : NAN;
}

/* Of an enum, whose numbers are all positive: the largest is -1 to us. */
static inline double nvml_enum(int value) {
    return value < 0 ? NAN : nvml_i32(value);
}

#define NVML_RUN(name) \
    static nvmlReturn_t name(nvml_target *t, const int *a, double *out)

/* Calls `function` with the arguments that follow, unless the library lacks it. */
#define NVML_TRY(function, ...) \
    nvmlReturn_t code = NVML_ERROR_FUNCTION_NOT_FOUND; \
    (void)t, (void)a; \
    if (function) \
        code = function(__VA_ARGS__); \
    if (code != NVML_SUCCESS) \
        return code

/* f(device, &unsigned) */
#define NVML_NUMBER(name, function) \
    NVML_RUN(name) { \
        unsigned int value = UINT_MAX; \
        NVML_TRY(function, t->handle, &value); \
        out[0] = nvml_u32(value); \
        return code; \
    }
/* f(device, argument, &unsigned) */
#define NVML_NUMBER_OF(name, function) \
    NVML_RUN(name) { \
        unsigned int value = UINT_MAX; \
        NVML_TRY(function, t->handle, a[0], &value); \
        out[0] = nvml_u32(value); \
        return code; \
    }
/* f(device, &unsigned, &period) */
#define NVML_ENGINE(name, function) \
    NVML_RUN(name) { \
        unsigned int value = UINT_MAX, period; \
        NVML_TRY(function, t->handle, &value, &period); \
        out[0] = nvml_u32(value); \
        return code; \
    }
/* f(device, &enum) */
#define NVML_STATE(name, function) \
    NVML_RUN(name) { \
        int value = INT_MAX; \
        NVML_TRY(function, t->handle, &value); \
        out[0] = nvml_enum(value); \
        return code; \
    }

NVML_NUMBER(nvml_power_usage, nvmlDeviceGetPowerUsage)
NVML_NUMBER(nvml_enforced_limit, nvmlDeviceGetEnforcedPowerLimit)
NVML_NUMBER(nvml_default_limit, nvmlDeviceGetPowerManagementDefaultLimit)
NVML_NUMBER(nvml_pcie_generation, nvmlDeviceGetCurrPcieLinkGeneration)
NVML_NUMBER(nvml_pcie_max_generation, nvmlDeviceGetMaxPcieLinkGeneration)
NVML_NUMBER(nvml_pcie_width, nvmlDeviceGetCurrPcieLinkWidth)
NVML_NUMBER(nvml_pcie_max_width, nvmlDeviceGetMaxPcieLinkWidth)
NVML_NUMBER(nvml_pcie_replay, nvmlDeviceGetPcieReplayCounter)
NVML_NUMBER_OF(nvml_temperature, nvmlDeviceGetTemperature)
NVML_NUMBER_OF(nvml_threshold, nvmlDeviceGetTemperatureThreshold)
NVML_NUMBER_OF(nvml_clock, nvmlDeviceGetClockInfo)
NVML_NUMBER_OF(nvml_max_clock, nvmlDeviceGetMaxClockInfo)
NVML_NUMBER_OF(nvml_fan_v2, nvmlDeviceGetFanSpeed_v2)
NVML_ENGINE(nvml_encoder, nvmlDeviceGetEncoderUtilization)
NVML_ENGINE(nvml_decoder, nvmlDeviceGetDecoderUtilization)
NVML_ENGINE(nvml_jpg, nvmlDeviceGetJpgUtilization)
NVML_ENGINE(nvml_ofa, nvmlDeviceGetOfaUtilization)
NVML_STATE(nvml_retired_pending, nvmlDeviceGetRetiredPagesPendingStatus)
NVML_STATE(nvml_persistence, nvmlDeviceGetPersistenceMode)
NVML_STATE(nvml_compute_mode, nvmlDeviceGetComputeMode)

NVML_RUN(nvml_pstate) {
    nvmlPstates_t value = NVML_PSTATE_UNKNOWN;
    NVML_TRY(nvmlDeviceGetPerformanceState, t->handle, &value);
    out[0] = value < 0 || value >= NVML_PSTATE_UNKNOWN ? NAN : value;
    return code;
}

NVML_RUN(nvml_fan) {
    unsigned int value = UINT_MAX;
    if (a[0] > 0) /* it tells of one fan only */
        return NVML_ERROR_NOT_SUPPORTED;
    NVML_TRY(nvmlDeviceGetFanSpeed, t->handle, &value);
    out[0] = nvml_u32(value);
    return code;
}

NVML_RUN(nvml_utilization) {
    nvmlUtilization_t value = {UINT_MAX, UINT_MAX};
    NVML_TRY(nvmlDeviceGetUtilizationRates, t->handle, &value);
    out[0] = nvml_u32(value.gpu);
    out[1] = nvml_u32(value.memory);
    return code;
}

NVML_RUN(nvml_memory_v2) {
    nvmlMemory_v2_t value = {.version = NVML_VERSION_OF(nvmlMemory_v2_t, 2)};
    NVML_TRY(nvmlDeviceGetMemoryInfo_v2, t->handle, &value);
    out[0] = nvml_u64(value.total);
    out[1] = nvml_u64(value.used);
    out[2] = nvml_u64(value.free);
    out[3] = nvml_u64(value.reserved);
    return code;
}

NVML_RUN(nvml_memory) { /* what is reserved counts as used here */
    nvmlMemory_t value;
    NVML_TRY(nvmlDeviceGetMemoryInfo, t->handle, &value);
    out[0] = nvml_u64(value.total);
    out[1] = nvml_u64(value.used);
    out[2] = nvml_u64(value.free);
    return code;
}

NVML_RUN(nvml_bar1) {
    nvmlBAR1Memory_t value;
    NVML_TRY(nvmlDeviceGetBAR1MemoryInfo, t->handle, &value);
    out[0] = nvml_u64(value.bar1Total);
    out[1] = nvml_u64(value.bar1Used);
    return code;
}

NVML_RUN(nvml_temperature_v) {
    nvmlTemperature_v1_t value = {NVML_VERSION_OF(nvmlTemperature_v1_t, 1), a[0], INT_MAX};
    NVML_TRY(nvmlDeviceGetTemperatureV, t->handle, &value);
    out[0] = nvml_i32(value.temperature);
    return code;
}

NVML_RUN(nvml_margin) {
    nvmlMarginTemperature_v1_t value = {NVML_VERSION_OF(nvmlMarginTemperature_v1_t, 1), INT_MAX};
    NVML_TRY(nvmlDeviceGetMarginTemperature, t->handle, &value);
    out[0] = nvml_i32(value.marginTemperature);
    return code;
}

NVML_RUN(nvml_limit_constraints) {
    unsigned int low = UINT_MAX, high = UINT_MAX;
    NVML_TRY(nvmlDeviceGetPowerManagementLimitConstraints, t->handle, &low, &high);
    out[0] = nvml_u32(low);
    out[1] = nvml_u32(high);
    return code;
}

NVML_RUN(nvml_energy) {
    unsigned long long value = ULLONG_MAX;
    NVML_TRY(nvmlDeviceGetTotalEnergyConsumption, t->handle, &value);
    out[0] = nvml_u64(value);
    return code;
}

/* The bits of the reasons in the order of the outputs. */
static const unsigned int NVML_REASONS[] = {
    0x1, 0x2, 0x4, 0x8, 0x10, 0x20, 0x40, 0x80, 0x100, 0x200, 0x400,
};
enum { NVML_N_REASONS = sizeof NVML_REASONS / sizeof *NVML_REASONS };

static nvmlReturn_t nvml_put_reasons(nvml_target *t, unsigned long long value, double *out) {
    for (int i = 0; i < NVML_N_REASONS && value != ULLONG_MAX; i++)
        out[i] = !t->reasons || t->reasons & NVML_REASONS[i] ? (value & NVML_REASONS[i]) != 0 : NAN;
    return NVML_SUCCESS;
}

NVML_RUN(nvml_event_reasons) {
    unsigned long long value = 0;
    NVML_TRY(nvmlDeviceGetCurrentClocksEventReasons, t->handle, &value);
    return nvml_put_reasons(t, value, out);
}

NVML_RUN(nvml_throttle_reasons) {
    unsigned long long value = 0;
    NVML_TRY(nvmlDeviceGetCurrentClocksThrottleReasons, t->handle, &value);
    return nvml_put_reasons(t, value, out);
}

NVML_RUN(nvml_supported_event_reasons) {
    (void)out;
    NVML_TRY(nvmlDeviceGetSupportedClocksEventReasons, t->handle, &t->reasons);
    return code;
}

NVML_RUN(nvml_supported_throttle_reasons) {
    (void)out;
    NVML_TRY(nvmlDeviceGetSupportedClocksThrottleReasons, t->handle, &t->reasons);
    return code;
}

NVML_RUN(nvml_ecc_mode) {
    nvmlEnableState_t current = INT_MAX, pending;
    NVML_TRY(nvmlDeviceGetEccMode, t->handle, &current, &pending);
    out[0] = nvml_enum(current);
    return code;
}

NVML_RUN(nvml_total_ecc) {
    unsigned long long value = ULLONG_MAX;
    NVML_TRY(nvmlDeviceGetTotalEccErrors, t->handle, a[0], a[1], &value);
    out[0] = nvml_u64(value);
    return code;
}

NVML_RUN(nvml_memory_error) {
    unsigned long long value = ULLONG_MAX;
    NVML_TRY(nvmlDeviceGetMemoryErrorCounter, t->handle, a[0], a[1], a[2], &value);
    out[0] = nvml_u64(value);
    return code;
}

NVML_RUN(nvml_sram_status) {
    nvmlEccSramErrorStatus_v1_t value = {
        .version = NVML_VERSION_OF(nvmlEccSramErrorStatus_v1_t, 1)};
    NVML_TRY(nvmlDeviceGetSramEccErrorStatus, t->handle, &value);
    out[0] = value.bThresholdExceeded == UINT_MAX ? NAN : value.bThresholdExceeded != 0;
    out[1] = nvml_u64(value.volatileCor);
    out[2] = nvml_u64(value.volatileUncParity) + nvml_u64(value.volatileUncSecDed);
    out[3] = nvml_u64(value.aggregateCor);
    out[4] = nvml_u64(value.aggregateUncParity) + nvml_u64(value.aggregateUncSecDed);
    return code;
}

NVML_RUN(nvml_remapped_rows) {
    unsigned int value[4] = {UINT_MAX, UINT_MAX, UINT_MAX, UINT_MAX};
    NVML_TRY(nvmlDeviceGetRemappedRows, t->handle, value, value + 1, value + 2, value + 3);
    for (int i = 0; i < 4; i++)
        out[i] = nvml_u32(value[i]);
    return code;
}

NVML_RUN(nvml_remap_histogram) {
    nvmlRowRemapperHistogramValues_t value;
    NVML_TRY(nvmlDeviceGetRowRemapperHistogram, t->handle, &value);
    out[0] = nvml_u32(value.max);
    out[1] = nvml_u32(value.high);
    out[2] = nvml_u32(value.partial);
    out[3] = nvml_u32(value.low);
    out[4] = nvml_u32(value.none);
    return code;
}

/* Asked without room for the addresses, the library tells how many there are. */
static nvmlReturn_t nvml_put_pages(nvmlReturn_t code, unsigned int count, double *out) {
    if (code == NVML_ERROR_INSUFFICIENT_SIZE)
        code = NVML_SUCCESS;
    if (code == NVML_SUCCESS)
        out[0] = nvml_u32(count);
    return code;
}

NVML_RUN(nvml_retired_pages_v2) {
    unsigned int count = 0;
    if (!nvmlDeviceGetRetiredPages_v2)
        return NVML_ERROR_FUNCTION_NOT_FOUND;
    nvmlReturn_t code = nvmlDeviceGetRetiredPages_v2(t->handle, a[0], &count, NULL, NULL);
    return nvml_put_pages(code, count, out);
}

NVML_RUN(nvml_retired_pages) {
    unsigned int count = 0;
    if (!nvmlDeviceGetRetiredPages)
        return NVML_ERROR_FUNCTION_NOT_FOUND;
    nvmlReturn_t code = nvmlDeviceGetRetiredPages(t->handle, a[0], &count, NULL);
    return nvml_put_pages(code, count, out);
}

NVML_RUN(nvml_link_state) {
    nvmlEnableState_t value = INT_MAX;
    NVML_TRY(nvmlDeviceGetNvLinkState, t->handle, a[0], &value);
    out[0] = nvml_enum(value);
    return code;
}

/* Outputs: the state, one of three each; then what the health mask says is wrong, 0 or 1 each. */
static nvmlReturn_t nvml_put_fabric(nvmlReturn_t status, int state, int mask, double *out) {
    static const struct {
        int shift, width;
    } CHECKS[] = {{0, 3}, {2, 3}, {4, 3}, {6, 3}, {8, 15}};
    if (status != NVML_SUCCESS && state == 3) /* completed, with an error */
        return status;
    if (state == 0)
        return NVML_ERROR_NOT_SUPPORTED;
    if (mask == -1) /* unknown */
        mask = 0;
    for (int i = 0; i < 3; i++)
        out[i] = state == i + 1 ? 1 : NAN;
    for (int i = 0; i < 5; i++) {
        int value = mask >> CHECKS[i].shift & CHECKS[i].width;
        if (i < 4)
            out[3 + i] = value == 1 ? 1 : value == 2 ? 0 : NAN;
        else /* 1 is a right configuration, what is more a kind of wrong one */
            out[3 + i] = value == 0 ? NAN : value > 1;
    }
    return NVML_SUCCESS;
}

NVML_RUN(nvml_fabric_v3) {
    nvmlGpuFabricInfo_v3_t value = {.version = NVML_VERSION_OF(nvmlGpuFabricInfo_v3_t, 3)};
    NVML_TRY(nvmlDeviceGetGpuFabricInfoV, t->handle, &value);
    return nvml_put_fabric(value.status, value.state, value.healthMask, out);
}

NVML_RUN(nvml_fabric_v2) {
    nvmlGpuFabricInfo_v3_t value = {.version = NVML_VERSION_OF(nvmlGpuFabricInfo_v2_t, 2)};
    NVML_TRY(nvmlDeviceGetGpuFabricInfoV, t->handle, &value);
    return nvml_put_fabric(value.status, value.state, value.healthMask, out);
}

NVML_RUN(nvml_fabric) {
    nvmlGpuFabricInfo_t value;
    memset(&value, 0, sizeof value);
    NVML_TRY(nvmlDeviceGetGpuFabricInfo, t->handle, &value);
    return nvml_put_fabric(value.status, value.state, 0, out);
}

NVML_RUN(nvml_mig_mode) {
    unsigned int current = UINT_MAX, pending;
    NVML_TRY(nvmlDeviceGetMigMode, t->handle, &current, &pending);
    out[0] = nvml_u32(current);
    t->mig = current == NVML_DEVICE_MIG_ENABLE;
    return code;
}

NVML_RUN(nvml_conf_compute) {
    nvmlConfComputeSystemState_t value;
    NVML_TRY(nvmlSystemGetConfComputeState, &value);
    out[0] = nvml_u32(value.ccFeature);
    return code;
}

#define NVML_AS(function, run) {#function, run}
static const nvml_call NVML_CALLS[] = {
    {"utilization", 2, 0, {NVML_AS(nvmlDeviceGetUtilizationRates, nvml_utilization)}},
    {"encoder", 1, 0, {NVML_AS(nvmlDeviceGetEncoderUtilization, nvml_encoder)}},
    {"decoder", 1, 0, {NVML_AS(nvmlDeviceGetDecoderUtilization, nvml_decoder)}},
    {"jpg", 1, 0, {NVML_AS(nvmlDeviceGetJpgUtilization, nvml_jpg)}},
    {"ofa", 1, 0, {NVML_AS(nvmlDeviceGetOfaUtilization, nvml_ofa)}},
    {"memory", 4, 0,
     {NVML_AS(nvmlDeviceGetMemoryInfo_v2, nvml_memory_v2),
      NVML_AS(nvmlDeviceGetMemoryInfo, nvml_memory)}},
    {"bar1", 2, 0, {NVML_AS(nvmlDeviceGetBAR1MemoryInfo, nvml_bar1)}},
    {"temperature", 1, 0,
     {NVML_AS(nvmlDeviceGetTemperatureV, nvml_temperature_v),
      NVML_AS(nvmlDeviceGetTemperature, nvml_temperature)}},
    {"margin", 1, 0, {NVML_AS(nvmlDeviceGetMarginTemperature, nvml_margin)}},
    {"threshold", 1, 0, {NVML_AS(nvmlDeviceGetTemperatureThreshold, nvml_threshold)}},
    {"power_usage", 1, 0, {NVML_AS(nvmlDeviceGetPowerUsage, nvml_power_usage)}},
    {"enforced_limit", 1, 0, {NVML_AS(nvmlDeviceGetEnforcedPowerLimit, nvml_enforced_limit)}},
    {"default_limit", 1, 0,
     {NVML_AS(nvmlDeviceGetPowerManagementDefaultLimit, nvml_default_limit)}},
    {"limit_constraints", 2, 0,
     {NVML_AS(nvmlDeviceGetPowerManagementLimitConstraints, nvml_limit_constraints)}},
    {"energy", 1, 0, {NVML_AS(nvmlDeviceGetTotalEnergyConsumption, nvml_energy)}},
    {"clock", 1, 0, {NVML_AS(nvmlDeviceGetClockInfo, nvml_clock)}},
    {"max_clock", 1, 0, {NVML_AS(nvmlDeviceGetMaxClockInfo, nvml_max_clock)}},
    {"pstate", 1, 0, {NVML_AS(nvmlDeviceGetPerformanceState, nvml_pstate)}},
    {"fan", 1, 0,
     {NVML_AS(nvmlDeviceGetFanSpeed_v2, nvml_fan_v2), NVML_AS(nvmlDeviceGetFanSpeed, nvml_fan)}},
    {"supported_reasons", 0, 0,
     {NVML_AS(nvmlDeviceGetSupportedClocksEventReasons, nvml_supported_event_reasons),
      NVML_AS(nvmlDeviceGetSupportedClocksThrottleReasons, nvml_supported_throttle_reasons)}},
    {"reasons", NVML_N_REASONS, 0,
     {NVML_AS(nvmlDeviceGetCurrentClocksEventReasons, nvml_event_reasons),
      NVML_AS(nvmlDeviceGetCurrentClocksThrottleReasons, nvml_throttle_reasons)}},
    {"ecc_mode", 1, 0, {NVML_AS(nvmlDeviceGetEccMode, nvml_ecc_mode)}},
    {"total_ecc", 1, 0, {NVML_AS(nvmlDeviceGetTotalEccErrors, nvml_total_ecc)}},
    {"memory_error", 1, 0, {NVML_AS(nvmlDeviceGetMemoryErrorCounter, nvml_memory_error)}},
    {"sram_status", 5, 0, {NVML_AS(nvmlDeviceGetSramEccErrorStatus, nvml_sram_status)}},
    {"remapped_rows", 4, 0, {NVML_AS(nvmlDeviceGetRemappedRows, nvml_remapped_rows)}},
    {"remap_histogram", 5, 0,
     {NVML_AS(nvmlDeviceGetRowRemapperHistogram, nvml_remap_histogram)}},
    {"retired_pages", 1, 0,
     {NVML_AS(nvmlDeviceGetRetiredPages_v2, nvml_retired_pages_v2),
      NVML_AS(nvmlDeviceGetRetiredPages, nvml_retired_pages)}},
    {"retired_pending", 1, 0,
     {NVML_AS(nvmlDeviceGetRetiredPagesPendingStatus, nvml_retired_pending)}},
    {"pcie_generation", 1, 0,
     {NVML_AS(nvmlDeviceGetCurrPcieLinkGeneration, nvml_pcie_generation)}},
    {"pcie_max_generation", 1, 0,
     {NVML_AS(nvmlDeviceGetMaxPcieLinkGeneration, nvml_pcie_max_generation)}},
    {"pcie_width", 1, 0, {NVML_AS(nvmlDeviceGetCurrPcieLinkWidth, nvml_pcie_width)}},
    {"pcie_max_width", 1, 0, {NVML_AS(nvmlDeviceGetMaxPcieLinkWidth, nvml_pcie_max_width)}},
    {"pcie_replay", 1, 32, {NVML_AS(nvmlDeviceGetPcieReplayCounter, nvml_pcie_replay)}},
    {"link_state", 1, 0, {NVML_AS(nvmlDeviceGetNvLinkState, nvml_link_state)}},
    {"fabric", 8, 0,
     {NVML_AS(nvmlDeviceGetGpuFabricInfoV, nvml_fabric_v3),
      NVML_AS(nvmlDeviceGetGpuFabricInfoV, nvml_fabric_v2),
      NVML_AS(nvmlDeviceGetGpuFabricInfo, nvml_fabric)}},
    {"persistence", 1, 0, {NVML_AS(nvmlDeviceGetPersistenceMode, nvml_persistence)}},
    {"compute_mode", 1, 0, {NVML_AS(nvmlDeviceGetComputeMode, nvml_compute_mode)}},
    {"mig_mode", 1, 0, {NVML_AS(nvmlDeviceGetMigMode, nvml_mig_mode)}},
    {"conf_compute", 1, 0, {NVML_AS(nvmlSystemGetConfComputeState, nvml_conf_compute)}},
};
enum { NVML_N_CALLS = sizeof NVML_CALLS / sizeof *NVML_CALLS };

#endif
