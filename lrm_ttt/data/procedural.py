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
from lrm_ttt.data.procedural_cameras import (
    OBJECT_CAMERAS,
    ROOM_CAMERAS,
    CameraRanges,
    random_cameras,
    random_similarity,
)
from lrm_ttt.data.procedural_objects import make_object
from lrm_ttt.data.procedural_rendering import Composition, Pictures, draw
from lrm_ttt.data.procedural_rooms import DESK_RADIUS, make_room
from lrm_ttt.data.procedural_shading import collate_lights, random_lights
from lrm_ttt.data.procedural_styles import Looks
from lrm_ttt.data.procedural_textures import LATTICE_SIDE
from lrm_ttt.errors import InvalidConfig
from lrm_ttt.scene.cameras import Cameras, ImageSize
from lrm_ttt.scene.similarity import normalising_similarity
from lrm_ttt.scene.views import SceneBatch, Views

Kind = Literal["object", "room"]


@dataclasses.dataclass(frozen=True)
class ProceduralConfig:
    """What `sample_batch` draws from.

    `image_size` is height, width in pixels. `num_inputs` is an inclusive range from which each batch draws one
    number. `room_fraction` is the share of batches that show rooms (something everywhere, no masks) rather than
    objects on a plain background. `texture_smoothness` 0..1 is the share of plain, cloudy and graded textures among
    all. `max_primitives` limits the parts of an object.
    """

    image_size: tuple[int, int] = (64, 64)
    num_inputs: tuple[int, int] = (4, 12)
    num_targets: int = 4
    room_fraction: float = 0.3
    texture_smoothness: float = 0.6
    max_primitives: int = 32
    object_cameras: CameraRanges = OBJECT_CAMERAS
    room_cameras: CameraRanges = ROOM_CAMERAS

    def __post_init__(self) -> None:
        """Refuse values that no batch can be drawn from."""
        if min(self.image_size) < 1:
            raise InvalidConfig(f"image_size {self.image_size} has no pixels; give height and width of at least 1")
        if not 1 <= self.num_inputs[0] <= self.num_inputs[1]:
            raise InvalidConfig(
                f"num_inputs {self.num_inputs} is no range; give the least (at least 1) and the greatest number"
            )
        if self.num_targets < 0:
            raise InvalidConfig(f"num_targets is {self.num_targets}; give 0 or more")
        if self.max_primitives < 1:
            raise InvalidConfig(f"max_primitives is {self.max_primitives}; give 1 or more")
        for name in ("room_fraction", "texture_smoothness"):
            if not 0 <= getattr(self, name) <= 1:
                raise InvalidConfig(f"{name} is {getattr(self, name)}; give a share between 0 and 1")


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
    pictures = draw(composition.to(device), cameras.to(device), lattice.to(device))
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
    """Return the views `[v]` of one scene in its own frame (z up, own units), as if read from a capture: not
    normalised."""
    config = ProceduralConfig(image_size=image_size, num_inputs=(num_views, num_views), num_targets=0)
    generator = torch.Generator().manual_seed(seed)
    composition = _compose(config, kind, [seed])
    composition = dataclasses.replace(composition, backgrounds=torch.ones(1, 3))
    ranges = dataclasses.replace(OBJECT_CAMERAS, around=1.0) if kind == "object" else ROOM_CAMERAS
    cameras = random_cameras(
        ranges, composition.centres, composition.radii, num_views, 0, ImageSize(*image_size), generator
    )
    pictures = draw(composition, cameras, torch.rand(LATTICE_SIDE**3, generator=generator))
    return _views(pictures, cameras, torch.ones(1), kind)[0]


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
        backgrounds.append(_background(rng))
    primitives, textures = collate(builders)
    radius = 1.0 if kind == "object" else DESK_RADIUS
    centres, radii = torch.zeros(len(seeds), 3), torch.full((len(seeds),), radius)
    return Composition(primitives, textures, collate_lights(lights), torch.tensor(backgrounds), centres, radii)


def _background(rng: Random) -> tuple[float, float, float]:
    """Draw white half the time, else black, a grey or any colour."""
    choice = rng.random()
    if choice < 0.5:
        return (1.0, 1.0, 1.0)
    if choice < 0.65:
        return (0.0, 0.0, 0.0)
    if choice < 0.8:
        return (grey := rng.random(), grey, grey)
    return (rng.random(), rng.random(), rng.random())
