/* The part of NVIDIA's management library that the agent calls: its functions, types and numbers.
 *
 * Our own declarations, so that nothing of NVIDIA's is needed to build; a test compares every size
 * and offset with NVIDIA's header. Required functions are in every driver since R450 and keep the
 * library a needed dependency; any other may be missing from it, and is then NULL.
 */
#ifndef ESNODE_NVML_ABI_H
#define ESNODE_NVML_ABI_H

typedef struct nvmlDevice_st *nvmlDevice_t; /* a GPU, or a MIG instance */
typedef struct nvmlGpuInstance_st *nvmlGpuInstance_t;
typedef struct nvmlEventSet_st *nvmlEventSet_t;
typedef struct nvmlGpmSample_st *nvmlGpmSample_t;
typedef int nvmlReturn_t;
typedef int nvmlEnableState_t;
typedef int nvmlPstates_t;
typedef int nvmlClockType_t;
typedef int nvmlComputeMode_t;
typedef int nvmlSamplingType_t;
typedef int nvmlValueType_t;
typedef int nvmlTemperatureSensors_t;
typedef int nvmlTemperatureThresholds_t;
typedef int nvmlMemoryErrorType_t;
typedef int nvmlEccCounterType_t;
typedef int nvmlMemoryLocation_t;
typedef int nvmlPageRetirementCause_t;
typedef unsigned int nvmlDeviceArchitecture_t;

enum {
    NVML_SUCCESS = 0,
    NVML_ERROR_UNINITIALIZED = 1,
    NVML_ERROR_INVALID_ARGUMENT = 2,
    NVML_ERROR_NOT_SUPPORTED = 3,
    NVML_ERROR_NO_PERMISSION = 4,
    NVML_ERROR_NOT_FOUND = 6,
    NVML_ERROR_INSUFFICIENT_SIZE = 7,
    NVML_ERROR_DRIVER_NOT_LOADED = 9,
    NVML_ERROR_TIMEOUT = 10,
    NVML_ERROR_FUNCTION_NOT_FOUND = 13,
    NVML_ERROR_GPU_IS_LOST = 15,
    NVML_ERROR_RESET_REQUIRED = 16,
    NVML_ERROR_LIB_RM_VERSION_MISMATCH = 18,
    NVML_ERROR_ARGUMENT_VERSION_MISMATCH = 25,
    NVML_ERROR_UNKNOWN = 999,
};

enum { /* sizes of texts, and what limits lists */
    NVML_DEVICE_UUID_BUFFER_SIZE = 80,
    NVML_DEVICE_NAME_V2_BUFFER_SIZE = 96,
    NVML_DEVICE_SERIAL_BUFFER_SIZE = 30,
    NVML_DEVICE_PART_NUMBER_BUFFER_SIZE = 80,
    NVML_DEVICE_VBIOS_VERSION_BUFFER_SIZE = 32,
    NVML_SYSTEM_DRIVER_VERSION_BUFFER_SIZE = 80,
    NVML_DEVICE_PCI_BUS_ID_BUFFER_SIZE = 32,
    NVML_DEVICE_PCI_BUS_ID_BUFFER_V2_SIZE = 16,
    NVML_GPU_FABRIC_UUID_LEN = 16,
    NVML_NVLINK_MAX_LINKS = 36,
    NVML_GPM_METRIC_MAX = 477,
};

