"""Tensors whose memory comes back: large gradients are the same size in every step of a training.

Fresh memory is handed out by the system page by page, each cleared when it is first touched, which takes longer than
the arithmetic that fills it.
"""

import math
import threading
import weakref
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

# Smaller tensors come from torch's allocator, which does not return their memory to the system.
MIN_BYTES = 1 << 20
# A vector that straddles two cache lines takes twice as long, and cannot be written past the caches.
ALIGNMENT = 64


class RecycledMemory:
    """Float32 tensors on the CPU whose memory is kept, when the last tensor on it is gone, for one of the same size.

    At most `max_free` blocks wait; beyond that the one that has waited longest is freed. Safe to use from several
    threads.
    """

    def __init__(self, max_free: int = 8) -> None:
        self.max_free = max_free
        self._free: list[np.ndarray] = []
        # Finalizers may run inside any call of the same thread, also while it holds the lock.
        self._lock = threading.RLock()

    def empty(self, shape: Sequence[int]) -> Tensor:
        """Return a tensor with arbitrary content."""
        size = math.prod(shape)
        if 4 * size < MIN_BYTES:
            return torch.empty(shape)
        block = self._take(size)
        # The tensor keeps the lease alive; the finalizer keeps the block.
        lease = block.view()
        weakref.finalize(lease, self._give_back, block).atexit = False
        return torch.from_numpy(lease).view(*shape)

    def _take(self, size: int) -> np.ndarray:
        with self._lock:
            for index, block in enumerate(self._free):
                if block.size == size:
                    return self._free.pop(index)
        block = np.empty(size + ALIGNMENT // 4, np.float32)
        start = -block.ctypes.data % ALIGNMENT // 4
        return block[start : start + size]

    def _give_back(self, block: np.ndarray) -> None:
        with self._lock:
            self._free.append(block)
            del self._free[: -self.max_free]
