"""Casting, lighting and compositing: nothing is culled that is hit, views agree, colours belong to points."""

import dataclasses
from random import Random

import pytest
import torch
from torch import Tensor

from lrm_ttt.data.procedural_builder import IDENTITY, SceneBuilder, Style, collate, rotation_to, turn
from lrm_ttt.data.procedural_caster import Caster, depth_of
from lrm_ttt.data.procedural_objects import make_object
from lrm_ttt.data.procedural_rendering import Composition, Pictures, draw
from lrm_ttt.data.procedural_shading import Lights, collate_lights, random_lights
from lrm_ttt.data.procedural_shapes import FRUSTUM, intersect
from lrm_ttt.data.procedural_styles import Looks
from lrm_ttt.data.procedural_textures import LATTICE_SIDE, PLAIN
from lrm_ttt.scene.cameras import Cameras, ImageSize, look_at

LATTICE = torch.rand(LATTICE_SIDE**3, generator=torch.Generator().manual_seed(0))
WHITE = Style(PLAIN, (1.0, 1.0, 1.0), ((1.0, 1.0, 1.0),) * 3, 0.1, 0.5, 0.0, 0.0, 0.0)
UP = torch.tensor([0.0, 0.0, 1.0])


def _cameras(num_views: int, size: int, distance: float = 3.0) -> Cameras:
    angles = 0.8 * torch.arange(num_views)
    centres = distance * torch.stack([angles.cos() * 0.9, angles.sin() * 0.9, 0.2 + 0.25 * angles.cos()], -1)
    poses = look_at(centres, torch.tensor([0.05, 0.02, -0.03]).expand(num_views, 3), UP)
    intrinsics = torch.tensor([1.25 * size, 1.2 * size, 0.52 * size, 0.49 * size]).expand(num_views, 4)
    return Cameras(poses[None], intrinsics[None].contiguous(), ImageSize(size, size))


def _composition(scene: SceneBuilder, lights: Lights | None = None, background: float = 1.0) -> Composition:
    primitives, textures = collate([scene])
    lights = lights or collate_lights([random_lights(Random(1))])
    return Composition(primitives, textures, lights, torch.full((1, 3), background), torch.zeros(1, 3), torch.ones(1))


def _objects(num: int) -> list[SceneBuilder]:
    scenes = []
    for seed in range(num):
        scene = SceneBuilder(Random(seed))
        make_object(scene, Looks(scene.rng, 0.5), 32)
        scenes.append(scene)
    return scenes


def test_culling_loses_no_hit() -> None:
    cameras = _cameras(2, 24)
    for scene in _objects(12):
        primitives, _ = collate([scene])
        caster = Caster(primitives, cameras)
        found = depth_of(caster.grid()).nan_to_num(nan=torch.inf)
        expected = torch.full_like(found, torch.inf)
        for kind, (start, stop) in caster.rows.spans.items():
            rows = torch.arange(start, stop).repeat_interleave(caster.pixels)
            x, y = caster.x.repeat(stop - start), caster.y.repeat(stop - start)
            frames = caster.rows.frames[:, rows]
            directions = frames[3:6] + frames[6:9] * x + frames[9:] * y
            t = intersect(kind, frames[:3], directions, caster.rows.parameters[rows]).view(-1, caster.pixels)
            for row in range(start, stop):
                span = slice(int(caster.rows.views[row]) * caster.pixels, None)
                target = expected[span][: caster.pixels]
                torch.minimum(target, t[row - start], out=target)
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-6)


def test_a_ball_has_its_depth_mask_and_normal() -> None:
    scene = SceneBuilder(Random(0))
    scene.ball((0.5, 0.5, 0.5), (0.0, 0.0, 0.0), WHITE)
    pose = look_at(torch.tensor([[[0.0, -3.0, 0.0]]]), torch.zeros(1, 1, 3), UP)
    cameras = Cameras(pose, torch.tensor([[[60.0, 60.0, 32.5, 32.5]]]), ImageSize(65, 65))
    pictures = draw(_composition(scene), cameras, LATTICE, antialias=False)
    assert float(pictures.depths[0, 0, 0, 32, 32]) == pytest.approx(2.5, abs=1e-6)
    torch.testing.assert_close(pictures.normals[0, 0, :, 32, 32], torch.tensor([0.0, -1.0, 0.0]))
    # The outline of a ball is a cone of half angle asin(r / distance).
    offsets = torch.arange(65) - 32.0
    distance = (offsets[:, None].square() + offsets.square()).sqrt()
    tangent = 0.5 / (9 - 0.25) ** 0.5 * 60
    assert torch.equal(pictures.masks[0, 0, 0] > 0, distance < tangent)


