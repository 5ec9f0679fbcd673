"""The three sums over tokens in one launch: too few tiles to fill a GPU one by one, or without splitting the sums."""

# The parameters of kernels have types of Triton's.
# mypy: allow-untyped-defs, allow-incomplete-defs

import torch
import triton
import triton.language as tl
from torch import Tensor

from lrm_ttt.kernels.fast_weight.tiles import Tiles, half_tiles
from lrm_ttt.kernels.triton_support import check_same, jit, num_processors

TILES = Tiles(128, 256, 64, 8, 3)
# Rounds of programs over the processors, so that the last one, which is not full, weighs little.
ROUNDS = 4
# A split of fewer tokens would spend its time writing.
LEAST_TOKENS = 2048


@jit(do_not_specialize=["n"])
def weight_grads_kernel(
    k, v, hidden, out, n, d, f, share, ROWS: tl.constexpr, COLUMNS: tl.constexpr, INNER: tl.constexpr
):
    """Sum the `share` tokens of one split into ROWS x COLUMNS of one result; hidden `[3 b n f]`, out `[s 3 b d f]`."""
    tiles = tl.cdiv(f, COLUMNS)
    rows = tl.program_id(0) // tiles * ROWS + tl.arange(0, ROWS)
    columns = tl.program_id(0) % tiles * COLUMNS + tl.arange(0, COLUMNS)
    inner = tl.arange(0, INNER)
    split, which = tl.program_id(1), tl.program_id(2).to(tl.int64)
    batches = tl.num_programs(2) // 3
    first = split * share
    last = tl.minimum(first + share, n)
    left = k
    if which >= 2 * batches:
        left = v
    left_at = left + (which % batches * n + first) * d + (inner[None, :] * d + rows[:, None])
    right_at = hidden + (which * n + first) * f + (inner[:, None] * f + columns[None, :])
    row_there, column_there = (rows < d)[:, None], (columns < f)[None, :]
    total = tl.zeros((ROWS, COLUMNS), tl.float32)
    for done in range(first, last, INNER):
        # The rows beyond the last token are zero on both sides, for zero times what lies there may be NaN.
        there = inner < last - done
        tokens = tl.load(left_at, row_there & there[None, :], other=0.0)
        values = tl.load(right_at, column_there & there[:, None], other=0.0)
        total = tl.dot(tokens, values, total, input_precision="ieee")
        # Pointers move, for an offset from the first token would pass 2^31.
        left_at += INNER * d
        right_at += INNER * f
    matrix = (split * tl.num_programs(2) + which) * d * f
    out_at = out + matrix + (rows[:, None] * f + columns[None, :])
    tl.store(out_at, total.to(out.dtype.element_ty), row_there & column_there)


@torch.library.custom_op("lrm_ttt::weight_grads", mutates_args=())
def weight_grads_triton(k: Tensor, v: Tensor, hidden: Tensor, num_splits: int = 0) -> Tensor:
    """Return k^T hidden[0], k^T hidden[1], v^T hidden[2] as `[3 b d f]`, of contiguous tensors of one dtype.

    The sums are split into `num_splits`, added up in float32; 0 splits them so that the GPU is full.
    """
    check_same(k, v, hidden)
    (batch, n, d), f = k.shape, hidden.shape[-1]
    tiles = half_tiles(k.dtype, TILES)
    num_tiles = triton.cdiv(d, tiles.rows) * triton.cdiv(f, tiles.columns)
    if not num_splits:
        filling = triton.cdiv(ROUNDS * num_processors(k.device), 3 * batch * num_tiles)
        num_splits = min(filling, triton.cdiv(n, LEAST_TOKENS))
    share = triton.cdiv(triton.cdiv(n, num_splits), tiles.inner) * tiles.inner
    dtype = k.dtype if num_splits == 1 else torch.float32
    out = torch.empty(num_splits, 3, batch, d, f, dtype=dtype, device=k.device)
    with torch.cuda.device_of(v):
        weight_grads_kernel[num_tiles, num_splits, 3 * batch](
            k, v, hidden, out, n, d, f, share, *tiles[:3], num_warps=tiles.warps, num_stages=tiles.stages
        )
    return out[0] if num_splits == 1 else out.sum(0).to(k.dtype)


@weight_grads_triton.register_fake
def _(k: Tensor, v: Tensor, hidden: Tensor, num_splits: int = 0) -> Tensor:
    return k.new_empty(3, k.shape[0], k.shape[-1], hidden.shape[-1])
