"""Newton-Schulz in bfloat16 on the matrix units of x86 processors (AMX), called by ctypes."""

import ctypes
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lrm_ttt.kernels.native import load_library
from lrm_ttt.kernels.newton_schulz.coefficients import COEFFICIENTS, NORM_EPSILON
from lrm_ttt.kernels.newton_schulz.recomputed import gradient_recomputed, measured, symmetric_product_reference
from lrm_ttt.kernels.newton_schulz.reference import newton_schulz_reference


class _Task(ctypes.Structure):
    """`LrmNewtonSchulz` of native/iteration.h."""

    _fields_ = (
        *[(name, ctypes.c_int32) for name in ("matrices", "rows", "columns", "steps", "threads")],
        *[(name, ctypes.c_float) for name in ("a", "b", "c", "epsilon")],
        *[(name, ctypes.c_void_p) for name in ("input", "output", "slope")],
    )


@functools.cache
def library() -> ctypes.CDLL | None:
    """Return the compiled library where it was built and this processor has what it needs."""
    built = load_library(Path(__file__).parent)
    return built if built is not None and built.lrm_newton_schulz_available() else None


# Known when this is imported, so that compiled code need not ask.
HAS_MATRIX_UNITS = library() is not None


@torch.library.custom_op("lrm_ttt::newton_schulz_cpu", mutates_args=())
def newton_schulz_cpu(matrix: Tensor, num_steps: int) -> Tensor:
    """Do what `newton_schulz_reference` does to bfloat16 matrices `[*b rows cols]` with rows <= cols, norms in float32.

    The result does not depend on the number of threads (torch's). Without the library it is that of the reference. Of
    the steps nothing is kept for the backward pass, which takes them again.
    """
    assert matrix.shape[-2] <= matrix.shape[-1] and matrix.dtype == torch.bfloat16 and matrix.device.type == "cpu"
    built = library()
    if built is None or not matrix.numel():
        return newton_schulz_reference(matrix, num_steps).contiguous()
    return _run(built.lrm_newton_schulz, matrix, num_steps, None)


@torch.library.custom_op("lrm_ttt::newton_schulz_cpu_backward", mutates_args=())
def _gradient(matrix: Tensor, num_steps: int, gradient: Tensor) -> Tensor:
    assert gradient.shape == matrix.shape and gradient.dtype == matrix.dtype
    built = library()
    if built is not None and matrix.numel():
        return _run(built.lrm_newton_schulz_backward, matrix, num_steps, gradient)
    wide, norms = measured(matrix.reshape(-1, *matrix.shape[-2:]))
    start = (wide / (norms + NORM_EPSILON)).to(matrix.dtype)
    slope = gradient.reshape(start.shape)
    by_matrix = gradient_recomputed(start, norms, slope, num_steps, symmetric_product_reference)
    return by_matrix.to(matrix.dtype).reshape(matrix.shape)


def _run(function: Callable[..., int], matrix: Tensor, num_steps: int, slope: Tensor | None) -> Tensor:
    rows, columns = matrix.shape[-2:]
    matrix, slope = matrix.contiguous(), None if slope is None else slope.contiguous()
    result = torch.empty_like(matrix)
    a, b, c = COEFFICIENTS
    task = _Task(
        *(matrix.numel() // (rows * columns), rows, columns, num_steps, torch.get_num_threads()),
        *(a, b, c, NORM_EPSILON),
        *(None if tensor is None else tensor.data_ptr() for tensor in (matrix, result, slope)),
    )
    if function(ctypes.byref(task)):
        raise MemoryError(f"no memory to orthogonalise matrices of shape {list(matrix.shape)}")
    return result


@newton_schulz_cpu.register_fake
def _(matrix: Tensor, num_steps: int) -> Tensor:
    del num_steps
    return torch.empty_like(matrix, memory_format=torch.contiguous_format)


@_gradient.register_fake
def _(matrix: Tensor, num_steps: int, gradient: Tensor) -> Tensor:
    del num_steps, gradient
    return torch.empty_like(matrix, memory_format=torch.contiguous_format)


def _remember(ctx: Any, inputs: tuple[Tensor, int], output: Tensor) -> None:
    del output
    matrix, ctx.num_steps = inputs
    ctx.save_for_backward(matrix)


def _backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
    (matrix,) = ctx.saved_tensors
    return _gradient(matrix, ctx.num_steps, gradient), None


newton_schulz_cpu.register_autograd(_backward, setup_context=_remember)
