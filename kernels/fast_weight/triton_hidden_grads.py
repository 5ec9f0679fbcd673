"""v down^T with everything pointwise behind it, the inner rates too: the third product is not written to memory."""

# The parameters of kernels have types of Triton's.
# mypy: allow-untyped-defs, allow-incomplete-defs

import torch
import triton
import triton.language as tl
from torch import Tensor

from lrm_ttt.kernels.fast_weight.tiles import Tiles, half_tiles
from lrm_ttt.kernels.triton_support import check_same, jit

TILES = Tiles(128, 128, 64, 8, 3)


@jit
def hidden_parts(gate, lifted, to_hidden):
    """Return the three results before their rates, of k gate, k up and v down^T."""
    sigmoid = tl.sigmoid(gate)
    gate_values = gate * sigmoid
    slope = sigmoid + gate_values * (1 - sigmoid)
    return to_hidden * lifted * slope, to_hidden * gate_values, gate_values * lifted


@jit(do_not_specialize=["n", "batch_n"])
def hidden_grads_kernel(
    before_gate, up_values, v, down, rates, out, n, d, f, batch_n,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, INNER: tl.constexpr, EVEN: tl.constexpr, RATES: tl.constexpr,
):  # fmt: skip
    """Compute ROWS tokens x COLUMNS hidden values of out `[3 b n f]`; `rates` is `[3 b n]` in float32."""
    tiles = tl.cdiv(f, COLUMNS)
    first_row = tl.program_id(0) // tiles * ROWS
    first_column = tl.program_id(0) % tiles * COLUMNS
    rows, columns, inner = tl.arange(0, ROWS), first_column + tl.arange(0, COLUMNS), tl.arange(0, INNER)
    batch = tl.program_id(1).to(tl.int64)
    start = batch * n + first_row
    row_there = first_row + rows < n
    v_at = v + start * d + (rows[:, None] * d + inner[None, :])
    down_at = down + batch * d * f + (columns[None, :] * d + inner[:, None])
    to_hidden = tl.zeros((ROWS, COLUMNS), tl.float32)
    for done in range(0, d, INNER):
        there = inner < (INNER if EVEN else d - done)
        values = tl.load(v_at + done, row_there[:, None] & there[None, :], other=0.0)
        weights = tl.load(down_at + done, (columns < f)[None, :] & there[:, None], other=0.0)
        to_hidden = tl.dot(values, weights, to_hidden, input_precision="ieee")
    gate_rate, up_rate, down_rate = 1.0, 1.0, 1.0
    if RATES:
        rate_at = rates + start + rows
        gate_rate = tl.load(rate_at, row_there, other=0.0)[:, None]
        up_rate = tl.load(rate_at + batch_n, row_there, other=0.0)[:, None]
        down_rate = tl.load(rate_at + 2 * batch_n, row_there, other=0.0)[:, None]
    # Half of the columns at a time: the operands of a whole tile would not fit into the registers beside it.
    base = start * f + first_column
    size = batch_n.to(tl.int64) * f
    halves = to_hidden.reshape(ROWS, 2, COLUMNS // 2).permute(0, 2, 1).split()
    for half in tl.static_range(2):
        columns = half * (COLUMNS // 2) + tl.arange(0, COLUMNS // 2)
        here = rows[:, None] * f + columns[None, :]
        valid = row_there[:, None] & (first_column + columns < f)[None, :]
        gate = tl.load(before_gate + base + here, valid, other=0.0).to(tl.float32)
        lifted = tl.load(up_values + base + here, valid, other=0.0).to(tl.float32)
        to_gate, to_up, hidden = hidden_parts(gate, lifted, halves[half])
        parts = to_gate * gate_rate, to_up * up_rate, hidden * down_rate
        for which in tl.static_range(3):
            tl.store(out + base + which * size + here, parts[which].to(out.dtype.element_ty), valid)


@torch.library.custom_op("lrm_ttt::hidden_grads", mutates_args=())
def hidden_grads_triton(
    before_gate: Tensor, up_values: Tensor, v: Tensor, down: Tensor, rates: Tensor | None
) -> Tensor:
    """Return what `hidden_grads_reference` does, of contiguous tensors of one dtype and float32 rates."""
    check_same(before_gate, up_values, v, down)
    (batch, n, d), f = v.shape, down.shape[-2]
    out = torch.empty(3, batch, n, f, dtype=v.dtype, device=v.device)
    tiles = half_tiles(v.dtype, TILES)
    grid = (triton.cdiv(n, tiles.rows) * triton.cdiv(f, tiles.columns), batch)
    arguments = before_gate, up_values, v, down, v if rates is None else rates, out, n, d, f, batch * n
    even, weighted = d % tiles.inner == 0, rates is not None
    with torch.cuda.device_of(v):
        hidden_grads_kernel[grid](
            *arguments, *tiles[:3], even, weighted, num_warps=tiles.warps, num_stages=tiles.stages
        )
    return out


@hidden_grads_triton.register_fake
def _(before_gate: Tensor, up_values: Tensor, v: Tensor, down: Tensor, rates: Tensor | None) -> Tensor:
    return before_gate.new_empty(3, *before_gate.shape)
