/* Scripts the fake of NVIDIA's library: sets up GPUs and MIG instances, and changes what they say. */
#include "fake_cards.h"
#include "fake_state.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#define NAME(name, arguments) #name,
static const char *const functions[] = {NVML_FUNCTIONS(NAME, NAME) MORE_FUNCTIONS(NAME)};

#define NAME_1(name) #name,
static const char *const properties[] = {FAKE_PROPERTIES(NAME_1)};
static const char *const texts[] = {FAKE_TEXTS(NAME_1)};
static const char *const options[] = {FAKE_OPTIONS(NAME_1)};
static const char *const features[] = {FAKE_FEATURES(NAME_1)};

static int named(const char *const *names, int count, const char *name) {
    for (int i = 0; i < count; i++)
        if (!strcmp(names[i], name))
            return i;
    return -1;
}

static const model *model_of(const char *key) {
    for (int i = 0; i < MODELS; i++)
        if (!strcmp(models[i].key, key))
            return &models[i];
    return NULL;
}

/* The same for the same seed: a UUID without its prefix. */
static void write_uuid(char *to, const char *prefix, uint64_t seed) {
    uint64_t part[2];
    for (int i = 0; i < 2; i++) {
        seed += UINT64_C(0x9E3779B97F4A7C15);
        uint64_t z = seed;
        z = (z ^ z >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
        z = (z ^ z >> 27) * UINT64_C(0x94D049BB133111EB);
        part[i] = z ^ z >> 31;
    }
    snprintf(to, NVML_DEVICE_UUID_BUFFER_SIZE, "%s-%08x-%04x-%04x-%04x-%012llx", prefix,
             (unsigned)(part[0] >> 32), (unsigned)(part[0] >> 16 & 0xffff),
             (unsigned)(part[0] & 0xffff), (unsigned)(part[1] >> 48),
             (unsigned long long)(part[1] & UINT64_C(0xffffffffffff)));
}

static void ring_bell(void) {
    atomic_fetch_add(&state->bell, 1);
    syscall(SYS_futex, &state->bell, FUTEX_WAKE, INT32_MAX, NULL, NULL, 0);
}

#define SET(name, to) atomic_store(&u->value[P_##name], (uint64_t)(to))
static void set_up(int slot, const model *m) {
    static const unsigned bus[] = {0x17, 0x2A, 0x3A, 0x5D, 0x9A, 0xAB, 0xBA, 0xDB};
    const uint64_t mib = 1 << 20;
    gpu *g = &state->gpu[slot];
    unit *u = &g->units[0];
    memset(g, 0, sizeof *g);
    write_uuid(u->text[T_uuid], "GPU", (uint64_t)slot + 1);
    snprintf(u->text[T_name], sizeof u->text[0], "%s", m->name);
    snprintf(u->text[T_serial], sizeof u->text[0], "16523221%05d", 10000 + slot);
    snprintf(u->text[T_part_number], sizeof u->text[0], "%s", m->part_number);
    snprintf(u->text[T_vbios], sizeof u->text[0], "%s", m->vbios);
    SET(features, m->features);
    SET(minor, slot), SET(module_id, slot % 8 + 1), SET(numa_node, slot / 2 * 8 + 2);
    SET(brand, m->brand), SET(architecture, m->architecture);
    SET(compute_major, m->major), SET(compute_minor, m->minor);
    SET(pci_domain, slot / 8), SET(pci_bus, bus[slot % 8]);
    SET(pci_device_id, m->device), SET(pci_subsystem_id, m->subsystem);
    SET(utilization_period, 167000);
    SET(memory_total, m->memory_mib * mib), SET(memory_reserved, m->reserved_mib * mib);
    SET(bar1_total, m->bar1_mib * mib), SET(bar1_used, mib);
    SET(temperature, 30 + slot), SET(temperature_memory, 35 + slot);
    SET(temperature_margin, m->gpu_max - 30 - slot);
    int old = !(m->features & TLIMIT);
    SET(temperature_shutdown, old ? m->shutdown : FAKE_ABSENT);
    SET(temperature_slowdown, old ? m->slowdown : FAKE_ABSENT);
    SET(temperature_gpu_max, old ? m->gpu_max : FAKE_ABSENT);
    SET(temperature_memory_max, m->memory_max ? m->memory_max : FAKE_ABSENT);
    SET(temperature_acoustic_min, FAKE_ABSENT), SET(temperature_acoustic_current, FAKE_ABSENT);
    SET(temperature_acoustic_max, FAKE_ABSENT), SET(temperature_gps_current, FAKE_ABSENT);
    SET(tlimit_shutdown, (int)(m->gpu_max - m->shutdown)); /* below 0: beyond the limit */
    SET(tlimit_slowdown, (int)(m->gpu_max - m->slowdown));
    SET(power_usage, m->watts * 100 + slot * 1000), SET(power_average, m->watts * 100);
    SET(power_limit, m->watts * 1000), SET(power_limit_default, m->watts * 1000);
    SET(power_limit_min, m->watts_min * 1000), SET(power_limit_max, m->watts_max * 1000);
    SET(clock_graphics, m->graphics), SET(clock_sm, m->graphics);
    SET(clock_memory, m->memory), SET(clock_video, m->video);
    for (int i = 0; i < 4; i++)
        u->value[P_clock_max_graphics + i] = u->value[P_clock_graphics + i];
    SET(fans, m->fans), SET(fan_0, 30);
    SET(clock_reasons, 1), SET(clock_reasons_supported, 0x1FF);
    SET(ecc_mode, !(m->features & FANS)), SET(ecc_pending, u->value[P_ecc_mode]);
    SET(banks_max, m->features & REMAP ? m->multiprocessors * 4 : 0);
    SET(pcie_generation, m->pcie), SET(pcie_generation_max, m->pcie);
    SET(pcie_width, 16), SET(pcie_width_max, 16);
    SET(links, m->links), SET(link_generation, m->link_generation);
    SET(fabric_state, 3), SET(fabric_health, 0x1AA), SET(fabric_summary, 1);
    SET(persistence, 1), SET(multiprocessors, m->multiprocessors);
    SET(event_types, m->features & MIG ? 0x1FF : 0x9F);
    SET(mixed_fields_fail, !strcmp(m->key, "GB200"));
    for (unsigned link = 0; link < m->links; link++) {
        g->field[1 + link][165].value = 1;
        g->field[1 + link][164].value = m->link_mbps;
    }
    g->field[0][90].value = m->link_mbps;
    for (int i = 14; i < METRICS; i++) /* the first are the ratios; then what few drivers have */
        if (i != 20 && i != 21 && (i < 60 || i > 61))
            u->metric_code[i] = NVML_ERROR_NOT_SUPPORTED;
    atomic_store(&u->generation, ++state->generation);
}

static void blank(void) { /* the rest is 0 */
    state->size = sizeof *state;
    state->option[O_cuda_version] = 13000;
    snprintf(state->driver_version, sizeof state->driver_version, "580.95.05");
}

static void populate(const char *list) {
    int slot = 0, count, used;
    char key[16];
    while (list && sscanf(list, "%dx%15[A-Z0-9]%n", &count, key, &used) == 2) {
        while (count-- > 0 && slot < FAKE_GPUS)
            if (fake_add(slot++, key))
                fprintf(stderr, "fake_nvml: no model %s\n", key), abort();
        list += used;
        list += *list == ',';
    }
}

int fake_attach(const char *path) {
    int fd = -1;
    if (path && ((fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600)) < 0 ||
                 ftruncate(fd, sizeof *state)))
        return perror(path), -1;
    void *at = mmap(NULL, sizeof *state, PROT_READ | PROT_WRITE,
                    MAP_SHARED | (path ? 0 : MAP_ANONYMOUS), fd, 0);
    if (fd >= 0)
        close(fd);
    if (at == MAP_FAILED)
        return perror("mmap"), -1;
    state = at; /* what was mapped before stays: another thread may be in it */
    unsigned expected = 0;
    if (atomic_compare_exchange_strong(&state->ready, &expected, 1)) {
        blank();
        populate(getenv("FAKE_NVML_GPUS"));
        atomic_store(&state->ready, 2);
    }
    while (atomic_load(&state->ready) != 2)
        sleep_ns(1000000);
    epoch = state->epoch;
    return state->size == sizeof *state ? 0 : -1;
}

