/* How a test scripts the fake of NVIDIA's library: its functions, and the names it knows.
 *
 * `slot` is a place on the bus, 0 to 15, which need not be NVML's index; -1 is all of them, and
 * calls that name no GPU. `instance` is a MIG instance's index, or -1 for the GPU itself. Functions
 * answer 0, or -1 when a name or number means nothing. Everything is in a state that processes
 * share when the environment variable FAKE_NVML_STATE names a file; whoever comes first creates it
 * with the GPUs of FAKE_NVML_GPUS ("8xH100" or "2xH100,1xT4").
 */
#ifndef ESNODE_FAKE_NVML_H
#define ESNODE_FAKE_NVML_H

#include <stdint.h>

enum {
    FAKE_GPUS = 16,
    FAKE_INSTANCES = 7,
    FAKE_FIELDS = 310,
    FAKE_RING = 120,
    FAKE_EVENTS = 8192,
    FAKE_PROCESSES = 64,
};
#define FAKE_TOTAL UINT32_MAX           /* a field's scope: over all links, or none */
#define FAKE_ABSENT (UINT64_C(1) << 63) /* a property of this value is NOT_SUPPORTED */

/* What a GPU may have; a call or field that needs what it lacks is NOT_SUPPORTED. */
#define FAKE_FEATURES(F) \
    F(ECC) F(RETIRED) F(REMAP) F(MEMTEMP) F(MARGIN) F(TLIMIT) F(GPM) F(MIG) F(NVLINK) F(NVLINK4) \
    F(NVLINK5) F(FABRIC) F(MODULE) F(NUMA) F(POWERFIELDS) F(POWERAVERAGE) F(PCIECOUNT) F(FANS) \
    F(SRAM) F(RECOVERY) F(JPEG) F(C2C) F(SERIAL) F(COUNTERS)

