"""The public functions: update from a chunk of tokens, and query."""

import torch
from jaxtyping import Float
from torch import Tensor

from lrm_ttt.kernels.fast_weight.reference import (
    Gradients,
    InnerRates,
    commit_reference,
    gradients_reference,
    query_reference,
)
from lrm_ttt.kernels.fast_weight.weights import FastWeights
from lrm_ttt.kernels.newton_schulz.coefficients import NUM_STEPS
from lrm_ttt.kernels.newton_schulz.op import newton_schulz


def update_fast_weights(
    weights: FastWeights,
    k: Float[Tensor, "*b n d"],
    v: Float[Tensor, "*b n d"],
    rates: InnerRates,
    num_steps: int = NUM_STEPS,
    newton_schulz_dtype: torch.dtype | None = None,
) -> FastWeights:
    """Write a chunk of `n` tokens: one Muon-orthogonalised step from all of them at once.

    `k` has unit rows. `newton_schulz_dtype` None means the dtype of `k`; fast weights stay in their own dtype.
    Differentiable in everything but the stored norms. Costs 12 n d f + the Newton-Schulz steps per memory.
    """
    return commit_reference(
        weights, orthogonalise(gradients_reference(weights, k, v, rates), num_steps, newton_schulz_dtype)
    )


def query_fast_weights(weights: FastWeights, q: Float[Tensor, "*b n d"]) -> Float[Tensor, "*b n d"]:
    """Read the memory with `n` queries; 6 n d f FLOP per memory."""
    return query_reference(weights, q)


def orthogonalise(gradients: Gradients, num_steps: int = NUM_STEPS, dtype: torch.dtype | None = None) -> Gradients:
    """Orthogonalise the three matrices in one batch.

    `down` joins it transposed, which Newton-Schulz does not notice.
    """
    stacked = torch.stack([gradients.gate, gradients.up, gradients.down.mT], 0)
    gate, up, down = newton_schulz(stacked, num_steps, dtype).unbind(0)
    return Gradients(gate, up, down.mT)
