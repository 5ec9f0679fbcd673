"""The Triton kernels of the fast-weight memory against float64: interpreted, or on a GPU (tests/helpers/triton.py)."""

import pytest
import torch
from torch import Tensor

from lrm_ttt.errors import BackendUnavailable
from lrm_ttt.kernels.fast_weight import pieces_reference as reference
from lrm_ttt.kernels.fast_weight.op import fast_weight_gradients, query_fast_weights
from lrm_ttt.kernels.fast_weight.pieces import hidden_grads, hidden_grads_backward, swiglu_up, weight_grads
from lrm_ttt.kernels.fast_weight.reference import InnerRates, gradients_reference, query_reference
from lrm_ttt.kernels.fast_weight.weights import FastWeights
from lrm_ttt.layers.config import MemoryConfig
from lrm_ttt.layers.fast_weight import FastWeightMemory
from tests.helpers.triton import device, poisoned, relative_error

# Tokens fill no tile, one alone, or some; widths fill no tile of 32 or of 16 inner terms twice.
SIZES = [(1, 70, 48, 80), (3, 33, 32, 64), (2, 1, 16, 48), (1, 64, 64, 128)]
# One rounding of the result: 2^-11 in half precision; sums in single precision.
TOLERANCES = {torch.float32: 2e-6, torch.float16: 1e-3} | ({torch.bfloat16: 6e-3} if device().type == "cuda" else {})


def _draw(*shapes: tuple[int, ...], dtype: torch.dtype) -> list[Tensor]:
    """Return normal numbers that `dtype` holds exactly, in float64."""
    generator = torch.Generator().manual_seed(7)
    drawn = [torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in shapes]
    return [tensor.to(dtype).double().to(device()) for tensor in drawn]


def _shapes(batch: int, n: int, d: int, f: int) -> dict[str, tuple[int, ...]]:
    tokens, hidden, wide = (batch, n, d), (batch, n, f), (batch, d, f)
    return {"tokens": tokens, "hidden": hidden, "wide": wide, "down": (batch, f, d), "rates": (3, batch, n)}


@pytest.fixture(params=TOLERANCES, ids=str)
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    return request.param


def _assert_close(actual: Tensor, expected: Tensor, dtype: torch.dtype) -> None:
    assert actual.shape == expected.shape
    assert relative_error(actual, expected) < TOLERANCES[dtype]


@pytest.mark.parametrize("sizes", SIZES)
def test_swiglu_up(sizes: tuple[int, int, int, int], dtype: torch.dtype) -> None:
    shapes = _shapes(*sizes)
    wide = _draw(shapes["tokens"], shapes["wide"], shapes["wide"], dtype=dtype)
    wide[0] = (wide[0] / 8).to(dtype).double()
    with poisoned():
        actual = swiglu_up(*(tensor.to(dtype) for tensor in wide), backend="triton")
    assert actual.dtype == dtype
    _assert_close(actual, reference.swiglu_up_reference(*wide), dtype)


@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("sizes", SIZES)
def test_hidden_grads(sizes: tuple[int, int, int, int], weighted: bool, dtype: torch.dtype) -> None:
    shapes = _shapes(*sizes)
    names = ("hidden", "hidden", "tokens", "down")
    *wide, drawn = _draw(*(shapes[name] for name in names), shapes["rates"], dtype=dtype)
    rates = drawn.abs() if weighted else None
    with poisoned():
        narrow = [tensor.to(dtype) for tensor in wide]
        actual = hidden_grads(*narrow, None if rates is None else rates.float(), backend="triton")
    for part, expected in zip(actual, reference.hidden_grads_reference(*wide, rates), strict=True):
        _assert_close(part, expected, dtype)


