"""Refinement: an encoding without loss, and images that fit better."""

import dataclasses

import pytest
import torch

from lrm_ttt.pipeline.reconstruct import NEAR, Reconstruction, draw, normalise, reconstruct
from lrm_ttt.pipeline.refine import (
    MOST_GROWTH,
    WIDTH,
    RefineConfig,
    behind,
    decode,
    encode,
    parameter_groups,
    refine,
    widened,
)
from lrm_ttt.pipeline.refine_density import SHRINK, SPLIT_SHARE, SPLITS, split, thin_out
from lrm_ttt.scene.gaussians import Gaussians
from lrm_ttt.scene.rotations import wxyz_to_matrix
from lrm_ttt.scene.views import Views
from tests.pipeline.make import make_model, make_views

WHITE = torch.ones(3)


@pytest.fixture(scope="module")
def made() -> Reconstruction:
    return reconstruct(make_model(), make_views())


def refined(made: Reconstruction, views: Views, steps: int, share: float = 1.0) -> Gaussians:
    generator = torch.Generator().manual_seed(0)
    return refine(made.gaussians, views, WHITE, RefineConfig(steps, start_share=share), generator=generator, near=NEAR)


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


def test_a_share_begins_and_is_split_on_the_way(made: Reconstruction) -> None:
    views = normalise(make_views(), made.world_to_scene)
    first, again = refined(made, views, 60, 0.2), refined(made, views, 60, 0.2)
    assert all(torch.equal(getattr(first, name), getattr(again, name)) for name in vars(first))
    number = round(0.2 * made.gaussians.num_gaussians)
    for _ in SPLITS:
        number += round(SPLIT_SHARE * number)
    assert first.num_gaussians == number
    errors = [(draw(g, views.cameras, WHITE, near=NEAR) - views.images).abs().mean() for g in (made.gaussians, first)]
    assert errors[1] < 0.8 * errors[0]


def test_thinning_draws_by_opacity_and_keeps_the_volume() -> None:
    number = 20_000
    opacities = torch.full((number,), 0.8)
    opacities[: number // 2] = 0.2
    gaussians = Gaussians(
        means=torch.arange(number, dtype=torch.float32)[:, None].expand(-1, 3),
        scales=torch.full((number, 3), 0.5),
        wxyz=torch.tensor([1.0, 0.0, 0.0, 0.0]).expand(number, 4),
        opacities=opacities,
        sh=torch.zeros(number, 1, 3),
    )
    thin = thin_out(gaussians, 0.01, torch.Generator().manual_seed(0))
    assert thin.num_gaussians == 200 == len(thin.means[:, 0].unique())
    # 4 in 5 are opaque, within four standard deviations of 200 draws.
    assert abs(float((thin.opacities > 0.5).float().mean()) - 0.8) < 0.12
    torch.testing.assert_close(float(thin.scales.prod(-1).sum()), float(gaussians.scales.prod(-1).sum()))
    assert thin_out(gaussians, 1.0, torch.Generator()) is gaussians


def test_fewer_gaussians_take_larger_steps() -> None:
    """A quarter of them stand twice as far apart; how fast one fades does not depend on that."""
    stored = {name: torch.zeros(1) for name in ("means", "log_scales", "wxyz", "logits", "sh", "sh_rest")}
    few, all_ = (
        [group["lr"] for group in parameter_groups(stored, RefineConfig(start_share=s), 3.0)] for s in (0.25, 1.0)
    )
    assert all_[0] == 3 * RefineConfig().means_lr
    assert few == [(1 if name == "logits" else 2) * lr for name, lr in zip(stored, all_, strict=True)]


def test_a_split_leaves_the_others_as_they_are() -> None:
    generator = torch.Generator().manual_seed(1)
    number, flat = 50, torch.tensor([1.0, 1.0, 1e-6])
    gaussians = Gaussians(
        means=torch.randn(number, 3, generator=generator),
        scales=torch.rand(number, 3, generator=generator) * flat,
        wxyz=torch.nn.functional.normalize(torch.randn(number, 4, generator=generator), dim=-1),
        opacities=torch.rand(number, generator=generator),
        sh=torch.randn(number, 4, 3, generator=generator),
    )
    stored = {name: tensor.requires_grad_() for name, tensor in encode(gaussians).items()}
    optimiser = torch.optim.Adam(parameter_groups(stored, RefineConfig(), 1.0), fused=True)
    sum(tensor.square().sum() for tensor in stored.values()).backward()
    optimiser.step()
    before = {name: tensor.detach().clone() for name, tensor in stored.items()}
    pull = torch.arange(float(number))
    grown = split(stored, optimiser, pull, generator)
    halves = round(SPLIT_SHARE * number)
    same, chosen = torch.arange(number - halves), pull.topk(halves).indices
    for group, (name, tensor) in zip(optimiser.param_groups, grown.items(), strict=True):
        assert group["params"] == [tensor] and len(tensor) == number + halves, name
        assert torch.equal(tensor[same], before[name][same]), name
        moments = optimiser.state[tensor]["exp_avg"]
        assert bool((moments[same] != 0).any()) and not moments[chosen].any() and not moments[number:].any(), name
    decoded = decode({name: tensor.detach() for name, tensor in grown.items()})
    for half in (chosen, torch.arange(number, number + halves)):
        torch.testing.assert_close(decoded.scales[half], decode(before).scales[chosen] / SHRINK)
        # A flat Gaussian is split within its plane.
        normals = wxyz_to_matrix(decoded.wxyz[half])[..., 2]
        moved = decoded.means[half] - before["means"][chosen]
        assert float((moved * normals).sum(-1).abs().max()) < 1e-4 < float(moved.norm(dim=-1).min())


def test_what_a_mask_leaves_out_has_another_colour_every_time() -> None:
    views = dataclasses.replace(make_views()[:2], masks=None)
    generator = torch.Generator().manual_seed(0)
    same = behind(views.images, None, WHITE, generator)
    assert same[0] is WHITE and same[1] is views.images, "without masks nothing is drawn at random"
    masks = torch.zeros_like(views.images[:, :1])
    masks[..., 2:5], masks[..., 5] = 1.0, 0.25
    object_ = torch.rand(3, generator=generator)[:, None, None]
    masked = dataclasses.replace(views, images=masks * object_ + (1 - masks), masks=masks)
    first, image = behind(masked.images, 1 - masks, WHITE, generator)
    torch.testing.assert_close(image, masks * object_ + (1 - masks) * first[:, None, None])
    assert not torch.equal(first, behind(masked.images, 1 - masks, WHITE, generator)[0])
