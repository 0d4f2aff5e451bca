"""Prints pow10.h: 10^k for k in -292..324 as 128-bit significands, rounded up.

python3 csrc/pow10.py > csrc/pow10.h
"""

FIRST, LAST = -292, 324


def significand(k: int) -> int:
    """10^k scaled by the power of two that gives 128 significant bits, rounded up."""
    num, den = (10**k, 1) if k >= 0 else (1, 10**-k)
    bits = num.bit_length() - den.bit_length()
    if (num << max(0, -bits)) < (den << max(0, bits)):
        bits -= 1
    shift = 127 - bits
    num, den = (num << shift, den) if shift >= 0 else (num, den << -shift)
    return -(-num // den)


def main() -> None:
    print("/* Powers of ten for num.h; written by pow10.py. */")
    print("#ifndef ESNODE_POW10_H\n#define ESNODE_POW10_H\n\n#include <stdint.h>\n")
    print(f"#define POW10_FIRST ({FIRST})\n")
    print("static const uint64_t pow10_significands[][2] = { /* high, low */")
    for k in range(FIRST, LAST + 1):
        g = significand(k)
        print(f"    {{0x{g >> 64:016x}u, 0x{g & (2**64 - 1):016x}u}}, /* {k} */")
    print("};\n\n#endif")


if __name__ == "__main__":
    main()
