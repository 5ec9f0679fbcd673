"""The ways in which an operation of the memory is computed: by the book, compiled, and by our own kernels."""

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from lrm_ttt.errors import BackendUnavailable
from lrm_ttt.eval.speed.op import Function, Tensors, Variant
from lrm_ttt.kernels.backend import VARIABLE, choose
from lrm_ttt.kernels.fast_weight.op import fast_weight_gradients, query_fast_weights
from lrm_ttt.kernels.fast_weight.reference import (
    Gradients,
    InnerRates,
    commit_reference,
    gradients_reference,
    query_reference,
)
from lrm_ttt.kernels.fast_weight.weights import ColumnNorms, FastWeights, column_norms
from lrm_ttt.kernels.newton_schulz.op import newton_schulz
from lrm_ttt.kernels.newton_schulz.reference import newton_schulz_reference

REFERENCE, COMPILED, OURS = "reference", "compiled", "ours"


class Named(NamedTuple):
    """An operation: by the book, as the library calls it, and the name under which backends know it ("": none)."""

    reference: Function
    public: Function | None = None
    backend_name: str = ""


def _gradients(function: Callable[..., Gradients]) -> Function:
    def call(k: Tensor, v: Tensor, gate_rate: Tensor, down_rate: Tensor, up_rate: Tensor, *weights: Tensor) -> Tensors:
        return tuple(function(memory_of(*weights), k, v, InnerRates(gate_rate, down_rate, up_rate)))

    return call


def _query(function: Callable[[FastWeights, Tensor], Tensor]) -> Function:
    return lambda q, *weights: (function(memory_of(*weights), q),)


def _commit(*tensors: Tensor) -> Tensors:
    weights = FastWeights(*tensors[:3], ColumnNorms(*map(column_norms, tensors[:3])))
    return commit_reference(weights, Gradients(*tensors[3:]))[:3]


def memory_of(gate: Tensor, up: Tensor, down: Tensor) -> FastWeights:
    """Return a memory whose column norms nobody asks for."""
    nothing = [weight.new_empty(*weight.shape[:-2], 1, weight.shape[-1]) for weight in (gate, up, down)]
    return FastWeights(gate, up, down, ColumnNorms(*nothing))


OPS = {
    "memory gradients": Named(
        _gradients(gradients_reference), _gradients(fast_weight_gradients), "fast_weight_gradients"
    ),
    "memory query": Named(_query(query_reference), _query(query_fast_weights), "query_fast_weights"),
    "Newton-Schulz": Named(lambda x: (newton_schulz_reference(x),), lambda x: (newton_schulz(x),), "newton_schulz"),
    "memory commit": Named(_commit),
}


def variants(named: Named, dtype: torch.dtype, device: torch.device, compiled: bool) -> tuple[Variant, ...]:
    """Return the reference, the reference compiled, and ours where this kind of device has it."""
    found = [Variant(REFERENCE, named.reference), _ours(named, dtype, device)]
    if compiled:
        found.insert(1, Variant(COMPILED, torch.compile(named.reference, dynamic=False)))
    return tuple(variant for variant in found if variant is not None)


def _ours(named: Named, dtype: torch.dtype, device: torch.device) -> Variant | None:
    """Return our kernel, or None where this kind of device has none."""
    if named.public is None:
        return None
    public, backend = named.public, "triton" if device.type == "cuda" else "cpu"
    try:
        choose(named.backend_name, device, dtype, backend=backend)
    except BackendUnavailable as error:
        return Variant(OURS, None, str(error)) if device.type == "cuda" else None

    def ours(*inputs: Tensor) -> Tensors:
        with _asked_for(backend):
            return public(*inputs)

    return Variant(f"{OURS}, {backend}", ours)


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
