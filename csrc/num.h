/* Numbers as text: the shortest text of a double that reads back exactly, and unsigned digits.
 *
 * Doubles follow Schubfach (R. Giulietti, "The Schubfach way to render doubles", 2020): of all
 * decimals inside the rounding interval of a double, one of the shortest lies next to the double
 * divided by 10^k, where k is chosen so that at most two candidates of each length remain. The
 * interval's ends and its middle, times four, are computed once with a 128-bit power of ten and
 * "rounded to odd", which keeps enough to compare them exactly.
 */
#ifndef ESNODE_NUM_H
#define ESNODE_NUM_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "pow10.h"

/* The longest text that num_write_double produces is 24 bytes: -1.2345678901234567e-308 */
#define NUM_MAX 32

static const char num_pairs[201] =
    "00010203040506070809101112131415161718192021222324"
    "25262728293031323334353637383940414243444546474849"
    "50515253545556575859606162636465666768697071727374"
    "75767778798081828384858687888990919293949596979899";

/* Writes v in decimal at out; returns the end. */
static inline char *num_write_u64(char *out, uint64_t v) {
    char text[20];
    int at = 20;
    while (v >= 100) {
        uint64_t q = v / 100;
        memcpy(text + (at -= 2), num_pairs + 2 * (v - 100 * q), 2);
        v = q;
    }
    if (v >= 10)
        memcpy(text + (at -= 2), num_pairs + 2 * v, 2);
    else
        text[--at] = (char)('0' + v);
    memcpy(out, text + at, (size_t)(20 - at));
    return out + (20 - at);
}

static inline uint64_t num_round_to_odd(const uint64_t g[2], uint64_t c) {
    unsigned __int128 low = (unsigned __int128)g[1] * c;
    unsigned __int128 high = (unsigned __int128)g[0] * c + (uint64_t)(low >> 64);
    return (uint64_t)(high >> 64) | ((uint64_t)high > 1);
}

/* Sets *digits and *exponent so that digits * 10^exponent is the shortest decimal of v.
 * v is finite and greater than zero. */
static inline void num_shortest(double v, uint64_t *digits, int *exponent) {
    uint64_t bits;
    memcpy(&bits, &v, sizeof bits);
    uint64_t fraction = bits & ((UINT64_C(1) << 52) - 1);
    int biased = (int)(bits >> 52) & 0x7ff;
    uint64_t c = biased ? fraction | (UINT64_C(1) << 52) : fraction;
    int q = (biased ? biased : 1) - 1075;
    /* Below a power of two the neighbours stand closer. */
    int uneven = fraction == 0 && biased > 1;
    int odd = (int)(c & 1);

    /* floor(log10(2^q)), or of 3/4 of it where the interval is uneven; then floor(log2(10^-k)). */
    int k = (q * 1262611 - (uneven ? 524031 : 0)) >> 22;
    int h = q + ((-k * 1741647) >> 19) + 1;
    const uint64_t *g = pow10_significands[-k - POW10_FIRST];
    uint64_t middle = num_round_to_odd(g, (4 * c) << h);
    uint64_t lower = num_round_to_odd(g, (4 * c - 2 + (uint64_t)uneven) << h) + (uint64_t)odd;
    uint64_t upper = num_round_to_odd(g, (4 * c + 2) << h) - (uint64_t)odd;

    uint64_t s = middle / 4;
    if (s >= 10) {
        uint64_t t = s / 10;
        int down = lower <= 40 * t, up = 40 * t + 40 <= upper;
        if (down != up) {
            *digits = t + (uint64_t)up;
            *exponent = k + 1;
            return;
        }
    }
    int down = lower <= 4 * s, up = 4 * s + 4 <= upper;
    if (down != up)
        s += (uint64_t)up;
    else
        s += middle > 4 * s + 2 || (middle == 4 * s + 2 && (s & 1));
    *digits = s;
    *exponent = k;
}

/* Writes v at out (NUM_MAX bytes are enough); returns the end. Plain notation for magnitudes
 * from 1e-5 up to 1e21, scientific outside; +Inf, -Inf and NaN as Prometheus spells them. */