@pytest.mark.parametrize("sizes", SIZES)
def test_hidden_grads_backward(sizes: tuple[int, int, int, int], dtype: torch.dtype) -> None:
    shapes = _shapes(*sizes)
    names = ("hidden", "hidden", "tokens", "down", "rates", "hidden", "hidden", "wide")
    wide = _draw(*(shapes[name] for name in names), dtype=dtype)
    with poisoned():
        narrow = [tensor.float() if index == 4 else tensor.to(dtype) for index, tensor in enumerate(wide)]
        actual = hidden_grads_backward(*narrow, backend="triton")
    expected = reference.hidden_grads_backward_reference(*wide)
    for three, wanted in zip(actual[:2], expected[:2], strict=True):
        for part, one in zip(three, wanted, strict=True):
            _assert_close(part, one, dtype)
    # The gradients of the rates are sums in float32, whatever the tensors are.
    assert relative_error(actual[2], expected[2]) < TOLERANCES[torch.float32]


@pytest.mark.parametrize("num_splits", [0, 1, 3])
@pytest.mark.parametrize("sizes", SIZES)
def test_weight_grads(sizes: tuple[int, int, int, int], num_splits: int, dtype: torch.dtype) -> None:
    from lrm_ttt.kernels.fast_weight.triton_weight_grads import weight_grads_triton

    shapes = _shapes(*sizes)
    wide = _draw(shapes["tokens"], shapes["tokens"], (3, *shapes["hidden"]), dtype=dtype)
    with poisoned():
        actual = weight_grads_triton(*(tensor.to(dtype) for tensor in wide), num_splits)
    assert actual.dtype == dtype
    for part, expected in zip(actual, reference.weight_grads_reference(*wide), strict=True):
        _assert_close(part, expected, dtype)


def test_what_lies_beyond_the_tokens_is_not_read() -> None:
    """Tokens of the next batch and behind the last may hold anything, NaN too."""
    k, v, hidden = _draw((2, 40, 32), (2, 40, 32), (3, 2, 40, 64), dtype=torch.float32)
    k[1], v[1], hidden[:, 1] = (float("nan"),) * 3
    narrow = [tensor.float() for tensor in (k, v, hidden)]
    first = weight_grads(*narrow, backend="triton")[:, 0]
    alone = weight_grads(narrow[0][:1], narrow[1][:1], narrow[2][:, :1], backend="triton")[:, 0]
    assert first.isfinite().all() and torch.equal(first, alone)


def _memory(n: int, dtype: torch.dtype) -> tuple[FastWeights, list[Tensor], InnerRates]:
    """Return a memory of two scenes and two heads with tokens for it, the rates strided as a layer has them."""
    shapes = [(2, 2, 32, 64), (2, 2, 32, 64), (2, 2, 64, 32), (2, 2, n, 32), (2, 2, n, 32), (2, n, 3, 2)]
    gate, up, down, k, v, rates = _draw(*shapes, dtype=dtype)
    weights = FastWeights.start(gate, up, down)
    unit = (k / k.norm(dim=-1, keepdim=True)).to(dtype).double()
    return weights, [unit, v], InnerRates(*rates.abs().permute(2, 0, 3, 1)[..., None].unbind(0))


def _leaves(tensors: list[Tensor], dtype: torch.dtype | None) -> list[Tensor]:
    copies = [tensor.clone() if dtype is None else tensor.to(dtype) for tensor in tensors]
    return [copy.requires_grad_() for copy in copies]


def _check_backward(actual: list[Tensor], expected: list[Tensor], inputs: list[Tensor], oracles: list[Tensor]) -> None:
    """Compare values and the gradient of every input, for random gradients of the results."""
    directions = _draw(*(tuple(tensor.shape) for tensor in expected), dtype=torch.float32)
    for part, wanted in zip(actual, expected, strict=True):
        _assert_close(part, wanted, torch.float32)
    narrow = [direction.to(part.dtype) for direction, part in zip(directions, actual, strict=True)]
    gradients = torch.autograd.grad(actual, inputs, narrow)
    for gradient, wanted in zip(gradients, torch.autograd.grad(expected, oracles, directions), strict=True):
        _assert_close(gradient, wanted, torch.float32)


