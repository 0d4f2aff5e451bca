"""Keeps a GPU busy: `python -m tests.hardware.load PCI_BUS_ID SECONDS`.

A kernel in PTX that multiplies matrices on the tensor cores until the clock says stop, started
through the driver's own API: neither CUDA's toolkit nor a framework is needed. The exit code is 2
where the machine cannot run it; then the last line says why.
"""

from __future__ import annotations

import ctypes
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

#: Bytes that are taken of the GPU's memory, threads of a block, and blocks of a multiprocessor.
SIZE = 512 << 20
THREADS = 256
BLOCKS = 8
#: Cycles that one launch lasts: some 50 ms.
CYCLES = 80_000_000
#: Of CUdevice_attribute.
MULTIPROCESSORS, MAJOR, MINOR = 16, 75, 76

#: The sum goes to memory if it is a number that it never is: else nothing of this would be done.
PTX = """
.version {version}
.target sm_{target}
.address_size 64

.visible .entry spin(.param .u64 cycles, .param .u64 memory)
{{
    .reg .pred %more, %never;
    .reg .b64 %limit, %start, %now, %to;
    .reg .b32 %one;
    .reg .f32 %x, %y, %z, %w;

    ld.param.u64 %limit, [cycles];
    ld.param.u64 %to, [memory];
    mov.b32 %one, 0x3c003c00;
    mov.f32 %x, 0f00000000;
    mov.f32 %y, 0f00000000;
    mov.f32 %z, 0f00000000;
    mov.f32 %w, 0f00000000;
    mov.u64 %start, %clock64;
again:
{multiply}
    fma.rn.f32 %x, %x, 0f3f000000, 0f3f800000;
    mov.u64 %now, %clock64;
    sub.u64 %now, %now, %start;
    setp.lt.u64 %more, %now, %limit;
    @%more bra again;
    setp.eq.f32 %never, %x, 0fbf800000;
    @%never st.global.f32 [%to], %y;
    ret;
}}
"""
#: For Turing and newer.
TENSOR = (
    "    mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32"
    " {%x, %y, %z, %w}, {%one, %one}, {%one}, {%x, %y, %z, %w};\n"
)


class CannotRunError(Exception):
    """Why this machine cannot run it."""


def source(major: int, minor: int) -> str:
    """The kernel for a GPU of a compute capability; newer ones take what is made for older."""
    if (major, minor) >= (7, 5):
        return PTX.format(version="6.5", target=75, multiply=TENSOR * 8)
    plain = "    fma.rn.f32 %y, %y, 0f3f000000, 0f3f800000;\n" * 16
    return PTX.format(version="6.0", target=f"{major}{minor}", multiply=plain)


class Cuda:
    """The driver's API on one GPU."""

    def __init__(self, pci: str) -> None:
        try:
            self.library = ctypes.CDLL("libcuda.so.1")
        except OSError as error:
            raise CannotRunError(str(error)) from None
        self("cuInit", 0)
        device = ctypes.c_int()
        self("cuDeviceGetByPCIBusId", ctypes.byref(device), pci.encode())
        self.device = device
        context = ctypes.c_void_p()
        self("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
        self("cuCtxSetCurrent", context)

    def __call__(self, name: str, *arguments: object) -> None:
        code = getattr(self.library, name)(*arguments)
        if code:
            text = ctypes.c_char_p()
            self.library.cuGetErrorName(code, ctypes.byref(text))
            raise CannotRunError(f"{name}: {(text.value or b'').decode() or code}")

    def attribute(self, number: int) -> int:
        value = ctypes.c_int()
        self("cuDeviceGetAttribute", ctypes.byref(value), number, self.device)
        return value.value

    @contextmanager
    def memory(self, size: int) -> Iterator[ctypes.c_uint64]:
        address = ctypes.c_uint64()
        self("cuMemAlloc_v2", ctypes.byref(address), ctypes.c_size_t(size))
        try:
            yield address
        finally:
            self("cuMemFree_v2", address)


def run(pci: str, seconds: float) -> None:
    """Keeps the GPU at a PCI address busy. Raises CannotRunError."""
    cuda = Cuda(pci)
    module, function = ctypes.c_void_p(), ctypes.c_void_p()
    kernel = source(cuda.attribute(MAJOR), cuda.attribute(MINOR)).encode()
    cuda("cuModuleLoadData", ctypes.byref(module), kernel)
    cuda("cuModuleGetFunction", ctypes.byref(function), module, b"spin")
    blocks = cuda.attribute(MULTIPROCESSORS) * BLOCKS
    with cuda.memory(SIZE) as address:
        cycles = ctypes.c_uint64(CYCLES)
        parameters = (ctypes.c_void_p * 2)(ctypes.addressof(cycles), ctypes.addressof(address))
        print("running", flush=True)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for _ in range(2):  # one is ready when the other ends
                cuda(
                    "cuLaunchKernel",
                    *(function, blocks, 1, 1, THREADS, 1, 1, 0, None, parameters, None),
                )
            cuda("cuCtxSynchronize")


if __name__ == "__main__":
    try:
        run(sys.argv[1], float(sys.argv[2]))
    except CannotRunError as error:
        print(error)
        sys.exit(2)
