/* What the fake's GPUs are: the models, their MIG profiles, and who has which field.
 *
 * Names, memory, limits, clocks, counts of links and multiprocessors and PCI numbers are those of
 * cards in use. Assumed: thresholds where only T.Limit values are shown, BAR1 of B200 and GB200,
 * the video clocks of Blackwell, part numbers and firmware of the newest, and that what no public
 * list says follows the architecture.
 */
#ifndef ESNODE_FAKE_CARDS_H
#define ESNODE_FAKE_CARDS_H

#include "fake_state.h"

typedef struct {
    const char *key, *name, *part_number, *vbios;
    unsigned architecture, major, minor, brand, device, subsystem;
    unsigned memory_mib, reserved_mib, bar1_mib, watts, watts_min, watts_max;
    unsigned graphics, memory, video; /* MHz */
    unsigned links, link_generation, link_mbps, pcie, multiprocessors, fans;
    unsigned shutdown, slowdown, gpu_max, memory_max; /* Celsius */
    unsigned gigabytes[4]; /* of MIG profiles with 1, 2, 4 and 8 eighths of the memory */
    unsigned features;
} model;

#define AMPERE (ECC | REMAP | POWERFIELDS | RECOVERY | JPEG | SERIAL | COUNTERS)
#define HOPPER \
    (AMPERE | MEMTEMP | MARGIN | TLIMIT | GPM | MIG | NVLINK | FABRIC | MODULE | POWERAVERAGE | \
     PCIECOUNT | SRAM)
static const model models[] = {
    {"T4", "Tesla T4", "900-2G183-0000-001", "90.04.38.00.03", 6, 7, 5, 14, 0x1EB810DE, 0x12A210DE,
     15360, 450, 256, 70, 60, 70, 1590, 5001, 1470, 0, 0, 0, 3, 40, 0, 96, 93, 85, 0, {0},
     ECC | RETIRED | SERIAL | COUNTERS},
    {"A100", "NVIDIA A100-SXM4-80GB", "692-2G506-0212-002", "92.00.45.00.03", 7, 8, 0, 14,
     0x20B210DE, 0x146310DE, 81920, 634, 131072, 400, 100, 400, 1410, 1593, 1290, 12, 3, 25781, 4,
     108, 0, 92, 89, 85, 95, {10, 20, 40, 80}, AMPERE | MEMTEMP | MIG | NVLINK | NVLINK4 | MODULE},
    {"A6000", "NVIDIA RTX A6000", "900-5G133-0300-000", "94.02.5C.00.02", 7, 8, 6, 13, 0x223010DE,
     0x145910DE, 49140, 454, 256, 300, 100, 300, 2100, 8001, 1950, 4, 3, 14062, 4, 84, 1, 98, 95,
     93, 0, {0}, (AMPERE & ~JPEG) | NVLINK | NVLINK4 | FANS | POWERAVERAGE},
    {"H100", "NVIDIA H100 80GB HBM3", "692-2G520-0200-000", "96.00.74.00.1C", 9, 9, 0, 14,
     0x233010DE, 0x16C110DE, 81559, 551, 131072, 700, 200, 700, 1980, 2619, 1545, 18, 4, 26562, 5,
     132, 0, 95, 89, 87, 95, {10, 20, 40, 80}, HOPPER | NVLINK4},
    {"H200", "NVIDIA H200", "692-2G520-0280-001", "96.00.BC.00.02", 9, 9, 0, 14, 0x233510DE,
     0x18BE10DE, 143771, 551, 262144, 700, 200, 700, 1980, 3201, 1545, 18, 4, 26562, 5, 132, 0, 95,
     89, 87, 95, {18, 35, 71, 141}, HOPPER | NVLINK4},
    {"B200", "NVIDIA B200", "692-2G525-0220-000", "97.00.B9.00.0F", 10, 10, 0, 14, 0x290110DE,
     0x199910DE, 183359, 613, 262144, 1000, 200, 1000, 1965, 3996, 1605, 18, 5, 53125, 5, 148, 0,
     95, 92, 90, 95, {23, 45, 90, 180}, HOPPER | NVLINK5},
    {"GB200", "NVIDIA GB200", "699-2G548-0202-100", "97.00.82.00.15", 10, 10, 0, 14, 0x294110DE,
     0x204610DE, 189471, 613, 262144, 1200, 200, 1200, 2062, 3996, 1605, 18, 5, 53125, 5, 152, 0,
     95, 92, 90, 95, {24, 47, 95, 189}, HOPPER | NVLINK5 | NUMA | C2C},
};
enum { MODELS = sizeof models / sizeof *models };

typedef struct { /* a MIG profile by its slices of multiprocessors and eighths of memory */
    unsigned slices, eighths, id, size, copy, decoders, jpegs;
} profile;

