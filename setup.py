"""Package roots and the native kernels; all metadata is in pyproject.toml."""

import importlib.metadata
import importlib.util
import pathlib
import platform

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext

SOURCES = pathlib.Path("kernels/sparsejax_kernels/cpu")
X86 = platform.machine().lower() in ("x86_64", "amd64")
# One translation unit per instruction set; which one runs is chosen at run time.
TARGETS = {"portable": "x86-64-v2", "avx2": "x86-64-v3", "avx512": "x86-64-v4"}
UNITS = list(TARGETS) if X86 else ["portable"]


class BuildKernels(build_ext):
    """Compiles each unit for its instruction set, against jaxlib's headers."""

    def build_extension(self, ext):
        jaxlib = importlib.util.find_spec("jaxlib")
        if jaxlib is None:
            raise ModuleNotFoundError("the native kernels need jaxlib to build")
        (folder,) = jaxlib.submodule_search_locations
        # As system headers, whose warnings are not ours.
        headers = ["-isystem", str(pathlib.Path(folder) / "include")]
        version = importlib.metadata.version("jaxlib")
        ext.define_macros.append(("SPARSEJAX_KERNELS_JAXLIB", f'"{version}"'))
        compile_one = self.compiler._compile

        def compile_for_target(obj, src, file_ext, cc_args, extra_postargs, pp_opts):
            unit = pathlib.Path(src).stem.removeprefix("kernels_")
            target = [f"-march={TARGETS[unit]}"] if X86 and unit in TARGETS else []
            flags = [*extra_postargs, *headers, *target]
            compile_one(obj, src, file_ext, cc_args, flags, pp_opts)

        self.compiler._compile = compile_for_target
        try:
            super().build_extension(ext)
        finally:
            self.compiler._compile = compile_one


native = Extension(
    "sparsejax_kernels._native",
    sources=[str(SOURCES / name) for name in ["handlers.cc"]]
    + [str(SOURCES / f"kernels_{unit}.cc") for unit in UNITS],
    depends=[str(file) for file in sorted(SOURCES.glob("*.h"))],
    define_macros=[("SPARSEJAX_KERNELS_X86", "1")] if X86 else [],
    extra_compile_args=[
        "-O3",
        "-std=c++17",
        "-fno-math-errno",
        "-Wno-psabi",
        "-Wno-maybe-uninitialized",
    ],
    language="c++",
    # Without a compiler everything installs, and runs on XLA's own operations.
    optional=True,
)

setup(
    packages=[
        *find_packages(include=["sparsejax*"]),
        "sparsejax.configs",
        *find_packages("kernels", include=["sparsejax_kernels*"]),
    ],
    package_dir={
        "sparsejax.configs": "configs",
        "sparsejax_kernels": "kernels/sparsejax_kernels",
    },
    ext_modules=[native],
    cmdclass={"build_ext": BuildKernels},
)