enum { NVML_FEATURE_DISABLED = 0, NVML_FEATURE_ENABLED = 1 };
enum { NVML_TEMPERATURE_GPU = 0 };
enum { NVML_CLOCK_GRAPHICS = 0, NVML_CLOCK_SM = 1, NVML_CLOCK_MEM = 2, NVML_CLOCK_VIDEO = 3 };
enum { NVML_PSTATE_UNKNOWN = 32 };
enum { NVML_TOTAL_POWER_SAMPLES = 0, NVML_GPU_UTILIZATION_SAMPLES = 1 };
enum { NVML_MEMORY_ERROR_TYPE_CORRECTED = 0, NVML_MEMORY_ERROR_TYPE_UNCORRECTED = 1 };
enum { NVML_VOLATILE_ECC = 0, NVML_AGGREGATE_ECC = 1 };
enum {
    NVML_MEMORY_LOCATION_L1_CACHE = 0,
    NVML_MEMORY_LOCATION_L2_CACHE = 1,
    NVML_MEMORY_LOCATION_DRAM = 2,
    NVML_MEMORY_LOCATION_REGISTER_FILE = 3,
    NVML_MEMORY_LOCATION_TEXTURE_MEMORY = 4,
    NVML_MEMORY_LOCATION_TEXTURE_SHM = 5,
    NVML_MEMORY_LOCATION_CBU = 6,
    NVML_MEMORY_LOCATION_SRAM = 7,
};
enum {
    NVML_VALUE_TYPE_DOUBLE = 0,
    NVML_VALUE_TYPE_UNSIGNED_INT = 1,
    NVML_VALUE_TYPE_UNSIGNED_LONG = 2,
    NVML_VALUE_TYPE_UNSIGNED_LONG_LONG = 3,
    NVML_VALUE_TYPE_SIGNED_LONG_LONG = 4,
    NVML_VALUE_TYPE_SIGNED_INT = 5,
    NVML_VALUE_TYPE_UNSIGNED_SHORT = 6,
};
enum {
    NVML_DEVICE_MIG_DISABLE = 0,
    NVML_DEVICE_MIG_ENABLE = 1,
};

/* What an event is, one bit each. */
#define nvmlEventTypeSingleBitEccError 0x1ULL
#define nvmlEventTypeDoubleBitEccError 0x2ULL
#define nvmlEventTypePState 0x4ULL
#define nvmlEventTypeXidCriticalError 0x8ULL
#define nvmlEventTypeClock 0x10ULL
#define nvmlEventTypePowerSourceChange 0x80ULL
#define nvmlEventMigConfigChange 0x100ULL
#define nvmlEventTypeSingleBitEccErrorStorm 0x200ULL
#define nvmlEventTypeDramRetirementEvent 0x400ULL
#define nvmlEventTypeDramRetirementFailure 0x800ULL
#define nvmlEventTypeNonFatalPoisonError 0x1000ULL
#define nvmlEventTypeFatalPoisonError 0x2000ULL
#define nvmlEventTypeGpuUnavailableError 0x4000ULL
#define nvmlEventTypeGpuRecoveryAction 0x8000ULL

typedef struct {
    char busIdLegacy[NVML_DEVICE_PCI_BUS_ID_BUFFER_V2_SIZE];
    unsigned int domain, bus, device, pciDeviceId, pciSubSystemId;
    char busId[NVML_DEVICE_PCI_BUS_ID_BUFFER_SIZE];
} nvmlPciInfo_t;

typedef struct {
    unsigned int gpu, memory; /* percent */
} nvmlUtilization_t;

typedef struct {
    unsigned long long total, free, used;
} nvmlMemory_t;

typedef struct {
    unsigned int version;
    unsigned long long total, reserved, free, used;
} nvmlMemory_v2_t;

typedef struct {
    unsigned long long bar1Total, bar1Free, bar1Used;
} nvmlBAR1Memory_t;

typedef struct {
    unsigned int version;
    nvmlTemperatureSensors_t sensorType;
    int temperature;
} nvmlTemperature_v1_t;

typedef struct {
    unsigned int version;
    int marginTemperature;
} nvmlMarginTemperature_v1_t;

typedef union {
    double dVal;
    int siVal;
    unsigned int uiVal;
    unsigned long ulVal;
    unsigned long long ullVal;
    long long sllVal;
    unsigned short usVal;
} nvmlValue_t;

typedef struct {
    unsigned long long timeStamp; /* microseconds */
    nvmlValue_t sampleValue;
} nvmlSample_t;

typedef struct {
    unsigned int fieldId, scopeId;
    long long timestamp, latencyUsec;
    nvmlValueType_t valueType;
    nvmlReturn_t nvmlReturn;
    nvmlValue_t value;
} nvmlFieldValue_t;

typedef struct {
    nvmlDevice_t device;
    unsigned long long eventType, eventData;
    unsigned int gpuInstanceId, computeInstanceId;
} nvmlEventData_t;

