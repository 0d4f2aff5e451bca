/* A libnvidia-ml.so.1 without a GPU, which tests and benchmarks script while it is being called.
 *
 * What the functions answer stands in the state (fake_state.h), and fake_script.c changes it.
 * Whether the library was initialised, event sets and GPM samples belong to the process, as in the
 * real one. Calls take no lock.
 */
#include "fake_cards.h"
#include "fake_state.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DECLARE(name, arguments) nvmlReturn_t name arguments;
MORE_FUNCTIONS(DECLARE)
const char *nvmlErrorString(nvmlReturn_t);

state_t *state;
_Atomic int epoch;
static _Atomic int references; /* of this process: nvmlInit less nvmlShutdown */

/* ------------------------------------------------------------------------------ the fields */

static const rule *rule_of[FAKE_FIELDS];

__attribute__((constructor)) static void start(void) {
    for (int i = 0; i < RULES; i++)
        for (int id = rules[i].first; id <= rules[i].last; id++)
            rule_of[id] = &rules[i];
    if (fake_attach(getenv("FAKE_NVML_STATE")))
        abort();
}

static nvmlReturn_t field(gpu *g, nvmlFieldValue_t *f) {
    const rule *r = f->fieldId < FAKE_FIELDS ? rule_of[f->fieldId] : NULL;
    unsigned id = f->fieldId, scope = f->scopeId, links = g->units[0].value[P_links];
    if (id == 0 || id >= FAKE_FIELDS)
        return NVML_ERROR_INVALID_ARGUMENT;
    cell *total = &g->field[0][id], *c = total;
    f->valueType = r ? r->type : U64;
    int supported = r && g->units[0].value[P_features] >> r->needs_bit & 1;
    if (r && (r->scope == PER_LINK || r->scope == LINK_ONLY)) {
        if (scope < links)
            c = &g->field[1 + scope][id];
        else if (scope != FAKE_TOTAL || r->scope == LINK_ONLY)
            return supported ? NVML_ERROR_INVALID_ARGUMENT : NVML_ERROR_NOT_SUPPORTED;
    } else if (r && r->scope == SCOPED && scope > 0 && scope < LINKS) {
        c = &g->field[1 + scope][id];
        if (!c->set)
            return NVML_ERROR_NOT_SUPPORTED;
    }
    uint64_t value = c->value;
    if (c->set || (total->set && total->code)) {
        cell *say = c->set ? c : total;
        if (say->code)
            return say->code;
        if (say->type >= 0)
            f->valueType = say->type;
    } else if (!supported) {
        return NVML_ERROR_NOT_SUPPORTED;
    } else if (r->property >= 0) {
        value = g->units[0].value[r->property + (int)(id - r->first)];
        if (value == FAKE_ABSENT)
            return NVML_ERROR_NOT_SUPPORTED;
    } else if (r->scope == PER_LINK && c == total) {
        for (unsigned link = 0; link < links; link++)
            value += g->field[1 + link][id].value;
    }
    f->value.ullVal = value; /* little-endian: shorter ones are its beginning */
    if (f->valueType == NVML_VALUE_TYPE_DOUBLE)
        f->value.dVal = (double)value;
    else if (f->valueType == U32 || f->valueType == S32)
        f->value.ullVal = (unsigned)value;
    return NVML_SUCCESS;
}

/* ------------------------------------------------------------------------------ every call */

typedef struct {
    int slot, instance; /* instance 0: the GPU */
    gpu *gpu;
    unit *unit;
} target;

enum { ON_MIG = 1, NOT_PARENT = 2, IDENTITY = 4, MIG_ONLY = 8 };
typedef struct {
    unsigned flags, needs;
} call_rule;
/* ON_MIG: instances answer, too. NOT_PARENT: a GPU in MIG mode does not. IDENTITY: also before the
 * reset that a GPU requires. Assumed: that PCI, ECC mode and counters are among the first. */
static const call_rule call_rules[FUNCTIONS] = {
    [F_nvmlDeviceGetUUID] = {ON_MIG | IDENTITY, 0},
    [F_nvmlDeviceGetName] = {ON_MIG | IDENTITY, 0},
    [F_nvmlDeviceGetIndex] = {ON_MIG | IDENTITY, 0},
    [F_nvmlDeviceGetMinorNumber] = {IDENTITY, 0},
    [F_nvmlDeviceGetSerial] = {IDENTITY, SERIAL},
    [F_nvmlDeviceGetPciInfo_v3] = {ON_MIG | IDENTITY, 0},
    [F_nvmlDeviceGetMemoryInfo] = {ON_MIG, 0},
    [F_nvmlDeviceGetMemoryInfo_v2] = {ON_MIG, 0},
    [F_nvmlDeviceGetBAR1MemoryInfo] = {ON_MIG, 0},
    [F_nvmlDeviceGetArchitecture] = {ON_MIG, 0},
    [F_nvmlDeviceGetCudaComputeCapability] = {ON_MIG, 0},
    [F_nvmlDeviceIsMigDeviceHandle] = {ON_MIG | IDENTITY, 0},
    [F_nvmlDeviceGetDeviceHandleFromMigDeviceHandle] = {ON_MIG | MIG_ONLY, MIG},
    [F_nvmlDeviceGetGpuInstanceId] = {ON_MIG | MIG_ONLY, MIG},
    [F_nvmlDeviceGetComputeInstanceId] = {ON_MIG | MIG_ONLY, MIG},
    [F_nvmlDeviceGetAttributes_v2] = {ON_MIG | MIG_ONLY, MIG},
    [F_nvmlDeviceGetEccMode] = {ON_MIG, ECC},
    [F_nvmlDeviceGetTotalEccErrors] = {ON_MIG, ECC},
    [F_nvmlDeviceGetMemoryErrorCounter] = {ON_MIG, ECC},
    [F_nvmlDeviceGetComputeRunningProcesses_v3] = {ON_MIG, 0},
    [F_nvmlDeviceGetGraphicsRunningProcesses_v3] = {ON_MIG, 0},
    [F_nvmlDeviceGetMPSComputeRunningProcesses_v3] = {ON_MIG, 0},
    [F_nvmlDeviceGetSramEccErrorStatus] = {0, SRAM},
    [F_nvmlDeviceGetUtilizationRates] = {NOT_PARENT, 0},
    [F_nvmlDeviceGetEncoderUtilization] = {NOT_PARENT, 0},
    [F_nvmlDeviceGetDecoderUtilization] = {NOT_PARENT, 0},
    [F_nvmlDeviceGetJpgUtilization] = {NOT_PARENT, JPEG},
    [F_nvmlDeviceGetOfaUtilization] = {NOT_PARENT, JPEG},
    [F_nvmlDeviceGetProcessUtilization] = {NOT_PARENT, 0},
    [F_nvmlDeviceGetModuleId] = {0, MODULE},
    [F_nvmlDeviceGetNumaNodeId] = {0, NUMA},
    [F_nvmlDeviceGetMarginTemperature] = {0, MARGIN},
    [F_nvmlDeviceGetNumFans] = {0, FANS},
    [F_nvmlDeviceGetFanSpeed] = {0, FANS},
    [F_nvmlDeviceGetFanSpeed_v2] = {0, FANS},
    [F_nvmlDeviceGetRemappedRows] = {0, REMAP},
    [F_nvmlDeviceGetRowRemapperHistogram] = {0, REMAP},
    [F_nvmlDeviceGetRetiredPages] = {0, RETIRED},
    [F_nvmlDeviceGetRetiredPages_v2] = {0, RETIRED},
    [F_nvmlDeviceGetRetiredPagesPendingStatus] = {0, RETIRED},
    [F_nvmlDeviceGetNvLinkState] = {0, NVLINK},
    [F_nvmlDeviceGetNvLinkVersion] = {0, NVLINK},
    [F_nvmlDeviceGetNvLinkErrorCounter] = {0, NVLINK4},
    [F_nvmlDeviceGetGpuFabricInfo] = {0, FABRIC},
    [F_nvmlDeviceGetGpuFabricInfoV] = {0, FABRIC},
    [F_nvmlDeviceGetMigMode] = {0, MIG},
    [F_nvmlDeviceGetMigDeviceHandleByIndex] = {0, MIG},
    [F_nvmlDeviceGetGpuInstanceById] = {0, MIG},
    [F_nvmlGpmSampleGet] = {0, GPM},
    [F_nvmlGpmMigSampleGet] = {0, GPM | MIG},
};

