"""Builds the extensions in esnode/_fast; everything else is in pyproject.toml."""

import os
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

SANITIZE = os.environ.get("ESNODE_SANITIZE")  # such as "address,undefined"
FLAGS = ["-std=c11", "-O3", "-Wall", "-Wno-unused-function"]
if SANITIZE:
    # Nothing is linked to: the sanitizers are to be preloaded, before Python. Its own flags have
    # -fwrapv, under which no overflow is reported. Cython adds nothing to NULL.
    FLAGS = ["-std=c11", "-O1", "-g", "-fno-omit-frame-pointer", "-fno-wrapv"]
    FLAGS += [f"-fsanitize={SANITIZE}", "-fno-sanitize=pointer-overflow"]

NVML = "libnvidia-ml.so.1"
STUB = "build/stub"
#: Together, or the linker drops a library that nothing needs strongly.
NEEDED = ["-Wl,--push-state,--no-as-needed", f"-l:{NVML}", "-Wl,--pop-state"]


class Build(build_ext):
    """Builds a stub of NVIDIA's library first, for the one extension that is linked to it."""

    def build_extensions(self) -> None:
        objects = self.compiler.compile(["csrc/nvml_stub.c"], self.build_temp)
        self.compiler.link_shared_object(
            objects, f"{STUB}/{NVML}", extra_postargs=[f"-Wl,-soname,{NVML}"]
        )
        for extension in self.extensions:
            if extension.name == "esnode._fast.nvml":
                extension.library_dirs.append(STUB)
                extension.extra_link_args += NEEDED
        super().build_extensions()


extensions = [
    Extension(
        f"esnode._fast.{source.stem}",
        [str(source)],
        include_dirs=["csrc"],
        depends=["setup.py", *map(str, sorted(Path("csrc").glob("*.h")))],
        define_macros=[("_GNU_SOURCE", "1")],
        extra_compile_args=FLAGS,
    )
    for source in sorted(Path("esnode/_fast").glob("*.pyx"))
]

setup(
    cmdclass={"build_ext": Build},
    ext_modules=cythonize(
        extensions,
        build_dir="build/cython",
        compiler_directives={
            "boundscheck": False,
            "wraparound": False,
            "cdivision": True,
            "initializedcheck": False,
            "auto_pickle": False,
            "autotestdict": False,
        },
    ),
)