typedef struct {
    unsigned int pid;
    unsigned long long usedGpuMemory;
    unsigned int gpuInstanceId, computeInstanceId;
} nvmlProcessInfo_t;

typedef struct {
    unsigned int multiprocessorCount, sharedCopyEngineCount, sharedDecoderCount,
        sharedEncoderCount, sharedJpegCount, sharedOfaCount, gpuInstanceSliceCount,
        computeInstanceSliceCount;
    unsigned long long memorySizeMB;
} nvmlDeviceAttributes_t;

typedef struct {
    unsigned int start, size;
} nvmlGpuInstancePlacement_t;

typedef struct {
    nvmlDevice_t device;
    unsigned int id, profileId;
    nvmlGpuInstancePlacement_t placement;
} nvmlGpuInstanceInfo_t;

typedef struct {
    unsigned int version;
    unsigned long long aggregateUncParity, aggregateUncSecDed, aggregateCor, volatileUncParity,
        volatileUncSecDed, volatileCor, aggregateUncBucketL2, aggregateUncBucketSm,
        aggregateUncBucketPcie, aggregateUncBucketMcu, aggregateUncBucketOther;
    unsigned int bThresholdExceeded;
} nvmlEccSramErrorStatus_v1_t;

typedef struct {
    unsigned int max, high, partial, low, none;
} nvmlRowRemapperHistogramValues_t;

typedef struct {
    unsigned char clusterUuid[NVML_GPU_FABRIC_UUID_LEN];
    nvmlReturn_t status;
    unsigned int cliqueId;
    unsigned char state;
} nvmlGpuFabricInfo_t;

typedef struct {
    unsigned int version;
    unsigned char clusterUuid[NVML_GPU_FABRIC_UUID_LEN];
    nvmlReturn_t status;
    unsigned int cliqueId;
    unsigned char state;
    unsigned int healthMask;
} nvmlGpuFabricInfo_v2_t;

typedef struct {
    unsigned int version;
    unsigned char clusterUuid[NVML_GPU_FABRIC_UUID_LEN];
    nvmlReturn_t status;
    unsigned int cliqueId;
    unsigned char state;
    unsigned int healthMask;
    unsigned char healthSummary;
} nvmlGpuFabricInfo_v3_t;

typedef struct {
    unsigned int environment, ccFeature, devToolsMode;
} nvmlConfComputeSystemState_t;

typedef struct {
    unsigned int version, isSupportedDevice;
} nvmlGpmSupport_t;

typedef struct {
    unsigned int metricId;
    nvmlReturn_t nvmlReturn;
    double value;
    struct {
        char *shortName, *longName, *unit;
    } metricInfo;
} nvmlGpmMetric_t;

typedef struct { /* the library looks at no more than numMetrics of them */
    unsigned int version, numMetrics;
    nvmlGpmSample_t sample1, sample2;
    nvmlGpmMetric_t metrics[NVML_GPM_METRIC_MAX];
} nvmlGpmMetricsGet_t;

enum { NVML_GPM_SUPPORT_VERSION = 1, NVML_GPM_METRICS_GET_VERSION = 1 };

/* The version of a struct as the library wants to find it: its size and number. */
#define NVML_VERSION_OF(type, number) ((unsigned int)(sizeof(type) | ((number) << 24U)))

