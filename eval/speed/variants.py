"""The ways in which an operation of the memory is computed: by the book, compiled, and by our own kernels."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import gelu, linear

from lrm_ttt.errors import BackendUnavailable
from lrm_ttt.eval.speed.op import Function, Tensors, Variant
from lrm_ttt.kernels.attention.choice import prefer_attention
from lrm_ttt.kernels.backend import choose
from lrm_ttt.kernels.epilogues.op import qkv_silu
from lrm_ttt.kernels.epilogues.reference import qkv_silu_reference
from lrm_ttt.kernels.fast_weight.op import fast_weight_gradients, query_fast_weights
from lrm_ttt.kernels.fast_weight.reference import (
    Gradients,
    InnerRates,
    commit_reference,
    gradients_reference,
    query_reference,
)
from lrm_ttt.kernels.fast_weight.weights import ColumnNorms, FastWeights, column_norms
from lrm_ttt.kernels.gaussian_finish.op import Activations, Finished, Rays, finish_gaussians
from lrm_ttt.kernels.gaussian_finish.reference import finish_reference
from lrm_ttt.kernels.newton_schulz.op import newton_schulz
from lrm_ttt.kernels.newton_schulz.reference import newton_schulz_reference

REFERENCE, COMPILED, OURS = "reference", "compiled", "ours"
TRITON, NATIVE = f"{OURS}, triton", f"{OURS}, native"


class Named(NamedTuple):
    """An operation: by the book, as the library calls it, and the name under which backends know it ("": no choice).

    `native` are the passes that have code for x86 processors with matrix units.
    """

    reference: Function
    public: Function | None = None
    backend_name: str = ""
    native: tuple[str, ...] = ()


def _gradients(function: Callable[..., Gradients]) -> Function:
    def call(k: Tensor, v: Tensor, gate_rate: Tensor, down_rate: Tensor, up_rate: Tensor, *weights: Tensor) -> Tensors:
        return tuple(function(memory_of(*weights), k, v, InnerRates(gate_rate, down_rate, up_rate)))

    return call


def _query(function: Callable[[FastWeights, Tensor], Tensor]) -> Function:
    return lambda q, *weights: (function(memory_of(*weights), q),)


def _commit(gate: Tensor, up: Tensor, down: Tensor, *steps: Tensor) -> Tensors:
    weights = FastWeights(gate, up, down, ColumnNorms(*map(column_norms, (gate, up, down))))
    return commit_reference(weights, Gradients(*steps))[:3]


def memory_of(gate: Tensor, up: Tensor, down: Tensor) -> FastWeights:
    """Return a memory whose column norms nobody asks for."""
    nothing = [weight.new_empty(*weight.shape[:-2], 1, weight.shape[-1]) for weight in (gate, up, down)]
    return FastWeights(gate, up, down, ColumnNorms(*nothing))


def feed_by_the_book(x: Tensor, expand: Tensor, contract: Tensor) -> Tensors:
    """Return what an MLP makes of tokens."""
    return (linear(gelu(linear(x, expand.to(x.dtype))), contract.to(x.dtype)),)


def preferring(function: Function, shape: tuple[int, int, int, int], device: torch.device) -> Function | None:
    """Return the function with the kernel of attention that was measured to be the fastest, where there is a choice."""
    if device.type != "cuda":
        return None

    def call(x: Tensor, *parameters: Tensor) -> Tensors:
        with prefer_attention(shape, x.dtype, device, torch.is_grad_enabled()):
            return function(x, *parameters)

    return call


def _finish(function: Callable[..., Finished]) -> Function:
    def call(raw: Tensor, *rays: Tensor) -> Tensors:
        return tuple(function(raw, Rays(*rays), Activations(-2.3, -1.2, -2.0)))

    return call


def backend_of(device: torch.device) -> str:
    """Return the backend of our kernels on a kind of device, in the words of kernels/backend.py."""
    return "triton" if device.type == "cuda" else "cpu"


def named_ops(num_heads: int, backend: str) -> dict[str, Named]:
    """Return the operations that have kernels of their own, by what tables call them; ours runs on the backend."""

    def projections(function: Callable[[Tensor, int], tuple[Tensor, ...]]) -> Function:
        return lambda projected: tuple(function(projected, num_heads))

    def ours(function: Callable[..., Any]) -> Callable[..., Any]:
        return functools.partial(function, backend=backend)

    both, forward = ("forward", "backward"), ("forward",)
    gradients = _gradients(gradients_reference), _gradients(ours(fast_weight_gradients))
    query = _query(query_reference), _query(ours(query_fast_weights))
    steps = _steps(newton_schulz_reference), _steps(ours(newton_schulz))
    return {
        "memory gradients": Named(*gradients, "fast_weight_gradients", forward),
        "memory query": Named(*query, "query_fast_weights", forward),
        "Newton-Schulz": Named(*steps, "newton_schulz", both),
        "memory commit": Named(_commit),
        "memory projections": Named(projections(qkv_silu_reference), projections(ours(qkv_silu)), "qkv_silu"),
        "Gaussian finish": Named(_finish(finish_reference), _finish(ours(finish_gaussians)), "gaussian_finish"),
    }


def _steps(function: Callable[[Tensor], Tensor]) -> Function:
    return lambda matrices: (function(matrices),)


def variants(named: Named, dtype: torch.dtype, device: torch.device, compiled: bool) -> tuple[Variant, ...]:
    """Return the reference, the reference compiled, and ours where this kind of device has it."""
    found = [Variant(REFERENCE, named.reference), _ours(named, dtype, device)]
    if compiled:
        found.insert(1, Variant(COMPILED, torch.compile(named.reference, dynamic=False)))
    return tuple(variant for variant in found if variant is not None)


def _ours(named: Named, dtype: torch.dtype, device: torch.device) -> Variant | None:
    """Return our kernel, or None where this kind of device has none."""
    on_gpu, backend = device.type == "cuda", backend_of(device)
    if named.public is None or not (on_gpu or named.native):
        return None
    differentiable = on_gpu or "backward" in named.native
    if not named.backend_name:
        return Variant(OURS if on_gpu else NATIVE, named.public, differentiable=differentiable)
    name = TRITON if on_gpu else NATIVE
    try:
        choose(named.backend_name, device, dtype, backend=backend)
    except BackendUnavailable as error:
        return Variant(name, None, str(error))
    return Variant(name, named.public, differentiable=differentiable)
