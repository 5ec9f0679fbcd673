"""Load the native libraries, which are plain shared libraries that know neither Python nor torch."""

import ctypes
import functools
from pathlib import Path

# Worst first; the libraries number them like this.
INSTRUCTION_SETS = ("portable", "avx2", "avx512")


@functools.cache
def load_library(folder: Path) -> ctypes.CDLL | None:
    """Return the library that setup.py built into the folder of a kernel, or None where it was not built."""
    path = folder / "_native.so"
    return ctypes.CDLL(str(path)) if path.is_file() else None