/* Numbers as nvidia-smi lists them for A100 and H100; engines are H100's. */
static const profile profiles[] = {
    {1, 1, 19, 1, 1, 1, 1}, {1, 2, 15, 2, 1, 1, 1}, {2, 2, 14, 2, 2, 2, 2}, {3, 4, 9, 4, 3, 3, 3},
    {4, 4, 5, 4, 4, 4, 4},  {7, 8, 0, 8, 8, 7, 7},
};

enum { PLAIN, PER_LINK, LINK_ONLY, SCOPED };
typedef struct {
    unsigned short first, last, needs_bit;
    unsigned char type, family, scope;
    short property; /* of the first; the next ones follow */
} rule;

enum { POWER, HEAT, THROTTLES, ECCS, REMAPS, RETIREDS, PCIES, LINKFIELDS, C2CS, HEALTH };
#define U32 NVML_VALUE_TYPE_UNSIGNED_INT
#define U64 NVML_VALUE_TYPE_UNSIGNED_LONG_LONG
#define S32 NVML_VALUE_TYPE_SIGNED_INT
/* What is in no line is NOT_SUPPORTED by any model; property -1: the field's own value. */
static const rule rules[] = {
    {1, 1, B_ECC, U32, ECCS, PLAIN, P_ecc_mode},
    {2, 2, B_ECC, U32, ECCS, PLAIN, P_ecc_pending},
    {3, 3, B_ECC, U64, ECCS, PLAIN, P_corrected_volatile_total},
    {4, 4, B_ECC, U64, ECCS, PLAIN, P_uncorrected_volatile_total},
    {5, 5, B_ECC, U64, ECCS, PLAIN, P_corrected_aggregate_total},
    {6, 6, B_ECC, U64, ECCS, PLAIN, P_uncorrected_aggregate_total},
    {29, 31, B_RETIRED, U32, RETIREDS, PLAIN, P_retired_sbe},
    {74, 79, B_COUNTERS, U64, THROTTLES, PLAIN, -1},
    {80, 81, B_COUNTERS, U64, THROTTLES, PLAIN, -1},
    {82, 82, B_MEMTEMP, U32, HEAT, PLAIN, P_temperature_memory},
    {83, 83, B_COUNTERS, U64, POWER, PLAIN, P_energy},
    {90, 90, B_NVLINK, U32, LINKFIELDS, PLAIN, -1},
    {91, 91, B_NVLINK, U32, LINKFIELDS, PLAIN, P_links},
    {94, 94, B_COUNTERS, U32, PCIES, PLAIN, P_pcie_replays},
    {95, 95, B_COUNTERS, U32, PCIES, PLAIN, -1},
    {138, 141, B_NVLINK4, U64, LINKFIELDS, PER_LINK, -1},
    {142, 145, B_REMAP, U32, REMAPS, PLAIN, P_remapped_corrected},
    {160, 160, B_NVLINK4, U64, LINKFIELDS, PLAIN, -1},
    {161, 163, B_NVLINK4, U64, LINKFIELDS, PER_LINK, -1},
    {164, 165, B_NVLINK, U32, LINKFIELDS, LINK_ONLY, -1},
    {166, 166, B_NVLINK, U32, LINKFIELDS, PLAIN, P_link_generation},
    {169, 169, B_PCIECOUNT, U32, PCIES, PLAIN, -1},
    {170, 172, B_C2C, U32, C2CS, SCOPED, -1},
    {173, 183, B_PCIECOUNT, U32, PCIES, PLAIN, -1},
    {185, 185, B_POWERAVERAGE, U32, POWER, SCOPED, P_power_average},
    {186, 186, B_POWERFIELDS, U32, POWER, SCOPED, P_power_usage},
    {187, 190, B_POWERFIELDS, U32, POWER, PLAIN, P_power_limit_min},
    {191, 191, B_POWERFIELDS, U64, POWER, PLAIN, P_energy},
    {192, 192, B_POWERFIELDS, U32, POWER, PLAIN, P_power_limit},
    {193, 196, B_TLIMIT, S32, HEAT, PLAIN, P_tlimit_shutdown},
    {197, 198, B_PCIECOUNT, U64, PCIES, PLAIN, -1},
    {201, 222, B_NVLINK5, U64, LINKFIELDS, PER_LINK, -1},
    {230, 230, B_RECOVERY, U32, HEALTH, PLAIN, P_recovery_action},
    {235, 250, B_NVLINK5, U64, LINKFIELDS, PER_LINK, -1},
    {269, 271, B_COUNTERS, U64, THROTTLES, PLAIN, -1},
};
enum { RULES = sizeof rules / sizeof *rules };

#endif
