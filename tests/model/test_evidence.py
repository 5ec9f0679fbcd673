"""Which distances are swept, and against which views."""

import torch

from lrm_ttt.model.evidence import (
    FARTHEST,
    NEAREST,
    DistanceRange,
    choose_neighbours,
    choose_silhouettes,
    distance_range,
)
from lrm_ttt.scene.cameras import Cameras, ImageSize, look_at


def _ring(num_views: int, radius: float = 2.0) -> Cameras:
    angle = torch.arange(num_views) * 2 * torch.pi / num_views
    centres = radius * torch.stack([angle.cos(), angle.sin(), torch.zeros_like(angle)], -1)
    up = torch.tensor([0.0, 0.0, 1.0])
    intrinsics = torch.tensor([50.0, 50.0, 32.0, 24.0]).expand(1, num_views, 4)
    return Cameras(look_at(centres, torch.zeros_like(centres), up)[None], intrinsics, ImageSize(48, 64))


def test_planes_are_even_in_inverse_distance_and_end_at_the_bounds() -> None:
    bounds = DistanceRange(torch.tensor([0.5]), torch.tensor([4.0]))
    u = torch.linspace(0, 1, 5)[None]
    distances = bounds.at(u)
    torch.testing.assert_close(distances[0, [0, -1]], torch.tensor([0.5, 4.0]))
    steps = (1 / distances).diff()
    torch.testing.assert_close(steps, steps[:, :1].expand_as(steps))
    torch.testing.assert_close(bounds.share(distances), u, rtol=0, atol=1e-6)


def test_an_object_is_the_ball_that_fills_the_image() -> None:
    bounds = distance_range(_ring(4), is_object=True)
    # The wider half of the image sees tan = 32 / 50; the ball that touches that cone has its sine as radius.
    radius = 1.1 * 2 * (32 / 50) / (1 + (32 / 50) ** 2) ** 0.5
    torch.testing.assert_close(bounds.near, torch.full((1, 4), 2 - radius))
    torch.testing.assert_close(bounds.far, torch.full((1, 4), 2 + radius))


def test_anything_else_is_swept_in_multiples_of_the_distance_to_the_focus() -> None:
    bounds = distance_range(_ring(4, radius=3.0), is_object=False)
    torch.testing.assert_close(bounds.near, torch.full((1, 4), 3 * NEAREST))
    torch.testing.assert_close(bounds.far, torch.full((1, 4), 3 * FARTHEST))


def test_colours_are_compared_with_the_nearest_and_silhouettes_with_views_all_around() -> None:
    near, around = choose_neighbours(_ring(12), 2), choose_silhouettes(_ring(12), 4)
    assert sorted(near[0, 0].tolist()) == [1, 11] and sorted(near[0, 5].tolist()) == [4, 6]
    # The farthest of twelve on a ring is the opposite one.
    assert around[0, 0, -1] == 6 and around[0, 5, -1] == 11
    assert not (near == torch.arange(12)[None, :, None]).any() and not (around == torch.arange(12)[None, :, None]).any()


def test_few_views_are_compared_with_all_others() -> None:
    near, around = choose_neighbours(_ring(3), 4), choose_silhouettes(_ring(3), 8)
    assert near.shape == around.shape == (1, 3, 2)
    assert all(sorted([view, *others]) == [0, 1, 2] for view, others in enumerate(near[0].tolist()))
