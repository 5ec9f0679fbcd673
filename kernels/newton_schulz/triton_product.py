"""The symmetric products of Newton-Schulz in Triton: tiles of one triangle are computed, and mirrored on the way out.

Half the arithmetic of a product that does not know that its result is symmetric.
"""

# The parameters of kernels have types of Triton's.
# mypy: allow-untyped-defs, allow-incomplete-defs

import torch
import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor

from lrm_ttt.kernels.newton_schulz.coefficients import NUM_STEPS
from lrm_ttt.kernels.newton_schulz.recomputed import newton_schulz_recomputed
from lrm_ttt.kernels.triton_support import check_same, jit, num_processors

# Rows of a tile, terms of the sum at a time, warps and stages: large tiles where there are enough of them for the
# multiprocessors of a GPU, else small ones.
LARGE, SMALL = (128, 64, 8, 3), (64, 64, 4, 4)


@jit
def symmetric_product_kernel(
    x, addend, out, rows, depth, alpha, beta,
    HAS_ADDEND: tl.constexpr, TILE: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    """Write one tile of alpha x x^T + beta addend, and the tile across the diagonal; x is `[b rows depth]`."""
    first, second = tl.program_id(0), tl.program_id(1)
    if second <= first:
        matrix = tl.program_id(2).to(tl.int64)
        x += matrix * rows * depth
        down = first * TILE + tl.arange(0, TILE)
        across = second * TILE + tl.arange(0, TILE)
        terms = tl.arange(0, DEPTH)
        total = tl.zeros((TILE, TILE), tl.float32)
        for start in range(0, depth, DEPTH):
            inside = start + terms < depth
            at_left = (down[:, None] < rows) & inside[None, :]
            at_right = (across[None, :] < rows) & inside[:, None]
            left = tl.load(x + down[:, None] * depth + start + terms[None, :], at_left, other=0.0)
            right = tl.load(x + across[None, :] * depth + start + terms[:, None], at_right, other=0.0)
            total = tl.dot(left, right, total, input_precision="ieee")
        total *= alpha
        place = matrix * rows * rows + down[:, None] * rows + across[None, :]
        within = (down[:, None] < rows) & (across[None, :] < rows)
        if HAS_ADDEND:
            total += beta * tl.load(addend + place, within, other=0.0).to(tl.float32)
        rounded = total.to(out.dtype.element_ty)
        tl.store(out + place, rounded, within)
        if second < first:
            mirrored = matrix * rows * rows + across[:, None] * rows + down[None, :]
            tl.store(out + mirrored, tl.trans(rounded), (across[:, None] < rows) & (down[None, :] < rows))


@torch.library.custom_op("lrm_ttt::symmetric_product", mutates_args=())
def symmetric_product_triton(x: Tensor, alpha: float, addend: Tensor | None, beta: float) -> Tensor:
    """Return alpha x x^T + beta addend of `[b m n]` and a symmetric `[b m m]`, summed in float32 and rounded once."""
    x = x.contiguous()
    check_same(x, *([] if addend is None else [addend]))
    batch, rows, depth = x.shape
    out = torch.empty(batch, rows, rows, dtype=x.dtype, device=x.device)
    tiles = triton.cdiv(rows, LARGE[0])
    tile, terms, warps, stages = LARGE if batch * tiles * (tiles + 1) // 2 >= num_processors(x.device) else SMALL
    tiles = triton.cdiv(rows, tile)
    symmetric_product_kernel[(tiles, tiles, batch)](
        x, out if addend is None else addend.contiguous(), out, rows, depth, alpha, beta,
        HAS_ADDEND=addend is not None, TILE=tile, DEPTH=terms, num_warps=warps, num_stages=stages,
    )  # fmt: skip
    return out


@symmetric_product_triton.register_fake
def _(x: Tensor, alpha: float, addend: Tensor | None, beta: float) -> Tensor:
    return x.new_empty(x.shape[0], x.shape[1], x.shape[1])


def newton_schulz_triton(
    matrix: Float[Tensor, "*b rows cols"], num_steps: int = NUM_STEPS, dtype: torch.dtype = torch.float16
) -> Float[Tensor, "*b rows cols"]:
    """Orthogonalise with products in `dtype` and sums in float32, and return float32.

    In float16 rounding is an eighth of bfloat16's at the same rate, and its range suffices: what is rounded has norm
    one. Saves at most a quarter of the arithmetic of a matrix four times as long as wide.
    """
    return newton_schulz_recomputed(matrix, num_steps, dtype, symmetric_product_triton)
