"""The backward of `hidden_grads`: two products that share their left side, and everything pointwise behind them."""

# The parameters of kernels have types of Triton's.
# mypy: allow-untyped-defs, allow-incomplete-defs

import torch
import triton
import triton.language as tl
from torch import Tensor

from lrm_ttt.kernels.fast_weight.tiles import Tiles, half_tiles
from lrm_ttt.kernels.fast_weight.triton_hidden_grads import hidden_parts
from lrm_ttt.kernels.triton_support import check_same, jit

# Tiles of 128 x 128 would spill.
TILES = Tiles(128, 64, 64, 8, 4)


@jit
def quarters(tile, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Split a tile into four parts of its columns, from left to right."""
    left, right = tile.reshape(ROWS, 2, COLUMNS // 2).permute(0, 2, 1).split()
    first, second = left.reshape(ROWS, 2, COLUMNS // 4).permute(0, 2, 1).split()
    third, fourth = right.reshape(ROWS, 2, COLUMNS // 4).permute(0, 2, 1).split()
    return first, second, third, fourth


@jit
def flow_back(gate, lifted, to_hidden, by_gate, by_up, by_hidden):
    """Return the gradients of both products and of to_hidden; the rates are in what flows back."""
    sigmoid = tl.sigmoid(gate)
    gate_values, rest = gate * sigmoid, 1 - sigmoid
    slope = sigmoid + gate_values * rest
    curve = sigmoid * rest * (2 + gate * (1 - 2 * sigmoid))
    to_gate = by_gate * to_hidden * lifted * curve + (by_up * to_hidden + by_hidden * lifted) * slope
    to_up = by_gate * to_hidden * slope + by_hidden * gate_values
    return to_gate, to_up, by_gate * lifted * slope + by_up * gate_values


@jit(do_not_specialize=["n", "batch_n"])
def hidden_grads_backward_kernel(
    before_gate, up_values, v, down, rates, from_gate, from_up, from_down, results, gradients, sums, n, d, f, batch_n,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, INNER: tl.constexpr, EVEN: tl.constexpr,
):  # fmt: skip
    """Compute ROWS tokens x COLUMNS hidden values of `[3 b n f]`; sums is `[tiles 3 b n]`, one tile of columns each."""
    tiles = tl.cdiv(f, COLUMNS)
    first_row = tl.program_id(0) // tiles * ROWS
    tile = tl.program_id(0) % tiles
    first_column = tile * COLUMNS
    rows, columns, inner = tl.arange(0, ROWS), first_column + tl.arange(0, COLUMNS), tl.arange(0, INNER)
    batch = tl.program_id(1).to(tl.int64)
    start = batch * n + first_row
    row_there = first_row + rows < n
    v_at = v + start * d + (rows[:, None] * d + inner[None, :])
    down_at = down + batch * d * f + (columns[None, :] * d + inner[:, None])
    from_down_at = from_down + batch * d * f + (inner[:, None] * f + columns[None, :])
    to_hidden = tl.zeros((ROWS, COLUMNS), tl.float32)
    from_hidden = tl.zeros((ROWS, COLUMNS), tl.float32)
    for done in range(0, d, INNER):
        there = inner < (INNER if EVEN else d - done)
        weights_there = (columns < f)[None, :] & there[:, None]
        values = tl.load(v_at + done, row_there[:, None] & there[None, :], other=0.0)
        weights = tl.load(down_at + done, weights_there, other=0.0)
        to_hidden = tl.dot(values, weights, to_hidden, input_precision="ieee")
        flowing = tl.load(from_down_at + done * f, weights_there, other=0.0)
        from_hidden = tl.dot(values, flowing, from_hidden, input_precision="ieee")
    rate_at = rates + start + rows
    gate_rate = tl.load(rate_at, row_there, other=0.0)[:, None]
    up_rate = tl.load(rate_at + batch_n, row_there, other=0.0)[:, None]
    down_rate = tl.load(rate_at + 2 * batch_n, row_there, other=0.0)[:, None]
    kind = results.dtype.element_ty
    base = start * f + first_column
    size = batch_n.to(tl.int64) * f
    nothing = tl.zeros((ROWS,), tl.float32)
    gate_sum, up_sum, down_sum = nothing, nothing, nothing
    to_quarters, from_quarters = quarters(to_hidden, ROWS, COLUMNS), quarters(from_hidden, ROWS, COLUMNS)
    for part in tl.static_range(4):
        offset = part * (COLUMNS // 4) + tl.arange(0, COLUMNS // 4)
        here = rows[:, None] * f + offset[None, :]
        valid = row_there[:, None] & (first_column + offset < f)[None, :]
        gate = tl.load(before_gate + base + here, valid, other=0.0).to(tl.float32)
        lifted = tl.load(up_values + base + here, valid, other=0.0).to(tl.float32)
        toward, by_hidden = to_quarters[part], from_quarters[part]
        by_gate = tl.load(from_gate + base + here, valid, other=0.0).to(tl.float32)
        by_up = tl.load(from_up + base + here, valid, other=0.0).to(tl.float32)
        # The results once more, and with them the gradients of the rates.
        to_gate, to_up, hidden = hidden_parts(gate, lifted, toward)
        gate_sum += tl.sum(by_gate * to_gate, 1)
        up_sum += tl.sum(by_up * to_up, 1)
        down_sum += tl.sum(by_hidden * hidden, 1)
        parts = to_gate * gate_rate, to_up * up_rate, hidden * down_rate
        flow = flow_back(gate, lifted, toward, by_gate * gate_rate, by_up * up_rate, by_hidden * down_rate)
        for which in tl.static_range(3):
            at = base + which * size
            tl.store(results + at + here, parts[which].to(kind), valid)
            tl.store(gradients + at + here, flow[which].to(kind), valid)
    sum_at = sums + tile.to(tl.int64) * 3 * batch_n + start + rows
    tl.store(sum_at, gate_sum, row_there)
    tl.store(sum_at + batch_n, up_sum, row_there)
    tl.store(sum_at + 2 * batch_n, down_sum, row_there)


@torch.library.custom_op("lrm_ttt::hidden_grads_backward", mutates_args=())
def hidden_grads_backward_triton(
    before_gate: Tensor,
    up_values: Tensor,
    v: Tensor,
    down: Tensor,
    rates: Tensor,
    from_gate: Tensor,
    from_up: Tensor,
    from_down: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return what `hidden_grads_backward_reference` does, of contiguous tensors of one dtype and float32 rates."""
    products = before_gate, up_values, v, down
    check_same(*products, from_gate, from_up, from_down)
    (batch, n, d), f = v.shape, down.shape[-2]
    tiles = half_tiles(v.dtype, TILES)
    num_columns = triton.cdiv(f, tiles.columns)
    results = torch.empty(3, batch, n, f, dtype=v.dtype, device=v.device)
    gradients = torch.empty_like(results)
    sums = torch.empty(num_columns, 3, batch, n, dtype=torch.float32, device=v.device)
    grid = (triton.cdiv(n, tiles.rows) * num_columns, batch)
    arguments = *products, rates, from_gate, from_up, from_down, results, gradients, sums, n, d, f, batch * n
    even = d % tiles.inner == 0
    with torch.cuda.device_of(v):
        hidden_grads_backward_kernel[grid](*arguments, *tiles[:3], even, num_warps=tiles.warps, num_stages=tiles.stages)
    return results, gradients, sums.sum(0)


@hidden_grads_backward_triton.register_fake
def _(
    before_gate: Tensor,
    up_values: Tensor,
    v: Tensor,
    down: Tensor,
    rates: Tensor,
    from_gate: Tensor,
    from_up: Tensor,
    from_down: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    results = before_gate.new_empty(3, *before_gate.shape)
    return results, torch.empty_like(results), torch.empty_like(rates)
