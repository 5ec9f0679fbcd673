"""The kernel for x86 matrix units against the reference."""

from collections.abc import Callable

import pytest
import torch

from lrm_ttt.kernels.newton_schulz import cpu
from lrm_ttt.kernels.newton_schulz.op import newton_schulz
from lrm_ttt.kernels.newton_schulz.reference import newton_schulz_reference

Function = Callable[[torch.Tensor, int], torch.Tensor]

pytestmark = pytest.mark.skipif(cpu.library() is None, reason="no AMX, or the native library is not built")


def _random(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0)).bfloat16()


def _error(value: torch.Tensor, exact: torch.Tensor) -> float:
    return float((value.double() - exact.double()).norm() / exact.double().norm())


def _gradient(function: Function, matrix: torch.Tensor, towards: torch.Tensor, num_steps: int) -> torch.Tensor:
    leaf = matrix.clone().requires_grad_()
    return torch.autograd.grad((function(leaf, num_steps) * towards).sum(), leaf)[0]


# Whole blocks, ragged ones, one row, tall ones, and a matrix of which several threads own parts.
SHAPES = [(3, 64, 256), (2, 1, 40, 90), (100, 33), (5, 7), (1, 300), (3, 32, 32), (2, 128, 2600)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("num_steps", [0, 1, 5])
def test_is_as_exact_as_the_reference_in_bfloat16(shape: tuple[int, ...], num_steps: int) -> None:
    matrix = _random(*shape)
    exact = newton_schulz_reference(matrix.double(), num_steps)
    ours, theirs = newton_schulz(matrix, num_steps), newton_schulz_reference(matrix, num_steps)
    assert ours.shape == matrix.shape and ours.dtype == torch.bfloat16
    assert _error(ours, exact) < 1.5 * _error(theirs, exact) + 5e-3


def test_does_not_depend_on_the_number_of_threads_nor_on_what_was_computed_before() -> None:
    (matrix, towards), before = _random(2, 4, 128, 2600), torch.get_num_threads()
    results, gradients = [], []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            results.append(newton_schulz(matrix))
            gradients.append(_gradient(newton_schulz, matrix, towards, 5))
            _gradient(newton_schulz, *torch.full((2, 7, 40, 50), 3.0, dtype=torch.bfloat16), num_steps=2)
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(results[0], other) for other in results[1:])
    assert all(torch.equal(gradients[0], other) for other in gradients[1:])


def test_memory_that_is_not_contiguous() -> None:
    wide, towards = _random(2, 40, 3, 90), _random(40, 2, 90).transpose(0, 1)
    matrix = wide[:, :, 1]
    assert torch.equal(newton_schulz(matrix), newton_schulz(matrix.contiguous()))
    ours = _gradient(newton_schulz, matrix, towards, 5)
    assert torch.equal(ours, _gradient(newton_schulz, matrix.contiguous(), towards.contiguous(), 5))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("num_steps", [0, 1, 5])
def test_gradient_is_as_exact_as_that_of_the_reference_in_bfloat16(shape: tuple[int, ...], num_steps: int) -> None:
    matrix, towards = _random(2, *shape)
    exact = _gradient(newton_schulz_reference, matrix.double(), towards.double(), num_steps)
    ours, theirs = (
        _gradient(function, matrix, towards, num_steps) for function in (newton_schulz, newton_schulz_reference)
    )
    assert _error(ours, exact) < 1.1 * _error(theirs, exact) + 1e-3


def test_gradient_is_that_of_the_products_of_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """One step of matrices of several parts differs by rounding alone: also where slopes are tiny or differ in size."""
    matrix, towards = _random(2, 2, 128, 2600)
    towards = towards * torch.tensor([1e-6, 1e3]).reshape(2, 1, 1).bfloat16()
    ours = _gradient(cpu.newton_schulz_cpu, matrix, towards, 1)
    monkeypatch.setattr(cpu, "library", lambda: None)
    theirs = _gradient(cpu.newton_schulz_cpu, matrix, towards, 1)
    assert all(_error(one, other) < 5e-3 for one, other in zip(ours, theirs, strict=True))


def test_the_operators_keep_the_contract_of_torch() -> None:
    """Schema, fake tensors and autograd registration, on which compiled blocks rely."""
    torch.library.opcheck(cpu.newton_schulz_cpu, (_random(2, 40, 50).requires_grad_(), 5), atol=0.1, rtol=0.1)


def test_nothing_and_zero() -> None:
    assert newton_schulz(torch.zeros(0, 3, 5, dtype=torch.bfloat16)).shape == (0, 3, 5)
    assert torch.equal(newton_schulz(zero := torch.zeros(3, 5, dtype=torch.bfloat16)), zero)
    assert torch.equal(_gradient(newton_schulz, _random(3, 5), zero, 5), zero)
    assert _gradient(newton_schulz, zero, _random(3, 5), 0).isfinite().all()
