"""silu(x gate) * (x up) with the two products in one pass: neither is written to memory."""

# The parameters of kernels have types of Triton's.
# mypy: allow-untyped-defs, allow-incomplete-defs

import torch
import triton
import triton.language as tl
from torch import Tensor

from lrm_ttt.kernels.fast_weight.tiles import Tiles, half_tiles
from lrm_ttt.kernels.triton_support import check_same, jit

# Two accumulators of 128 x 128 are half of a processor's registers; three would spill.
TILES = Tiles(128, 128, 64, 8, 3)


@jit(do_not_specialize=["n"])
def swiglu_up_kernel(
    x, gate, up, out, n, d, f, ROWS: tl.constexpr, COLUMNS: tl.constexpr, INNER: tl.constexpr, EVEN: tl.constexpr
):
    """Compute ROWS tokens x COLUMNS hidden values; EVEN says that INNER divides d."""
    # Columns go fastest, so that tokens are read once while the weights stay in the cache.
    tiles = tl.cdiv(f, COLUMNS)
    first_row = tl.program_id(0) // tiles * ROWS
    columns = tl.program_id(0) % tiles * COLUMNS + tl.arange(0, COLUMNS)
    rows, inner = tl.arange(0, ROWS), tl.arange(0, INNER)
    batch = tl.program_id(1).to(tl.int64)
    start = batch * n + first_row
    matrix = batch * d * f
    row_there, column_there = (first_row + rows < n)[:, None], (columns < f)[None, :]
    x_at = x + start * d + (rows[:, None] * d + inner[None, :])
    weight_at = inner[:, None] * f + columns[None, :]
    gated = tl.zeros((ROWS, COLUMNS), tl.float32)
    lifted = tl.zeros((ROWS, COLUMNS), tl.float32)
    for done in range(0, d, INNER):
        there = inner < (INNER if EVEN else d - done)
        tokens = tl.load(x_at + done, row_there & there[None, :], other=0.0)
        weights_there = column_there & there[:, None]
        at = weight_at + done * f
        gated = tl.dot(tokens, tl.load(gate + matrix + at, weights_there, other=0.0), gated, input_precision="ieee")
        lifted = tl.dot(tokens, tl.load(up + matrix + at, weights_there, other=0.0), lifted, input_precision="ieee")
    hidden = gated * tl.sigmoid(gated) * lifted
    out_at = out + start * f + (rows[:, None] * f + columns[None, :])
    tl.store(out_at, hidden.to(out.dtype.element_ty), row_there & column_there)


@torch.library.custom_op("lrm_ttt::swiglu_up", mutates_args=())
def swiglu_up_triton(x: Tensor, gate: Tensor, up: Tensor) -> Tensor:
    """Return silu(x gate) * (x up) of `[b n d]` and two `[b d f]`, contiguous and of one dtype."""
    check_same(x, gate, up)
    (batch, n, d), f = x.shape, gate.shape[-1]
    out = torch.empty(batch, n, f, dtype=x.dtype, device=x.device)
    tiles = half_tiles(x.dtype, TILES)
    grid = (triton.cdiv(n, tiles.rows) * triton.cdiv(f, tiles.columns), batch)
    even = d % tiles.inner == 0
    with torch.cuda.device_of(x):
        swiglu_up_kernel[grid](
            x, gate, up, out, n, d, f, *tiles[:3], even, num_warps=tiles.warps, num_stages=tiles.stages
        )
    return out


@swiglu_up_triton.register_fake
def _(x: Tensor, gate: Tensor, up: Tensor) -> Tensor:
    return x.new_empty(*x.shape[:-1], gate.shape[-1])
