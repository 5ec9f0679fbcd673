"""The kernels for x86 matrix units against the reference in float64: as exact as the reference is in bfloat16."""

import pytest
import torch
from torch import Tensor
from torch.nn.functional import gelu

from lrm_ttt.kernels.fast_weight import cpu
from lrm_ttt.kernels.fast_weight.op import fast_weight_gradients, query_fast_weights
from lrm_ttt.kernels.fast_weight.reference import InnerRates, gradients_reference, query_reference
from lrm_ttt.kernels.fast_weight.weights import FastWeights
from lrm_ttt.layers.feed_forward import FeedForward

pytestmark = pytest.mark.skipif(not cpu.AVAILABLE, reason="no AMX, or the native library is not built")

# (*b, n, d, f): whole blocks, ragged ones, one token, more tokens and hidden units than are worked on at a time.
SIZES = [((1, 2), 64, 64, 256), ((2,), 100, 40, 120), ((), 1, 24, 33), ((1,), 2100, 32, 130)]


def _random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _weights(batch: tuple[int, ...], d: int, f: int) -> FastWeights:
    gate, up = (_random(*batch, d, f, seed=seed) * (2 / d) ** 0.5 for seed in (1, 2))
    return FastWeights.start(gate, up, _random(*batch, f, d, seed=3) * (2 / f) ** 0.5)


def _error(value: Tensor, exact: Tensor) -> float:
    return float((value.double() - exact).norm() / exact.norm())


def _double(weights: FastWeights) -> FastWeights:
    return FastWeights.start(*(weight.double() for weight in weights[:3]))


@pytest.mark.parametrize(("batch", "n", "d", "f"), SIZES)
@torch.no_grad()
def test_gradients(batch: tuple[int, ...], n: int, d: int, f: int) -> None:
    weights, (k, v) = _weights(batch, d, f), (_random(*batch, n, d, seed=seed).bfloat16() for seed in (4, 5))
    rates = InnerRates(*(torch.rand(*batch, n, 1, generator=torch.Generator().manual_seed(seed)) for seed in range(3)))
    exact = gradients_reference(
        _double(weights), k.double(), v.double(), InnerRates(*(rate.double() for rate in rates))
    )
    ours, theirs = fast_weight_gradients(weights, k, v, rates), gradients_reference(weights, k, v, rates)
    for mine, other, true in zip(ours, theirs, exact, strict=True):
        assert mine.shape == true.shape and mine.dtype == torch.bfloat16
        assert _error(mine, true) < _error(other, true) + 1e-3


@pytest.mark.parametrize(("batch", "n", "d", "f"), SIZES)
@torch.no_grad()
def test_query(batch: tuple[int, ...], n: int, d: int, f: int) -> None:
    weights, q = _weights(batch, d, f), _random(*batch, n, d, seed=4).bfloat16()
    exact = query_reference(_double(weights), q.double())
    ours, theirs = query_fast_weights(weights, q), query_reference(weights, q)
    assert ours.dtype == torch.bfloat16 and _error(ours, exact) < _error(theirs, exact) + 1e-3


@pytest.mark.parametrize(("batch", "n", "d", "f"), SIZES)
@torch.no_grad()
def test_the_two_layers_of_an_mlp(batch: tuple[int, ...], n: int, d: int, f: int) -> None:
    expand, contract = _random(f, d, seed=1) * d**-0.5, _random(d, f, seed=2) * f**-0.5
    x = _random(*batch, n, d, seed=3).bfloat16()
    exact = gelu(x.double() @ expand.double().mT) @ contract.double().mT
    # One rounding of what is in between, and one of the result.
    assert _error(cpu.feed_cpu(expand, None, contract, x), exact) < 6e-3


@torch.no_grad()
def test_activations_are_exact_over_their_whole_range() -> None:
    """Through one hidden unit with weight one: what comes out is rounded once."""
    x = torch.linspace(-100, 100, 4001).bfloat16()[:, None]
    one = torch.ones(1, 1)
    torch.testing.assert_close(cpu.feed_cpu(one, None, one, x).double(), gelu(x.double()), rtol=8e-3, atol=2e-6)
    squared = torch.nn.functional.silu(x.double()) * x.double()
    torch.testing.assert_close(cpu.feed_cpu(one, one, one, x).double(), squared, rtol=8e-3, atol=2e-6)


@torch.no_grad()
def test_results_do_not_depend_on_the_number_of_threads() -> None:
    weights, (k, v) = _weights((2,), 64, 320), (_random(2, 300, 64, seed=seed).bfloat16() for seed in (4, 5))
    rates, before = InnerRates(*(torch.rand(2, 300, 1) for _ in range(3))), torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            results.append([*fast_weight_gradients(weights, k, v, rates), query_fast_weights(weights, k)])
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(mine, first) for mine, first in zip(other, results[0], strict=True))


@torch.no_grad()
def test_no_tokens_add_nothing_and_read_nothing() -> None:
    """As a rank of a view group has them whose views are all of other chunks."""
    weights, none = _weights((2,), 32, 64), torch.zeros(2, 0, 32, dtype=torch.bfloat16)
    many = _random(2, 50, 32).bfloat16()
    rates = InnerRates(*(torch.ones(2, 50, 1) for _ in range(3)))
    fast_weight_gradients(weights, many, many, rates)
    for gradient in fast_weight_gradients(weights, none, none, InnerRates(*(rate[:, :0] for rate in rates))):
        assert not gradient.any()
    assert query_fast_weights(weights, none).shape == none.shape


@torch.no_grad()
def test_one_memory_serves_several_scenes() -> None:
    weights, q = _weights((1,), 32, 64), _random(3, 50, 32).bfloat16()
    alone = [query_fast_weights(weights, scene[None]) for scene in q]
    assert _error(query_fast_weights(weights, q), torch.cat(alone).double()) < 1e-2


@torch.no_grad()
def test_the_reference_can_be_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, x = FeedForward(32, 2), _random(1, 50, 32).bfloat16()
    natively = layer(x)
    monkeypatch.setenv("LRM_TTT_KERNELS", "reference")
    assert torch.equal(layer(x), layer.contract(gelu(layer.expand(x))))
    torch.testing.assert_close(layer(x), natively, rtol=2e-2, atol=1e-2)


def test_with_gradients_the_reference_runs() -> None:
    weights, q = _weights((1,), 32, 64), _random(1, 10, 32).bfloat16().requires_grad_()
    result = query_fast_weights(weights, q)
    assert torch.equal(result, query_reference(weights, q))
    assert torch.autograd.grad(result.sum(), q)[0].abs().sum() > 0


def test_the_operators_keep_the_contract_of_torch() -> None:
    """Schema and fake tensors, on which compiled blocks rely."""
    weights, x = _weights((2,), 32, 64), _random(2, 10, 32).bfloat16()
    rates = [torch.rand(2, 10, 1) for _ in range(3)]
    utilities = ("test_schema", "test_faketensor")
    torch.library.opcheck(cpu.gradients_cpu, (*weights[:3], x, x, *rates), test_utils=utilities)
    torch.library.opcheck(cpu.feed_cpu, (*weights[:3], x), test_utils=utilities)