#define FAKE_ECC(P, name) \
    P(name##_total) P(name##_l1) P(name##_l2) P(name##_dram) P(name##_register_file) \
    P(name##_texture) P(name##_texture_shm) P(name##_cbu) P(name##_sram)

/* Values of a GPU or MIG instance, in NVML's units; negative ones as two's complement. Those that
 * one call chooses from by number stand in that number's order. */
#define FAKE_PROPERTIES(P) \
    P(features) P(minor) P(module_id) P(numa_node) P(brand) P(architecture) P(compute_major) \
    P(compute_minor) P(pci_domain) P(pci_bus) P(pci_device) P(pci_device_id) P(pci_subsystem_id) \
    P(utilization_gpu) P(utilization_memory) P(utilization_encoder) P(utilization_decoder) \
    P(utilization_jpeg) P(utilization_ofa) P(utilization_period) \
    P(memory_total) P(memory_used) P(memory_reserved) P(bar1_total) P(bar1_used) \
    P(temperature) P(temperature_margin) P(temperature_shutdown) P(temperature_slowdown) \
    P(temperature_memory_max) P(temperature_gpu_max) P(temperature_acoustic_min) \
    P(temperature_acoustic_current) P(temperature_acoustic_max) P(temperature_gps_current) \
    P(temperature_memory) P(tlimit_shutdown) P(tlimit_slowdown) P(tlimit_memory_max) \
    P(tlimit_gpu_max) P(power_average) P(power_usage) P(power_limit_min) P(power_limit_max) \
    P(power_limit_default) P(power_limit) P(energy) P(clock_graphics) P(clock_sm) \
    P(clock_memory) P(clock_video) P(clock_max_graphics) P(clock_max_sm) P(clock_max_memory) \
    P(clock_max_video) P(pstate) P(fans) P(fan_0) P(fan_1) P(fan_2) P(fan_3) \
    P(clock_reasons) P(clock_reasons_supported) P(ecc_mode) P(ecc_pending) \
    FAKE_ECC(P, corrected_volatile) FAKE_ECC(P, corrected_aggregate) \
    FAKE_ECC(P, uncorrected_volatile) FAKE_ECC(P, uncorrected_aggregate) \
    P(sram_aggregate_parity) P(sram_aggregate_secded) P(sram_aggregate_corrected) \
    P(sram_volatile_parity) P(sram_volatile_secded) P(sram_volatile_corrected) P(sram_l2) \
    P(sram_sm) P(sram_pcie) P(sram_microcontroller) P(sram_other) P(sram_threshold) \
    P(remapped_corrected) P(remapped_uncorrected) P(remap_pending) P(remap_failure) P(banks_max) \
    P(banks_high) P(banks_partial) P(banks_low) P(banks_none) P(retired_sbe) P(retired_dbe) \
    P(retired_pending) P(pcie_generation) P(pcie_generation_max) P(pcie_width) P(pcie_width_max) \
    P(pcie_replays) P(pcie_throughput) P(links) P(link_generation) P(fabric_status) \
    P(fabric_clique) P(fabric_state) P(fabric_health) P(fabric_summary) P(persistence) \
    P(compute_mode) P(mig_mode) P(mig_pending) P(gi) P(ci) P(profile_id) P(placement_start) \
    P(placement_size) P(multiprocessors) P(copy_engines) P(decoders) P(encoders) P(jpegs) \
    P(ofas) P(gi_slices) P(ci_slices) P(event_types) P(recovery_action) P(mixed_fields_fail) \
    P(ring_period_us)

#define FAKE_TEXTS(T) T(uuid) T(name) T(serial) T(part_number) T(vbios)

/* Values of the whole node. Of fields and metrics: the last that the driver knows; one above it
 * spoils the call that it is in. 0: it knows all. */
#define FAKE_OPTIONS(O) \
    O(busy_ns) O(old_structs) O(cuda_version) O(cc_environment) O(cc_feature) O(cc_devtools) \
    O(known_fields) O(known_metrics)

int fake_attach(const char *path); /* NULL: memory of this process and its children */
void fake_reset(void);
int fake_add(int slot, const char *model);
int fake_remove(int slot);
int fake_set(int slot, int instance, const char *property, uint64_t value);
int fake_get(int slot, int instance, const char *property, uint64_t *value);
int fake_text(int slot, int instance, const char *name, const char *text); /* -1: the driver */
int fake_feature(int slot, const char *name, int on);
int fake_option(const char *name, uint64_t value);
/* `code` 0 answers the value whatever the model; `type` is NVML's, or -1 for the usual one. */
int fake_field(int slot, unsigned id, unsigned scope, uint64_t value, int code, int type);
int fake_metric(int slot, int instance, unsigned id, double value, int code);
/* What calls of a function (NULL: all) on a GPU do: answer `code` (the next `times` of them; -1:
 * always; 0: not), sleep, spin, and hang until fake_release(). Replaces what was said before. */
int fake_script(const char *function, int slot, int code, int times, int64_t sleep_ns,
                int64_t spin_ns, int hang);
void fake_release(void);
int fake_condition(int slot, int code); /* 0, GPU_IS_LOST or RESET_REQUIRED */
/* The driver was reloaded: its counters begin at 0, and every process has to initialise again,
 * which answers `init`; until then its calls answer `stale`. */
void fake_driver(int init, int stale);
int fake_mig_add(int slot, unsigned index, unsigned gi, unsigned ci, const char *profile,
                 unsigned start);
int fake_mig_remove(int slot, unsigned index);
int fake_event(int slot, uint64_t type, uint64_t data, unsigned gi, unsigned ci, unsigned times);
int fake_sample(int slot, int ring, uint64_t microseconds, uint64_t value);
int fake_process(int slot, int graphics, unsigned pid, uint64_t memory, unsigned gi, unsigned ci);
int fake_no_processes(int slot);
int64_t fake_gpm_samples(void); /* those that were allocated and not freed */
const char *fake_function(int function); /* NULL after the last */
uint64_t fake_calls(int function, int slot);
void fake_forget_calls(void);

#endif
