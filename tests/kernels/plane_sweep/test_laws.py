"""What a plane sweep must find in scenes known in closed form, for the reference and for the native library."""

import dataclasses
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from lrm_ttt.kernels.plane_sweep.cpu import library, plane_sweep_cpu
from lrm_ttt.kernels.plane_sweep.reference import UNSEEN_COST, SweepResult, plane_sweep_reference
from tests.kernels.plane_sweep.rig import Sweep, around, looking, random_origins, share_beyond, sphere_masks

Run = Callable[[Sweep], SweepResult]
RUNS: dict[str, Run] = {
    "reference": lambda sweep: plane_sweep_reference(*sweep.arguments),
    "native": lambda sweep: plane_sweep_cpu(*sweep.to(torch.float32).arguments),
}


@pytest.fixture(params=sorted(RUNS))
def run(request: pytest.FixtureRequest) -> Run:
    if request.param == "native" and library() is None:
        pytest.skip("the native library is not built")
    return RUNS[request.param]


def wall_texture(x: Tensor, y: Tensor) -> Tensor:
    """Return colours `[*b 3]` of a wall: waves of three directions, none of which repeats within the views."""
    waves = [torch.sin(5 * x + 2 * y + 0.7 * x * y), torch.sin(6 * y - 3 * x + 0.5 * x * x), torch.sin(4 * x - 5 * y)]
    return 0.5 + 0.5 * torch.stack(waves, -1)


def test_a_textured_wall_is_found_at_its_distance(run: Run) -> None:
    """Five cameras before the wall z = 3: the cost is least at the plane nearest to where the ray meets the wall."""
    origins = torch.tensor([[0, 0, 0], [0.4, 0, 0], [-0.4, 0, 0.1], [0, 0.4, 0], [0, -0.4, -0.1]], dtype=torch.float64)
    height, width, step = 32, 40, 0.1
    world_to_pixel, directions = looking(origins, torch.tensor([0.0, 0, 1]).double().expand(5, 3), height, width, 45.0)
    truth = (3 - origins[:, 2, None, None]) / directions[..., 2]
    wall = origins[:, None, None] + directions * truth[..., None]
    others = torch.tensor([[j for j in range(5) if j != i] for i in range(5)])
    distances = torch.arange(2.0, 5.0, step, dtype=torch.float64).expand(5, -1)
    images = wall_texture(wall[..., 0], wall[..., 1]).movedim(-1, 1)
    masks = torch.ones_like(images[:, :1])
    costs = run(Sweep(images, masks, world_to_pixel, origins, directions, distances, others, others)).costs[0].double()
    found = distances[0][costs.argmin(0)]
    error = (found - truth[0]).abs()
    # Half a step is as near as the planes come; the rest is interpolation. Measured: 98.8 % of the pixels.
    assert (error <= 0.75 * step).double().mean() > 0.98
    assert costs.amin(0).mean() < 0.02 < costs.mean()


def test_a_sphere_is_carved_from_its_silhouettes(run: Run) -> None:
    """A point is inside the hull where all views see it within the sphere's outline."""
    radius, height, width = 0.7, 40, 48
    origins = random_origins(6)
    sweep = around(origins, height, width, 15, 1, 5)
    sweep = dataclasses.replace(sweep, masks=sphere_masks(origins, sweep.directions, radius))
    hulls = run(sweep).hulls
    to_point = sweep.points[:, None] - origins[None, :, None, None, None]
    to_centre = -origins[None, :, None, None, None]
    cosine = torch.cosine_similarity(to_point, to_centre, dim=-1)
    # How far outside the outline each view sees each point, in radians; a pixel and a half is the outline's own width.
    outside = torch.acos(cosine.clamp(-1, 1)) - math.asin(radius / 2.5)
    band = 1.5 / (1.1 * width)
    others = sweep.silhouettes[:, :, None, None, None].expand(-1, -1, *outside.shape[2:])
    worst = outside.gather(1, others).amax(1)
    projected = torch.einsum("jab,vphwb->vjphwa", sweep.world_to_pixel[..., :3], sweep.points)
    projected = projected + sweep.world_to_pixel[None, :, None, None, None, :, 3]
    pixel = projected[..., :2] / projected[..., 2:]
    sees = ((pixel > 0) & (pixel < torch.tensor([width, height]))).all(-1).gather(1, others).all(1)
    # Weights of grid_sample sum to 1 within rounding.
    assert (hulls[sees & (worst < -band)] > 1 - 1e-6).all()
    assert (hulls[sees & (worst > band)] < 1e-6).all()
    # Both kinds must be there, or nothing was tested.
    assert (sees & (worst < -band)).sum() > 1000 < (sees & (worst > band)).sum()


def test_points_behind_all_other_cameras_are_unseen(run: Run) -> None:
    """Two cameras back to back see nothing of each other's points."""
    origins = torch.tensor([[0, 0, 1], [0, 0, -1]], dtype=torch.float64)
    sweep = around(origins, 9, 17, 5, 1, 1)
    world_to_pixel, directions = looking(origins, origins, 9, 17, 20.0)
    sweep = dataclasses.replace(sweep, world_to_pixel=world_to_pixel, directions=directions, masks=0 * sweep.masks)
    result = run(dataclasses.replace(sweep, distances=sweep.distances + 1))
    assert (result.costs == UNSEEN_COST).all()
    assert (result.hulls == 1).all()


def test_a_view_compared_with_itself_agrees_everywhere(run: Run) -> None:
    sweep = around(random_origins(1), 11, 13, 4, 1, 1)
    result = run(sweep)
    # The point comes back to its own pixel's centre, to rounding: 2e-5 of a pixel in float32.
    assert result.costs.max() < 1e-5
    assert (result.hulls.double() - sweep.masks).abs().max() < 1e-4


def test_a_similarity_of_the_world_changes_nothing(run: Run) -> None:
    sweep = around(random_origins(5), 19, 23, 6, 3, 2)
    rotation = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(1)).double())[0]
    rotation, scale, shift = rotation * rotation.det(), 1.7, torch.tensor([0.3, -0.2, 0.5], dtype=torch.float64)
    linear = sweep.world_to_pixel[..., :3] @ rotation.T
    moved = dataclasses.replace(
        sweep,
        origins=scale * sweep.origins @ rotation.T + shift,
        directions=sweep.directions @ rotation.T,
        distances=scale * sweep.distances,
        world_to_pixel=torch.cat([linear, scale * sweep.world_to_pixel[..., 3:] - (linear @ shift)[..., None]], -1),
    )
    # Rounding moves points by some 1e-5 of a pixel, and some over the edge of an image.
    assert share_beyond(run(moved), run(sweep), 2e-4) < 2e-4


def test_the_order_of_the_others_does_not_matter(run: Run) -> None:
    sweep = around(random_origins(6), 17, 21, 5, 4, 5)
    turned = dataclasses.replace(sweep, neighbours=sweep.neighbours.flip(-1), silhouettes=sweep.silhouettes.roll(2, -1))
    for got, want in zip(run(turned), run(sweep), strict=True):
        assert torch.equal(got, want)
