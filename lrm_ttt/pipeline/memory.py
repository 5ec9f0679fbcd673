"""What a process does with memory: how much it has held, keeping what it frees, and saying when there is too little."""

import contextlib
import ctypes
import sys
from collections.abc import Iterator
from pathlib import Path

import torch

from lrm_ttt.errors import LrmTttError

# Parameters of glibc's mallopt.
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4


def keep_freed_memory() -> bool:
    """Let this process reuse freed memory rather than return it to the system; False where the C library is not glibc.

    Large tensors are otherwise mapped anew each time, and every page of them costs a fault: at 64 views of 72x128 the
    model takes 101 ms of processor time a view with the default and 55 ms with this, and a tenth more memory. For
    programs, not for libraries: it holds for the whole process.
    """
    if sys.platform != "linux":
        return False
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "gnu_get_libc_version"):
        return False
    return bool(libc.mallopt(M_MMAP_MAX, 0)) and bool(libc.mallopt(M_TRIM_THRESHOLD, -1))


def release_freed_memory() -> None:
    """Return to the system what this process has freed and kept: where a stage ends that took much more than the next.

    Does nothing where the C library is not glibc.
    """
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)


def peak_memory_mb(device: torch.device) -> float:
    """Return the most memory that this process has held: on the device if it is a GPU, otherwise in the machine."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    status = Path("/proc/self/status")
    if status.is_file():
        # Unlike getrusage it does not count what the parent held when this process was started.
        for line in status.read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / 1e6
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def available_memory_mb(device: torch.device) -> float | None:
    """Return what this process can still take: on the device if it is a GPU, otherwise in the machine; None: unknown.

    In a container its limit counts, where the system says so.
    """
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] / 1e6
    meminfo = Path("/proc/meminfo")
    if not meminfo.is_file():
        return None
    lines = dict(line.split(":") for line in meminfo.read_text(encoding="ascii").splitlines() if ":" in line)
    free = int(lines["MemAvailable"].split()[0]) * 1024
    limit, used = (Path("/sys/fs/cgroup", name) for name in ("memory.max", "memory.current"))
    if limit.is_file() and used.is_file() and (most := limit.read_text(encoding="ascii").strip()) != "max":
        free = min(free, int(most) - int(used.read_text(encoding="ascii")))
    return free / 1e6


@contextlib.contextmanager
def out_of_memory_explained() -> Iterator[None]:
    """Turn torch's failures to allocate into an `LrmTttError`."""
    try:
        yield
    except RuntimeError as error:
        # On a GPU it has a class of its own, on a CPU only its words.
        if not isinstance(error, torch.OutOfMemoryError) and "can't allocate memory" not in str(error):
            raise
        raise LrmTttError(
            "There is not enough memory. Take a smaller --memory-budget, fewer --views or a smaller --image-size; "
            "--dry-run says what to expect."
        ) from error