#define EACH(i) for (int i = slot < 0 ? 0 : slot; i <= (slot < 0 ? FAKE_GPUS - 1 : slot); i++)

static unit *unit_of(int slot, int instance) {
    if (slot < 0 || slot >= FAKE_GPUS || instance < -1 || instance >= FAKE_INSTANCES)
        return NULL;
    return &state->gpu[slot].units[1 + instance];
}

void fake_reset(void) {
    int moved = state->epoch + 1;
    unsigned generation = state->generation, events = state->events;
    memset((char *)state + sizeof state->ready, 0, sizeof *state - sizeof state->ready);
    blank();
    state->generation = generation;
    state->events = events;
    state->epoch = moved;
    state->stale = NVML_ERROR_UNINITIALIZED;
    ring_bell();
}

int fake_add(int slot, const char *key) {
    const model *m = model_of(key);
    if (!m || slot < 0 || slot >= FAKE_GPUS)
        return -1;
    set_up(slot, m);
    ring_bell();
    return 0;
}

int fake_remove(int slot) {
    if (!unit_of(slot, -1))
        return -1;
    for (int i = 0; i <= FAKE_INSTANCES; i++)
        state->gpu[slot].units[i].generation = 0;
    ring_bell();
    return 0;
}

int fake_set(int slot, int instance, const char *property, uint64_t value) {
    int p = named(properties, PROPERTIES, property);
    EACH(i) {
        unit *u = unit_of(i, instance);
        if (p < 0 || !u)
            return -1;
        u->value[p] = value;
    }
    return 0;
}

