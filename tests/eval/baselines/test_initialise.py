"""Where Gaussians begin."""

import dataclasses

import torch

from lrm_ttt.data.procedural import procedural_capture
from lrm_ttt.eval.baselines.initialise import colored, make_cloud, spacing
from lrm_ttt.scene.similarity import normalising_similarity
from lrm_ttt.scene.views import Views


def normalised(num_views: int, kind: str = "room") -> Views:
    views = procedural_capture(1, num_views, (24, 32), kind)  # type: ignore[arg-type]
    to_scene = normalising_similarity(views.cameras, "focus", distance=1.0)
    return dataclasses.replace(views, cameras=to_scene.cameras(views.cameras))


def inside(views: Views, points: torch.Tensor) -> torch.Tensor:
    pixels, depths = views.cameras.project(points.expand(*views.shape, *points.shape))
    size = torch.tensor([views.image_size.width, views.image_size.height])
    return (depths > 0.05) & ((pixels >= 0) & (pixels <= size)).all(-1)


def test_random_points_are_where_several_cameras_look() -> None:
    views = normalised(8)
    cloud = make_cloud(views, None, 300, 0.05, torch.Generator().manual_seed(0))
    assert len(cloud.points) == 300
    assert int(inside(views, cloud.points).sum(0).min()) >= 3
    again = make_cloud(views, None, 300, 0.05, torch.Generator().manual_seed(0))
    assert torch.equal(cloud.points, again.points)


def test_masks_keep_random_points_off_the_background() -> None:
    views = normalised(8, "object")
    assert views.masks is not None
    points = make_cloud(views, None, 300, 0.05, torch.Generator().manual_seed(0)).points
    pixels, _ = views.cameras.project(points.expand(*views.shape, *points.shape))
    # Half a pixel around, as masks are interpolated.
    near = torch.nn.functional.max_pool2d(views.masks, 3, stride=1, padding=1)[:, 0]
    x, y = (pixels[..., axis].floor().long().clamp(0, side - 1) for axis, side in ((0, 32), (1, 24)))
    covered = near[torch.arange(8)[:, None], y, x] > 0
    assert bool((covered | ~inside(views, points)).all())


def test_begins_on_the_points_of_the_capture_where_there_are_enough() -> None:
    views = normalised(4)
    given = 0.1 * torch.randn(150, 3, generator=torch.Generator().manual_seed(0))
    behind = torch.cat([given, torch.tensor([[0.0, 0.0, -1e3]]).expand(500, 3)])
    cloud = make_cloud(views, behind, 120, 0.05, torch.Generator().manual_seed(0))
    assert len(cloud.points) == 120
    assert set(map(tuple, cloud.points.tolist())) <= set(map(tuple, given.tolist()))
    few = make_cloud(views, given[:20], 120, 0.05, torch.Generator().manual_seed(0))
    assert len(few.points) == 120 and not set(map(tuple, few.points.tolist())) & set(map(tuple, given.tolist()))


def test_points_have_the_colour_that_views_show() -> None:
    views = normalised(1)
    pixels = torch.tensor([[3.5, 7.5], [20.5, 11.5]])
    points = views.cameras[0].unproject(pixels, torch.tensor([1.0, 1.0]))
    colors = colored(views, torch.cat([points, torch.tensor([[0.0, 0.0, -100.0]])]), 0.05).colors
    expected = torch.stack([views.images[0, :, 7, 3], views.images[0, :, 11, 20], torch.full((3,), 0.5)])
    torch.testing.assert_close(colors, expected, rtol=1e-4, atol=1e-4)


def test_spacing_is_that_of_the_nearest_three() -> None:
    corners = torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.0, 0.0, 2.0], [50.0, 0.0, 0.0]])
    torch.testing.assert_close(spacing(corners)[0], torch.tensor(3.0).sqrt())
    assert spacing(corners[:2]).tolist() == [1.0, 1.0] and len(spacing(corners[:1])) == 1