/* Every function: required ones, and those that a library may lack. */
#define NVML_FUNCTIONS(REQUIRED, OPTIONAL) \
    REQUIRED(nvmlInit_v2, (void)) \
    REQUIRED(nvmlShutdown, (void)) \
    REQUIRED(nvmlDeviceGetCount_v2, (unsigned int *)) \
    REQUIRED(nvmlDeviceGetHandleByIndex_v2, (unsigned int, nvmlDevice_t *)) \
    REQUIRED(nvmlDeviceGetUUID, (nvmlDevice_t, char *, unsigned int)) \
    OPTIONAL(nvmlSystemGetDriverVersion, (char *, unsigned int)) \
    OPTIONAL(nvmlSystemGetNVMLVersion, (char *, unsigned int)) \
    OPTIONAL(nvmlSystemGetCudaDriverVersion_v2, (int *)) \
    OPTIONAL(nvmlSystemGetCudaDriverVersion, (int *)) \
    OPTIONAL(nvmlSystemGetConfComputeState, (nvmlConfComputeSystemState_t *)) \
    OPTIONAL(nvmlDeviceGetName, (nvmlDevice_t, char *, unsigned int)) \
    OPTIONAL(nvmlDeviceGetSerial, (nvmlDevice_t, char *, unsigned int)) \
    OPTIONAL(nvmlDeviceGetBoardPartNumber, (nvmlDevice_t, char *, unsigned int)) \
    OPTIONAL(nvmlDeviceGetVbiosVersion, (nvmlDevice_t, char *, unsigned int)) \
    OPTIONAL(nvmlDeviceGetModuleId, (nvmlDevice_t, unsigned int *)) \
    OPTIONAL(nvmlDeviceGetMinorNumber, (nvmlDevice_t, unsigned int *)) \
    OPTIONAL(nvmlDeviceGetNumaNodeId, (nvmlDevice_t, unsigned int *)) \
    OPTIONAL(nvmlDeviceGetArchitecture, (nvmlDevice_t, nvmlDeviceArchitecture_t *)) \
    OPTIONAL(nvmlDeviceGetCudaComputeCapability, (nvmlDevice_t, int *, int *)) \
    OPTIONAL(nvmlDeviceGetPciInfo_v3, (nvmlDevice_t, nvmlPciInfo_t *)) \
    OPTIONAL(nvmlDeviceGetUtilizationRates, (nvmlDevice_t, nvmlUtilization_t *)) \
    OPTIONAL(nvmlDeviceGetEncoderUtilization, (nvmlDevice_t, unsigned int *, unsigned int *)) \
    OPTIONAL(nvmlDeviceGetDecoderUtilization, (nvmlDevice_t, unsigned int *, unsigned int *)) \
    OPTIONAL(nvmlDeviceGetJpgUtilization, (nvmlDevice_t, unsigned int *, unsigned int *)) \
    OPTIONAL(nvmlDeviceGetOfaUtilization, (nvmlDevice_t, unsigned int *, unsigned int *)) \
    OPTIONAL(nvmlDeviceGetMemoryInfo_v2, (nvmlDevice_t, nvmlMemory_v2_t *)) \
    OPTIONAL(nvmlDeviceGetMemoryInfo, (nvmlDevice_t, nvmlMemory_t *)) \
    OPTIONAL(nvmlDeviceGetBAR1MemoryInfo, (nvmlDevice_t, nvmlBAR1Memory_t *)) \
    OPTIONAL(nvmlDeviceGetTemperatureV, (nvmlDevice_t, nvmlTemperature_v1_t *)) \
    OPTIONAL(nvmlDeviceGetTemperature, \
             (nvmlDevice_t, nvmlTemperatureSensors_t, unsigned int *)) \
    OPTIONAL(nvmlDeviceGetMarginTemperature, (nvmlDevice_t, nvmlMarginTemperature_v1_t *)) \
    OPTIONAL(nvmlDeviceGetTemperatureThreshold, \
             (nvmlDevice_t, nvmlTemperatureThresholds_t, unsigned int *)) \
    OPTIONAL(nvmlDeviceGetFieldValues, (nvmlDevice_t, int, nvmlFieldValue_t *)) \
    OPTIONAL(nvmlDeviceGetPowerUsage, (nvmlDevice_t, unsigned int *)) \
    OPTIONAL(nvmlDeviceGetEnforcedPowerLimit, (nvmlDevice_t, unsigned int *)) \
    OPTIONAL(nvmlDeviceGetPowerManagementDefaultLimit, (nvmlDevice_t, unsigned int *)) \
    OPTIONAL(nvmlDeviceGetPowerManagementLimitConstraints, \
             (nvmlDevice_t, unsigned int *, unsigned int *)) \
    OPTIONAL(nvmlDeviceGetTotalEnergyConsumption, (nvmlDevice_t, unsigned long long *)) \
    OPTIONAL(nvmlDeviceGetSamples, \
             (nvmlDevice_t, nvmlSamplingType_t, unsigned long long, nvmlValueType_t *, \
              unsigned int *, nvmlSample_t *)) \
    OPTIONAL(nvmlDeviceGetClockInfo, (nvmlDevice_t, nvmlClockType_t, unsigned int *)) \
    OPTIONAL(nvmlDeviceGetMaxClockInfo, (nvmlDevice_t, nvmlClockType_t, unsigned int *)) \
    OPTIONAL(nvmlDeviceGetPerformanceState, (nvmlDevice_t, nvmlPstates_t *)) \
    OPTIONAL(nvmlDeviceGetNumFans, (nvmlDevice_t, unsigned int *)) \
    OPTIONAL(nvmlDeviceGetFanSpeed_v2, (nvmlDevice_t, unsigned int, unsigned int *)) \
    OPTIONAL(nvmlDeviceGetFanSpeed, (nvmlDevice_t, unsigned int *)) \
    OPTIONAL(nvmlDeviceGetCurrentClocksEventReasons, (nvmlDevice_t, unsigned long long *)) \
    OPTIONAL(nvmlDeviceGetCurrentClocksThrottleReasons, (nvmlDevice_t, unsigned long long *)) \
    OPTIONAL(nvmlDeviceGetSupportedClocksEventReasons, (nvmlDevice_t, unsigned long long *)) \
    OPTIONAL(nvmlDeviceGetSupportedClocksThrottleReasons, (nvmlDevice_t, unsigned long long *)) \
    OPTIONAL(nvmlDeviceGetEccMode, (nvmlDevice_t, nvmlEnableState_t *, nvmlEnableState_t *)) \
    OPTIONAL(nvmlDeviceGetTotalEccErrors, \
             (nvmlDevice_t, nvmlMemoryErrorType_t, nvmlEccCounterType_t, unsigned long long *)) \
    OPTIONAL(nvmlDeviceGetMemoryErrorCounter, \
             (nvmlDevice_t, nvmlMemoryErrorType_t, nvmlEccCounterType_t, nvmlMemoryLocation_t, \
              unsigned long long *)) \
    OPTIONAL(nvmlDeviceGetSramEccErrorStatus, (nvmlDevice_t, nvmlEccSramErrorStatus_v1_t *)) \
    OPTIONAL(nvmlDeviceGetRemappedRows, \
             (nvmlDevice_t, unsigned int *, unsigned int *, unsigned int *, unsigned int *)) \
    OPTIONAL(nvmlDeviceGetRowRemapperHistogram, \
             (nvmlDevice_t, nvmlRowRemapperHistogramValues_t *)) \
    OPTIONAL(nvmlDeviceGetRetiredPages_v2, \
             (nvmlDevice_t, nvmlPageRetirementCause_t, unsigned int *, unsigned long long *, \
              unsigned long long *)) \
    OPTIONAL(nvmlDeviceGetRetiredPages, \
             (nvmlDevice_t, nvmlPageRetirementCause_t, unsigned int *, unsigned long long *)) \
    OPTIONAL(nvmlDeviceGetRetiredPagesPendingStatus, (nvmlDevice_t, nvmlEnableState_t *)) \
    OPTIONAL(nvmlDeviceGetCurrPcieLinkGeneration, (nvmlDevice_t, unsigned int *)) \
    OPTIONAL(nvmlDeviceGetMaxPcieLinkGeneration, (nvmlDevice_t, unsigned int *)) \
    OPTIONAL(nvmlDeviceGetCurrPcieLinkWidth, (nvmlDevice_t, unsigned int *)) \
    OPTIONAL(nvmlDeviceGetMaxPcieLinkWidth, (nvmlDevice_t, unsigned int *)) \
    OPTIONAL(nvmlDeviceGetPcieReplayCounter, (nvmlDevice_t, unsigned int *)) \
    OPTIONAL(nvmlDeviceGetNvLinkState, (nvmlDevice_t, unsigned int, nvmlEnableState_t *)) \
    OPTIONAL(nvmlDeviceGetGpuFabricInfoV, (nvmlDevice_t, nvmlGpuFabricInfo_v3_t *)) \
    OPTIONAL(nvmlDeviceGetGpuFabricInfo, (nvmlDevice_t, nvmlGpuFabricInfo_t *)) \
    OPTIONAL(nvmlDeviceGetComputeRunningProcesses_v3, \
             (nvmlDevice_t, unsigned int *, nvmlProcessInfo_t *)) \
    OPTIONAL(nvmlDeviceGetGraphicsRunningProcesses_v3, \
             (nvmlDevice_t, unsigned int *, nvmlProcessInfo_t *)) \
    OPTIONAL(nvmlDeviceGetPersistenceMode, (nvmlDevice_t, nvmlEnableState_t *)) \
    OPTIONAL(nvmlDeviceGetComputeMode, (nvmlDevice_t, nvmlComputeMode_t *)) \
    OPTIONAL(nvmlDeviceGetMigMode, (nvmlDevice_t, unsigned int *, unsigned int *)) \
    OPTIONAL(nvmlDeviceGetMaxMigDeviceCount, (nvmlDevice_t, unsigned int *)) \
    OPTIONAL(nvmlDeviceGetMigDeviceHandleByIndex, \
             (nvmlDevice_t, unsigned int, nvmlDevice_t *)) \
    OPTIONAL(nvmlDeviceGetGpuInstanceId, (nvmlDevice_t, unsigned int *)) \
    OPTIONAL(nvmlDeviceGetComputeInstanceId, (nvmlDevice_t, unsigned int *)) \
    OPTIONAL(nvmlDeviceGetAttributes_v2, (nvmlDevice_t, nvmlDeviceAttributes_t *)) \
    OPTIONAL(nvmlDeviceGetGpuInstanceById, (nvmlDevice_t, unsigned int, nvmlGpuInstance_t *)) \
    OPTIONAL(nvmlGpuInstanceGetInfo, (nvmlGpuInstance_t, nvmlGpuInstanceInfo_t *)) \
    OPTIONAL(nvmlGpmQueryDeviceSupport, (nvmlDevice_t, nvmlGpmSupport_t *)) \
    OPTIONAL(nvmlGpmSampleAlloc, (nvmlGpmSample_t *)) \
    OPTIONAL(nvmlGpmSampleFree, (nvmlGpmSample_t)) \
    OPTIONAL(nvmlGpmSampleGet, (nvmlDevice_t, nvmlGpmSample_t)) \
    OPTIONAL(nvmlGpmMigSampleGet, (nvmlDevice_t, unsigned int, nvmlGpmSample_t)) \
    OPTIONAL(nvmlGpmMetricsGet, (nvmlGpmMetricsGet_t *)) \
    OPTIONAL(nvmlEventSetCreate, (nvmlEventSet_t *)) \
    OPTIONAL(nvmlEventSetFree, (nvmlEventSet_t)) \
    OPTIONAL(nvmlDeviceGetSupportedEventTypes, (nvmlDevice_t, unsigned long long *)) \
    OPTIONAL(nvmlDeviceRegisterEvents, (nvmlDevice_t, unsigned long long, nvmlEventSet_t)) \
    OPTIONAL(nvmlEventSetWait_v2, (nvmlEventSet_t, nvmlEventData_t *, unsigned int)) \
    OPTIONAL(nvmlEventSetWait, (nvmlEventSet_t, nvmlEventData_t *, unsigned int))

/* A library that implements them declares them strong: -DNVML_OPTIONAL= */
#ifndef NVML_OPTIONAL
#define NVML_OPTIONAL __attribute__((weak))
#endif
#ifndef NVML_NO_DECLARATIONS
#define NVML_DECLARE_REQUIRED(name, arguments) nvmlReturn_t name arguments;
#define NVML_DECLARE_OPTIONAL(name, arguments) NVML_OPTIONAL nvmlReturn_t name arguments;
NVML_FUNCTIONS(NVML_DECLARE_REQUIRED, NVML_DECLARE_OPTIONAL)
#undef NVML_DECLARE_REQUIRED
#undef NVML_DECLARE_OPTIONAL
#endif

#endif
