"""The memory by the book (MODEL.md, steps 3-7): pure, out of place, float64-capable."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import silu

from lrm_ttt.kernels.fast_weight.weights import NORM_EPSILON, FastWeights, column_norms


class InnerRates(NamedTuple):
    """Inner learning rates, one per token and matrix."""

    gate: Float[Tensor, "*b n 1"]
    down: Float[Tensor, "*b n 1"]
    up: Float[Tensor, "*b n 1"]


class Gradients(NamedTuple):
    """What the tokens of a chunk add to each matrix: sums over tokens, so slices and ranks may be added up."""

    gate: Float[Tensor, "*b d f"]
    up: Float[Tensor, "*b d f"]
    down: Float[Tensor, "*b f d"]


def query_reference(weights: FastWeights, q: Float[Tensor, "*b n d"]) -> Float[Tensor, "*b n d"]:
    """Read the memory: apply the network in the dtype of `q`."""
    gate, up, down = (weight.to(q.dtype) for weight in weights[:3])
    return (silu(q @ gate) * (q @ up)) @ down


def gradients_reference(
    weights: FastWeights, k: Float[Tensor, "*b n d"], v: Float[Tensor, "*b n d"], rates: InnerRates
) -> Gradients:
    """Return the descent directions of the inner loss -sum <f(k), v>, every token weighted by its inner learning rates.

    Computed in the dtype of `k`. LaCT (arXiv 2505.23884), with the negative inner product as loss.
    """
    gate, up, down = (weight.to(k.dtype) for weight in weights[:3])
    rate_gate, rate_down, rate_up = (rate.to(k.dtype) for rate in rates)
    before_gate = k @ gate
    up_values = k @ up
    sigmoid = torch.sigmoid(before_gate)
    gate_values = before_gate * sigmoid
    hidden = gate_values * up_values
    to_hidden = v @ down.mT
    slope = sigmoid * (1 + before_gate * (1 - sigmoid))
    # The rates join the hidden side, so that both maps up share one transpose; `down` is computed transposed, as the
    # orthogonalisation takes it, with the wide matrix on the right.
    from_k, from_v = _transposed(k), _transposed(v)
    return Gradients(
        gate=from_k @ (to_hidden * up_values * slope * rate_gate),
        up=from_k @ (to_hidden * gate_values * rate_up),
        down=(from_v @ (hidden * rate_down)).mT,
    )


def _transposed(x: Float[Tensor, "*b n d"]) -> Float[Tensor, "*b d n"]:
    """Return the transpose; on a CPU as a copy, from which products are half as fast again."""
    return x.mT.contiguous() if x.device.type == "cpu" else x.mT


def commit_reference(weights: FastWeights, steps: Gradients) -> FastWeights:
    """Add the orthogonalised `steps` and give every column the norm that it had at the start."""
    norms = weights.norms
    return FastWeights(
        gate=renormalise(weights.gate + steps.gate.to(weights.gate.dtype), norms.gate),
        up=renormalise(weights.up + steps.up.to(weights.up.dtype), norms.up),
        down=renormalise(weights.down + steps.down.to(weights.down.dtype), norms.down),
        norms=norms,
    )


def renormalise(
    weight: Float[Tensor, "*b rows cols"], norms: Float[Tensor, "*b 1 cols"]
) -> Float[Tensor, "*b rows cols"]:
    """Give every column the norm in `norms`."""
    return weight * (norms / (column_norms(weight) + NORM_EPSILON))