/* A handle: slot + 1 in its first byte, instance in the second, generation above. */
static void *handle(int slot, int instance) {
    uint64_t generation = state->gpu[slot].units[instance].generation;
    return (void *)(uintptr_t)(generation << 16 | (unsigned)instance << 8 | (unsigned)(slot + 1));
}

static nvmlReturn_t resolve(void *of, target *t) {
    uint64_t h = (uintptr_t)of;
    t->slot = (int)(h & 0xff) - 1;
    t->instance = h >> 8 & 0xff;
    if (t->slot < 0 || t->slot >= FAKE_GPUS || t->instance > FAKE_INSTANCES) {
        t->slot = NONE;
        return NVML_ERROR_INVALID_ARGUMENT;
    }
    t->gpu = &state->gpu[t->slot];
    t->unit = &t->gpu->units[t->instance];
    if (t->gpu->units[0].generation && t->unit->generation == (unsigned)(h >> 16))
        return NVML_SUCCESS;
    return t->instance ? NVML_ERROR_NOT_FOUND : NVML_ERROR_INVALID_ARGUMENT;
}

static int scripted(script *s) {
    int64_t until = now_ns(CLOCK_MONOTONIC) + s->spin_ns;
    if (s->sleep_ns)
        sleep_ns(s->sleep_ns);
    while (s->spin_ns && now_ns(CLOCK_MONOTONIC) < until)
        ;
    while (s->hang)
        sleep_ns(1000000);
    int left = s->times; /* below 0: always */
    while (left > 0 && !atomic_compare_exchange_weak(&s->times, &left, left - 1))
        ;
    return left ? s->code : 0;
}

/* Counts the call and does what the script says. */
static nvmlReturn_t begin(int function, int column) {
    int code = 0;
    atomic_fetch_add_explicit(&state->calls[column][function], 1, memory_order_relaxed);
    if (state->option[O_busy_ns])
        for (int64_t until = now_ns(CLOCK_MONOTONIC) + (int64_t)state->option[O_busy_ns];
             now_ns(CLOCK_MONOTONIC) < until;)
            ;
    script *s = &state->script[column][function];
    if (s->on)
        code = scripted(s);
    if (function <= F_nvmlShutdown || function == F_nvmlInit || function == F_nvmlInitWithFlags)
        return code;
    if (references <= 0)
        return NVML_ERROR_UNINITIALIZED;
    return epoch != state->epoch ? state->stale : code;
}

static nvmlReturn_t enter(int function, void *of, target *t) {
    nvmlReturn_t found = resolve(of, t), r = begin(function, t->slot);
    const call_rule *c = &call_rules[function];
    if (r || found)
        return r ? r : found;
    int condition = t->gpu->condition;
    if (condition && !(condition == NVML_ERROR_RESET_REQUIRED && c->flags & IDENTITY))
        return condition;
    uint64_t has = t->gpu->units[0].value[P_features];
    if ((has & c->needs) != c->needs || (t->instance && !(c->flags & ON_MIG)) ||
        (!t->instance && c->flags & NOT_PARENT && t->unit->value[P_mig_mode]))
        return NVML_ERROR_NOT_SUPPORTED;
    return !t->instance && c->flags & MIG_ONLY ? NVML_ERROR_INVALID_ARGUMENT : NVML_SUCCESS;
}

