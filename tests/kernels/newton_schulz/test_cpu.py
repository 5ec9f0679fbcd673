"""The kernel for x86 matrix units against the reference."""

from collections.abc import Callable

import pytest
import torch

from lrm_ttt.kernels.newton_schulz import cpu
from lrm_ttt.kernels.newton_schulz.op import newton_schulz
from lrm_ttt.kernels.newton_schulz.reference import newton_schulz_reference

pytestmark = pytest.mark.skipif(cpu.library() is None, reason="no AMX, or the native library is not built")


def _random(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0)).bfloat16()


def _error(value: torch.Tensor, exact: torch.Tensor) -> float:
    return float((value.double() - exact.double()).norm() / exact.double().norm())


# Whole blocks, ragged ones, one row, tall ones, and a matrix of which several threads own parts.
@pytest.mark.parametrize(
    "shape", [(3, 64, 256), (2, 1, 40, 90), (100, 33), (5, 7), (1, 300), (3, 32, 32), (2, 128, 2600)]
)
@pytest.mark.parametrize("num_steps", [0, 1, 5])
def test_is_as_exact_as_the_reference_in_bfloat16(shape: tuple[int, ...], num_steps: int) -> None:
    matrix = _random(*shape)
    exact = newton_schulz_reference(matrix.double(), num_steps)
    ours, theirs = newton_schulz(matrix, num_steps), newton_schulz_reference(matrix, num_steps)
    assert ours.shape == matrix.shape and ours.dtype == torch.bfloat16
    assert _error(ours, exact) < 1.5 * _error(theirs, exact) + 5e-3


def test_does_not_depend_on_the_number_of_threads_nor_on_what_was_computed_before() -> None:
    matrix, before = _random(4, 128, 2600), torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            results.append(newton_schulz(matrix))
            newton_schulz(torch.full((7, 40, 50), 3.0, dtype=torch.bfloat16))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(results[0], results[1]) and torch.equal(results[0], results[2])


def test_memory_that_is_not_contiguous() -> None:
    wide = _random(2, 40, 3, 90)
    assert torch.equal(newton_schulz(wide[:, :, 1]), newton_schulz(wide[:, :, 1].contiguous()))


def test_gradient_is_as_exact_as_that_of_the_reference_in_bfloat16() -> None:
    matrix, towards = _random(2, 48, 100), _random(2, 48, 100)

    def gradient(function: Callable[[torch.Tensor], torch.Tensor], dtype: torch.dtype) -> torch.Tensor:
        leaf = matrix.to(dtype).requires_grad_()
        return torch.autograd.grad((function(leaf) * towards.to(dtype)).sum(), leaf)[0]

    exact = gradient(newton_schulz_reference, torch.float64)
    ours, theirs = (gradient(function, torch.bfloat16) for function in (newton_schulz, newton_schulz_reference))
    assert _error(ours, exact) < 1.2 * _error(theirs, exact)


def test_the_operators_keep_the_contract_of_torch() -> None:
    """Schema, fake tensors and autograd registration, on which compiled blocks rely."""
    torch.library.opcheck(cpu.newton_schulz_cpu, (_random(2, 40, 50).requires_grad_(), 5), atol=0.1, rtol=0.1)


def test_nothing_and_zero() -> None:
    assert newton_schulz(torch.zeros(0, 3, 5, dtype=torch.bfloat16)).shape == (0, 3, 5)
    assert torch.equal(newton_schulz(zero := torch.zeros(3, 5, dtype=torch.bfloat16)), zero)
