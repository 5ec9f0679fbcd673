"""The end of a Gaussian head: where Gaussians lie, what bounds them, and that keeping some is keeping some."""

import math

import pytest
import torch

from lrm_ttt.errors import BackendUnavailable
from lrm_ttt.kernels.gaussian_finish.op import Rays, finish_gaussians
from lrm_ttt.kernels.gaussian_finish.reference import finish_reference
from lrm_ttt.kernels.gaussian_finish.selection import highest, positions
from tests.kernels.gaussian_finish.make import PUBLISHED, random, raw_and_rays


def test_raw_zeros_are_half_way_along_the_ray() -> None:
    _, rays = raw_and_rays(2, 5, 1)
    raw = torch.zeros(2, 5, 14, dtype=torch.float64)
    raw[..., 9] = -3.0
    made = finish_gaussians(raw, rays, PUBLISHED)
    half_way = rays.origins[:, None] + (rays.near + 2.5)[:, None, None] * rays.directions
    torch.testing.assert_close(made.means, half_way.flatten(0, 1))
    torch.testing.assert_close(made.scales, torch.full_like(made.scales, math.exp(-2.3)))
    torch.testing.assert_close(made.opacities, torch.full_like(made.opacities, 1 / (1 + math.exp(2))))
    assert torch.equal(made.wxyz, torch.tensor([-1.0, 0, 0, 0]).double().expand(10, 4))


def test_gaussians_stay_between_near_and_far_and_below_the_greatest_scale() -> None:
    raw, rays = raw_and_rays(3, 40, 4)
    made = finish_gaussians(10 * raw, rays, PUBLISHED)
    offset = made.means.unflatten(0, (3, 40)) - rays.origins[:, None]
    distance = (offset * rays.directions).sum(-1)
    torch.testing.assert_close(offset, distance[..., None] * rays.directions)
    assert (distance >= rays.near[:, None] - 1e-12).all() and (distance <= rays.far[:, None] + 1e-12).all()
    assert math.isclose(made.scales.max(), math.exp(-1.2))
    torch.testing.assert_close(made.wxyz.norm(dim=-1), torch.ones(120, dtype=torch.float64))
    assert torch.equal(made.sh.flatten(), 10 * raw[..., 3:15].flatten())


def test_some_are_those_of_all_and_only_they_get_gradients() -> None:
    raw, rays = raw_and_rays(2, 30, 1)
    keep = positions(highest(raw[..., -1].reshape(1, -1), 17), 17)
    leaf = raw.clone().requires_grad_()
    some, every = finish_gaussians(leaf, rays, PUBLISHED, keep), finish_gaussians(raw, rays, PUBLISHED)
    for part, whole in zip(some, every, strict=True):
        torch.testing.assert_close(part, whole[keep])
    # The opacity channel alone has decided.
    assert some.opacities.min() >= every.opacities.sort(descending=True).values[16]
    sum(part.sum() for part in some).backward()
    assert leaf.grad is not None
    touched = leaf.grad.flatten(0, 1).abs().sum(-1) > 0
    assert torch.equal(touched.nonzero()[:, 0], keep)


def test_low_precision_goes_in_and_float32_comes_out() -> None:
    raw, rays = raw_and_rays(2, 30, 4)
    narrow = Rays(*(part.float() for part in rays))
    made = finish_gaussians(raw.bfloat16(), narrow, PUBLISHED)
    expected = finish_reference(raw.bfloat16().double(), rays, PUBLISHED)
    for part, exact in zip(made, expected, strict=True):
        torch.testing.assert_close(part, exact.float(), rtol=1e-5, atol=1e-6)


def test_cameras_may_learn() -> None:
    raw, rays = raw_and_rays(1, 3, 1)
    leaves = [part.clone().requires_grad_() for part in rays]
    assert torch.autograd.gradcheck(
        lambda raw, *rays: tuple(finish_gaussians(raw, Rays(*rays), PUBLISHED)), [raw.requires_grad_(), *leaves]
    )


def test_a_backend_that_cannot_run_is_refused() -> None:
    raw, rays = raw_and_rays(1, 3, 1)
    with pytest.raises(BackendUnavailable, match="gaussian_finish cannot run on it"):
        finish_gaussians(raw.float(), Rays(*(part.float() for part in rays)), PUBLISHED, backend="triton")


def test_the_highest_of_each_row_are_found_in_order() -> None:
    values = random(3, 50)
    index = positions(highest(values, 20), 20)
    expected = values.sort(descending=True).indices[:, :20].sort().values + 50 * torch.arange(3)[:, None]
    assert torch.equal(index, expected.flatten())


def test_of_equal_values_exactly_so_many() -> None:
    assert highest(torch.ones(2, 9), 4).sum(-1).tolist() == [4, 4]


def test_nobody_waits_for_the_device() -> None:
    """Meta tensors have no values: whatever asks for one, as a device would have to be waited for, fails."""
    raw, rays = raw_and_rays(2, 30, 1)
    there = raw.to("meta")
    keep = positions(highest(there[..., -1], 10), 10)
    assert finish_gaussians(there, Rays(*(part.to("meta") for part in rays)), PUBLISHED, keep).means.shape == (20, 3)
