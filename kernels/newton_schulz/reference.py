"""The plain iteration: pure, out of place, in whatever dtype it is given."""

import torch
from jaxtyping import Float
from torch import Tensor

from lrm_ttt.kernels.newton_schulz.coefficients import COEFFICIENTS, NORM_EPSILON, NUM_STEPS


def newton_schulz_reference(
    matrix: Float[Tensor, "*b rows cols"], num_steps: int = NUM_STEPS
) -> Float[Tensor, "*b rows cols"]:
    """Push all singular values of `matrix` towards one, keeping its singular vectors (Muon; MODEL.md, step 5).

    The matrix is divided by its Frobenius norm first, so a common factor cancels. Differentiable. Costs 15 (4 m^2 n +
    2 m^3) / 6 FLOP a matrix with m the shorter side.
    """
    a, b, c = COEFFICIENTS
    tall = matrix.shape[-2] > matrix.shape[-1]
    rows, columns = (matrix.mT if tall else matrix).shape[-2:]
    x = (matrix.mT if tall else matrix).reshape(-1, rows, columns)
    x = x / (x.square().sum((-2, -1), keepdim=True).sqrt() + NORM_EPSILON)
    for _ in range(num_steps):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.mT if tall else x).reshape(matrix.shape)
