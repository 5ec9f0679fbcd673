"""What all Triton kernels share. It imports Triton, so it is imported where a kernel is about to run."""

import functools
import inspect
import os
from collections.abc import Callable
from typing import Any

import torch
import triton
from torch import Tensor


def jit(function: Callable | None = None, **options: Any) -> Any:
    """Compile with Triton; under TRITON_INTERPRET=1 interpret instead, which is settled when the module is imported.

    The type checks of tests would hide the function's source and globals from Triton: it is taken out of them.
    """
    if function is None:
        return functools.partial(jit, **options)
    return triton.jit(inspect.unwrap(function), **options)


def interpreting() -> bool:
    """Tell whether kernels are interpreted on the CPU."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def num_processors(device: torch.device) -> int:
    """Return how many programs run side by side, one where kernels are interpreted."""
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 1


def check_same(*tensors: Tensor) -> None:
    """Assert what kernels take for granted: one device, one dtype, and no bfloat16 in the interpreter."""
    first = tensors[0]
    assert all(tensor.device == first.device and tensor.dtype == first.dtype for tensor in tensors)
    assert first.is_cuda or interpreting()
    assert not (interpreting() and first.dtype == torch.bfloat16), "Triton's interpreter gets bfloat16 wrong"
