"""Random cameras: around an object at the origin, or inside a room around its desk."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from lrm_ttt.data.procedural_config import CameraRanges
from lrm_ttt.scene.cameras import Cameras, ImageSize, look_at
from lrm_ttt.scene.similarity import Similarity


def random_cameras(
    ranges: CameraRanges,
    centres: Float[Tensor, "b 3"],
    radii: Float[Tensor, " b"],
    num_inputs: int,
    num_targets: int,
    image_size: ImageSize,
    generator: torch.Generator,
) -> Cameras:
    """Draw cameras [b v] that look at balls of `radii` about `centres`, z up; the first `num_inputs` are spread out."""
    b, v = len(radii), num_inputs + num_targets

    def draw(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(b, *shape, generator=generator)

    tangent = torch.tan(torch.deg2rad(draw(*ranges.field_of_view)) / 2)
    angle = torch.atan(tangent * draw(*ranges.fill))
    distance = (1 / torch.sin(angle)).clamp(*ranges.distance)
    distance = (distance[:, None] * (1 + draw(0.0, 0.12, 1) * draw(-1.0, 1.0, v))).clamp(*ranges.distance)

    around = draw(0.0, 1.0) < ranges.around
    arc = torch.deg2rad(torch.where(around, 360.0, draw(*ranges.arc)))
    slots = (torch.arange(num_inputs) + draw(0.0, 1.0, num_inputs)) / num_inputs
    places = torch.cat([slots, draw(0.0, 1.0, num_targets)], 1) - 0.5
    reach = torch.ones(v)
    reach[num_inputs:] = ranges.reach
    azimuth = draw(0.0, 2 * math.pi)[:, None] + arc[:, None] * places * reach
    spread = draw(2.0, 28.0)[:, None]
    elevation = draw(*ranges.ring_elevation)[:, None] + spread * reach * draw(-1.0, 1.0, v)
    elevation = torch.deg2rad(elevation.clamp(*ranges.elevation))

    flat = torch.cos(elevation)
    towards = torch.stack([flat * torch.cos(azimuth), flat * torch.sin(azimuth), torch.sin(elevation)], -1)
    scale = radii[:, None, None]
    positions = centres[:, None] + scale * distance[..., None] * towards
    aims = centres[:, None] + scale * (0.06 * draw(-1.0, 1.0, 1, 3) + 0.08 * draw(-1.0, 1.0, v, 3))
    # Hands tilt the camera a little; one scene in eight has any tilt at all.
    tilt = torch.where(draw(0.0, 1.0, 1, 1) < 0.125, 1.5, 0.05)
    up = torch.tensor([0.0, 0.0, 1.0]) + tilt * draw(-1.0, 1.0, v, 3)
    poses = look_at(positions, aims, torch.nn.functional.normalize(up, dim=-1))

    height, width = image_size
    focal = min(height, width) / 2 / tangent
    middle = torch.tensor([width, height]) * (0.5 + 0.02 * draw(-1.0, 1.0, 2))
    intrinsics = torch.cat([focal[:, None], focal[:, None], middle], 1)
    return Cameras(poses, intrinsics[:, None].expand(b, v, 4).contiguous(), image_size)


def random_similarity(batch_size: int, generator: torch.Generator) -> Similarity:
    """Draw native -> world maps, so that a capture has its own axes, origin and unit."""
    quaternions = torch.nn.functional.normalize(torch.randn(batch_size, 4, generator=generator), dim=-1)
    w, vector = quaternions[:, 0], quaternions[:, 1:]
    cross = torch.zeros(batch_size, 3, 3)
    cross[:, [2, 0, 1], [1, 2, 0]] = vector
    cross[:, [1, 2, 0], [2, 0, 1]] = -vector
    rotation = torch.eye(3) + 2 * w[:, None, None] * cross + 2 * cross @ cross
    translation = torch.randn(batch_size, 3, generator=generator)
    scale = torch.exp(torch.rand(batch_size, generator=generator) * 2 - 1)
    return Similarity(rotation, translation, scale)
