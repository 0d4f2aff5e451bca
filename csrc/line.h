/* One line of the local history, taken apart: see docs/reference/tsdb-format.md.
 *
 * {"metric":{"__name__":"n","l":"v"},"values":[1,2.5],"timestamps":[1,2],"crc":3}
 *
 * Only what a writer of ours writes is taken: keys in this order, no blanks, labels that are
 * strings, as many timestamps as values. The sum is there in open blocks only. What stands between
 * the brackets of the values is not looked at beyond its commas: the sum, or the one of the frame
 * that the line is in, vouches for it.
 */
#ifndef ESNODE_LINE_H
#define ESNODE_LINE_H

#include <stdint.h>
#include <string.h>

#include "crc32.h"

struct line {
    const char *metric, *values, *stamps; /* the object with its braces; lists without brackets */
    size_t metric_size, values_size, stamps_size;
    int64_t samples, low, high; /* the smallest and the greatest timestamp */
    int rising;                 /* every timestamp is greater than the one before it */
};

#define LINE_EXPECT(text)                                                                          \
    do {                                                                                           \
        if ((size_t)(end - at) < sizeof(text) - 1 || memcmp(at, text, sizeof(text) - 1) != 0)      \
            return 0;                                                                              \
        at += sizeof(text) - 1;                                                                    \
    } while (0)

/* The object that begins at `at`, whose members are strings; its end, or NULL. */
static inline const char *line_object(const char *at, const char *end) {
    if (at == end || *at != '{')
        return NULL;
    int inside = 0;
    for (at++; at < end; at++) {
        if (*at == '"')
            inside = !inside;
        else if (inside && *at == '\\')
            at++;
        else if (!inside && *at == '}')
            return at + 1;
        else if (!inside && *at == '{')
            return NULL;
    }
    return NULL;
}

/* Takes [at, end), which has no newline, apart; 0 when it is not such a line, or is damaged. */
static inline int line_parse(uint32_t table[8][256], const char *at, const char *end,
                             struct line *line) {
    const char *start = at, *stop;
    LINE_EXPECT("{\"metric\":");
    line->metric = at;
    at = line_object(at, end);
    if (!at)
        return 0;
    line->metric_size = (size_t)(at - line->metric);
    if (line->metric_size < 13 || memcmp(line->metric, "{\"__name__\":\"", 13) != 0)
        return 0;
    LINE_EXPECT(",\"values\":[");
    line->values = at;
    stop = memchr(at, ']', (size_t)(end - at));
    if (!stop || stop == at)
        return 0;
    line->values_size = (size_t)(stop - at);
    int64_t values = 1, previous = 0;
    for (; at < stop; at++)
        values += *at == ',';
    LINE_EXPECT("],\"timestamps\":[");
    line->stamps = at;
    line->rising = 1;
    line->samples = 0;
    for (;;) {
        int negative = at < end && *at == '-';
        at += negative;
        const char *digits = at;
        int64_t stamp = 0;
        for (; at < end && (unsigned char)(*at - '0') <= 9; at++) {
            if (at - digits == 18)
                return 0;
            stamp = 10 * stamp + (*at - '0');
        }
        if (at == digits || at == end)
            return 0;
        if (negative)
            stamp = -stamp;
        if (line->samples && stamp <= previous)
            line->rising = 0;
        if (!line->samples || stamp < line->low)
            line->low = stamp;
        if (!line->samples || stamp > line->high)
            line->high = stamp;
        previous = stamp;
        line->samples++;
        if (*at == ']')
            break;
        if (*at++ != ',')
            return 0;
    }
    if (line->samples != values)
        return 0;
    line->stamps_size = (size_t)(at - line->stamps);
    at++;
    const char *summed = at;
    if (at < end && *at == '}')
        return at + 1 == end;
    LINE_EXPECT(",\"crc\":");
    uint64_t sum = 0;
    const char *digits = at;
    for (; at < end && (unsigned char)(*at - '0') <= 9 && at - digits < 10; at++)
        sum = 10 * sum + (uint64_t)(*at - '0');
    if (at == digits || at + 1 != end || *at != '}')
        return 0;
    return sum == crc32_add(table, 0, start, (size_t)(summed - start));
}

/* FNV-1a with 64 bits. */
static inline uint64_t line_hash(const char *at, size_t size) {
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    for (; size; size--, at++)
        hash = (hash ^ (unsigned char)*at) * UINT64_C(0x100000001b3);
    return hash;
}

#endif
