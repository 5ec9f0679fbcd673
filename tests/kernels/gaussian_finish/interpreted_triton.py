"""The end of a Gaussian head in Triton against the reference in float64: values, gradients, and what is not kept."""

import pytest
import torch

from lrm_ttt.kernels.gaussian_finish.op import Rays
from lrm_ttt.kernels.gaussian_finish.reference import finish_reference
from lrm_ttt.kernels.gaussian_finish.triton_finish import finish_triton
from tests.helpers.triton import device, poisoned, relative_error
from tests.kernels.gaussian_finish.make import PUBLISHED, random, raw_and_rays


@pytest.mark.parametrize("keeps", [False, True])
@pytest.mark.parametrize(
    # Values are float32; gradients are rounded to the dtype of the channels. Measured 1e-7 and 2e-4.
    ("dtype", "most"),
    [(torch.float64, 1e-12), (torch.float32, 1e-6), (torch.float16, 5e-4)],
)
@pytest.mark.parametrize("num_sh", [1, 16])
def test_values_and_gradients(num_sh: int, dtype: torch.dtype, most: float, keeps: bool) -> None:
    raw, rays = raw_and_rays(3, 47, num_sh)
    raw, keep = raw.to(device(), dtype), torch.arange(0, 141, 3, device=device()) if keeps else None
    wide = torch.promote_types(dtype, torch.float32)
    rays = Rays(*(part.to(device(), wide) for part in rays))
    rough, exact = raw.clone().requires_grad_(), raw.double().requires_grad_()
    expected = finish_reference(exact, Rays(*(part.double() for part in rays)), PUBLISHED, keep)
    slopes = [random(*part.shape, seed=index).to(device()) for index, part in enumerate(expected)]
    with poisoned():
        made = finish_triton(rough, rays, PUBLISHED, keep)
        pairs = [slope.to(wide) for slope in slopes]
        (gradient,) = torch.autograd.grad(tuple(made), rough, pairs)
    for part, whole in zip(made, expected, strict=True):
        assert part.dtype == wide and relative_error(part.detach(), whole.detach()) < min(most, 1e-6)
    assert relative_error(gradient, torch.autograd.grad(expected, exact, slopes)[0]) < most


def test_gradcheck() -> None:
    raw, rays = raw_and_rays(1, 2, 1)
    # A scale at its greatest has a kink, and its neighbours none.
    raw[0, 1, 6] = 3.0
    rays, keep = Rays(*(part.to(device()) for part in rays)), torch.tensor([1], device=device())
    leaf = raw.to(device()).requires_grad_()
    assert torch.autograd.gradcheck(lambda raw: tuple(finish_triton(raw, rays, PUBLISHED, keep)), leaf)


def test_a_rotation_of_zeros_gives_no_nan() -> None:
    raw, rays = raw_and_rays(1, 2, 1)
    raw = raw.to(device())
    raw[..., 9:13] = 0
    leaf = raw.requires_grad_()
    made = finish_triton(leaf, Rays(*(part.to(device()) for part in rays)), PUBLISHED)
    assert torch.equal(made.wxyz, torch.zeros_like(made.wxyz))
    sum(part.sum() for part in made).backward()
    assert leaf.grad is not None and leaf.grad.isfinite().all()
