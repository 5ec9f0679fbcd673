"""Newton-Schulz in Triton against the reference in float64: small, ragged, and with NaN wherever nothing is written."""

import pytest
import torch
from torch import Tensor

from lrm_ttt.kernels.newton_schulz import triton_product
from lrm_ttt.kernels.newton_schulz.op import newton_schulz
from lrm_ttt.kernels.newton_schulz.recomputed import symmetric_product_reference
from lrm_ttt.kernels.newton_schulz.reference import newton_schulz_reference
from lrm_ttt.kernels.newton_schulz.triton_product import newton_schulz_triton, symmetric_product_triton
from tests.helpers.triton import device, poisoned, relative_error

# Relative L2 for one rounding of the result. Measured 2.1e-4 in float16 and 1.2e-7 in float32.
ROUNDED = {torch.float16: 5e-4, torch.float32: 1e-6}


def _random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).to(device())


@pytest.fixture(params=["large", "small"])
def tiles(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Take one size of tiles or the other, however many there are."""
    monkeypatch.setattr(triton_product, "num_processors", lambda device: 0 if request.param == "large" else 10**6)


@pytest.mark.usefixtures("tiles")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("shape", [(2, 37, 50), (1, 144, 130), (1, 64, 64)])
def test_symmetric_product(shape: tuple[int, int, int], dtype: torch.dtype) -> None:
    x, other = _random(*shape).to(dtype), _random(*shape, seed=1)
    addend = (other @ other.mT).to(dtype)
    for alpha, some, beta in ((1.0, None, 0.0), (2.0315, addend, -4.775)):
        expected = symmetric_product_reference(x.double(), alpha, None if some is None else some.double(), beta)
        with poisoned():
            product = symmetric_product_triton(x, alpha, some, beta)
        assert relative_error(product, expected) < ROUNDED[dtype]
        assert torch.equal(product, product.mT)


def test_it_may_lie_anyhow() -> None:
    x = _random(2, 20, 30).float()
    strided = x.mT.contiguous().mT
    assert torch.equal(symmetric_product_triton(strided, 1.0, None, 0.0), symmetric_product_triton(x, 1.0, None, 0.0))


# As in test_recomputed.py.
@pytest.mark.parametrize(("dtype", "most"), [(torch.float32, 1e-5), (torch.float16, 5e-3)])
@pytest.mark.parametrize("shape", [(2, 3, 48, 100), (100, 48)])
def test_newton_schulz_and_its_gradient(shape: tuple[int, ...], dtype: torch.dtype, most: float) -> None:
    matrix, slope = _random(*shape), _random(*shape, seed=1)
    exact, rough = matrix.clone().requires_grad_(), matrix.float().requires_grad_()
    expected = newton_schulz_reference(exact)
    with poisoned():
        result = newton_schulz_triton(rough, dtype=dtype)
        (gradient,) = torch.autograd.grad(result, rough, slope.float())
    assert relative_error(result, expected) < most
    assert relative_error(gradient, torch.autograd.grad(expected, exact, slope)[0]) < most


def test_it_is_taken_where_it_is_asked_for() -> None:
    matrix = _random(2, 20, 30).float()
    asked = newton_schulz(matrix, dtype=torch.float16, backend="triton")
    assert torch.equal(asked, newton_schulz_triton(matrix)) and asked.dtype == torch.float32
