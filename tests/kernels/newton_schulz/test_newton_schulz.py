"""Newton-Schulz: laws of the iteration and its gradient."""

import pytest
import torch

from lrm_ttt.errors import BackendUnavailable
from lrm_ttt.kernels.newton_schulz.coefficients import COEFFICIENTS
from lrm_ttt.kernels.newton_schulz.op import newton_schulz


def _random(*shape: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("shape", [(3, 5, 9), (2, 9, 5), (7, 7)])
def test_acts_on_singular_values_alone(shape: tuple[int, ...]) -> None:
    matrix = _random(*shape)
    u, s, v = torch.linalg.svd(matrix, full_matrices=False)
    a, b, c = COEFFICIENTS
    s = s / matrix.square().sum((-2, -1)).sqrt()[..., None]
    for _ in range(5):
        s = a * s + b * s**3 + c * s**5
    expected = u @ torch.diag_embed(s) @ v
    # The 1e-7 in the denominator of the first division is all that differs.
    torch.testing.assert_close(newton_schulz(matrix), expected, rtol=0, atol=1e-5)


def test_singular_values_come_near_one() -> None:
    values = torch.linalg.svdvals(newton_schulz(_random(4, 32, 64)))
    assert values.min() > 0.6 and values.max() < 1.3


def test_a_common_factor_cancels_and_transposition_commutes() -> None:
    matrix = _random(6, 10)
    torch.testing.assert_close(newton_schulz(matrix * 37.0), newton_schulz(matrix), rtol=1e-6, atol=1e-6)
    assert torch.equal(newton_schulz(matrix.mT), newton_schulz(matrix).mT)


def test_gradient() -> None:
    matrix = _random(2, 4, 6).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: newton_schulz(x, num_steps=3), matrix)


def test_zero_stays_zero() -> None:
    assert torch.equal(newton_schulz(torch.zeros(3, 5)), torch.zeros(3, 5))


def test_bfloat16_is_close_to_exact() -> None:
    matrix = _random(64, 128)
    exact, rough = newton_schulz(matrix), newton_schulz(matrix, dtype=torch.bfloat16).double()
    # Measured 1e-2 to 3e-2 on well-conditioned matrices.
    assert (rough - exact).norm() / exact.norm() < 5e-2


def test_float16_is_closer_and_bears_large_matrices_and_small_gradients() -> None:
    """Squares of the one would overflow, and the other would be rounded to nothing."""
    matrix, slope = 1e4 * _random(64, 128), 1e-9 * _random(64, 128).flip(0)
    exact, rough = matrix.clone().requires_grad_(), matrix.float().requires_grad_()
    expected, result = newton_schulz(exact), newton_schulz(rough, dtype=torch.float16)
    assert result.dtype == torch.float32
    # Measured 1.9e-3, and 1e-2 for the gradient; in bfloat16 1.4e-2 and 5e-2.
    assert (result - expected).norm() / expected.norm() < 5e-3
    (by_exact,), (by_rough,) = (
        torch.autograd.grad(values, leaf, slope.to(values.dtype))
        for values, leaf in ((expected, exact), (result, rough))
    )
    assert (by_rough - by_exact).norm() / by_exact.norm() < 2e-2


def test_a_backend_that_cannot_run_is_refused() -> None:
    with pytest.raises(BackendUnavailable, match="newton_schulz cannot run on it"):
        newton_schulz(_random(3, 5).float(), backend="triton")
