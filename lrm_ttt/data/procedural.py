"""Sample training batches and captures from procedural scenes: exact colour, depth, mask and camera, from a seed,
without files.

The precedent is LRM-Zero (arXiv 2406.09371): models trained on procedural shapes generalise to real objects.
"""

import dataclasses
from random import Random
from typing import Literal

import torch
from torch import Tensor

from lrm_ttt.data.procedural_builder import SceneBuilder, collate
from lrm_ttt.data.procedural_cameras import random_cameras, random_similarity
from lrm_ttt.data.procedural_config import OBJECT_CAMERAS, ROOM_CAMERAS, ProceduralConfig
from lrm_ttt.data.procedural_objects import make_object
from lrm_ttt.data.procedural_rendering import Composition, Pictures, draw
from lrm_ttt.data.procedural_rooms import DESK_RADIUS, make_room
from lrm_ttt.data.procedural_shading import collate_lights, random_lights
from lrm_ttt.data.procedural_styles import Looks
from lrm_ttt.data.procedural_textures import LATTICE_SIDE
from lrm_ttt.scene.cameras import Cameras, ImageSize
from lrm_ttt.scene.similarity import normalising_similarity
from lrm_ttt.scene.views import SceneBatch, Views

__all__ = ["ProceduralConfig", "procedural_capture", "sample_batch"]

Kind = Literal["object", "room"]


def sample_batch(
    config: ProceduralConfig, batch_size: int, generator: torch.Generator, device: str | torch.device = "cpu"
) -> SceneBatch:
    """Draw one batch of normalised scenes, all objects or all rooms.

    All randomness comes from `generator` (a CPU one), so a seed gives the same scenes on every device. Cameras are
    normalised by the focus of the inputs: mean distance 2 from the origin. Rooms fill the image and have
    `masks=None`.
    """
    low, high = config.num_inputs
    num_inputs = int(torch.randint(low, high + 1, (), generator=generator))
    kind: Kind = "room" if float(torch.rand((), generator=generator)) < config.room_fraction else "object"
    seeds = torch.randint(2**62, (batch_size,), generator=generator).tolist()
    composition = _compose(config, kind, seeds)
    size = ImageSize(*config.image_size)
    ranges = config.object_cameras if kind == "object" else config.room_cameras
    cameras = random_cameras(
        ranges, composition.centres, composition.radii, num_inputs, config.num_targets, size, generator
    )
    lattice = torch.rand(LATTICE_SIDE**3, generator=generator)
    to_world = random_similarity(batch_size, generator)
    world_cameras = to_world.cameras(cameras)
    world_to_scene = normalising_similarity(world_cameras[:, :num_inputs], by="focus")
    scene_cameras = world_to_scene.cameras(world_cameras).to(device)
    pictures = draw(composition.to(device), cameras.to(device), lattice.to(device), config.antialias)
    scale = (to_world.scale * world_to_scene.scale).to(device)
    views = _views(pictures, scene_cameras, scale, kind)
    return SceneBatch(
        inputs=views[:, :num_inputs],
        targets=views[:, num_inputs:] if config.num_targets else None,
        queries=None,
        world_to_scene=world_to_scene.to(device),
        backgrounds=composition.backgrounds.to(device),
        names=tuple(f"procedural-{kind}-{seed:016x}" for seed in seeds),
    )


def procedural_capture(seed: int, num_views: int, image_size: tuple[int, int], kind: Kind = "object") -> Views:
    """Return the views `[v]` of one scene in a frame of its own: z up, any origin and unit, not normalised.

    Cameras follow each other around the object, or along an arc within the room; objects are on white and have masks.
    """
    generator = torch.Generator().manual_seed(seed)
    config = ProceduralConfig()
    composition = dataclasses.replace(_compose(config, kind, [seed]), backgrounds=torch.ones(1, 3))
    ranges = dataclasses.replace(OBJECT_CAMERAS, around=1.0) if kind == "object" else ROOM_CAMERAS
    balls = (composition.centres, composition.radii)
    cameras = random_cameras(ranges, *balls, num_views, 0, ImageSize(*image_size), generator)
    pictures = draw(composition, cameras, torch.rand(LATTICE_SIDE**3, generator=generator))
    to_world = random_similarity(1, generator)
    to_world = dataclasses.replace(to_world, rotation=torch.eye(3)[None])
    return _views(pictures, to_world.cameras(cameras), to_world.scale, kind)[0]


def _views(pictures: Pictures, cameras: Cameras, scale: Tensor, kind: Kind) -> Views:
    depths = pictures.depths * scale[:, None, None, None, None]
    return Views(pictures.colors, cameras, pictures.masks if kind == "object" else None, depths)


def _compose(config: ProceduralConfig, kind: Kind, seeds: list[int]) -> Composition:
    """Compose one scene per seed."""
    builders, lights, backgrounds = [], [], []
    for seed in seeds:
        rng = Random(seed)
        scene, looks = SceneBuilder(rng), Looks(rng, config.texture_smoothness)
        if kind == "object":
            make_object(scene, looks, config.max_primitives)
        else:
            make_room(scene, looks)
        builders.append(scene)
        lights.append(random_lights(rng))
        backgrounds.append(random_background(rng))
    primitives, textures = collate(builders)
    radius = 1.0 if kind == "object" else DESK_RADIUS
    centres, radii = torch.zeros(len(seeds), 3), torch.full((len(seeds),), radius)
    return Composition(primitives, textures, collate_lights(lights), torch.tensor(backgrounds), centres, radii)


def random_background(rng: Random) -> tuple[float, float, float]:
    """Draw white half the time, else black, a grey or any colour."""
    choice = rng.random()
    if choice < 0.5:
        return (1.0, 1.0, 1.0)
    if choice < 0.65:
        return (0.0, 0.0, 0.0)
    if choice < 0.8:
        return (grey := rng.random(), grey, grey)
    return (rng.random(), rng.random(), rng.random())
