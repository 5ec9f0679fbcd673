"""Build the optional native libraries; everything else about the package is in pyproject.toml.

They are plain shared libraries that ctypes loads, not Python modules: they know neither Python nor torch, so that one
build serves every version of both. Files named *_avx2.cpp and *_avx512.cpp are compiled for those instruction sets and
chosen at run time. Without a compiler the installation goes on, and torch does the work more slowly.
"""

import platform
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext
from setuptools.errors import BaseError, CCompilerError

# Package, folder of its C++ sources, and what is lost without them.
LIBRARIES = {
    "lrm_ttt.kernels.fast_weight": ("kernels/fast_weight/native", "the memory is slower in bfloat16"),
    "lrm_ttt.kernels.newton_schulz": ("kernels/newton_schulz/native", "the memory is slower in bfloat16"),
    "lrm_ttt.kernels.plane_sweep": ("kernels/plane_sweep/native", "plane sweeps are 100 times slower"),
    "lrm_ttt.kernels.rasterizer": ("kernels/rasterizer/native", "rendering without a GPU is 8-200 times slower"),
    "lrm_ttt.kernels.ssim": ("kernels/ssim/native", "the loss of optimisations is ten times slower"),
}
IS_X86 = platform.machine().lower() in ("x86_64", "amd64")
# For GCC and Clang.
FLAGS = [
    *("-O3", "-g0", "-w", "-std=c++17", "-fno-math-errno", "-fno-trapping-math"),
    # Sums must not depend on what the compiler likes to fuse.
    "-ffp-contract=off",
]
AVX512 = [*("-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl"), *("-mavx2", "-mfma")]
INSTRUCTION_SETS = {
    "_avx2": ["-mavx2", "-mfma"],
    "_avx512": AVX512,
    # Linux asks to be asked before a process uses these units.
    "_amx": [*AVX512, "-mavx512bf16", "-mamx-tile", "-mamx-bf16"],
}


class BuildNative(build_ext):
    """Compile each source with the flags of its instruction set; a failure costs speed, never the installation."""

    def build_extension(self, ext: Extension) -> None:
        """Compile and link one library, without threads where the compiler has no OpenMP; warn if nothing works."""
        for threads in (["-fopenmp"], []):
            try:
                self.build_library(ext, threads)
            except (BaseError, CCompilerError, OSError) as error:
                reason = error
            else:
                return
        cost = LIBRARIES[ext.name.rpartition(".")[0]][1]
        first_line = (str(reason).splitlines() or [type(reason).__name__])[0]
        self.warn(f"{ext.name} was not built ({first_line}), so {cost}; install a C++ compiler, then lrm-ttt again")

    def build_library(self, ext: Extension, threads: list[str]) -> None:
        """Compile and link one library; raises what the compiler's driver raises."""
        objects: list[str] = []
        for source in ext.sources:
            extra = next((more for suffix, more in INSTRUCTION_SETS.items() if Path(source).stem.endswith(suffix)), [])
            objects += self.compiler.compile(
                [source],
                output_dir=self.build_temp,
                macros=ext.define_macros,
                extra_postargs=[*FLAGS, *threads, *extra],
                depends=ext.depends,
            )
        target = Path(self.get_ext_fullpath(ext.name))
        target.parent.mkdir(parents=True, exist_ok=True)
        self.compiler.link_shared_object(objects, str(target), extra_postargs=threads, target_lang="c++")

    def get_ext_filename(self, fullname: str) -> str:
        """Name the library without Python's version, on which it does not depend."""
        return str(Path(*fullname.split("."))) + ".so"

    def get_outputs(self) -> list[str]:
        """List the libraries that were built."""
        return [path for path in super().get_outputs() if Path(path).is_file()]


class PlatformWheel(bdist_wheel):
    """Tag the wheel with the platform alone: no part of it depends on Python's version."""

    def get_tag(self) -> tuple[str, str, str]:
        """Return the tags of the wheel's name."""
        return "py3", "none", super().get_tag()[2]


def extensions() -> list[Extension]:
    """Return the libraries with the sources that this processor can use."""
    found = []
    for package, (folder, _) in LIBRARIES.items():
        sources = sorted(str(path) for path in Path(folder).glob("*.cpp"))
        if not IS_X86:
            sources = [source for source in sources if not Path(source).stem.endswith(tuple(INSTRUCTION_SETS))]
        if sys.platform != "linux":
            sources = [source for source in sources if not Path(source).stem.endswith("_amx")]
        headers = [str(path) for root, _ in LIBRARIES.values() for path in Path(root).glob("*.h")]
        macros = [("LRM_X86", "1")] if IS_X86 else []
        if sources:
            name = f"{package}._native"
            found.append(Extension(name, sources, define_macros=macros, depends=headers, language="c++", optional=True))
    return found


setup(ext_modules=extensions(), cmdclass={"build_ext": BuildNative, "bdist_wheel": PlatformWheel})
