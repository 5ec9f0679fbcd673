"""The pieces that update and query are made of, on the backend "triton" or "reference".

Tensors are of one dtype, but for the inner rates. On Triton they are not differentiable: `autograd` builds from them
what is.
"""

from jaxtyping import Float
from torch import Tensor

from lrm_ttt.kernels.fast_weight.pieces_reference import (
    hidden_grads_backward_reference,
    hidden_grads_reference,
    swiglu_up_reference,
    weight_grads_reference,
)


def swiglu_up(
    x: Float[Tensor, "b n d"], gate: Float[Tensor, "b d f"], up: Float[Tensor, "b d f"], backend: str
) -> Float[Tensor, "b n f"]:
    """Return the hidden values silu(x gate) * (x up)."""
    if backend == "reference":
        return swiglu_up_reference(x, gate, up)
    from lrm_ttt.kernels.fast_weight.triton_swiglu_up import swiglu_up_triton

    return swiglu_up_triton(x.contiguous(), gate.contiguous(), up.contiguous())


def hidden_grads(
    before_gate: Float[Tensor, "b n f"],
    up_values: Float[Tensor, "b n f"],
    v: Float[Tensor, "b n d"],
    down: Float[Tensor, "b f d"],
    rates: Float[Tensor, "3 b n"] | None,
    backend: str,
) -> Float[Tensor, "3 b n f"]:
    """Return <f(k), v> differentiated by k gate and k up, and the hidden values, weighted by `rates`."""
    if backend == "reference":
        return hidden_grads_reference(before_gate, up_values, v, down, rates)
    from lrm_ttt.kernels.fast_weight.triton_hidden_grads import hidden_grads_triton

    tensors = [tensor.contiguous() for tensor in (before_gate, up_values, v, down)]
    return hidden_grads_triton(*tensors, None if rates is None else rates.float().contiguous())


def hidden_grads_backward(
    before_gate: Float[Tensor, "b n f"],
    up_values: Float[Tensor, "b n f"],
    v: Float[Tensor, "b n d"],
    down: Float[Tensor, "b f d"],
    rates: Float[Tensor, "3 b n"],
    from_gate: Float[Tensor, "b n f"],
    from_up: Float[Tensor, "b n f"],
    from_down: Float[Tensor, "b d f"],
    backend: str,
) -> tuple[Float[Tensor, "3 b n f"], Float[Tensor, "3 b n f"], Float[Tensor, "3 b n"]]:
    """Return the results of `hidden_grads` once more, the gradients, and those of the rates (see the reference)."""
    arguments = before_gate, up_values, v, down, rates, from_gate, from_up, from_down
    if backend == "reference":
        return hidden_grads_backward_reference(*arguments)
    from lrm_ttt.kernels.fast_weight.triton_hidden_grads_backward import hidden_grads_backward_triton

    tensors = [tensor.float() if tensor is rates else tensor for tensor in arguments]
    results, gradients, sums = hidden_grads_backward_triton(*(tensor.contiguous() for tensor in tensors))
    return results, gradients, sums.to(rates.dtype)


def weight_grads(
    k: Float[Tensor, "b n d"],
    v: Float[Tensor, "b n d"],
    hidden: Float[Tensor, "3 b n f"],
    backend: str,
) -> Float[Tensor, "3 b d f"]:
    """Return k^T hidden[0], k^T hidden[1] and v^T hidden[2]: sums over the tokens."""
    if backend == "reference":
        return weight_grads_reference(k, v, hidden)
    from lrm_ttt.kernels.fast_weight.triton_weight_grads import weight_grads_triton

    return weight_grads_triton(k.contiguous(), v.contiguous(), hidden.contiguous())