static inline char *num_write_double(char *out, double v) {
    if (v != v) {
        memcpy(out, "NaN", 3);
        return out + 3;
    }
    if (isinf(v)) {
        memcpy(out, v > 0 ? "+Inf" : "-Inf", 4);
        return out + 4;
    }
    if (signbit(v)) {
        v = -v;
        if (v != 0)
            *out++ = '-';
    }
    if (v < 9007199254740992.0 && v == (double)(uint64_t)v)
        return num_write_u64(out, (uint64_t)v);

    uint64_t digits;
    int exponent;
    num_shortest(v, &digits, &exponent);
    while (digits % 10 == 0) {
        digits /= 10;
        exponent++;
    }
    char text[20];
    int n = (int)(num_write_u64(text, digits) - text);
    int point = n + exponent; /* digits before the decimal point */
    if (point > 0 && point <= 21) {
        if (exponent >= 0) {
            memcpy(out, text, (size_t)n);
            memset(out + n, '0', (size_t)exponent);
            return out + point;
        }
        memcpy(out, text, (size_t)point);
        out[point] = '.';
        memcpy(out + point + 1, text + point, (size_t)(n - point));
        return out + n + 1;
    }
    if (point <= 0 && point > -5) {
        memcpy(out, "0.00000", 2 + (size_t)-point);
        out += 2 - point;
        memcpy(out, text, (size_t)n);
        return out + n;
    }
    *out++ = text[0];
    if (n > 1) {
        *out++ = '.';
        memcpy(out, text + 1, (size_t)(n - 1));
        out += n - 1;
    }
    int power = point - 1;
    *out++ = 'e';
    *out++ = power < 0 ? '-' : '+';
    power = power < 0 ? -power : power;
    if (power < 10)
        *out++ = '0';
    return num_write_u64(out, (uint64_t)power);
}

/* Reads the whole of [at, end) as one to eight hexadecimal digits; 0 when it is something else. */
static inline int num_read_hex(const char *at, const char *end, uint32_t *value) {
    uint32_t v = 0;
    if (at == end || end - at > 8)
        return 0;
    for (; at < end; at++) {
        unsigned c = (unsigned char)*at, d = c - '0';
        if (d > 9) {
            d = (c | 0x20) - 'a';
            if (d > 5)
                return 0;
            d += 10;
        }
        v = v << 4 | d;
    }
    *value = v;
    return 1;
}

/* What num_read found. */
enum num_kind { NUM_NONE, NUM_VALUE, NUM_OVERFLOW, NUM_TEXT };

/* Reads the whole of [at, end) as digits with at most one decimal point: value = *units /
 * 10^*places. NUM_OVERFLOW: a number that does not fit 64 bits. NUM_TEXT: not a number. */
static inline enum num_kind num_read(const char *at, const char *end, uint64_t *units,
                                     unsigned *places) {
    uint64_t v = 0;
    unsigned after = 0;
    int point = 0, overflow = 0;
    if (at == end)
        return NUM_NONE;
    if (*at == '.' || end[-1] == '.')
        return NUM_TEXT;
    for (; at < end; at++) {
        unsigned d = (unsigned)(unsigned char)*at - '0';
        if (d > 9) {
            if (*at != '.' || point)
                return NUM_TEXT;
            point = 1;
            continue;
        }
        after += (unsigned)point;
        if (__builtin_mul_overflow(v, (uint64_t)10, &v) || __builtin_add_overflow(v, (uint64_t)d, &v))
            overflow = 1;
    }
    *units = v;
    *places = after;
    return overflow ? NUM_OVERFLOW : NUM_VALUE;
}

/* The value of what num_read found, for fewer than NUM_PLACES places. */
enum { NUM_PLACES = 20 };
static inline double num_value(uint64_t units, unsigned places) {
    static const double powers[NUM_PLACES] = {
        1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,
        1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19};
    return places ? (double)units / powers[places] : (double)units;
}

#endif
