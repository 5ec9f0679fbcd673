"""Refinement: an encoding without loss, and images that fit better."""

import dataclasses

import pytest
import torch

from lrm_ttt.pipeline.reconstruct import NEAR, Reconstruction, draw, normalise, reconstruct
from lrm_ttt.pipeline.refine import MOST_GROWTH, WIDTH, RefineConfig, decode, encode, refine, widened
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
