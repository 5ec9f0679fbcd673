"""The public functions: update from a chunk of tokens, and query."""

import torch
from jaxtyping import Float
from torch import Tensor

from lrm_ttt.kernels.backend import choose
from lrm_ttt.kernels.fast_weight import autograd, cpu
from lrm_ttt.kernels.fast_weight.elastic import ElasticRates, commit_elastic
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
    elastic: ElasticRates | None = None,
    backend: str | None = None,
) -> FastWeights:
    """Write a chunk of `n` tokens: one Muon-orthogonalised step from all of them at once.

    `k` has unit rows. `newton_schulz_dtype` None means the dtype of `k`; fast weights stay in their own dtype.
    Differentiable in everything but the stored norms. Costs 12 n d f + the Newton-Schulz steps per memory. `elastic`
    pulls parameters that few chunks use back to where they were, and then the weights carry what that needs.
    `backend` is that of the gradients.
    """
    gradients = fast_weight_gradients(weights, k, v, rates, backend)
    return commit_fast_weights(weights, gradients, num_steps, newton_schulz_dtype, elastic)


def fast_weight_gradients(
    weights: FastWeights,
    k: Float[Tensor, "*b n d"],
    v: Float[Tensor, "*b n d"],
    rates: InnerRates,
    backend: str | None = None,
) -> Gradients:
    """Return what `n` tokens add to the step of their chunk: sums over tokens, so slices may be added up.

    `backend` is one of kernels/backend.py, which says what None takes, and when `BackendUnavailable` is raised. The
    native code of "cpu" has no gradients: where they are recorded, the reference serves.
    """
    chosen = _choose("fast_weight_gradients", weights, k, backend)
    if chosen == "triton":
        return autograd.gradients(weights, k, v, rates, chosen)
    if chosen == "cpu" and cpu.fits(k, weights.gate.shape[:-2]):
        gate, up, down = cpu.gradients_cpu(*weights[:3], k, v, *rates)
        return Gradients(gate, up, down.mT)
    return gradients_reference(weights, k, v, rates)


def commit_fast_weights(
    weights: FastWeights,
    gradients: Gradients,
    num_steps: int = NUM_STEPS,
    newton_schulz_dtype: torch.dtype | None = None,
    elastic: ElasticRates | None = None,
) -> FastWeights:
    """Orthogonalise the gradients of a whole chunk and take the step; with `num_steps` 0 they are taken as they are."""
    steps = orthogonalise(gradients, num_steps, newton_schulz_dtype) if num_steps else gradients
    return commit_reference(weights, steps) if elastic is None else commit_elastic(weights, steps, elastic)


def query_fast_weights(
    weights: FastWeights, q: Float[Tensor, "*b n d"], backend: str | None = None
) -> Float[Tensor, "*b n d"]:
    """Read the memory with `n` queries; 6 n d f FLOP per memory. `backend` is that of `fast_weight_gradients`."""
    chosen = _choose("query_fast_weights", weights, q, backend)
    if chosen == "triton":
        return autograd.query(weights, q, chosen)
    if chosen == "cpu" and cpu.fits(q, weights.gate.shape[:-2]):
        return cpu.feed_cpu(*weights[:3], q)
    return query_reference(weights, q)


def _choose(op: str, weights: FastWeights, tokens: Float[Tensor, "*b n d"], backend: str | None) -> str:
    width, hidden = weights.gate.shape[-2:]
    lacks = "widths are no multiples of 16, which tensor cores take" if width % 16 or hidden % 16 else ""
    return choose(op, tokens.device, tokens.dtype, lacks, backend).backend


def orthogonalise(gradients: Gradients, num_steps: int = NUM_STEPS, dtype: torch.dtype | None = None) -> Gradients:
    """Orthogonalise the three matrices in one batch.

    `down` joins it transposed, which Newton-Schulz does not notice.
    """
    stacked = torch.stack([gradients.gate, gradients.up, gradients.down.mT], 0)
    gate, up, down = newton_schulz(stacked, num_steps, dtype).unbind(0)
    return Gradients(gate, up, down.mT)
