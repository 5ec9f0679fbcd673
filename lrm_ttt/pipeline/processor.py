"""What the machine's processor and its compiler can do, as far as the system tells; free of torch."""

import os
import platform
import shutil
from pathlib import Path

# The capabilities that decide how fast the CPU path is, in the words of /proc/cpuinfo.
CPU_FLAGS = ["avx2", "avx512f", "avx512_bf16", "amx_bf16"]


def cpu_name() -> str:
    """Return the processor's name where the system tells it."""
    for line in cpu_info():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def cpu_flags() -> set[str]:
    """Return the instruction sets that the system lists; empty where it lists none."""
    for line in cpu_info():
        if line.startswith(("flags", "Features")):
            return set(line.partition(":")[2].split())
    return set()


def cpu_info() -> list[str]:
    """Return the lines of /proc/cpuinfo, or none on a system without it."""
    path = Path("/proc/cpuinfo")
    return path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []


def cxx_compiler() -> str:
    """Return the C++ compiler that torch.compile finds, or nothing."""
    return next(filter(None, map(shutil.which, [os.environ.get("CXX", "c++"), "g++", "clang++"])), "")
