"""The ways in which an operation of the memory is computed: by the book, compiled, and by our own kernels."""

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import gelu, linear

from lrm_ttt.errors import BackendUnavailable
from lrm_ttt.eval.speed.op import Function, Tensors, Variant
from lrm_ttt.kernels.attention.choice import prefer_attention
from lrm_ttt.kernels.backend import VARIABLE, choose
from lrm_ttt.kernels.epilogues.op import qkv_silu
from lrm_ttt.kernels.epilogues.reference import qkv_silu_reference
from lrm_ttt.kernels.fast_weight import cpu
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

REFERENCE, COMPILED, OURS, TRITON = "reference", "compiled", "ours", "ours, triton"


class Named(NamedTuple):
    """An operation: by the book, as the library calls it, and the name under which backends know it.

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


def named_ops(num_heads: int) -> dict[str, Named]:
    """Return the operations that have kernels of their own, by what tables call them."""

    def projections(function: Callable[[Tensor, int], tuple[Tensor, ...]]) -> Function:
        return lambda projected: tuple(function(projected, num_heads))

    both, forward = ("forward", "backward"), ("forward",)
    gradients = _gradients(gradients_reference), _gradients(fast_weight_gradients)
    steps: tuple[Function, Function] = lambda x: (newton_schulz_reference(x),), lambda x: (newton_schulz(x),)
    return {
        "memory gradients": Named(*gradients, "fast_weight_gradients", forward),
        "memory query": Named(_query(query_reference), _query(query_fast_weights), "query_fast_weights", forward),
        "Newton-Schulz": Named(*steps, "newton_schulz", both),
        "memory commit": Named(_commit),
        "memory projections": Named(projections(qkv_silu_reference), projections(qkv_silu), "qkv_silu"),
        "Gaussian finish": Named(_finish(finish_reference), _finish(finish_gaussians), "gaussian_finish"),
    }


def variants(named: Named, dtype: torch.dtype, device: torch.device, compiled: bool) -> tuple[Variant, ...]:
    """Return the reference, the reference compiled, and ours where this kind of device has it."""
    found = [Variant(REFERENCE, named.reference), _ours(named, dtype, device)]
    if compiled:
        found.insert(1, Variant(COMPILED, torch.compile(named.reference, dynamic=False)))
    return tuple(variant for variant in found if variant is not None)


def _ours(named: Named, dtype: torch.dtype, device: torch.device) -> Variant | None:
    """Return our kernel, or None where this kind of device has none."""
    public = named.public
    if public is None or (device.type != "cuda" and not named.native):
        return None
    if device.type != "cuda":
        if not cpu.AVAILABLE or dtype != torch.bfloat16:
            return Variant(f"{OURS}, native", None, "no matrix units for bf16")
        return Variant(f"{OURS}, native", public, differentiable="backward" in named.native)
    if not named.backend_name:
        return Variant(OURS, public)
    try:
        choose(named.backend_name, device, dtype, backend="triton")
    except BackendUnavailable as error:
        return Variant(TRITON, None, str(error))

    def ours(*inputs: Tensor) -> Tensors:
        with _asked_for("triton"):
            return public(*inputs)

    return Variant(TRITON, ours)


@contextlib.contextmanager
def _asked_for(backend: str) -> Iterator[None]:
    """Let the kernels called within run on this backend, or say why they cannot."""
    before = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = backend
    try:
        yield
    finally:
        if before is None:
            del os.environ[VARIABLE]
        else:
            os.environ[VARIABLE] = before