int fake_get(int slot, int instance, const char *property, uint64_t *value) {
    int p = named(properties, PROPERTIES, property);
    const unit *u = unit_of(slot, instance);
    if (p < 0 || !u)
        return -1;
    *value = u->value[p];
    return 0;
}

int fake_text(int slot, int instance, const char *name, const char *text) {
    int which = named(texts, TEXTS, name);
    if (slot < 0)
        return snprintf(state->driver_version, sizeof state->driver_version, "%s", text), 0;
    unit *u = unit_of(slot, instance);
    if (which < 0 || !u)
        return -1;
    snprintf(u->text[which], sizeof u->text[which], "%s", text);
    return 0;
}

int fake_feature(int slot, const char *name, int on) {
    int bit = named(features, FEATURES, name);
    EACH(i) {
        unit *u = unit_of(i, -1);
        if (bit < 0 || !u)
            return -1;
        if (on)
            u->value[P_features] |= UINT64_C(1) << bit;
        else
            u->value[P_features] &= ~(UINT64_C(1) << bit);
    }
    return 0;
}

int fake_option(const char *name, uint64_t value) {
    int o = named(options, OPTIONS, name);
    if (o < 0)
        return -1;
    state->option[o] = value;
    return 0;
}

int fake_field(int slot, unsigned id, unsigned scope, uint64_t value, int code, int type) {
    EACH(i) {
        if (!unit_of(i, -1) || id >= FAKE_FIELDS || (scope != FAKE_TOTAL && scope >= LINKS))
            return -1;
        cell *c = &state->gpu[i].field[scope == FAKE_TOTAL ? 0 : 1 + scope][id];
        c->value = value;
        c->code = code;
        c->type = type;
        c->set = 1;
    }
    return 0;
}

int fake_metric(int slot, int instance, unsigned id, double value, int code) {
    EACH(i) {
        unit *u = unit_of(i, instance);
        if (!u || id >= METRICS)
            return -1;
        u->metric[id] = value;
        u->metric_code[id] = code;
    }
    return 0;
}

int fake_script(const char *function, int slot, int code, int times, int64_t sleep_ns,
                int64_t spin_ns, int hang) {
    int f = function ? named(functions, FUNCTIONS, function) : 0;
    if (f < 0 || slot > FAKE_GPUS)
        return -1;
    for (int last = function ? f : FUNCTIONS - 1; f <= last; f++)
        for (int i = slot < 0 ? 0 : slot; i <= (slot < 0 ? NONE : slot); i++) {
            script *s = &state->script[i][f];
            s->code = code;
            s->times = times;
            s->hang = hang;
            s->sleep_ns = sleep_ns;
            s->spin_ns = spin_ns;
            s->on = times || sleep_ns || spin_ns || hang;
        }
    return 0;
}

void fake_release(void) {
    for (int i = 0; i <= NONE; i++)
        for (int f = 0; f < FUNCTIONS; f++)
            state->script[i][f].hang = 0;
}

int fake_condition(int slot, int code) {
    EACH(i) {
        if (!unit_of(i, -1))
            return -1;
        state->gpu[i].condition = code;
    }
    ring_bell();
    return 0;
}

void fake_driver(int init, int stale) {
    state->init = init;
    state->stale = stale;
    for (int slot = 0; slot < FAKE_GPUS; slot++) /* handles of before are no more */
        for (int i = 0; i <= FAKE_INSTANCES; i++)
            if (state->gpu[slot].units[i].generation) {
                unit *u = &state->gpu[slot].units[i];
                u->generation = ++state->generation;
                for (int n = 0; n < 9; n++) {
                    u->value[P_corrected_volatile_total + n] = 0;
                    u->value[P_uncorrected_volatile_total + n] = 0;
                }
                SET(energy, 0);
                SET(pcie_replays, 0);
            }
    for (int slot = 0; slot < FAKE_GPUS; slot++)
        for (const rule *r = rules; r < rules + RULES; r++)
            for (int id = r->first; id <= r->last && r->type == U64; id++)
                for (int link = 0; link <= LINKS; link++)
                    state->gpu[slot].field[link][id].value = 0;
    state->epoch++;
    ring_bell();
}

