"""Silu, the norms of queries and keys, and the layout that products want, in one pass each way.

Nothing but the projection is kept for the backward pass, which computes the rest again.
"""

# The parameters of kernels have types of Triton's.
# mypy: allow-untyped-defs, allow-incomplete-defs

from typing import Any

import torch
import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor

from lrm_ttt.kernels.epilogues.reference import NORM_EPSILON, QueryKeyValue
from lrm_ttt.kernels.triton_support import check_same, jit

# Values of a program, and its warps: 16 to 32 a thread.
VALUES, NUM_WARPS = 4096, 4


@jit
def _rows(tokens, heads, channels, part, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Return where `ROWS` tokens of one head lie in the projection and in the result, and which are there."""
    token = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    scene, head = (tl.program_id(1) // heads).to(tl.int64), tl.program_id(1) % heads
    column = tl.arange(0, COLUMNS)
    within = (token < tokens)[:, None] & (column < channels)[None, :]
    row = (scene * tokens + token) * 3 + part
    projected = row[:, None] * heads * channels + head * channels + column[None, :]
    split = ((scene * heads + head) * tokens + token)[:, None] * channels + column[None, :]
    return projected, split, within


@jit
def qkv_silu_kernel(
    projected, out, tokens, heads, channels, part,
    UNIT: tl.constexpr, EPSILON: tl.constexpr, WIDE: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Write one of the three parts; UNIT: of norm one."""
    source, target, within = _rows(tokens, heads, channels, part, ROWS, COLUMNS)
    x = tl.load(projected + source, within, other=0.0).to(WIDE)
    y = x / (1 + tl.exp(-x))
    if UNIT:
        y /= tl.sqrt(tl.sum(y * y, 1))[:, None] + EPSILON
    tl.store(out + target, y.to(out.dtype.element_ty), within)


@jit
def qkv_silu_backward_kernel(
    projected, by_out, by_projected, tokens, heads, channels, part,
    UNIT: tl.constexpr, EPSILON: tl.constexpr, WIDE: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Write the gradient by one of the three parts."""
    source, target, within = _rows(tokens, heads, channels, part, ROWS, COLUMNS)
    x = tl.load(projected + source, within, other=0.0).to(WIDE)
    slope = tl.load(by_out + target, within, other=0.0).to(WIDE)
    gate = 1 / (1 + tl.exp(-x))
    if UNIT:
        y = x * gate
        norm = tl.sqrt(tl.sum(y * y, 1))[:, None]
        divisor = norm + EPSILON
        radial = tl.sum(slope * y, 1)[:, None] / (tl.maximum(norm, 1e-30) * divisor)
        slope = (slope - y * radial) / divisor
    slope *= gate * (1 + x * (1 - gate))
    tl.store(by_projected + source, slope.to(by_projected.dtype.element_ty), within)


def qkv_silu_triton(projected: Float[Tensor, "b n w"], num_heads: int) -> QueryKeyValue:
    """Do what `qkv_silu_reference` does, with one rounding; differentiable once."""
    return QueryKeyValue(*_QkvSilu.apply(projected, num_heads))


class _QkvSilu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, projected: Tensor, num_heads: int) -> tuple[Tensor, ...]:
        projected = projected.contiguous()
        ctx.save_for_backward(projected)
        ctx.num_heads = num_heads
        return _forward(projected, num_heads)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor | None, ...]:
        (projected,) = ctx.saved_tensors
        return _backward(projected, *(slope.contiguous() for slope in slopes)), None


@torch.library.custom_op("lrm_ttt::qkv_silu", mutates_args=())
def _forward(projected: Tensor, num_heads: int) -> tuple[Tensor, Tensor, Tensor]:
    parts = _empty_parts(projected, num_heads)
    for part, out in enumerate(parts):
        _launch(qkv_silu_kernel, (projected, out), out, part)
    return parts


@_forward.register_fake
def _(projected: Tensor, num_heads: int) -> tuple[Tensor, Tensor, Tensor]:
    return _empty_parts(projected, num_heads)


@torch.library.custom_op("lrm_ttt::qkv_silu_backward", mutates_args=())
def _backward(projected: Tensor, by_q: Tensor, by_k: Tensor, by_v: Tensor) -> Tensor:
    by_projected = torch.empty_like(projected)
    for part, slope in enumerate((by_q, by_k, by_v)):
        _launch(qkv_silu_backward_kernel, (projected, slope, by_projected), slope, part)
    return by_projected


@_backward.register_fake
def _(projected: Tensor, by_q: Tensor, by_k: Tensor, by_v: Tensor) -> Tensor:
    return torch.empty_like(projected)


def _empty_parts(projected: Tensor, num_heads: int) -> tuple[Tensor, Tensor, Tensor]:
    batch, num_tokens, width = projected.shape
    shape = batch, num_heads, num_tokens, width // (3 * num_heads)
    first, second, third = (torch.empty(shape, dtype=projected.dtype, device=projected.device) for _ in range(3))
    return first, second, third


def _launch(kernel: Any, tensors: tuple[Tensor, ...], split: Tensor, part: int) -> None:
    """Run a kernel for one of the three parts; `split` has the shape of a part."""
    check_same(*tensors)
    batch, num_heads, num_tokens, channels = split.shape
    columns = triton.next_power_of_2(channels)
    rows = max(1, VALUES // columns)
    kernel[(triton.cdiv(num_tokens, rows), batch * num_heads)](
        *tensors, num_tokens, num_heads, channels, part, UNIT=part < 2, EPSILON=NORM_EPSILON,
        WIDE=tl.float64 if split.dtype == torch.float64 else tl.float32, ROWS=rows, COLUMNS=columns,
        num_warps=NUM_WARPS,
    )  # fmt: skip
