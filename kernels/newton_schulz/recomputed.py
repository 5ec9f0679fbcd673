"""The iteration with a backward pass that recomputes it, so that of five steps nothing is kept but where they start.

Products that are symmetric are computed by a function that is passed, which may make use of it.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from lrm_ttt.kernels.newton_schulz.coefficients import COEFFICIENTS, NORM_EPSILON

# What a norm is taken for before anything is divided by it.
LEAST_SIZE = 1e-30

# Returns alpha x x^T + beta addend, of which the addend is symmetric too.
SymmetricProduct = Callable[[Tensor, float, Tensor | None, float], Tensor]


def symmetric_product_reference(
    x: Float[Tensor, "b m n"], alpha: float, addend: Float[Tensor, "b m m"] | None, beta: float
) -> Float[Tensor, "b m m"]:
    """Return alpha x x^T + beta addend, rounded once."""
    if addend is None:
        return alpha * (x @ x.mT)
    return torch.baddbmm(addend, x, x.mT, beta=beta, alpha=alpha)


def newton_schulz_recomputed(
    matrix: Float[Tensor, "*b rows cols"], num_steps: int, dtype: torch.dtype, symmetric_product: SymmetricProduct
) -> Float[Tensor, "*b rows cols"]:
    """Do what `newton_schulz_reference` does with products in `dtype`; the result is float32, or wider if `matrix` is.

    So are the gradients that come back: rounded to float16 as they are, small ones would vanish. Both passes scale what
    they work on to norm one. Once differentiable. The backward pass holds all iterates of these matrices, and costs
    about twice the forward pass.
    """
    tall = matrix.shape[-2] > matrix.shape[-1]
    flat = matrix.mT if tall else matrix
    result = _NewtonSchulz.apply(flat.reshape(-1, *flat.shape[-2:]), num_steps, dtype, symmetric_product)
    assert isinstance(result, Tensor)
    return (result.mT if tall else result).reshape(matrix.shape)


class _Step(NamedTuple):
    """One step maps x to a x + polynomial x, with polynomial = b gram + c gram^2 and gram = x x^T."""

    x: Tensor
    gram: Tensor
    polynomial: Tensor


def _step(x: Tensor, symmetric_product: SymmetricProduct) -> _Step:
    _, b, c = COEFFICIENTS
    gram = symmetric_product(x, 1.0, None, 0.0)
    return _Step(x, gram, symmetric_product(gram, c, gram, b))


def _after(step: _Step) -> Tensor:
    return torch.baddbmm(step.x, step.polynomial, step.x, beta=COEFFICIENTS[0])


def _through(step: _Step, slope: Tensor) -> Tensor:
    """Return the gradient by x, given that by the result of the step."""
    a, b, c = COEFFICIENTS
    by_polynomial = slope @ step.x.mT
    both = by_polynomial + by_polynomial.mT
    turned = both @ step.gram
    # The gradient by the Gram matrix, plus its transpose.
    by_gram = b * both + c * (turned + turned.mT)
    return torch.baddbmm(torch.baddbmm(slope, step.polynomial, slope, beta=a), by_gram, step.x)


class _NewtonSchulz(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, matrix: Tensor, num_steps: int, dtype: torch.dtype, product: SymmetricProduct) -> Tensor:
        wide, norms = measured(matrix)
        start = (wide / (norms + NORM_EPSILON)).to(dtype)
        ctx.save_for_backward(start, norms)
        ctx.num_steps, ctx.product, ctx.dtype = num_steps, product, matrix.dtype
        x = start
        for _ in range(num_steps):
            x = _after(_step(x, product))
        return x.to(wide.dtype)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor | None, ...]:
        start, norms = ctx.saved_tensors
        gradient = gradient_recomputed(start, norms, slopes[0], ctx.num_steps, ctx.product)
        return gradient.to(ctx.dtype), None, None, None


def gradient_recomputed(
    start: Float[Tensor, "b m n"],
    norms: Float[Tensor, "b 1 1"],
    slope: Float[Tensor, "b m n"],
    num_steps: int,
    symmetric_product: SymmetricProduct,
) -> Float[Tensor, "b m n"]:
    """Return the gradient by matrices of Frobenius `norms`, given their quotients `start` and that by the result."""
    steps, x = [], start
    for _ in range(num_steps):
        steps.append(_step(x, symmetric_product))
        x = _after(steps[-1])
    # The pass is linear in the gradient, which may have any size: it goes in with norm one.
    slope, sizes = measured(slope)
    slope = (slope / sizes.clamp(min=LEAST_SIZE)).to(start.dtype)
    while steps:
        slope = _through(steps.pop(), slope)
    slope, unit = slope.to(sizes.dtype), start.to(sizes.dtype)
    radial = (slope * unit).sum((-2, -1), keepdim=True) * (norms + NORM_EPSILON) / norms.clamp(min=LEAST_SIZE)
    return (slope - radial * unit) * (sizes / (norms + NORM_EPSILON))


def measured(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Return the matrices in float32 or better, and their Frobenius norms."""
    wide = matrix.to(torch.promote_types(matrix.dtype, torch.float32))
    return wide, wide.square().sum((-2, -1), keepdim=True).sqrt()
