"""The pieces that update, query and their gradients are made of, by the book: the oracles of the Triton kernels."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import silu


def swiglu_up_reference(
    x: Float[Tensor, "b n d"], gate: Float[Tensor, "b d f"], up: Float[Tensor, "b d f"]
) -> Float[Tensor, "b n f"]:
    """Return the hidden values silu(x gate) * (x up)."""
    return silu(x @ gate) * (x @ up)


def hidden_grads_reference(
    before_gate: Float[Tensor, "b n f"],
    up_values: Float[Tensor, "b n f"],
    v: Float[Tensor, "b n d"],
    down: Float[Tensor, "b f d"],
    rates: Float[Tensor, "3 b n"] | None,
) -> Float[Tensor, "3 b n f"]:
    """Return <f(k), v> differentiated by k gate and by k up, and the hidden values: what `weight_grads` sums up.

    `before_gate` and `up_values` are k gate and k up. `rates` weigh each token's part in gate, up and down, in this
    order; None is one throughout.
    """
    to_hidden = v @ down.mT
    sigmoid = torch.sigmoid(before_gate)
    gate_values = before_gate * sigmoid
    slope = sigmoid * (1 + before_gate * (1 - sigmoid))
    parts = torch.stack([to_hidden * up_values * slope, to_hidden * gate_values, gate_values * up_values])
    return parts if rates is None else (parts * rates[..., None]).to(v.dtype)


def hidden_grads_backward_reference(
    before_gate: Float[Tensor, "b n f"],
    up_values: Float[Tensor, "b n f"],
    v: Float[Tensor, "b n d"],
    down: Float[Tensor, "b f d"],
    rates: Float[Tensor, "3 b n"],
    from_gate: Float[Tensor, "b n f"],
    from_up: Float[Tensor, "b n f"],
    from_down: Float[Tensor, "b d f"],
) -> tuple[Float[Tensor, "3 b n f"], Float[Tensor, "3 b n f"], Float[Tensor, "3 b n"]]:
    """Differentiate `hidden_grads`; return its results once more, the gradients, and those of the rates.

    `from_gate` and `from_up` are the gradients of its first two results, and v `from_down` is that of the third. The
    gradients that come out are those of before_gate, up_values and v down^T.
    """
    to_hidden, from_hidden = v @ down.mT, v @ from_down
    sigmoid = torch.sigmoid(before_gate)
    gate_values = before_gate * sigmoid
    slope = sigmoid * (1 + before_gate * (1 - sigmoid))
    curve = sigmoid * (1 - sigmoid) * (2 + before_gate * (1 - 2 * sigmoid))
    parts = torch.stack([to_hidden * up_values * slope, to_hidden * gate_values, gate_values * up_values])
    flow = torch.stack([from_gate, from_up, from_hidden])
    by_gate, by_up, by_hidden = flow * rates[..., None]
    gradients = [
        by_gate * to_hidden * up_values * curve + (by_up * to_hidden + by_hidden * up_values) * slope,
        by_gate * to_hidden * slope + by_hidden * gate_values,
        by_gate * up_values * slope + by_up * gate_values,
    ]
    weighted = (parts * rates[..., None]).to(v.dtype)
    return weighted, torch.stack(gradients).to(v.dtype), (flow * parts).sum(-1).to(rates.dtype)


def weight_grads_reference(
    k: Float[Tensor, "b n d"], v: Float[Tensor, "b n d"], hidden: Float[Tensor, "3 b n f"]
) -> Float[Tensor, "3 b d f"]:
    """Return k^T hidden[0], k^T hidden[1] and v^T hidden[2]: sums over the tokens."""
    return torch.stack([k.mT @ hidden[0], k.mT @ hidden[1], v.mT @ hidden[2]])
