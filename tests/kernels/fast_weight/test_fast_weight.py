"""The fast-weight memory: its gradient is autograd's, its laws hold, and everything is differentiable."""

import pytest
import torch
from torch import Tensor

from lrm_ttt.kernels.fast_weight.elastic import ElasticRates
from lrm_ttt.kernels.fast_weight.op import query_fast_weights, update_fast_weights
from lrm_ttt.kernels.fast_weight.reference import Gradients, InnerRates, commit_reference, gradients_reference
from lrm_ttt.kernels.fast_weight.weights import FastWeights, column_norms


def _memory(dtype: torch.dtype = torch.float64, d: int = 4, f: int = 6) -> FastWeights:
    generator = torch.Generator().manual_seed(1)
    gate, up = (torch.randn(2, d, f, generator=generator, dtype=dtype) for _ in range(2))
    return FastWeights.start(gate, up, torch.randn(2, f, d, generator=generator, dtype=dtype))


def _tokens(n: int = 7, d: int = 4, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, InnerRates]:
    generator = torch.Generator().manual_seed(2)
    k, v = (torch.randn(2, n, d, generator=generator, dtype=dtype) for _ in range(2))
    rates = InnerRates(*(torch.rand(2, n, 1, generator=generator, dtype=dtype) for _ in range(3)))
    return torch.nn.functional.normalize(k, dim=-1), v, rates


def test_gradients_descend_the_inner_loss() -> None:
    weights, (k, v, _) = _memory(), _tokens()
    ones = InnerRates(*(torch.ones_like(v[..., :1]),) * 3)
    leaves = [weight.clone().requires_grad_() for weight in weights[:3]]
    loss = -(query_fast_weights(FastWeights(*leaves, weights.norms), k) * v).sum()
    expected = torch.autograd.grad(loss, leaves)
    for actual, gradient in zip(gradients_reference(weights, k, v, ones), expected, strict=True):
        torch.testing.assert_close(actual, -gradient)


def test_each_inner_rate_weighs_its_own_matrix_and_token() -> None:
    weights, (k, v, rates) = _memory(), _tokens()
    zeros, ones = torch.zeros_like(rates.gate), torch.ones_like(rates.gate)
    only_up = gradients_reference(weights, k, v, InnerRates(gate=zeros, down=zeros, up=ones))
    assert only_up.gate.abs().max() == 0 and only_up.down.abs().max() == 0 and only_up.up.abs().max() > 0
    one = ones.clone()
    one[:, 1:] = 0
    first = gradients_reference(weights, k, v, InnerRates(one, one, one))
    alone = gradients_reference(weights, k[:, :1], v[:, :1], InnerRates(*(ones[:, :1],) * 3))
    for actual, expected in zip(first, alone, strict=True):
        torch.testing.assert_close(actual, expected)


def test_gradients_are_sums_over_slices_of_tokens() -> None:
    weights, (k, v, rates) = _memory(), _tokens()
    parts = [
        gradients_reference(weights, k[:, s], v[:, s], InnerRates(*(rate[:, s] for rate in rates)))
        for s in (slice(0, 3), slice(3, 7))
    ]
    for index, whole in enumerate(gradients_reference(weights, k, v, rates)):
        torch.testing.assert_close(parts[0][index] + parts[1][index], whole)


def test_order_of_tokens_does_not_matter() -> None:
    weights, (k, v, rates) = _memory(), _tokens()
    order = torch.randperm(7, generator=torch.Generator().manual_seed(3))
    shuffled = update_fast_weights(weights, k[:, order], v[:, order], InnerRates(*(rate[:, order] for rate in rates)))
    for actual, expected in zip(shuffled[:3], update_fast_weights(weights, k, v, rates)[:3], strict=True):
        torch.testing.assert_close(actual, expected)


def test_columns_keep_the_norms_of_the_start() -> None:
    weights, (k, v, rates) = _memory(), _tokens()
    twice = update_fast_weights(update_fast_weights(weights, k, v, rates), k.flip(1), v, rates)
    for weight, norm in zip(twice[:3], weights.norms, strict=True):
        # The epsilon of the denominator shrinks them by a few 1e-6.
        torch.testing.assert_close(column_norms(weight), norm, rtol=1e-4, atol=0)


def test_a_zero_step_changes_nothing_but_the_epsilon() -> None:
    weights = _memory()
    kept = commit_reference(weights, Gradients(*(torch.zeros_like(weight) for weight in weights[:3])))
    for actual, expected in zip(kept[:3], weights[:3], strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-4, atol=0)


def test_an_update_improves_recall() -> None:
    weights = _memory(torch.float32, d=32, f=64)
    k, v, rates = _tokens(8, 32, torch.float32)

    def recall(memory: FastWeights) -> Tensor:
        return (query_fast_weights(memory, k) * v).sum()

    assert recall(update_fast_weights(weights, k, v, rates)) > recall(weights) + 10


@pytest.mark.parametrize("chunks", [1, 2])
def test_gradcheck_through_updates_and_query(chunks: int) -> None:
    start, (k, v, rates) = _memory(d=3, f=4), _tokens(4, 3)
    leaves = [leaf.clone().requires_grad_() for leaf in (*start[:3], k, v, *rates)]

    def run(gate: Tensor, up: Tensor, down: Tensor, k: Tensor, v: Tensor, *rates: Tensor) -> Tensor:
        weights = FastWeights(gate, up, down, start.norms)
        for part in torch.arange(4).chunk(chunks):
            part_rates = InnerRates(*(rate[:, part] for rate in rates))
            weights = update_fast_weights(weights, k[:, part], v[:, part], part_rates, num_steps=2)
        return query_fast_weights(weights, k)

    assert torch.autograd.gradcheck(run, leaves)


def test_bfloat16_layer_is_close_to_exact() -> None:
    weights = _memory(torch.float32, d=64, f=128)
    k, v, rates = _tokens(200, 64, torch.float32)
    exact = query_fast_weights(update_fast_weights(weights, k, v, rates), k)
    low = [tensor.bfloat16() for tensor in (k, v)]
    rough = query_fast_weights(update_fast_weights(weights, *low, rates, newton_schulz_dtype=torch.bfloat16), low[0])
    # SPEED.md allows 4e-2 for a whole memory layer; measured 2e-2.
    assert (rough.float() - exact).norm() / exact.norm() < 4e-2


def test_elastic_update_without_strength_is_the_plain_one() -> None:
    weights, (k, v, rates) = _memory(), _tokens()
    plain = update_fast_weights(weights, k, v, rates)
    elastic = update_fast_weights(weights, k, v, rates, elastic=ElasticRates(strength=0.0))
    for actual, expected in zip(elastic[:3], plain[:3], strict=True):
        assert torch.equal(actual, expected)


def test_elastic_update_draws_back_towards_where_it_was() -> None:
    weights, (k, v, rates) = _memory(), _tokens()
    plain = update_fast_weights(weights, k, v, rates)
    pulled = update_fast_weights(weights, k, v, rates, elastic=ElasticRates(strength=0.9))
    for start, far, near in zip(weights[:3], plain[:3], pulled[:3], strict=True):
        assert (near - start).norm() < 0.9 * (far - start).norm()
    assert pulled.elastic is not None
    # After one update the anchor has gone a fifth of the way (beta 0.8) and importance is half the squared step.
    for start, moved, anchor in zip(weights[:3], pulled[:3], pulled.elastic.anchor, strict=True):
        torch.testing.assert_close(anchor, 0.8 * start + 0.2 * moved)
