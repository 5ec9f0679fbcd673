"""Load the native libraries, which are plain shared libraries that know neither Python nor torch."""

import ctypes
import functools
import logging
from pathlib import Path

_log = logging.getLogger(__name__)

# Worst first; the libraries number them like this.
INSTRUCTION_SETS = ("portable", "avx2", "avx512")


@functools.cache
def load_library(folder: Path) -> ctypes.CDLL | None:
    """Return the library that setup.py built into the folder of a kernel, or None where there is none that loads."""
    path = folder / "_native.so"
    if not path.is_file():
        return None
    try:
        return ctypes.CDLL(str(path))
    except OSError as error:
        # Built elsewhere, or the system lacks OpenMP's library.
        _log.warning("slower code replaces %s, which cannot be loaded: %s", path, error)
        return None
