"""Laws of camera paths."""

import dataclasses
import math

import pytest
import torch

from lrm_ttt.scene.cameras import Cameras, ImageSize, look_at
from lrm_ttt.scene.similarity import focus_point
from lrm_ttt.scene.trajectories import common_up, interpolate, orbit
from tests.scene.make import similarity

FOCUS = torch.tensor([0.5, -0.3, 1.0], dtype=torch.float64)
UP = torch.nn.functional.normalize(torch.tensor([0.2, -0.1, 1.0], dtype=torch.float64), dim=0)


def ring(num_views: int = 12, elevation: float = 0.5, arc: float = 2 * math.pi, distance: float = 3.0) -> Cameras:
    """Return level cameras at one height around FOCUS, which all look at it."""
    angles = torch.arange(num_views, dtype=torch.float64) * arc / num_views
    east = torch.nn.functional.normalize(torch.linalg.cross(UP, torch.tensor([0.0, 1, 0], dtype=torch.float64)), dim=0)
    north = torch.linalg.cross(UP, east)
    flat = angles.cos()[:, None] * east + angles.sin()[:, None] * north
    centres = FOCUS + distance * (math.cos(elevation) * flat + math.sin(elevation) * UP)
    intrinsics = torch.tensor([40.0, 42, 15, 13], dtype=torch.float64).repeat(num_views, 1)
    intrinsics[:, 0] += angles
    return Cameras(look_at(centres, FOCUS.expand(num_views, 3), UP), intrinsics, ImageSize(24, 32))


def check_rigid(path: Cameras) -> None:
    rotation = path.cam_to_world[:, :3, :3]
    eye = torch.eye(3, dtype=rotation.dtype).expand_as(rotation)
    assert torch.allclose(rotation @ rotation.mT, eye, atol=1e-9 if rotation.dtype == torch.float64 else 1e-5)
    assert (torch.linalg.det(rotation) > 0).all()
    assert torch.equal(
        path.cam_to_world[:, 3], torch.tensor([0.0, 0, 0, 1], dtype=rotation.dtype).expand(len(rotation), 4)
    )


@pytest.mark.parametrize("elevation", [0.0, 0.5, 1.2])
def test_the_orbit_of_a_ring_is_the_ring(elevation: float) -> None:
    """Given 12 cameras in a ring, an orbit of 24 frames has them again, and the ones half way between."""
    some = ring(elevation=elevation)
    path = orbit(some, 24)
    check_rigid(path)
    # The focus point is drawn from its place by the prior's weight of 0.001.
    nearest = torch.cdist(path.centres, ring(24, elevation).centres).min(1).values
    assert nearest.max() < 0.02
    pixels, depths = path.project(focus_point(some).expand(24, 1, 3))
    assert torch.allclose(pixels[:, 0], torch.tensor([16.0, 12.0], dtype=torch.float64).expand(24, 2), atol=1e-6)
    assert torch.allclose(depths, (some.centres - focus_point(some)).norm(dim=-1).mean().expand(24, 1), atol=1e-9)
    assert torch.allclose(path.intrinsics[:, :2], some.intrinsics[:, :2].mean(0).expand(24, 2))


def test_the_orbit_closes_and_is_even() -> None:
    path = orbit(ring(), 30)
    steps = (path.centres - path.centres.roll(1, 0)).norm(dim=-1)
    assert torch.allclose(steps, steps[:1].expand(30), atol=1e-9)


def test_the_orbit_follows_the_world() -> None:
    some, motion = ring(9, 0.4), similarity(seed=5)
    moved = orbit(motion.cameras(some), 10)
    assert torch.allclose(moved.cam_to_world, motion.cameras(orbit(some, 10)).cam_to_world, atol=1e-7)


def test_cameras_on_one_side_sway_within_what_they_cover() -> None:
    """No frame looks from where no camera was; the path is closed and passes the middle."""
    some = ring(9, 0.3, arc=1.2)
    path = orbit(some, 40)
    check_rigid(path)
    steps = (path.centres - path.centres.roll(1, 0)).norm(dim=-1)
    assert steps.max() < 0.35
    assert torch.cdist(path.centres, some.centres).min(1).values.max() < 0.45
    full = orbit(some, 40, arc=2 * math.pi)
    assert torch.cdist(full.centres, some.centres).min(1).values.max() > 3


def test_elevation_can_be_chosen() -> None:
    path = orbit(ring(), 8, elevation=1.0)
    offsets = path.centres - focus_point(ring())
    heights = (offsets @ common_up(ring())) / offsets.norm(dim=-1)
    assert torch.allclose(heights, torch.full((8,), math.sin(1.0), dtype=torch.float64), atol=1e-6)


