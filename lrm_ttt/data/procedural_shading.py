"""Light that falls on surfaces: an ambient term, directional lights, mild highlights."""

import dataclasses
import math
from random import Random

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lrm_ttt.scene.manipulable import Manipulable

NUM_LIGHTS = 3
SHININESS = 24


@dataclasses.dataclass(frozen=True)
class Lights(Manipulable):
    """Directional lights of each scene, in world axes; unused ones are black.

    `directions` are unit vectors towards the light. `ambient` is what a surface facing `up` gets, one facing down
    gets `ground` times that.
    """

    directions: Float[Tensor, "*b lights 3"]
    colors: Float[Tensor, "*b lights 3"]
    ambient: Float[Tensor, "*b 3"]
    ground: Float[Tensor, "*b"]
    shadow: Float[Tensor, "*b"]

    @property
    def shape(self) -> torch.Size:
        """Leading batch dimensions: scenes."""
        return self.ground.shape


def random_lights(rng: Random) -> list[float]:
    """Draw the lights of one scene as a row of numbers for `collate_lights`; a white surface comes out about white
    where it is lit most."""
    share = rng.uniform(0.42, 0.78)
    warmth = rng.gauss(0, 0.04)
    tint = (1 + warmth, 1.0, 1 - warmth)
    count = rng.choice([1, 1, 2, 2, 3])
    row: list[float] = []
    strength = (1.08 - share) * rng.uniform(0.85, 1.1)
    for light in range(NUM_LIGHTS):
        azimuth = rng.uniform(0, 2 * math.pi)
        height = rng.uniform(0.25, 1) if light == 0 else rng.uniform(-0.3, 0.9)
        flat = math.sqrt(1 - height * height)
        row += [flat * math.cos(azimuth), flat * math.sin(azimuth), height]
        level = strength * (1.0 if light == 0 else rng.uniform(0.15, 0.5)) if light < count else 0.0
        row += [level * part for part in (tint if light == 0 else reversed(tint))]
    row += [share * part for part in reversed(tint)]
    row.append(rng.uniform(0.45, 1.0))
    row.append(rng.uniform(0.5, 1.0) if rng.random() < 0.75 else 0.0)
    return row


def collate_lights(rows: list[list[float]]) -> Lights:
    """Return lights [b] from the rows of several scenes."""
    table = torch.tensor(rows)
    each = table[:, : 6 * NUM_LIGHTS].unflatten(1, (NUM_LIGHTS, 6))
    return Lights(each[..., :3].contiguous(), each[..., 3:].contiguous(), table[:, -5:-2], table[:, -2], table[:, -1])


def shade(
    albedo: Float[Tensor, "3 n"],
    gloss: Float[Tensor, " n"],
    normals: Float[Tensor, "3 n"],
    to_camera: Float[Tensor, "3 n"],
    lights: Lights,
    scenes: Int[Tensor, " n"],
    lit: Float[Tensor, " n"],
) -> Float[Tensor, "3 n"]:
    """Return the colours 0..1 that the cameras see; `to_camera` needs no unit length, `lit` is the share of the first
    light that arrives."""
    own = [lights.ambient, lights.ground[:, None], lights.shadow[:, None]]
    table = torch.cat([lights.directions.flatten(1), lights.colors.flatten(1), *own], 1)
    values = table.T.contiguous().gather(1, scenes.expand(table.shape[1], -1))
    directions, colors = values[: 3 * NUM_LIGHTS], values[3 * NUM_LIGHTS : 6 * NUM_LIGHTS]
    ambient, ground, shadow = values[-5:-2], values[-2], values[-1]
    colors[:3] *= 1 - shadow * (1 - lit)
    light = ambient * (ground + (1 - ground) * (0.5 + 0.5 * normals[2]))
    for i in range(NUM_LIGHTS):
        towards = directions[3 * i : 3 * i + 3]
        light.addcmul_(colors[3 * i : 3 * i + 3], (towards * normals).sum(0).clamp_(min=0))
    result = albedo * light
    glossy = (gloss > 0).nonzero().squeeze(1)
    key, view = directions[:3].index_select(1, glossy), to_camera.index_select(1, glossy)
    middle = key + view / view.square().sum(0).sqrt_()
    cosine = (middle * normals.index_select(1, glossy)).sum(0) / middle.square().sum(0).sqrt_().clamp_(min=1e-6)
    highlight = colors[:3].index_select(1, glossy) * (cosine.clamp_(min=0) ** SHININESS * gloss.index_select(0, glossy))
    return result.index_add_(1, glossy, highlight).clamp_(0, 1)