def test_a_thin_tilted_plate_lies_in_its_plane() -> None:
    rotation = rotation_to((0.3, -0.8, 0.5))
    scene = SceneBuilder(Random(0))
    scene.add(FRUSTUM, (0.7, 0.7, 0.004), (0.1, 0.0, 0.1), WHITE, rotation)
    cameras = _cameras(3, 48)
    pictures = draw(_composition(scene), cameras, LATTICE, antialias=False)
    points = _unprojected(cameras, pictures)
    normal = torch.tensor([row[2] for row in rotation])
    height = (points - torch.tensor([0.1, 0.0, 0.1])) @ normal
    seen = pictures.depths.view(3, -1) > 0
    assert seen.float().mean() > 0.03
    # Half a thickness, and the rounding of a depth of 3.
    assert height[seen].abs().max() < 0.004 + 5e-6


def _unprojected(cameras: Cameras, pictures: Pictures) -> Tensor:
    """Return the points [v n 3] behind all pixel centres of one scene."""
    height, width = cameras.image_size
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    pixels = torch.stack([x, y], -1).view(1, -1, 2)
    views = cameras[0]
    return views.unproject(pixels.expand(len(views.centres), -1, -1), pictures.depths[0].flatten(1))


def test_normals_are_perpendicular_to_neighbouring_points() -> None:
    cameras = _cameras(4, 96)
    for scene in _objects(6):
        pictures = draw(_composition(scene), cameras, LATTICE, antialias=False)
        points = _unprojected(cameras, pictures).view(4, 96, 96, 3)
        normals = pictures.normals[0].permute(0, 2, 3, 1)
        for dim in (1, 2):
            a, b = points.narrow(dim, 0, 95), points.narrow(dim, 1, 95)
            n, m = normals.narrow(dim, 0, 95), normals.narrow(dim, 1, 95)
            smooth = ((n * m).sum(-1) > 0.999) & ((a - b).norm(dim=-1) < 0.08)
            # The chord between two points of a surface is perpendicular to its mean normal, to second order.
            sine = ((a - b) * torch.nn.functional.normalize(n + m, dim=-1)).sum(-1) / (a - b).norm(dim=-1)
            assert smooth.float().mean() > 0.01
            # Two parallel faces side by side also pass as smooth.
            assert (sine.abs()[smooth] < 0.02).float().mean() > 0.95


def test_views_agree_about_depth_and_colour() -> None:
    """A point that one view shows is either what another view sees in its direction, or hidden from it."""
    cameras = _cameras(2, 40)
    for scene in _objects(10):
        # Highlights alone depend on the view; the shadow map follows the image size, and the probes are of one pixel.
        scene.textures = [[*row[:-1], 0.0] for row in scene.textures]
        lights = collate_lights([random_lights(Random(1))])
        composition = _composition(scene, dataclasses.replace(lights, shadow=torch.zeros(1)))
        pictures = draw(composition, cameras, LATTICE, antialias=False)
        seen = pictures.depths[0, 0].flatten() > 0
        points = _unprojected(cameras, pictures)[0, seen]
        colors = pictures.colors[0, 0].flatten(1)[:, seen].T
        # One camera of a single pixel per point, at the second view's centre.
        centre = cameras.centres[0, 1]
        poses = look_at(centre.expand_as(points), points, UP)
        intrinsics = torch.tensor([50.0, 50.0, 0.5, 0.5]).expand(len(points), 4)
        probes = Cameras(poses[None], intrinsics[None].contiguous(), ImageSize(1, 1))
        again = draw(composition, probes, LATTICE, antialias=False)
        behind = (points - centre).norm(dim=-1) - again.depths[0].flatten()
        assert behind.min() > -1e-4
        visible = behind.abs() < 1e-4
        assert visible.float().mean() > 0.1
        difference = (again.colors[0].flatten(1) - colors).abs().amax(1)[visible]
        # Rounding may tip a point over a hard edge of its texture or of its solid.
        assert (difference < 1e-3).float().mean() > 0.97