/* Most functions begin with one of these. */
#define BEGIN(name, required) \
    nvmlReturn_t r = begin(F_##name, NONE); \
    if (r) \
        return r; \
    if (!(required)) \
        return NVML_ERROR_INVALID_ARGUMENT
#define ENTER(name, required) \
    target t; \
    nvmlReturn_t r = enter(F_##name, device, &t); \
    if (r) \
        return r; \
    if (!(required)) \
        return NVML_ERROR_INVALID_ARGUMENT
#define VALUE_OF(target, name) ((target)->unit->value[P_##name])
#define VALUE(name) VALUE_OF(&t, name)

static nvmlReturn_t number(uint64_t value, unsigned *to) {
    if (value == FAKE_ABSENT)
        return NVML_ERROR_NOT_SUPPORTED;
    *to = (unsigned)value;
    return NVML_SUCCESS;
}

static nvmlReturn_t number_long(uint64_t value, unsigned long long *to) {
    if (value == FAKE_ABSENT)
        return NVML_ERROR_NOT_SUPPORTED;
    *to = value;
    return NVML_SUCCESS;
}

static nvmlReturn_t copied(const char *text, char *to, unsigned length) {
    size_t n = strlen(text) + 1;
    if (n > length)
        return NVML_ERROR_INSUFFICIENT_SIZE;
    memcpy(to, text, n);
    return n > 1 ? NVML_SUCCESS : NVML_ERROR_NOT_SUPPORTED;
}

/* Readings that are one property: a line each. */
#define GET(name, type, as, property) \
    nvmlReturn_t name(nvmlDevice_t device, type *to) { \
        ENTER(name, to); \
        return as(VALUE(property), (void *)to); \
    }
GET(nvmlDeviceGetModuleId, unsigned, number, module_id)
GET(nvmlDeviceGetMinorNumber, unsigned, number, minor)
GET(nvmlDeviceGetNumaNodeId, unsigned, number, numa_node)
GET(nvmlDeviceGetArchitecture, nvmlDeviceArchitecture_t, number, architecture)
GET(nvmlDeviceGetBrand, int, number, brand)
GET(nvmlDeviceGetPowerUsage, unsigned, number, power_usage)
GET(nvmlDeviceGetEnforcedPowerLimit, unsigned, number, power_limit)
GET(nvmlDeviceGetPowerManagementLimit, unsigned, number, power_limit)
GET(nvmlDeviceGetPowerManagementDefaultLimit, unsigned, number, power_limit_default)
GET(nvmlDeviceGetTotalEnergyConsumption, unsigned long long, number_long, energy)
GET(nvmlDeviceGetPerformanceState, nvmlPstates_t, number, pstate)
GET(nvmlDeviceGetPowerState, nvmlPstates_t, number, pstate)
GET(nvmlDeviceGetNumFans, unsigned, number, fans)
GET(nvmlDeviceGetFanSpeed, unsigned, number, fan_0)
GET(nvmlDeviceGetCurrentClocksEventReasons, unsigned long long, number_long, clock_reasons)
GET(nvmlDeviceGetCurrentClocksThrottleReasons, unsigned long long, number_long, clock_reasons)
GET(nvmlDeviceGetSupportedClocksEventReasons, unsigned long long, number_long,
    clock_reasons_supported)
GET(nvmlDeviceGetSupportedClocksThrottleReasons, unsigned long long, number_long,
    clock_reasons_supported)
GET(nvmlDeviceGetRetiredPagesPendingStatus, nvmlEnableState_t, number, retired_pending)
GET(nvmlDeviceGetCurrPcieLinkGeneration, unsigned, number, pcie_generation)
GET(nvmlDeviceGetMaxPcieLinkGeneration, unsigned, number, pcie_generation_max)
GET(nvmlDeviceGetGpuMaxPcieLinkGeneration, unsigned, number, pcie_generation_max)
GET(nvmlDeviceGetCurrPcieLinkWidth, unsigned, number, pcie_width)
GET(nvmlDeviceGetMaxPcieLinkWidth, unsigned, number, pcie_width_max)
GET(nvmlDeviceGetPcieReplayCounter, unsigned, number, pcie_replays)
GET(nvmlDeviceGetPersistenceMode, nvmlEnableState_t, number, persistence)
GET(nvmlDeviceGetComputeMode, nvmlComputeMode_t, number, compute_mode)
GET(nvmlDeviceGetGpuInstanceId, unsigned, number, gi)
GET(nvmlDeviceGetComputeInstanceId, unsigned, number, ci)
GET(nvmlDeviceGetSupportedEventTypes, unsigned long long, number_long, event_types)

#define GET_TWO(name, one, other) \
    nvmlReturn_t name(nvmlDevice_t device, unsigned *a, unsigned *b) { \
        ENTER(name, a && b); \
        r = number(VALUE(one), a); \
        return r ? r : number(VALUE(other), b); \
    }
GET_TWO(nvmlDeviceGetEncoderUtilization, utilization_encoder, utilization_period)
GET_TWO(nvmlDeviceGetDecoderUtilization, utilization_decoder, utilization_period)
GET_TWO(nvmlDeviceGetJpgUtilization, utilization_jpeg, utilization_period)
GET_TWO(nvmlDeviceGetOfaUtilization, utilization_ofa, utilization_period)
GET_TWO(nvmlDeviceGetPowerManagementLimitConstraints, power_limit_min, power_limit_max)
GET_TWO(nvmlDeviceGetMigMode, mig_mode, mig_pending)

/* One of several properties, by a number. */
#define GET_NTH(name, type, first, count) \
    nvmlReturn_t name(nvmlDevice_t device, type which, unsigned *to) { \
        ENTER(name, to && (unsigned)which < (count)); \
        return number(t.unit->value[P_##first + which], to); \
    }
GET_NTH(nvmlDeviceGetTemperature, nvmlTemperatureSensors_t, temperature, 1)
GET_NTH(nvmlDeviceGetTemperatureThreshold, nvmlTemperatureThresholds_t, temperature_shutdown, 8)
GET_NTH(nvmlDeviceGetClockInfo, nvmlClockType_t, clock_graphics, 4)
GET_NTH(nvmlDeviceGetMaxClockInfo, nvmlClockType_t, clock_max_graphics, 4)
GET_NTH(nvmlDeviceGetFanSpeed_v2, unsigned, fan_0, VALUE(fans))

#define GET_TEXT(name, which) \
    nvmlReturn_t name(nvmlDevice_t device, char *to, unsigned length) { \
        ENTER(name, to); \
        return copied(t.unit->text[T_##which], to, length); \
    }
GET_TEXT(nvmlDeviceGetUUID, uuid)
GET_TEXT(nvmlDeviceGetName, name)
GET_TEXT(nvmlDeviceGetSerial, serial)
GET_TEXT(nvmlDeviceGetBoardPartNumber, part_number)
GET_TEXT(nvmlDeviceGetVbiosVersion, vbios)

#define NEVER(name, arguments) \
    nvmlReturn_t name arguments { \
        ENTER(name, 1); \
        return NVML_ERROR_NOT_SUPPORTED; \
    }
NEVER(nvmlDeviceGetDisplayMode, (nvmlDevice_t device, nvmlEnableState_t *to))
NEVER(nvmlDeviceGetDisplayActive, (nvmlDevice_t device, nvmlEnableState_t *to))
NEVER(nvmlDeviceGetDriverModel, (nvmlDevice_t device, int *now, int *pending))
NEVER(nvmlDeviceGetDriverModel_v2, (nvmlDevice_t device, int *now, int *pending))
NEVER(nvmlDeviceGetProcessUtilization,
      (nvmlDevice_t device, void *to, unsigned *count, unsigned long long since))
NEVER(nvmlDeviceGetNvLinkCapability,
      (nvmlDevice_t device, unsigned link, int capability, unsigned *to))
NEVER(nvmlDeviceGetNvLinkRemotePciInfo_v2,
      (nvmlDevice_t device, unsigned link, nvmlPciInfo_t *to))

/* ------------------------------------------------------------------------------ the node */

static nvmlReturn_t initialise(int function) {
    nvmlReturn_t r = begin(function, NONE);
    if (r || (r = state->init))
        return r;
    epoch = state->epoch;
    references++;
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlInit_v2(void) { return initialise(F_nvmlInit_v2); }
nvmlReturn_t nvmlInit(void) { return initialise(F_nvmlInit); }
nvmlReturn_t nvmlInitWithFlags(unsigned flags) { return initialise(F_nvmlInitWithFlags); }

nvmlReturn_t nvmlShutdown(void) {
    nvmlReturn_t r = begin(F_nvmlShutdown, NONE);
    if (r)
        return r;
    if (references <= 0)
        return NVML_ERROR_UNINITIALIZED;
    references--;
    return NVML_SUCCESS;
}

const char *nvmlErrorString(nvmlReturn_t code) {
    static const char *const texts[] = {
        "Success", "Uninitialized", "Invalid Argument", "Not Supported", "Insufficient Permissions",
        "Already Initialized", "Not Found", "Insufficient Size", "Insufficient External Power",
        "Driver Not Loaded", "Timeout", "Interrupt Request Issue", "NVML Shared Library Not Found",
        "Function Not Found", "Corrupted infoROM", "GPU is lost", "GPU requires restart",
        "The operating system has blocked the request.", "RM has detected an NVML/RM version mismatch.",
        "In use by another client", "Insufficient Memory", "No data",
        "ECC not supported with vGPU", "Insufficient Resources", "Frequency not supported",
        "Argument version mismatch"};
    return (unsigned)code < sizeof texts / sizeof *texts ? texts[code] : "Unknown Error";
}

nvmlReturn_t nvmlSystemGetDriverVersion(char *to, unsigned length) {
    BEGIN(nvmlSystemGetDriverVersion, to);
    return copied(state->driver_version, to, length);
}

nvmlReturn_t nvmlSystemGetNVMLVersion(char *to, unsigned length) {
    char text[NVML_SYSTEM_DRIVER_VERSION_BUFFER_SIZE + 4];
    BEGIN(nvmlSystemGetNVMLVersion, to);
    snprintf(text, sizeof text, "13.%s", state->driver_version);
    return copied(text, to, length);
}

nvmlReturn_t nvmlSystemGetCudaDriverVersion_v2(int *to) {
    BEGIN(nvmlSystemGetCudaDriverVersion_v2, to);
    return number(state->option[O_cuda_version], (unsigned *)to);
}

nvmlReturn_t nvmlSystemGetCudaDriverVersion(int *to) {
    BEGIN(nvmlSystemGetCudaDriverVersion, to);
    return number(state->option[O_cuda_version], (unsigned *)to);
}

nvmlReturn_t nvmlSystemGetConfComputeState(nvmlConfComputeSystemState_t *to) {
    BEGIN(nvmlSystemGetConfComputeState, to);
    r = number(state->option[O_cc_environment], &to->environment);
    to->ccFeature = state->option[O_cc_feature];
    to->devToolsMode = state->option[O_cc_devtools];
    return r;
}

nvmlReturn_t nvmlSystemGetProcessName(unsigned pid, char *to, unsigned length) {
    char text[32];
    BEGIN(nvmlSystemGetProcessName, to);
    snprintf(text, sizeof text, "/usr/bin/process-%u", pid);
    return copied(text, to, length);
}

nvmlReturn_t nvmlDeviceGetCount_v2(unsigned *to) {
    BEGIN(nvmlDeviceGetCount_v2, to);
    *to = 0;
    for (int slot = 0; slot < FAKE_GPUS; slot++)
        *to += state->gpu[slot].units[0].generation != 0;
    return NVML_SUCCESS;
}

/* The slot that has the place `index` among those that are present, or NONE. */
static int slot_at(unsigned index) {
    for (int slot = 0; slot < FAKE_GPUS; slot++)
        if (state->gpu[slot].units[0].generation && index-- == 0)
            return slot;
    return NONE;
}

/* A lost GPU gives no handle, which is what nvidia-smi stumbles over. */
static nvmlReturn_t give_handle(int function, int slot, int instance, void *to) {
    nvmlReturn_t r = begin(function, slot);
    if (r || slot == NONE || !to)
        return r ? r : NVML_ERROR_INVALID_ARGUMENT;
    if (state->gpu[slot].condition == NVML_ERROR_GPU_IS_LOST)
        return NVML_ERROR_GPU_IS_LOST;
    *(void **)to = handle(slot, instance);
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetHandleByIndex_v2(unsigned index, nvmlDevice_t *to) {
    return give_handle(F_nvmlDeviceGetHandleByIndex_v2, slot_at(index), 0, to);
}

nvmlReturn_t nvmlDeviceGetHandleByUUID(const char *uuid, nvmlDevice_t *to) {
    for (int slot = 0; uuid && slot < FAKE_GPUS; slot++)
        for (int i = 0; i <= FAKE_INSTANCES; i++) {
            unit *u = &state->gpu[slot].units[i];
            if (u->generation && !strcmp(u->text[T_uuid], uuid))
                return give_handle(F_nvmlDeviceGetHandleByUUID, slot, i, to);
        }
    BEGIN(nvmlDeviceGetHandleByUUID, uuid && to);
    return NVML_ERROR_NOT_FOUND;
}

nvmlReturn_t nvmlDeviceGetHandleByPciBusId_v2(const char *id, nvmlDevice_t *to) {
    unsigned domain, bus, at;
    if (id && sscanf(id, "%x:%x:%x", &domain, &bus, &at) == 3)
        for (int slot = 0; slot < FAKE_GPUS; slot++) {
            unit *u = &state->gpu[slot].units[0];
            if (u->generation && u->value[P_pci_domain] == domain && u->value[P_pci_bus] == bus &&
                u->value[P_pci_device] == at)
                return give_handle(F_nvmlDeviceGetHandleByPciBusId_v2, slot, 0, to);
        }
    BEGIN(nvmlDeviceGetHandleByPciBusId_v2, id && to);
    return NVML_ERROR_NOT_FOUND;
}

/* ------------------------------------------------------------------------------ the GPU */

nvmlReturn_t nvmlDeviceGetIndex(nvmlDevice_t device, unsigned *to) {
    ENTER(nvmlDeviceGetIndex, to);
    *to = t.instance ? (unsigned)t.instance - 1 : 0;
    for (int slot = 0; !t.instance && slot < t.slot; slot++)
        *to += state->gpu[slot].units[0].generation != 0;
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetCudaComputeCapability(nvmlDevice_t device, int *major, int *minor) {
    ENTER(nvmlDeviceGetCudaComputeCapability, major && minor);
    *major = (int)t.gpu->units[0].value[P_compute_major];
    *minor = (int)t.gpu->units[0].value[P_compute_minor];
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetPciInfo_v3(nvmlDevice_t device, nvmlPciInfo_t *to) {
    ENTER(nvmlDeviceGetPciInfo_v3, to);
    t.unit = &t.gpu->units[0];
    memset(to, 0, sizeof *to);
    to->domain = VALUE(pci_domain), to->bus = VALUE(pci_bus), to->device = VALUE(pci_device);
    to->pciDeviceId = VALUE(pci_device_id), to->pciSubSystemId = VALUE(pci_subsystem_id);
    snprintf(to->busId, sizeof to->busId, "%08X:%02X:%02X.0", to->domain, to->bus, to->device);
    snprintf(to->busIdLegacy, sizeof to->busIdLegacy, "%04X:%02X:%02X.0", to->domain & 0xffff,
             to->bus & 0xff, to->device & 0xff);
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetUtilizationRates(nvmlDevice_t device, nvmlUtilization_t *to) {
    ENTER(nvmlDeviceGetUtilizationRates, to);
    r = number(VALUE(utilization_gpu), &to->gpu);
    return r ? r : number(VALUE(utilization_memory), &to->memory);
}

nvmlReturn_t nvmlDeviceGetMemoryInfo_v2(nvmlDevice_t device, nvmlMemory_v2_t *to) {
    ENTER(nvmlDeviceGetMemoryInfo_v2, to);
    if (state->option[O_old_structs] || to->version != NVML_VERSION_OF(nvmlMemory_v2_t, 2))
        return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
    to->reserved = VALUE(memory_reserved), to->used = VALUE(memory_used);
    r = number_long(VALUE(memory_total), &to->total);
    to->free = to->total - to->reserved - to->used;
    return r;
}

nvmlReturn_t nvmlDeviceGetMemoryInfo(nvmlDevice_t device, nvmlMemory_t *to) {
    ENTER(nvmlDeviceGetMemoryInfo, to);
    to->used = VALUE(memory_used) + VALUE(memory_reserved);
    r = number_long(VALUE(memory_total), &to->total);
    to->free = to->total - to->used;
    return r;
}

nvmlReturn_t nvmlDeviceGetBAR1MemoryInfo(nvmlDevice_t device, nvmlBAR1Memory_t *to) {
    ENTER(nvmlDeviceGetBAR1MemoryInfo, to);
    to->bar1Used = VALUE(bar1_used);
    r = number_long(VALUE(bar1_total), &to->bar1Total);
    to->bar1Free = to->bar1Total - to->bar1Used;
    return r;
}

nvmlReturn_t nvmlDeviceGetTemperatureV(nvmlDevice_t device, nvmlTemperature_v1_t *to) {
    ENTER(nvmlDeviceGetTemperatureV, to);
    if (state->option[O_old_structs] || to->version != NVML_VERSION_OF(nvmlTemperature_v1_t, 1))
        return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
    if (to->sensorType != NVML_TEMPERATURE_GPU)
        return NVML_ERROR_INVALID_ARGUMENT;
    return number(VALUE(temperature), (unsigned *)&to->temperature);
}

nvmlReturn_t nvmlDeviceGetMarginTemperature(nvmlDevice_t device, nvmlMarginTemperature_v1_t *to) {
    ENTER(nvmlDeviceGetMarginTemperature, to);
    if (state->option[O_old_structs] ||
        to->version != NVML_VERSION_OF(nvmlMarginTemperature_v1_t, 1))
        return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
    return number(VALUE(temperature_margin), (unsigned *)&to->marginTemperature);
}

nvmlReturn_t nvmlDeviceGetPcieThroughput(nvmlDevice_t device, int counter, unsigned *to) {
    ENTER(nvmlDeviceGetPcieThroughput, to);
    sleep_ns(20000000); /* the driver counts for that long */
    return number(VALUE(pcie_throughput), to);
}

nvmlReturn_t nvmlDeviceGetFieldValues(nvmlDevice_t device, int count, nvmlFieldValue_t *values) {
    ENTER(nvmlDeviceGetFieldValues, values && count > 0);
    int family = -1, mixed = 0;
    uint64_t known_fields = state->option[O_known_fields];
    int64_t began = now_ns(CLOCK_REALTIME) / 1000;
    for (int i = 0; VALUE(mixed_fields_fail) && i < count; i++) {
        const rule *known = values[i].fieldId < FAKE_FIELDS ? rule_of[values[i].fieldId] : NULL;
        if (known) {
            mixed |= family >= 0 && family != known->family;
            family = known->family;
        }
    }
    for (int i = 0; known_fields && i < count; i++)
        if (values[i].fieldId > known_fields)
            return NVML_ERROR_INVALID_ARGUMENT;
    for (int i = 0; i < count; i++) {
        values[i].timestamp = began;
        values[i].latencyUsec = 1;
        values[i].nvmlReturn = mixed ? NVML_ERROR_NOT_SUPPORTED : field(t.gpu, &values[i]);
    }
    return NVML_SUCCESS;
}

/* A ring holds what was pushed, and while `ring_period_us` is set what the clock pushes: a value
 * each period, from 90 % to 110 % of the property's, one per cent more each time. */
nvmlReturn_t nvmlDeviceGetSamples(nvmlDevice_t device, nvmlSamplingType_t ring,
                                  unsigned long long since, nvmlValueType_t *type,
                                  unsigned *count, nvmlSample_t *to) {
    ENTER(nvmlDeviceGetSamples, type && count && (!to || *count));
    if ((unsigned)ring > NVML_GPU_UTILIZATION_SAMPLES)
        return NVML_ERROR_NOT_SUPPORTED;
    if (ring == NVML_GPU_UTILIZATION_SAMPLES && VALUE(mig_mode))
        return NVML_ERROR_NOT_SUPPORTED;
    *type = NVML_VALUE_TYPE_UNSIGNED_INT;
    if (!to) {
        *count = FAKE_RING;
        return NVML_SUCCESS;
    }
    uint64_t period = VALUE(ring_period_us);
    uint64_t base = ring ? VALUE(utilization_gpu) : VALUE(power_usage);
    uint64_t head = t.gpu->ring_head[ring]; /* entries so far */
    if (period)
        head = (uint64_t)now_ns(CLOCK_REALTIME) / 1000 / period + 1;
    unsigned n = 0;
    for (uint64_t i = head > FAKE_RING ? head - FAKE_RING : 0; i < head && n < *count; i++) {
        sample *s = &t.gpu->ring[ring][i % FAKE_RING];
        uint64_t at = period ? i * period : s->at;
        if (at > since) {
            to[n].timeStamp = at;
            to[n++].sampleValue.ullVal =
                (unsigned)(period ? base * (90 + i % 21) / 100 : s->value);
        }
    }
    *count = n;
    return n ? NVML_SUCCESS : NVML_ERROR_NOT_FOUND;
}

static nvmlReturn_t ecc(target *t, int type, int scope, int location, unsigned long long *to) {
    if ((unsigned)type > 1 || (unsigned)scope > 1 || (unsigned)location > 8 || !to)
        return NVML_ERROR_INVALID_ARGUMENT;
    if (!t->gpu->units[0].value[P_ecc_mode])
        return NVML_ERROR_NOT_SUPPORTED;
    int first = P_corrected_volatile_total + (type * 2 + scope) * 9;
    return number_long(t->unit->value[first + location], to);
}

nvmlReturn_t nvmlDeviceGetEccMode(nvmlDevice_t device, nvmlEnableState_t *now,
                                  nvmlEnableState_t *pending) {
    ENTER(nvmlDeviceGetEccMode, now && pending);
    *now = (int)t.gpu->units[0].value[P_ecc_mode];
    *pending = (int)t.gpu->units[0].value[P_ecc_pending];
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetTotalEccErrors(nvmlDevice_t device, nvmlMemoryErrorType_t type,
                                         nvmlEccCounterType_t scope, unsigned long long *to) {
    ENTER(nvmlDeviceGetTotalEccErrors, to);
    return ecc(&t, type, scope, 0, to);
}

nvmlReturn_t nvmlDeviceGetMemoryErrorCounter(nvmlDevice_t device, nvmlMemoryErrorType_t type,
                                             nvmlEccCounterType_t scope,
                                             nvmlMemoryLocation_t location,
                                             unsigned long long *to) {
    ENTER(nvmlDeviceGetMemoryErrorCounter, location >= 0);
    return ecc(&t, type, scope, location + 1, to);
}

nvmlReturn_t nvmlDeviceGetSramEccErrorStatus(nvmlDevice_t device,
                                             nvmlEccSramErrorStatus_v1_t *to) {
    ENTER(nvmlDeviceGetSramEccErrorStatus, to);
    if (state->option[O_old_structs] ||
        to->version != NVML_VERSION_OF(nvmlEccSramErrorStatus_v1_t, 1))
        return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
    for (int i = 0; i < 11; i++)
        (&to->aggregateUncParity)[i] = t.unit->value[P_sram_aggregate_parity + i];
    to->bThresholdExceeded = VALUE(sram_threshold);
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetRemappedRows(nvmlDevice_t device, unsigned *corrected,
                                       unsigned *uncorrected, unsigned *pending,
                                       unsigned *failure) {
    ENTER(nvmlDeviceGetRemappedRows, corrected && uncorrected && pending && failure);
    *corrected = VALUE(remapped_corrected), *uncorrected = VALUE(remapped_uncorrected);
    *pending = VALUE(remap_pending), *failure = VALUE(remap_failure);
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetRowRemapperHistogram(nvmlDevice_t device,
                                               nvmlRowRemapperHistogramValues_t *to) {
    ENTER(nvmlDeviceGetRowRemapperHistogram, to);
    *to = (nvmlRowRemapperHistogramValues_t){VALUE(banks_max), VALUE(banks_high),
                                             VALUE(banks_partial), VALUE(banks_low),
                                             VALUE(banks_none)};
    return NVML_SUCCESS;
}

/* Pages are made up: only their count is scripted. */
static nvmlReturn_t retired(target *t, int cause, unsigned *count, unsigned long long *pages,
                            unsigned long long *times) {
    unsigned room = *count;
    if ((unsigned)cause > 1)
        return NVML_ERROR_INVALID_ARGUMENT;
    *count = t->unit->value[P_retired_sbe + cause];
    if (room < *count)
        return pages || !room ? NVML_ERROR_INSUFFICIENT_SIZE : NVML_ERROR_INVALID_ARGUMENT;
    for (unsigned i = 0; pages && i < *count; i++) {
        pages[i] = 0x1000 * (i + 1);
        if (times)
            times[i] = 1700000000 + i;
    }
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetRetiredPages_v2(nvmlDevice_t device, nvmlPageRetirementCause_t cause,
                                          unsigned *count, unsigned long long *pages,
                                          unsigned long long *times) {
    ENTER(nvmlDeviceGetRetiredPages_v2, count);
    return retired(&t, cause, count, pages, times);
}

nvmlReturn_t nvmlDeviceGetRetiredPages(nvmlDevice_t device, nvmlPageRetirementCause_t cause,
                                       unsigned *count, unsigned long long *pages) {
    ENTER(nvmlDeviceGetRetiredPages, count);
    return retired(&t, cause, count, pages, NULL);
}

/* Of a link: the same words as its fields. */
nvmlReturn_t nvmlDeviceGetNvLinkState(nvmlDevice_t device, unsigned link, nvmlEnableState_t *to) {
    ENTER(nvmlDeviceGetNvLinkState, to && link < VALUE(links));
    *to = (int)t.gpu->field[1 + link][165].value;
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetNvLinkVersion(nvmlDevice_t device, unsigned link, unsigned *to) {
    ENTER(nvmlDeviceGetNvLinkVersion, to && link < VALUE(links));
    return number(VALUE(link_generation), to);
}

nvmlReturn_t nvmlDeviceGetNvLinkErrorCounter(nvmlDevice_t device, unsigned link, int counter,
                                             unsigned long long *to) {
    static const int ids[] = {161, 162, 163, 38, 160}; /* replay, recovery, CRC, …, ECC */
    ENTER(nvmlDeviceGetNvLinkErrorCounter, to && link < VALUE(links) && (unsigned)counter < 5);
    *to = t.gpu->field[1 + link][ids[counter]].value;
    return NVML_SUCCESS;
}

/* The cluster's UUID is the same on all GPUs; it is in no test but there. */
#define FABRIC_TO(to) \
    (memset((to)->clusterUuid, 0xCB, sizeof(to)->clusterUuid), \
     (to)->status = (int)VALUE(fabric_status), (to)->cliqueId = VALUE(fabric_clique), \
     (to)->state = VALUE(fabric_state))

nvmlReturn_t nvmlDeviceGetGpuFabricInfoV(nvmlDevice_t device, nvmlGpuFabricInfo_v3_t *to) {
    ENTER(nvmlDeviceGetGpuFabricInfoV, to);
    int third = to->version == NVML_VERSION_OF(nvmlGpuFabricInfo_v3_t, 3);
    if (third ? state->option[O_old_structs] != 0
              : to->version != NVML_VERSION_OF(nvmlGpuFabricInfo_v2_t, 2))
        return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
    FABRIC_TO(to);
    to->healthMask = VALUE(fabric_health);
    if (third)
        to->healthSummary = VALUE(fabric_summary);
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetGpuFabricInfo(nvmlDevice_t device, nvmlGpuFabricInfo_t *to) {
    ENTER(nvmlDeviceGetGpuFabricInfo, to);
    FABRIC_TO(to);
    return NVML_SUCCESS;
}

static nvmlReturn_t processes(target *t, int kind, unsigned *count, nvmlProcessInfo_t *to) {
    unsigned n = 0, room = *count;
    for (unsigned i = 0; i < t->gpu->processes[kind]; i++) {
        const nvmlProcessInfo_t *p = &t->gpu->process[kind][i];
        if (t->instance && p->gpuInstanceId != t->unit->value[P_gi])
            continue;
        if (to && n < room)
            to[n] = *p;
        n++;
    }
    *count = n;
    return n > room ? NVML_ERROR_INSUFFICIENT_SIZE
           : n && !to ? NVML_ERROR_INVALID_ARGUMENT
                      : NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetComputeRunningProcesses_v3(nvmlDevice_t device, unsigned *count,
                                                     nvmlProcessInfo_t *to) {
    ENTER(nvmlDeviceGetComputeRunningProcesses_v3, count);
    return processes(&t, 0, count, to);
}

nvmlReturn_t nvmlDeviceGetGraphicsRunningProcesses_v3(nvmlDevice_t device, unsigned *count,
                                                      nvmlProcessInfo_t *to) {
    ENTER(nvmlDeviceGetGraphicsRunningProcesses_v3, count);
    return processes(&t, 1, count, to);
}

nvmlReturn_t nvmlDeviceGetMPSComputeRunningProcesses_v3(nvmlDevice_t device, unsigned *count,
                                                        nvmlProcessInfo_t *to) {
    ENTER(nvmlDeviceGetMPSComputeRunningProcesses_v3, count);
    *count = 0;
    return NVML_SUCCESS;
}

/* ------------------------------------------------------------------------------ MIG */

nvmlReturn_t nvmlDeviceGetMaxMigDeviceCount(nvmlDevice_t device, unsigned *to) {
    ENTER(nvmlDeviceGetMaxMigDeviceCount, to);
    *to = VALUE(features) & MIG ? FAKE_INSTANCES : 0;
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetMigDeviceHandleByIndex(nvmlDevice_t device, unsigned index,
                                                 nvmlDevice_t *to) {
    ENTER(nvmlDeviceGetMigDeviceHandleByIndex, to && index < FAKE_INSTANCES);
    if (!VALUE(mig_mode) || !t.gpu->units[1 + index].generation)
        return NVML_ERROR_NOT_FOUND;
    *to = handle(t.slot, 1 + (int)index);
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceIsMigDeviceHandle(nvmlDevice_t device, unsigned *to) {
    ENTER(nvmlDeviceIsMigDeviceHandle, to);
    *to = t.instance != 0;
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetDeviceHandleFromMigDeviceHandle(nvmlDevice_t device, nvmlDevice_t *to) {
    ENTER(nvmlDeviceGetDeviceHandleFromMigDeviceHandle, to);
    *to = handle(t.slot, 0);
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetAttributes_v2(nvmlDevice_t device, nvmlDeviceAttributes_t *to) {
    ENTER(nvmlDeviceGetAttributes_v2, to);
    *to = (nvmlDeviceAttributes_t){
        VALUE(multiprocessors), VALUE(copy_engines), VALUE(decoders),  VALUE(encoders),
        VALUE(jpegs),           VALUE(ofas),         VALUE(gi_slices), VALUE(ci_slices),
        VALUE(memory_total) >> 20};
    return NVML_SUCCESS;
}

/* The unit that has GPU instance `gi`, or 0. */
static int instance_of(const gpu *g, unsigned gi) {
    for (int i = 1; i <= FAKE_INSTANCES; i++)
        if (g->units[i].generation && g->units[i].value[P_gi] == gi)
            return i;
    return 0;
}

nvmlReturn_t nvmlDeviceGetGpuInstanceById(nvmlDevice_t device, unsigned gi,
                                          nvmlGpuInstance_t *to) {
    ENTER(nvmlDeviceGetGpuInstanceById, to);
    int i = VALUE(mig_mode) ? instance_of(t.gpu, gi) : 0;
    if (!i)
        return NVML_ERROR_NOT_FOUND;
    *to = handle(t.slot, i);
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlGpuInstanceGetInfo(nvmlGpuInstance_t instance, nvmlGpuInstanceInfo_t *to) {
    target t;
    nvmlReturn_t found = resolve(instance, &t), r = begin(F_nvmlGpuInstanceGetInfo, t.slot);
    if (r || found || !to || !t.instance)
        return r ? r : found ? found : NVML_ERROR_INVALID_ARGUMENT;
    if (t.gpu->condition)
        return t.gpu->condition;
    *to = (nvmlGpuInstanceInfo_t){
        handle(t.slot, 0), VALUE(gi), VALUE(profile_id),
        {VALUE(placement_start), VALUE(placement_size)}};
    return NVML_SUCCESS;
}

/* ------------------------------------------------------------------------------ GPM */

typedef struct {
    _Atomic int used;
    int slot, instance;
    unsigned generation;
    int64_t at; /* 0: nothing was taken */
} gpm_sample;
static gpm_sample gpm_samples[SAMPLES]; /* a handle is its place + 1 */

static gpm_sample *sample_of(nvmlGpmSample_t sample) {
    uintptr_t h = (uintptr_t)sample;
    return h && h <= SAMPLES && gpm_samples[h - 1].used ? &gpm_samples[h - 1] : NULL;
}

nvmlReturn_t nvmlGpmQueryDeviceSupport(nvmlDevice_t device, nvmlGpmSupport_t *to) {
    ENTER(nvmlGpmQueryDeviceSupport, to);
    if (state->option[O_old_structs] || to->version != NVML_GPM_SUPPORT_VERSION)
        return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
    to->isSupportedDevice = (VALUE(features) & GPM) != 0;
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlGpmSampleAlloc(nvmlGpmSample_t *to) {
    BEGIN(nvmlGpmSampleAlloc, to);
    for (uintptr_t i = 0; i < SAMPLES; i++) {
        int unused = 0;
        if (atomic_compare_exchange_strong(&gpm_samples[i].used, &unused, 1)) {
            gpm_samples[i].at = 0;
            state->gpm_samples++;
            *to = (nvmlGpmSample_t)(i + 1);
            return NVML_SUCCESS;
        }
    }
    return NVML_ERROR_UNKNOWN;
}

nvmlReturn_t nvmlGpmSampleFree(nvmlGpmSample_t sample) {
    gpm_sample *s = sample_of(sample);
    nvmlReturn_t r = begin(F_nvmlGpmSampleFree, NONE);
    if (references <= 0 || !s) /* memory of the library's own: no matter how the driver is */
        return r ? r : NVML_ERROR_INVALID_ARGUMENT;
    state->gpm_samples--;
    s->used = 0;
    return NVML_SUCCESS;
}

static nvmlReturn_t take(target *t, int instance, gpm_sample *s) {
    s->slot = t->slot, s->instance = instance;
    s->generation = t->gpu->units[instance].generation;
    s->at = now_ns(CLOCK_MONOTONIC);
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlGpmSampleGet(nvmlDevice_t device, nvmlGpmSample_t sample) {
    gpm_sample *s = sample_of(sample);
    ENTER(nvmlGpmSampleGet, s);
    return take(&t, 0, s);
}

nvmlReturn_t nvmlGpmMigSampleGet(nvmlDevice_t device, unsigned gi, nvmlGpmSample_t sample) {
    gpm_sample *s = sample_of(sample);
    ENTER(nvmlGpmMigSampleGet, s);
    int i = VALUE(mig_mode) ? instance_of(t.gpu, gi) : 0;
    return i ? take(&t, i, s) : NVML_ERROR_INVALID_ARGUMENT;
}

/* Assumed: which error each metric has when the samples are less than 100 ms apart. */
nvmlReturn_t nvmlGpmMetricsGet(nvmlGpmMetricsGet_t *get) {
    gpm_sample *a = get ? sample_of(get->sample1) : NULL;
    gpm_sample *b = get ? sample_of(get->sample2) : NULL;
    int slot = a && a->at ? a->slot : NONE;
    nvmlReturn_t r = begin(F_nvmlGpmMetricsGet, slot);
    if (r)
        return r;
    if (get && (state->option[O_old_structs] || get->version != NVML_GPM_METRICS_GET_VERSION))
        return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
    if (slot == NONE || !b || !b->at || a->slot != b->slot || a->instance != b->instance ||
        get->numMetrics == 0 || get->numMetrics > NVML_GPM_METRIC_MAX)
        return NVML_ERROR_INVALID_ARGUMENT;
    if (state->gpu[slot].condition)
        return state->gpu[slot].condition;
    for (unsigned i = 0; state->option[O_known_metrics] && i < get->numMetrics; i++)
        if (get->metrics[i].metricId > state->option[O_known_metrics])
            return NVML_ERROR_INVALID_ARGUMENT;
    const unit *u = &state->gpu[slot].units[a->instance];
    int close = b->at - a->at < 100000000;
    if (!u->generation || u->generation != a->generation || a->generation != b->generation)
        return NVML_ERROR_INVALID_ARGUMENT;
    for (unsigned i = 0; i < get->numMetrics; i++) {
        nvmlGpmMetric_t *m = &get->metrics[i];
        int known = m->metricId > 0 && m->metricId < METRICS;
        m->nvmlReturn = !known   ? NVML_ERROR_INVALID_ARGUMENT
                        : close  ? NVML_ERROR_UNKNOWN
                                 : u->metric_code[m->metricId];
        m->value = m->nvmlReturn ? 0 : u->metric[m->metricId];
    }
    return NVML_SUCCESS;
}

/* ------------------------------------------------------------------------------ events */

typedef struct {
    _Atomic int used;
    _Atomic unsigned generation; /* of the handle */
    unsigned at;                 /* the next event to look at */
    struct {
        word types;
        unsigned since, generation;
    } of[FAKE_GPUS];
} event_set;
static event_set sets[SETS];

static event_set *set_of(nvmlEventSet_t set) {
    uintptr_t h = (uintptr_t)set, i = (h & 0xff) - 1;
    return i < SETS && sets[i].used && sets[i].generation == h >> 8 ? &sets[i] : NULL;
}

nvmlReturn_t nvmlEventSetCreate(nvmlEventSet_t *to) {
    BEGIN(nvmlEventSetCreate, to);
    for (uintptr_t i = 0; i < SETS; i++) {
        int unused = 0;
        if (atomic_compare_exchange_strong(&sets[i].used, &unused, 1)) {
            memset(sets[i].of, 0, sizeof sets[i].of);
            sets[i].at = state->events;
            *to = (nvmlEventSet_t)((uintptr_t)++sets[i].generation << 8 | (i + 1));
            return NVML_SUCCESS;
        }
    }
    return NVML_ERROR_UNKNOWN;
}

nvmlReturn_t nvmlEventSetFree(nvmlEventSet_t set) {
    event_set *s = set_of(set);
    BEGIN(nvmlEventSetFree, s);
    s->used = 0;
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceRegisterEvents(nvmlDevice_t device, unsigned long long types,
                                      nvmlEventSet_t set) {
    event_set *s = set_of(set);
    ENTER(nvmlDeviceRegisterEvents, s);
    if (types & ~VALUE(event_types))
        return NVML_ERROR_NOT_SUPPORTED;
    if (!s->of[t.slot].types)
        s->of[t.slot].since = state->events;
    s->of[t.slot].generation = t.unit->generation;
    s->of[t.slot].types |= types;
    return NVML_SUCCESS;
}

/* The bell is read before the events, so that none that comes meanwhile is slept through. */
static nvmlReturn_t next_event(int function, nvmlEventSet_t set, nvmlEventData_t *to,
                               unsigned milliseconds) {
    nvmlReturn_t r = begin(function, NONE);
    event_set *s = set_of(set);
    int64_t until = now_ns(CLOCK_MONOTONIC) + milliseconds * INT64_C(1000000);
    if (r || !s || !to)
        return r ? r : NVML_ERROR_INVALID_ARGUMENT;
    for (;;) {
        unsigned bell = state->bell, end = state->events;
        if (references <= 0)
            return NVML_ERROR_UNINITIALIZED;
        if (epoch != state->epoch)
            return state->stale;
        if (end - s->at > FAKE_EVENTS)
            s->at = end - FAKE_EVENTS; /* the driver, too, drops the oldest */
        while (s->at != end) {
            unsigned n = s->at++;
            const event *e = &state->event[n % FAKE_EVENTS];
            const unit *u = &state->gpu[e->slot].units[0];
            if (!(s->of[e->slot].types & e->type) || n - s->of[e->slot].since > INT32_MAX ||
                s->of[e->slot].generation != u->generation)
                continue;
            *to = (nvmlEventData_t){handle(e->slot, 0), e->type, e->data, e->gi, e->ci};
            return NVML_SUCCESS;
        }
        for (int slot = 0; slot < FAKE_GPUS; slot++)
            if (s->of[slot].types && state->gpu[slot].condition == NVML_ERROR_GPU_IS_LOST)
                return NVML_ERROR_GPU_IS_LOST;
        int64_t left = until - now_ns(CLOCK_MONOTONIC);
        if (left <= 0)
            return NVML_ERROR_TIMEOUT;
        struct timespec wait = {left / 1000000000, left % 1000000000};
        syscall(SYS_futex, &state->bell, FUTEX_WAIT, bell, &wait, NULL, 0);
    }
}

nvmlReturn_t nvmlEventSetWait_v2(nvmlEventSet_t set, nvmlEventData_t *to, unsigned milliseconds) {
    return next_event(F_nvmlEventSetWait_v2, set, to, milliseconds);
}

nvmlReturn_t nvmlEventSetWait(nvmlEventSet_t set, nvmlEventData_t *to, unsigned milliseconds) {
    return next_event(F_nvmlEventSetWait, set, to, milliseconds);
}
