"""Laws of similarities, of the normalisation of scenes and of the focus point."""

import dataclasses

import pytest
import torch

from lrm_ttt.scene.cameras import Cameras, ImageSize, look_at
from lrm_ttt.scene.similarity import Similarity, focus_point, normalising_similarity
from tests.scene.make import cameras, generator, normal, similarity


def test_the_inverse_leads_back() -> None:
    some, points = similarity(3), normal(3, 9, 3)
    assert torch.allclose(some.inverse().points(some.points(points)), points, atol=1e-12)
    assert torch.allclose(some.points(some.inverse().points(points)), points, atol=1e-12)
    twice = some.inverse().inverse()
    for name in ("rotation", "translation", "scale"):
        assert torch.allclose(getattr(twice, name), getattr(some, name), atol=1e-12)


def test_the_identity_changes_nothing() -> None:
    points = normal(2, 5, 3)
    assert torch.equal(Similarity.identity(2, dtype=torch.float64).points(points), points)


def test_it_is_scale_times_rotation_plus_translation() -> None:
    some, points = similarity(), normal(4, 3)
    expected = torch.stack([some.scale * (some.rotation @ point) + some.translation for point in points])
    assert torch.allclose(some.points(points), expected, atol=1e-12)


def test_cameras_see_the_same_pixels_after_the_world_moved() -> None:
    """Points and cameras moved together: the pixels stay, depths are multiplied by the scale."""
    some, motion, points = cameras(2, 3), similarity(2), 0.3 * normal(2, 8, 3)
    moved = motion.cameras(some)
    pixels, depths = some.project(points[:, None].expand(2, 3, 8, 3))
    again, again_depths = moved.project(motion.points(points)[:, None].expand(2, 3, 8, 3))
    assert torch.allclose(again, pixels, atol=1e-9)
    assert torch.allclose(again_depths, depths * motion.scale[:, None, None], atol=1e-9)
    rotation = moved.cam_to_world[..., :3, :3]
    assert torch.allclose(rotation @ rotation.mT, torch.eye(3, dtype=torch.float64).expand(2, 3, 3, 3), atol=1e-12)


@pytest.mark.parametrize("by", ["focus", "mean_camera", "first_camera"])
def test_normalisation_does_not_depend_on_the_frame(by: str) -> None:
    """However the world was turned, moved and scaled before, the normalised cameras are the same."""
    some, motion = cameras(2, 5), similarity(2, seed=7)
    first = normalising_similarity(some, by).cameras(some)
    moved = motion.cameras(some)
    second = normalising_similarity(moved, by).cameras(moved)
    assert torch.allclose(second.cam_to_world, first.cam_to_world, atol=1e-8)


def test_focus_normalisation() -> None:
    """The focus point comes to the origin, the cameras to the mean distance that was asked for, in front along +z."""
    some = cameras(3, 6)
    to_scene = normalising_similarity(some, "focus", distance=2.5)
    normalised = to_scene.cameras(some)
    assert torch.allclose(focus_point(normalised), torch.zeros(3, 3, dtype=torch.float64), atol=1e-8)
    assert torch.allclose(normalised.centres.norm(dim=-1).mean(-1), torch.full((3,), 2.5, dtype=torch.float64))
    forward = normalised.forward.sum(-2)
    assert torch.allclose(
        torch.nn.functional.normalize(forward, dim=-1), torch.tensor([0.0, 0, 1], dtype=torch.float64).expand(3, 3)
    )


def test_camera_normalisations() -> None:
    """tttLRM's: the camera in the origin, the largest coordinate of a centre one."""
    some = cameras(2, 5)
    for by in ("mean_camera", "first_camera"):
        normalised = normalising_similarity(some, by).cameras(some)
        assert torch.allclose(normalised.centres.abs().amax((-1, -2)), torch.ones(2, dtype=torch.float64))
        origin = normalised.centres[:, 0] if by == "first_camera" else normalised.centres.mean(1)
        assert torch.allclose(origin, torch.zeros(2, 3, dtype=torch.float64), atol=1e-12)
    first = normalising_similarity(some, "first_camera").cameras(some).cam_to_world[:, 0, :3, :3]
    assert torch.allclose(first, torch.eye(3, dtype=torch.float64).expand(2, 3, 3), atol=1e-12)
    assert torch.equal(normalising_similarity(some, "none").cameras(some).cam_to_world, some.cam_to_world)


def test_the_focus_point_is_where_the_axes_meet() -> None:
    target = torch.tensor([0.4, -1.0, 2.0], dtype=torch.float64)
    centres = target + 2 * torch.nn.functional.normalize(normal(12, 3), dim=-1)
    some = dataclasses.replace(cameras(12), cam_to_world=look_at(centres, target.expand(12, 3), normal(12, 3, seed=4)))
    # The weak pull of the prior has weight 0.001, at a distance of a few units.
    assert (focus_point(some) - target).norm() < 0.05


def test_the_focus_point_follows_the_world() -> None:
    some, motion = cameras(2, 5), similarity(2, seed=3)
    moved = focus_point(motion.cameras(some))
    assert torch.allclose(moved, motion.points(focus_point(some)[:, None])[:, 0], atol=1e-8)


@pytest.mark.parametrize("kind", ["parallel", "apart", "one place"])
def test_the_focus_point_is_finite_and_ahead(kind: str) -> None:
    """Parallel axes, axes that part (they meet behind), and cameras that only turn: some point in front, never NaN."""
    centres = torch.zeros(5, 3, dtype=torch.float64)
    forward = torch.tensor([0.0, 0, 1], dtype=torch.float64).expand(5, 3)
    if kind != "one place":
        centres[:, 0] = torch.arange(5) - 2.0
    if kind != "parallel":
        forward = forward + 0.2 * torch.stack([torch.arange(5) - 2.0, torch.zeros(5), torch.zeros(5)], -1).double()
    matrices = look_at(centres, centres + forward, torch.tensor([0.0, -1, 0], dtype=torch.float64))
    some = Cameras(matrices, torch.tensor([30.0, 30, 16, 12], dtype=torch.float64).expand(5, 4), ImageSize(24, 32))
    focus = focus_point(some)
    assert torch.isfinite(focus).all()
    assert focus[2] > 0
    assert focus.norm() < 100
    assert torch.isfinite(normalising_similarity(some, "focus").scale)


def test_float32_normalisation_of_a_far_scene() -> None:
    """A capture thousands of units from its origin keeps its shape, to what float32 allows there."""
    some = cameras(6)
    shift = Similarity.identity(dtype=torch.float64)
    shift = dataclasses.replace(shift, translation=torch.tensor([2000.0, -3000, 500], dtype=torch.float64))
    far = shift.cameras(some)
    near = normalising_similarity(some, "focus").cameras(some)
    again = normalising_similarity(far.to(torch.float32), "focus").cameras(far.to(torch.float32))
    assert (again.centres.double() - near.centres).abs().max() < 5e-3


def test_pixels_do_not_change_by_normalising() -> None:
    some = cameras(4)
    points = 0.3 * torch.randn(1, 6, 3, generator=generator(5), dtype=torch.float64)
    to_scene = normalising_similarity(some, "focus")
    pixels, _ = some.project(points.expand(4, 6, 3))
    again, _ = to_scene.cameras(some).project(to_scene.points(points[0])[None].expand(4, 6, 3))
    assert torch.allclose(again, pixels, atol=1e-8)