@pytest.mark.parametrize("n", [37, 1])
def test_gradients_and_all_their_gradients(n: int) -> None:
    weights, tokens, rates = _memory(n, torch.float32)
    every = [*weights[:3], *tokens, *rates]
    oracles, inputs = _leaves(every, None), _leaves(every, torch.float32)
    with poisoned():
        expected = gradients_reference(
            FastWeights(*oracles[:3], weights.norms), *oracles[3:5], InnerRates(*oracles[5:])
        )
        memory = FastWeights(*inputs[:3], weights.norms)
        actual = fast_weight_gradients(memory, *inputs[3:5], InnerRates(*inputs[5:]), "triton")
        _check_backward(list(actual), list(expected), inputs, oracles)


@pytest.mark.parametrize("n", [37, 1])
def test_query_and_all_its_gradients(n: int) -> None:
    weights, (q, _), _ = _memory(n, torch.float32)
    oracles, inputs = _leaves([*weights[:3], q], None), _leaves([*weights[:3], q], torch.float32)
    with poisoned():
        expected = query_reference(FastWeights(*oracles[:3], weights.norms), oracles[3])
        actual = query_fast_weights(FastWeights(*inputs[:3], weights.norms), inputs[3], "triton")
        _check_backward([actual], [expected], inputs, oracles)


@pytest.mark.parametrize("dynamic", [False, True])
def test_compiled_without_a_break(dynamic: bool) -> None:
    """The kernels are opaque to torch.compile, forward and backward, and what is around them is traced."""
    weights, tokens, rates = _memory(5, torch.float32)

    def both(gate: Tensor, up: Tensor, down: Tensor, k: Tensor, v: Tensor, *rates: Tensor) -> Tensor:
        memory = FastWeights(gate, up, down, weights.norms)
        steps = fast_weight_gradients(memory, k, v, InnerRates(*rates), "triton")
        moved = FastWeights(gate + steps.gate, up + steps.up, down + steps.down, weights.norms)
        return query_fast_weights(moved, k, "triton")

    every = [*weights[:3], *tokens, *rates]
    plain, compiled = _leaves(every, torch.float32), _leaves(every, torch.float32)
    expected = both(*plain)
    actual = torch.compile(both, fullgraph=True, backend="aot_eager", dynamic=dynamic)(*compiled)
    _assert_close(actual, expected.double(), torch.float32)
    gradients = torch.autograd.grad(actual.square().sum(), compiled)
    for gradient, wanted in zip(gradients, torch.autograd.grad(expected.square().sum(), plain), strict=True):
        _assert_close(gradient, wanted.double(), torch.float32)


def test_a_layer_takes_what_the_environment_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Slow weights get the same gradients from the kernels as from the reference, through update and query."""
    layer = FastWeightMemory(64, MemoryConfig(head_dim=32, multiple=2))
    generator = torch.Generator().manual_seed(5)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.3, generator=generator)
    layer = layer.to(device())
    x = torch.randn(2, 21, 64, generator=generator).to(device())
    found = {}
    for backend in ("reference", "triton"):
        monkeypatch.setenv("LRM_TTT_KERNELS", backend)
        tokens, memory = layer.tokens(x), layer.start(2)
        steps = layer.gradients(memory, tokens)
        moved = memory._replace(**{name: getattr(memory, name) + getattr(steps, name) for name in steps._fields})
        read = layer.query(moved, tokens)
        found[backend] = [read, *torch.autograd.grad(read.square().sum(), list(layer.parameters()))]
    for actual, expected in zip(found["triton"], found["reference"], strict=True):
        # Two paths in single precision, each with its own order of sums.
        assert relative_error(actual, expected) < 1e-5


def test_widths_that_tensor_cores_do_not_take_are_refused() -> None:
    weights = FastWeights.start(*_draw((24, 40), (24, 40), (40, 24), dtype=torch.float32))
    with pytest.raises(BackendUnavailable, match="no multiples of 16"):
        query_fast_weights(weights, torch.zeros(3, 24, device=device()), "triton")