/* Of what the GPU has by now: set its memory first. */
int fake_mig_add(int slot, unsigned index, unsigned gi, unsigned ci, const char *text,
                 unsigned start) {
    unsigned slices, gigabytes, ci_slices;
    const char *gi_part = text;
    const profile *p = NULL;
    const unit *parent = unit_of(slot, -1);
    if (!parent || index >= FAKE_INSTANCES || !parent->generation)
        return -1;
    if (sscanf(text, "%uc.", &ci_slices) == 1 && strchr(text, 'c'))
        gi_part = strchr(text, '.') + 1;
    if (sscanf(gi_part, "%ug.%ugb", &slices, &gigabytes) != 2)
        return -1;
    if (gi_part == text)
        ci_slices = slices;
    for (int i = 0; i < MODELS && !p; i++)
        for (unsigned j = 0; j < sizeof profiles / sizeof *profiles && !p; j++)
            if (models[i].device == parent->value[P_pci_device_id] &&
                profiles[j].slices == slices &&
                models[i].gigabytes[__builtin_ctz(profiles[j].eighths)] == gigabytes)
                p = &profiles[j];
    if (!p)
        return -1;
    unit *u = unit_of(slot, (int)index);
    uint64_t all = parent->value[P_multiprocessors];
    int hopper = parent->value[P_architecture] >= 9;
    char name[64];
    snprintf(name, sizeof name, "%s", parent->text[T_name]);
    memset(u, 0, sizeof *u);
    write_uuid(u->text[T_uuid], "MIG", (uint64_t)(slot + 1) << 32 | (gi + 1) << 16 | (ci + 1));
    snprintf(u->text[T_name], sizeof u->text[0], "%s MIG %.20s", name, text);
    SET(gi, gi), SET(ci, ci), SET(gi_slices, slices), SET(ci_slices, ci_slices);
    SET(profile_id, strstr(text, "+me") ? 20 : p->id);
    SET(placement_start, start), SET(placement_size, p->size);
    SET(memory_total, parent->value[P_memory_total] / 8 * p->eighths);
    SET(memory_used, 13 << 20);
    SET(bar1_total, parent->value[P_bar1_total] / 8 * p->eighths);
    SET(multiprocessors, ci_slices == 7 && hopper ? all : all / 16 * 2 * ci_slices);
    SET(copy_engines, p->copy), SET(decoders, p->decoders), SET(jpegs, p->jpegs);
    SET(ofas, slices == 7), SET(architecture, parent->value[P_architecture]);
    for (int i = 0; i < METRICS; i++) /* assumed: instances have no share of the buses */
        u->metric_code[i] = i < 20 ? (int)parent->metric_code[i] : NVML_ERROR_NOT_SUPPORTED;
    u->generation = ++state->generation;
    return 0;
}

int fake_mig_remove(int slot, unsigned index) {
    unit *u = index < FAKE_INSTANCES ? unit_of(slot, (int)index) : NULL;
    if (!u)
        return -1;
    u->generation = 0;
    return 0;
}

int fake_event(int slot, uint64_t type, uint64_t data, unsigned gi, unsigned ci, unsigned times) {
    if (!unit_of(slot, -1))
        return -1;
    while (atomic_exchange(&state->event_lock, 1))
        sleep_ns(100000);
    while (times--) {
        state->event[state->events % FAKE_EVENTS] = (event){slot, gi, ci, type, data};
        state->events++;
    }
    state->event_lock = 0;
    ring_bell();
    return 0;
}

int fake_sample(int slot, int ring, uint64_t microseconds, uint64_t value) {
    if (!unit_of(slot, -1) || ring < 0 || ring > 1)
        return -1;
    gpu *g = &state->gpu[slot];
    sample *s = &g->ring[ring][g->ring_head[ring] % FAKE_RING];
    s->at = microseconds;
    s->value = value;
    g->ring_head[ring]++;
    return 0;
}

int fake_process(int slot, int graphics, unsigned pid, uint64_t memory, unsigned gi, unsigned ci) {
    if (!unit_of(slot, -1) || state->gpu[slot].processes[graphics != 0] == FAKE_PROCESSES)
        return -1;
    gpu *g = &state->gpu[slot];
    g->process[graphics != 0][g->processes[graphics != 0]] =
        (nvmlProcessInfo_t){pid, memory, gi, ci};
    g->processes[graphics != 0]++;
    return 0;
}

int fake_no_processes(int slot) {
    if (!unit_of(slot, -1))
        return -1;
    state->gpu[slot].processes[0] = state->gpu[slot].processes[1] = 0;
    return 0;
}

int64_t fake_gpm_samples(void) { return state->gpm_samples; }

const char *fake_function(int function) {
    return function >= 0 && function < FUNCTIONS ? functions[function] : NULL;
}

uint64_t fake_calls(int function, int slot) {
    return state->calls[slot < 0 ? NONE : slot][function];
}

void fake_forget_calls(void) {
    for (int i = 0; i <= NONE; i++)
        for (int f = 0; f < FUNCTIONS; f++)
            state->calls[i][f] = 0;
}
