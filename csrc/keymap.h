/* Keys of a file -> small integers, by open addressing. The owner keeps the keys' bytes alive. */
#ifndef ESNODE_KEYMAP_H
#define ESNODE_KEYMAP_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    uint64_t hash;
    const char *key;
    uint32_t size;
    int32_t value; /* below 0: free */
} keymap_place;

typedef struct {
    keymap_place *places;
    uint32_t mask; /* number of places - 1 */
} keymap;

static inline uint64_t keymap_hash(const char *key, size_t size) {
    uint64_t h = size * UINT64_C(0x9e3779b97f4a7c15), word;
    for (; size >= 8; key += 8, size -= 8) {
        memcpy(&word, key, 8);
        h = (h ^ word) * UINT64_C(0xff51afd7ed558ccd);
        h ^= h >> 32;
    }
    word = 0;
    memcpy(&word, key, size);
    h = (h ^ word) * UINT64_C(0xff51afd7ed558ccd);
    return h ^ (h >> 32);
}

/* The value of a key, or -1. */
static inline int32_t keymap_get(const keymap *map, const char *key, size_t size) {
    if (!map->places)
        return -1;
    uint64_t hash = keymap_hash(key, size);
    for (uint32_t i = (uint32_t)hash & map->mask;; i = (i + 1) & map->mask) {
        const keymap_place *p = &map->places[i];
        if (p->value < 0)
            return -1;
        if (p->hash == hash && p->size == size && !memcmp(p->key, key, size))
            return p->value;
    }
}

static inline void keymap_free(keymap *map) {
    free(map->places);
    map->places = NULL;
    map->mask = 0;
}

/* Empties the map and makes room for n keys. Returns 0, or -1 without memory. */
static inline int keymap_reset(keymap *map, uint32_t n) {
    uint32_t size = 16;
    while (size < 2 * n)
        size *= 2;
    keymap_free(map);
    map->places = malloc(size * sizeof *map->places);
    if (!map->places)
        return -1;
    for (uint32_t i = 0; i < size; i++)
        map->places[i].value = -1;
    map->mask = size - 1;
    return 0;
}

/* Adds a key that is not there yet; the map was reset for at least this many. */
static inline void keymap_add(keymap *map, const char *key, size_t size, int32_t value) {
    uint64_t hash = keymap_hash(key, size);
    uint32_t i = (uint32_t)hash & map->mask;
    while (map->places[i].value >= 0)
        i = (i + 1) & map->mask;
    map->places[i] = (keymap_place){hash, key, (uint32_t)size, value};
}

#endif
