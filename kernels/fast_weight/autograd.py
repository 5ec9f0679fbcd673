"""Update and query with backward passes that compute the hidden values again instead of keeping them.

Both backward passes are made of the same pieces as the update: the gradient of a query is an update whose keys are the
queries, whose values are the gradients of what was read, and whose rates are one.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from lrm_ttt.kernels.fast_weight.pieces import hidden_grads, hidden_grads_backward, swiglu_up, weight_grads
from lrm_ttt.kernels.fast_weight.reference import Gradients, InnerRates
from lrm_ttt.kernels.fast_weight.weights import FastWeights


def gradients(
    weights: FastWeights,
    k: Float[Tensor, "*b n d"],
    v: Float[Tensor, "*b n d"],
    rates: InnerRates,
    backend: str,
) -> Gradients:
    """Return what `gradients_reference` does, in the dtype of `k`; the inner rates are applied in their own.

    `backend` is "triton" or "reference".
    """
    stacked = torch.stack([rate.squeeze(-1) for rate in (rates.gate, rates.up, rates.down)])
    flat = stacked.reshape(3, -1, stacked.shape[-1])
    result = _Gradients.apply(_flat(k), _flat(v), *_cast(weights, k.dtype), flat, backend)
    gate, up, down = result.reshape(3, *k.shape[:-2], *result.shape[-2:]).unbind(0)
    return Gradients(gate, up, down.mT)


def query(weights: FastWeights, q: Float[Tensor, "*b n d"], backend: str) -> Float[Tensor, "*b n d"]:
    """Return what `query_reference` does; `backend` is "triton" or "reference"."""
    return _Query.apply(_flat(q), *_cast(weights, q.dtype), backend).reshape(q.shape)


class _Gradients(torch.autograd.Function):
    """Keys, values, weights and rates to `[3 b d f]`: the gradients of gate, of up, and of down transposed."""

    @staticmethod
    def forward(
        ctx: Any, k: Tensor, v: Tensor, gate: Tensor, up: Tensor, down: Tensor, rates: Tensor, backend: str
    ) -> Tensor:
        ctx.save_for_backward(k, v, gate, up, down, rates)
        ctx.backend = backend
        return weight_grads(k, v, hidden_grads(k @ gate, k @ up, v, down, rates, backend), backend)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        k, v, gate, up, down, rates = ctx.saved_tensors
        to_gate, to_up, to_down = grad.unbind(0)
        hidden, by_product, by_rate = hidden_grads_backward(
            k @ gate, k @ up, v, down, rates, k @ to_gate, k @ to_up, to_down, ctx.backend
        )
        from_k = [(hidden[0], to_gate.mT), (hidden[1], to_up.mT), (by_product[0], gate.mT), (by_product[1], up.mT)]
        by_k = _sum_of_products(from_k)
        by_v = _sum_of_products([(hidden[2], to_down.mT), (by_product[2], down)])
        by_weight = weight_grads(k, v, by_product, ctx.backend)
        return by_k, by_v, by_weight[0], by_weight[1], by_weight[2].mT, by_rate, None


class _Query(torch.autograd.Function):
    """Queries `[b n d]` and weights to what is read, `[b n d]`."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, gate: Tensor, up: Tensor, down: Tensor, backend: str) -> Tensor:
        ctx.save_for_backward(q, gate, up, down)
        ctx.backend = backend
        return swiglu_up(q, gate, up, backend) @ down

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, gate, up, down = ctx.saved_tensors
        hidden = hidden_grads(q @ gate, q @ up, grad, down, None, ctx.backend)
        by_q = _sum_of_products([(hidden[0], gate.mT), (hidden[1], up.mT)])
        by_weight = weight_grads(q, grad, hidden, ctx.backend)
        return by_q, by_weight[0], by_weight[1], by_weight[2].mT, None


def _sum_of_products(pairs: list[tuple[Tensor, Tensor]]) -> Tensor:
    """Return the sum of the products of matrices, each added where the one before was written."""
    (left, right), *others = pairs
    total = left @ right
    for left, right in others:
        total = torch.baddbmm(total, left, right)
    return total


def _flat(tensor: Tensor) -> Tensor:
    return tensor.reshape(-1, *tensor.shape[-2:])


def _cast(weights: FastWeights, dtype: torch.dtype) -> list[Tensor]:
    return [_flat(weight.to(dtype)) for weight in weights[:3]]
