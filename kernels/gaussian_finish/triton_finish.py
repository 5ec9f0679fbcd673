"""Raw channels to Gaussians in one pass over memory each way: every kept row is read once, and written once."""

# The parameters of kernels have types of Triton's.
# mypy: allow-untyped-defs, allow-incomplete-defs

from typing import Any

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int
from torch import Tensor

from lrm_ttt.kernels.gaussian_finish.reference import NUM_OTHERS, Activations, Finished, Rays
from lrm_ttt.kernels.triton_support import interpreting, jit

# Gaussians of a program, and its warps.
ROWS, NUM_WARPS = 64, 4
# As torch.nn.functional.normalize has it.
LEAST_NORM = 1e-12


@jit
def _placed(index, keep, within, pixels, KEEPS: tl.constexpr):
    """Return where the Gaussians `index` of the result stand among all, and in which view."""
    place = tl.load(keep + index, within, other=0) if KEEPS else index
    return place, place // pixels


@jit
def finish_kernel(
    raw, origins, directions, near, far, keep, means, scales, wxyz, opacities, sh,
    number, pixels,
    scale_shift: tl.constexpr, max_log_scale: tl.constexpr, opacity_shift: tl.constexpr,
    NUM_SH: tl.constexpr, KEEPS: tl.constexpr, WIDE: tl.constexpr, LEAST: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Activate `ROWS` Gaussians."""
    index = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    within = index < number
    place, view = _placed(index, keep, within, pixels, KEEPS)
    row = raw + place * (NUM_SH + 11)

    column = tl.arange(0, COLUMNS)
    cells = within[:, None] & (column[None, :] < NUM_SH)
    harmonics = tl.load(row[:, None] + 3 + column[None, :], cells, other=0.0)
    tl.store(sh + index[:, None] * NUM_SH + column[None, :], harmonics.to(WIDE), cells)

    share = tl.load(row, within, other=0.0).to(WIDE)
    share += tl.load(row + 1, within, other=0.0).to(WIDE)
    share += tl.load(row + 2, within, other=0.0).to(WIDE)
    least, most = tl.load(near + view, within, other=0.0), tl.load(far + view, within, other=0.0)
    distance = least + (most - least) / (1 + tl.exp(share / -3))
    for axis in tl.static_range(3):
        origin = tl.load(origins + view * 3 + axis, within, other=0.0)
        direction = tl.load(directions + place * 3 + axis, within, other=0.0)
        tl.store(means + index * 3 + axis, origin + distance * direction, within)
        size = tl.load(row + 3 + NUM_SH + axis, within, other=0.0).to(WIDE) + scale_shift
        tl.store(scales + index * 3 + axis, tl.exp(tl.minimum(size, tl.full((ROWS,), max_log_scale, WIDE))), within)

    four = tl.arange(0, 4)
    turn = tl.load(row[:, None] + 6 + NUM_SH + four[None, :], within[:, None], other=0.0).to(WIDE)
    norm = tl.maximum(tl.sqrt(tl.sum(turn * turn, 1)), LEAST)
    tl.store(wxyz + index[:, None] * 4 + four[None, :], turn / norm[:, None], within[:, None])
    logit = tl.load(row + 10 + NUM_SH, within, other=0.0).to(WIDE) + opacity_shift
    tl.store(opacities + index, 1 / (1 + tl.exp(-logit)), within)


@jit
def finish_backward_kernel(
    raw, directions, near, far, keep, by_means, by_scales, by_wxyz, by_opacities, by_sh, by_raw,
    number, pixels,
    scale_shift: tl.constexpr, max_log_scale: tl.constexpr, opacity_shift: tl.constexpr,
    NUM_SH: tl.constexpr, KEEPS: tl.constexpr, WIDE: tl.constexpr, LEAST: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Compute the activations of `ROWS` Gaussians again, and write the gradients by their raw channels."""
    index = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    within = index < number
    place, view = _placed(index, keep, within, pixels, KEEPS)
    row, out = raw + place * (NUM_SH + 11), by_raw + place * (NUM_SH + 11)
    narrow = by_raw.dtype.element_ty

    column = tl.arange(0, COLUMNS)
    cells = within[:, None] & (column[None, :] < NUM_SH)
    harmonics = tl.load(by_sh + index[:, None] * NUM_SH + column[None, :], cells, other=0.0)
    tl.store(out[:, None] + 3 + column[None, :], harmonics.to(narrow), cells)

    share = tl.load(row, within, other=0.0).to(WIDE)
    share += tl.load(row + 1, within, other=0.0).to(WIDE)
    share += tl.load(row + 2, within, other=0.0).to(WIDE)
    share = 1 / (1 + tl.exp(share / -3))
    least, most = tl.load(near + view, within, other=0.0), tl.load(far + view, within, other=0.0)
    along = tl.zeros((ROWS,), WIDE)
    for axis in tl.static_range(3):
        direction = tl.load(directions + place * 3 + axis, within, other=0.0)
        along += tl.load(by_means + index * 3 + axis, within, other=0.0) * direction
        size = tl.load(row + 3 + NUM_SH + axis, within, other=0.0).to(WIDE) + scale_shift
        slope = tl.load(by_scales + index * 3 + axis, within, other=0.0)
        slope = tl.where(
            size <= max_log_scale, slope * tl.exp(tl.minimum(size, tl.full((ROWS,), max_log_scale, WIDE))), 0.0
        )
        tl.store(out + 3 + NUM_SH + axis, slope.to(narrow), within)
    moved = (along * (most - least) * share * (1 - share) / 3).to(narrow)
    for axis in tl.static_range(3):
        tl.store(out + axis, moved, within)

    four = tl.arange(0, 4)
    turn = tl.load(row[:, None] + 6 + NUM_SH + four[None, :], within[:, None], other=0.0).to(WIDE)
    slopes = tl.load(by_wxyz + index[:, None] * 4 + four[None, :], within[:, None], other=0.0)
    norm = tl.sqrt(tl.sum(turn * turn, 1))
    divisor = tl.maximum(norm, LEAST)
    unit = turn / divisor[:, None]
    # Below the least norm the division is by a constant.
    radial = tl.where(norm >= LEAST, tl.sum(unit * slopes, 1), 0.0)
    turned = (slopes - unit * radial[:, None]) / divisor[:, None]
    tl.store(out[:, None] + 6 + NUM_SH + four[None, :], turned.to(narrow), within[:, None])
    opacity = 1 / (1 + tl.exp(-(tl.load(row + 10 + NUM_SH, within, other=0.0).to(WIDE) + opacity_shift)))
    slope = tl.load(by_opacities + index, within, other=0.0) * opacity * (1 - opacity)
    tl.store(out + 10 + NUM_SH, slope.to(narrow), within)


def finish_triton(
    raw: Float[Tensor, "s n c"], rays: Rays, activations: Activations, keep: Int[Tensor, "m"] | None = None
) -> Finished:
    """Do what `finish_reference` does; differentiable once in `raw`, and in nothing else."""
    assert not any(part.requires_grad for part in rays), "rays take no gradients"
    return Finished(*_Finish.apply(raw, *rays, activations, keep))


class _Finish(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, raw: Tensor, origins: Tensor, directions: Tensor, near: Tensor, far: Tensor,
        activations: Activations, keep: Tensor | None,
    ) -> tuple[Tensor, ...]:  # fmt: skip
        wide = torch.promote_types(raw.dtype, torch.float32)
        raw = raw.contiguous()
        origins, directions, near, far = (part.to(wide).contiguous() for part in (origins, directions, near, far))
        number = raw.shape[0] * raw.shape[1] if keep is None else keep.shape[0]
        num_sh = raw.shape[2] - NUM_OTHERS
        shapes = (number, 3), (number, 3), (number, 4), (number,), (number, num_sh // 3, 3)
        made = tuple(torch.empty(shape, dtype=wide, device=raw.device) for shape in shapes)
        _launch(finish_kernel, (raw, origins, directions, near, far), keep, made, number, activations)
        ctx.save_for_backward(raw, directions, near, far, keep)
        ctx.activations = activations
        return made

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor | None, ...]:
        raw, directions, near, far, keep = ctx.saved_tensors
        # What is not kept has no gradient.
        by_raw = torch.empty_like(raw) if keep is None else torch.zeros_like(raw)
        parts = (*(slope.contiguous() for slope in slopes), by_raw)
        _launch(finish_backward_kernel, (raw, directions, near, far), keep, parts, slopes[0].shape[0], ctx.activations)
        return by_raw, *[None] * 6


def _launch(
    kernel: Any, read: tuple[Tensor, ...], keep: Tensor | None, rest: tuple[Tensor, ...], number: int, by: Activations
) -> None:
    raw = read[0]
    assert raw.is_cuda or (interpreting() and raw.dtype != torch.bfloat16)
    num_sh = raw.shape[2] - NUM_OTHERS
    kernel[(triton.cdiv(number, ROWS),)](
        *read, raw if keep is None else keep, *rest, number, raw.shape[1], *by,
        NUM_SH=num_sh, KEEPS=keep is not None, WIDE=tl.float64 if raw.dtype == torch.float64 else tl.float32,
        LEAST=LEAST_NORM, ROWS=ROWS, COLUMNS=triton.next_power_of_2(num_sh), num_warps=NUM_WARPS,
    )  # fmt: skip
