/* CRC-32 as zlib and PNG have it (polynomial 0xEDB88320, reflected), eight bytes at a time.
 *
 * table[0] is the usual table of one byte's effect; table[k] is that of a byte with k zero bytes
 * after it, so that the effects of eight bytes are looked up independently and meet by xor.
 */
#ifndef ESNODE_CRC32_H
#define ESNODE_CRC32_H

#include <endian.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

static inline void crc32_fill(uint32_t table[8][256]) {
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t c = i;
        for (int bit = 0; bit < 8; bit++)
            c = c & 1 ? UINT32_C(0xEDB88320) ^ c >> 1 : c >> 1;
        table[0][i] = c;
    }
    for (uint32_t i = 0; i < 256; i++)
        for (int k = 1; k < 8; k++)
            table[k][i] = table[0][table[k - 1][i] & 255] ^ table[k - 1][i] >> 8;
}

/* The sum of what crc is the sum of (0: of nothing), followed by n bytes. */
static inline uint32_t crc32_add(uint32_t table[8][256], uint32_t crc, const char *at, size_t n) {
    const unsigned char *p = (const unsigned char *)at;
    crc = ~crc;
    for (; n >= 8; n -= 8, p += 8) {
        uint32_t a, b;
        memcpy(&a, p, 4);
        memcpy(&b, p + 4, 4);
        a = le32toh(a) ^ crc;
        b = le32toh(b);
        crc = table[7][a & 255] ^ table[6][a >> 8 & 255] ^ table[5][a >> 16 & 255] ^
              table[4][a >> 24] ^ table[3][b & 255] ^ table[2][b >> 8 & 255] ^
              table[1][b >> 16 & 255] ^ table[0][b >> 24];
    }
    for (; n; n--, p++)
        crc = table[0][(crc ^ *p) & 255] ^ crc >> 8;
    return ~crc;
}

#endif
