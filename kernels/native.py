"""Load the native libraries, which are plain shared libraries that know neither Python nor torch."""

import ctypes
import functools
from pathlib import Path

# Worst first; a library numbers them like this.
INSTRUCTION_SETS = ("portable", "avx2", "avx512")


@functools.cache
def load_library(folder: Path) -> ctypes.CDLL | None:
    """Return the library that setup.py built into the folder of a kernel, or None where it was not built."""
    for suffix in (".so", ".dylib", ".dll"):
        path = folder / f"_native{suffix}"
        if path.is_file():
            return ctypes.CDLL(str(path))
    return None
