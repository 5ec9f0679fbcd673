"""Refinement: an encoding without loss, a loss that is what it says, and images that fit better."""

import dataclasses

import pytest
import torch
from torch.nn.functional import conv2d

from lrm_ttt.pipeline.reconstruct import NEAR, Reconstruction, draw, normalise, reconstruct
from lrm_ttt.pipeline.refine import MOST_GROWTH, WIDTH, RefineConfig, decode, encode, refine, widened
from lrm_ttt.pipeline.refine_loss import RefineLoss
from lrm_ttt.scene.gaussians import Gaussians
from lrm_ttt.scene.views import Views
from tests.pipeline.make import make_model, make_views

WHITE = torch.ones(3)


@pytest.fixture(scope="module")
def made() -> Reconstruction:
    return reconstruct(make_model(), make_views())


def refined(made: Reconstruction, views: Views, steps: int) -> Gaussians:
    generator = torch.Generator().manual_seed(0)
    return refine(made.gaussians, views, WHITE, RefineConfig(steps=steps), generator=generator, near=NEAR)


def test_encoding_is_undone_by_decoding(made: Reconstruction) -> None:
    back = decode(encode(made.gaussians))
    for name, tensor in vars(made.gaussians).items():
        assert torch.allclose(getattr(back, name), tensor, atol=2e-6, rtol=1e-5), name


def test_images_fit_better_and_a_seed_decides(made: Reconstruction) -> None:
    views = normalise(make_views(), made.world_to_scene)
    before = made.gaussians.means.clone()
    first, again = refined(made, views, 12), refined(made, views, 12)
    assert all(torch.equal(getattr(first, name), getattr(again, name)) for name in vars(first))
    assert torch.equal(made.gaussians.means, before), "what is given is not changed"
    errors = [(draw(g, views.cameras, WHITE, near=NEAR) - views.images).abs().mean() for g in (made.gaussians, first)]
    assert errors[1] < 0.8 * errors[0]


def test_the_structural_part_is_ssim() -> None:
    """An independent one, by convolution in float64 over the valid region."""
    generator = torch.Generator().manual_seed(2)
    images, truths = torch.rand(2, 2, 3, 20, 31, generator=generator)
    taps = torch.exp(-0.5 * ((torch.arange(11).double() - 5) / 1.5) ** 2)
    window = torch.outer(taps, taps)[None, None] / taps.sum() ** 2
    x, y = images.double().reshape(6, 1, 20, 31), truths.double().reshape(6, 1, 20, 31)
    mean_x, mean_y, xx, yy, xy = (conv2d(values, window) for values in (x, y, x * x, y * y, x * y))
    top = (2 * mean_x * mean_y + 1e-4) * (2 * (xy - mean_x * mean_y) + 9e-4)
    bottom = (mean_x**2 + mean_y**2 + 1e-4) * (xx - mean_x**2 + yy - mean_y**2 + 9e-4)
    loss = RefineLoss(20, 31, torch.device("cpu"))
    assert float(loss.ssim(images, truths)) == pytest.approx(float((top / bottom).mean()), abs=1e-5)
    expected = 0.8 * float((images - truths).abs().mean()) + 0.2 * (1 - float((top / bottom).mean()))
    assert float(loss(images, truths)) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("size", [(8, 40), (11, 11), (24, 32)])
def test_the_loss_of_the_truth_is_zero_at_any_size(size: tuple[int, int]) -> None:
    images = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(3))
    assert float(RefineLoss(*size, torch.device("cpu"))(images, images)) == pytest.approx(0, abs=1e-6)


def test_gaussians_grow_until_neighbours_overlap_and_never_shrink() -> None:
    axis = torch.arange(4.0)
    means = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
    scales = torch.full((64, 3), 0.4) * torch.tensor([1.0, 0.5, 1.5])
    wxyz = torch.tensor([1.0, 0.0, 0.0, 0.0]).expand(64, 4)
    gaussians = Gaussians(means, scales, wxyz, torch.full((64,), 0.5), torch.zeros(64, 1, 3))
    # The three nearest of a grid are one apart, so the mean scale becomes WIDTH and the shape stays.
    torch.testing.assert_close(widened(gaussians).scales, scales * (WIDTH / 0.4))
    wide, thin = dataclasses.replace(gaussians, scales=scales * 9), dataclasses.replace(gaussians, scales=scales / 99)
    assert torch.equal(widened(wide).scales, wide.scales)
    torch.testing.assert_close(widened(thin).scales, thin.scales * MOST_GROWTH)