def test_masks_and_depths_without_smoothing_tell_the_same() -> None:
    cameras = _cameras(3, 32)
    for scene in _objects(6):
        pictures = draw(_composition(scene, background=0.25), cameras, LATTICE, antialias=False)
        assert torch.equal(pictures.masks, (pictures.depths > 0).float())
        empty = pictures.masks.expand_as(pictures.colors) == 0
        assert (pictures.colors[empty] == 0.25).all()


def test_smoothing_is_the_mean_of_a_finer_picture() -> None:
    """Coverage comes near that of a picture of 8 times the size, and nearer than without smoothing."""
    errors = {True: 0.0, False: 0.0}
    coarse, fine = _cameras(2, 24), _cameras(2, 192)
    for scene in _objects(6):
        composition = _composition(scene)
        truth = torch.nn.functional.avg_pool2d(draw(composition, fine, LATTICE, antialias=False).masks[0], 8)
        for antialias in errors:
            masks = draw(composition, coarse, LATTICE, antialias=antialias).masks[0]
            errors[antialias] += float((masks - truth).square().mean()) / 6
    assert errors[True] < 0.25 * errors[False]


def test_shadows_fall_below_what_blocks_the_light() -> None:
    scene = SceneBuilder(Random(0))
    scene.box((0.9, 0.9, 0.05), (0.0, 0.0, -0.5), WHITE)
    scene.ball((0.25, 0.25, 0.25), (0.0, 0.0, 0.2), WHITE)
    directions = torch.tensor([[[0.0, 0.0, 1.0]]]).repeat(1, 3, 1)
    colors = torch.tensor([[[0.6] * 3, [0.0] * 3, [0.0] * 3]])
    lights = Lights(directions, colors, torch.full((1, 3), 0.3), torch.ones(1), torch.ones(1))
    cameras = _cameras(1, 64)
    pictures = draw(_composition(scene, lights), cameras, LATTICE, antialias=False)
    points = _unprojected(cameras, pictures)[0]
    plate = (points[:, 2] + 0.45).abs() < 1e-4
    plate &= pictures.masks.flatten() > 0
    radius = points[:, :2].norm(dim=-1)
    brightness = pictures.colors[0, 0, 0].flatten()
    below, beside = brightness[plate & (radius < 0.2)], brightness[plate & (radius > 0.3)]
    assert len(below) > 10
    assert len(beside) > 100
    torch.testing.assert_close(below, torch.full_like(below, 0.3))
    torch.testing.assert_close(beside, torch.full_like(beside, 0.9))


def test_placing_a_part_moves_its_texture_along() -> None:
    """A turned, scaled and moved object, seen by cameras moved alike, gives the same picture."""
    part = _objects(3)[2]
    moved = SceneBuilder(Random(0))
    moved.place(part, (0.5, 0.5, 0.5), turn(0.7), (0.1, 0.2, 0.3), (1.0, 2.0, 3.0))
    cameras = _cameras(2, 32)
    rotation = torch.tensor(turn(0.7))
    poses = cameras.cam_to_world.clone()
    poses[..., :3, :3] = rotation @ poses[..., :3, :3]
    centres = 0.5 * (cameras.centres - torch.tensor([0.1, 0.2, 0.3])) @ rotation.T + torch.tensor([1.0, 2.0, 3.0])
    poses[..., :3, 3] = centres
    lights = collate_lights([random_lights(Random(1))])
    # Only light that comes from everywhere alike is unmoved by the turn.
    lights = Lights(lights.directions, 0 * lights.colors, lights.ambient, torch.ones(1), torch.zeros(1))
    first = draw(_composition(part, lights), cameras, LATTICE, antialias=False)
    second = draw(
        _composition(moved, lights), dataclasses.replace(cameras, cam_to_world=poses), LATTICE, antialias=False
    )
    torch.testing.assert_close(second.depths, 0.5 * first.depths, atol=2e-5, rtol=0)
    assert ((second.colors - first.colors).abs().amax(2) < 1e-3).float().mean() > 0.99


def test_identity_is_a_rotation_to_z() -> None:
    torch.testing.assert_close(
        torch.tensor(rotation_to((0.0, 0.0, 2.0))) @ torch.tensor([0.0, 0, 1]), torch.tensor(IDENTITY)[2]
    )
