"""The backward passes of update and query that compute hidden values again, on the reference, in float64."""

import torch
from torch import Tensor

from lrm_ttt.kernels.fast_weight import autograd
from lrm_ttt.kernels.fast_weight.reference import InnerRates, gradients_reference, query_reference
from lrm_ttt.kernels.fast_weight.weights import FastWeights


def _inputs(n: int = 5) -> list[Tensor]:
    """Return gate, up, down, k, v and three rates of two scenes with two heads."""
    generator = torch.Generator().manual_seed(3)
    shapes = [(3, 4), (3, 4), (4, 3), (n, 3), (n, 3), (n, 1), (n, 1), (n, 1)]
    drawn = [torch.randn(2, 2, *shape, generator=generator, dtype=torch.float64) for shape in shapes]
    return [tensor.requires_grad_() for tensor in drawn]


def _gradients(*tensors: Tensor) -> tuple[Tensor, ...]:
    gate, up, down, k, v, *rates = tensors
    return tuple(autograd.gradients(FastWeights.start(gate, up, down), k, v, InnerRates(*rates), "reference"))


def _query(*tensors: Tensor) -> Tensor:
    return autograd.query(FastWeights.start(*tensors[:3]), tensors[3], "reference")


def test_gradcheck_of_the_update() -> None:
    assert torch.autograd.gradcheck(_gradients, _inputs())


def test_gradcheck_of_the_query() -> None:
    assert torch.autograd.gradcheck(_query, _inputs()[:4])


def test_both_are_the_reference() -> None:
    inputs = _inputs(6)
    weights, rates = FastWeights.start(*inputs[:3]), InnerRates(*inputs[5:])
    for actual, expected in zip(_gradients(*inputs), gradients_reference(weights, *inputs[3:5], rates), strict=True):
        torch.testing.assert_close(actual, expected)
    torch.testing.assert_close(_query(*inputs[:4]), query_reference(weights, inputs[3]))


def test_less_is_kept_for_the_backward_pass() -> None:
    """Only the inputs are kept, where autograd keeps hidden values too."""
    inputs = _inputs(50)
    weights = FastWeights.start(*inputs[:3])
    sizes: list[int] = []

    def note(tensor: Tensor) -> Tensor:
        sizes.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        autograd.query(weights, inputs[3], "reference")
    ours = sum(sizes)
    assert ours == sum(tensor.numel() for tensor in inputs[:4])
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        query_reference(weights, inputs[3])
    assert sum(sizes) - ours > 3 * ours
