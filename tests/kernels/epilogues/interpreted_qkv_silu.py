"""Queries, keys and values in Triton against the reference in float64: values and gradients, small and ragged."""

import pytest
import torch
from torch import Tensor

from lrm_ttt.kernels.epilogues.reference import qkv_silu_reference
from lrm_ttt.kernels.epilogues.triton_qkv_silu import qkv_silu_triton
from tests.helpers.triton import device, poisoned, relative_error


def _random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).to(device())


# One rounding of the result, with room.
@pytest.mark.parametrize(("dtype", "most"), [(torch.float32, 1e-6), (torch.float16, 5e-4)])
@pytest.mark.parametrize(("num_tokens", "num_heads", "channels"), [(7, 3, 20), (150, 1, 48), (70, 2, 64)])
def test_values_and_gradients(num_tokens: int, num_heads: int, channels: int, dtype: torch.dtype, most: float) -> None:
    projected = _random(2, num_tokens, 3 * num_heads * channels).to(dtype)
    rough, exact = projected.clone().requires_grad_(), projected.double().requires_grad_()
    expected = qkv_silu_reference(exact, num_heads)
    slopes = [_random(*part.shape, seed=index + 1).to(dtype) for index, part in enumerate(expected)]
    with poisoned():
        made = qkv_silu_triton(rough, num_heads)
        (gradient,) = torch.autograd.grad(tuple(made), rough, slopes)
    for part, whole in zip(made, expected, strict=True):
        assert part.dtype == dtype and part.is_contiguous()
        assert relative_error(part.detach(), whole.detach()) < most
    (by_exact,) = torch.autograd.grad(tuple(expected), exact, [slope.double() for slope in slopes])
    assert relative_error(gradient, by_exact) < most


def test_gradcheck() -> None:
    leaf = _random(1, 1, 12).requires_grad_()
    assert torch.autograd.gradcheck(lambda projected: tuple(qkv_silu_triton(projected, 2)), leaf)


def test_zeros_give_no_nan() -> None:
    leaf = torch.zeros(1, 2, 12, device=device()).requires_grad_()
    torch.stack(qkv_silu_triton(leaf, 2)).sum().backward()
    assert leaf.grad is not None and leaf.grad.isfinite().all()
