"""The memory's products on the matrix units of x86 processors (AMX), called by ctypes: bfloat16, without gradients.

Differentiated, the same formulas run as torch operators (reference.py), which keep what the backward pass needs.
"""

import ctypes
from pathlib import Path

import torch
from torch import Tensor

from lrm_ttt.kernels.native import load_library
from lrm_ttt.kernels.newton_schulz.cpu import HAS_MATRIX_UNITS


class _GradientsTask(ctypes.Structure):
    """`LrmFastWeightGradients` of native/gradients_amx.cpp."""

    _fields_ = (
        *[(name, ctypes.c_int32) for name in ("memories", "tokens", "width", "hidden", "threads")],
        *[(name, ctypes.c_void_p) for name in ("gate", "up", "down", "k", "v")],
        *[(name, ctypes.c_void_p) for name in ("rate_gate", "rate_down", "rate_up", "to_gate", "to_up", "to_down")],
    )


class _FeedTask(ctypes.Structure):
    """`LrmFeed` of native/feed_amx.cpp."""

    _fields_ = (
        *[(name, ctypes.c_int32) for name in ("memories", "tokens", "width", "hidden", "transposed", "threads")],
        *[(name, ctypes.c_void_p) for name in ("gate", "up", "down", "x", "result")],
    )


_library = load_library(Path(__file__).parent) if HAS_MATRIX_UNITS else None
# Known when this is imported, so that compiled code need not ask.
AVAILABLE = _library is not None


def fits(x: Tensor, batch: torch.Size | None = None) -> bool:
    """Return whether these kernels work on tokens like `x`: bfloat16 on a CPU that has them, and no gradients.

    `batch` are the leading dimensions of the weights, which are not broadcast; None where they have none.
    """
    if not AVAILABLE or x.dtype != torch.bfloat16 or x.device.type != "cpu" or torch.is_grad_enabled():
        return False
    return x.ndim > 1 and (batch is None or x.shape[:-2] == batch)


@torch.library.custom_op("lrm_ttt::fast_weight_gradients_cpu", mutates_args=())
def gradients_cpu(
    gate: Tensor, up: Tensor, down: Tensor, k: Tensor, v: Tensor, rate_gate: Tensor, rate_down: Tensor, rate_up: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Do what `gradients_reference` does, with float32 where it rounds in between; `down`'s come transposed.

    Weights `[*b d f]` and `[*b f d]` in float32, tokens `[*b n d]` in bfloat16, rates `[*b n 1]` in float32.
    """
    assert _library is not None and k.shape[:-2] == v.shape[:-2] == gate.shape[:-2]
    if not k.numel():
        return k.new_zeros(gate.shape), k.new_zeros(gate.shape), k.new_zeros(gate.shape)
    weights = [weight.float().contiguous() for weight in (gate, up, down)]
    tokens = [part.contiguous() for part in (k, v)]
    rates = [rate.float().contiguous() for rate in (rate_gate, rate_down, rate_up)]
    to_gate, to_up, to_down = (torch.empty(gate.shape, dtype=k.dtype) for _ in range(3))
    width, hidden = gate.shape[-2:]
    task = _GradientsTask(
        *(gate[..., 0, 0].numel(), k.shape[-2], width, hidden, torch.get_num_threads()),
        *(tensor.data_ptr() for tensor in (*weights, *tokens, *rates, to_gate, to_up, to_down)),
    )
    if _library.lrm_fast_weight_gradients(ctypes.byref(task)):
        raise MemoryError(f"no memory for the gradients of {k.shape[-2]} tokens")
    return to_gate, to_up, to_down


@gradients_cpu.register_fake
def _(
    gate: Tensor, up: Tensor, down: Tensor, k: Tensor, v: Tensor, rate_gate: Tensor, rate_down: Tensor, rate_up: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    del up, down, v, rate_gate, rate_down, rate_up
    first, second, third = (k.new_empty(gate.shape) for _ in range(3))
    return first, second, third


@torch.library.custom_op("lrm_ttt::feed_cpu", mutates_args=())
def feed_cpu(gate: Tensor, up: Tensor | None, down: Tensor, x: Tensor) -> Tensor:
    """Return (silu(x gate) * (x up)) down of tokens `[*b n d]`, or without `up` gelu(x gate^T) down^T.

    So are memories and linear layers stored. Weights in float32, tokens in bfloat16; float32 in between.
    """
    assert _library is not None and (up is None or x.shape[:-2] == gate.shape[:-2])
    if not x.numel():
        return x.contiguous().clone()
    arrays = [None if weight is None else weight.float().contiguous() for weight in (gate, up, down)]
    tokens = x.contiguous()
    result = torch.empty_like(tokens)
    linear = up is None
    num_tokens, width = x.shape[-2:]
    memories = 1 if linear else gate[..., 0, 0].numel()
    task = _FeedTask(
        *(memories, x.numel() // (memories * width), width, gate.shape[-2 if linear else -1], linear),
        torch.get_num_threads(),
        *(None if array is None else array.data_ptr() for array in (*arrays, tokens, result)),
    )
    if _library.lrm_feed(ctypes.byref(task)):
        raise MemoryError(f"no memory to take {num_tokens} tokens through a layer")
    return result


@feed_cpu.register_fake
def _(gate: Tensor, up: Tensor | None, down: Tensor, x: Tensor) -> Tensor:
    del gate, up, down
    return torch.empty_like(x, memory_format=torch.contiguous_format)