@pytest.mark.parametrize("arc", [2 * math.pi, 3.0, 0.8])
@pytest.mark.parametrize("elevation", [-0.3, 0.0, 0.6, 1.2])
def test_up_is_found(arc: float, elevation: float) -> None:
    """From a full ring exactly, from a part of it nearly."""
    up = common_up(ring(12, elevation, arc))
    angle = float(torch.acos((up @ UP).clamp(-1, 1)))
    # From one side, up is what the camera says less the part along the mean row: a lean towards its own up remains.
    assert angle < {2 * math.pi: 0.01, 3.0: 0.1, 0.8: 0.45}[arc]


def test_cameras_straight_above_agree_on_an_up() -> None:
    """Looking down in a ring, rows and columns cancel: up is against the viewing direction."""
    some = ring(8, elevation=math.pi / 2 - 1e-3)
    assert (common_up(some) @ UP) > 0.99
    assert torch.isfinite(orbit(some, 5).cam_to_world).all()


def test_one_camera_orbits_too() -> None:
    path = orbit(ring()[:1], 6)
    check_rigid(path)
    assert path.shape == (6,)


def test_interpolation_begins_and_ends_at_the_given_cameras() -> None:
    some = ring(7)
    path = interpolate(some, 50)
    check_rigid(path)
    for position in (0, -1):
        assert torch.allclose(path.cam_to_world[position], some.cam_to_world[position], atol=1e-9)
        assert torch.allclose(path.intrinsics[position], some.intrinsics[position], atol=1e-9)


def test_interpolation_passes_every_camera() -> None:
    some = ring(7)
    path = interpolate(some, 2000)
    centre = torch.cdist(some.centres, path.centres)
    nearest = centre.argmin(1)
    assert centre.min(1).values.max() < 0.01
    assert (path.cam_to_world[nearest, :3, :3] - some.cam_to_world[:, :3, :3]).abs().max() < 0.01
    assert (nearest[1:] > nearest[:-1]).all()


def test_interpolation_stays_near_the_circle_and_is_smooth() -> None:
    some = ring(12)
    path = interpolate(some, 300)
    distance = (path.centres - FOCUS).norm(dim=-1)
    assert (distance - 3).abs().max() < 0.06
    speed = (path.centres[1:] - path.centres[:-1]).norm(dim=-1)
    assert speed.max() < 1.6 * speed.mean()
    bend = (path.centres[2:] - 2 * path.centres[1:-1] + path.centres[:-2]).norm(dim=-1)
    assert bend.max() < 0.1 * speed.mean()
    looking = ((FOCUS - path.centres) / distance[:, None] * path.forward).sum(-1)
    assert looking.min() > math.cos(0.05)


def test_interpolation_along_a_line_is_even() -> None:
    """Equal steps along a line, no turn: the frames are equal steps along it."""
    matrices = torch.eye(4, dtype=torch.float64).repeat(4, 1, 1)
    matrices[:, 0, 3] = torch.arange(4)
    some = Cameras(matrices, torch.tensor([30.0, 30, 16, 12], dtype=torch.float64).expand(4, 4), ImageSize(24, 32))
    path = interpolate(some, 13)
    expected = torch.zeros(13, 3, dtype=torch.float64)
    expected[:, 0] = torch.arange(13) / 4
    assert torch.allclose(path.centres, expected, atol=1e-9)
    assert torch.allclose(path.cam_to_world[:, :3, :3], matrices[:1, :3, :3].expand(13, 3, 3))


def test_interpolation_follows_the_world() -> None:
    some, motion = ring(6), similarity(seed=6)
    moved = interpolate(motion.cameras(some), 11)
    assert torch.allclose(moved.cam_to_world, motion.cameras(interpolate(some, 11)).cam_to_world, atol=1e-6)


def test_interpolation_does_not_care_about_the_sign_of_quaternions() -> None:
    """A turn by more than a half, step by step, never flips over."""
    some = ring(10, elevation=0.1)
    path = interpolate(some, 200)
    change = (path.cam_to_world[1:, :3, :3] - path.cam_to_world[:-1, :3, :3]).norm(dim=(-1, -2))
    assert change.max() < 3 * change.mean()


def test_short_paths_and_repeated_cameras() -> None:
    some = ring(5)
    assert interpolate(some, 1).shape == (1,)
    still = interpolate(some[:1], 4)
    assert torch.equal(still.cam_to_world, some.cam_to_world[:1].expand(4, 4, 4))
    twice = Cameras(some.cam_to_world[[0, 0, 1, 1]], some.intrinsics[[0, 0, 1, 1]], some.image_size)
    assert torch.isfinite(interpolate(twice, 9).cam_to_world).all()
    float32 = dataclasses.replace(some).to(torch.float32)
    assert interpolate(float32, 9).cam_to_world.dtype == orbit(float32, 9).cam_to_world.dtype == torch.float32
    check_rigid(interpolate(float32, 9))
