"""Where a saved scene is looked at from: the cameras of a capture, or an orbit around the scene."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from lrm_ttt.data.images import MAX_PIXELS, choose_image_size, load_cameras
from lrm_ttt.data.open_scene import open_cameras
from lrm_ttt.errors import InvalidConfig
from lrm_ttt.pipeline.config import RenderConfig
from lrm_ttt.scene.cameras import Cameras, ImageSize, look_at

ORBIT_SIZE = ImageSize(512, 512)
ORBIT_FRAMES = 72
# Vertical angle of view and elevation of an orbit.
FIELD_OF_VIEW, ELEVATION = math.radians(50), math.radians(20)
# Room around what an orbit shows.
MARGIN = 1.2

# The ball, in the capture's frame, that an orbit is to show whole: its middle and its radius.
Ball = tuple[Tensor, float]


def path_cameras(
    config: RenderConfig, ball: Ball | None, *, patch_size: int = 1, max_pixels: int = MAX_PIXELS
) -> tuple[Cameras, list[str]]:
    """Return the cameras `[v]` to render from, in the capture's frame, and a name for each.

    The size of a capture's cameras is their commonest one, within `max_pixels` and made of patches; its images need not
    be there. Without a capture the cameras go around the `ball`. Raises `InvalidConfig` where there is neither,
    `UnreadableScene` for a capture that cannot be read.
    """
    if config.cameras is not None:
        return _given(config.cameras, config, patch_size, max_pixels)
    if ball is None:
        raise InvalidConfig(
            f"{config.scene} does not say where its scene lies, so that an orbit could go around it. Pass --cameras "
            "with the capture that it was made from, or another one in the same frame."
        )
    size = ImageSize(*(config.image_size or ORBIT_SIZE))
    cameras = orbit_around(*ball, config.num_frames or ORBIT_FRAMES, size, config.up)
    return cameras, [f"{index:04d}" for index in range(cameras.shape[0])]


def _given(capture: str, config: RenderConfig, patch_size: int, max_pixels: int) -> tuple[Cameras, list[str]]:
    source = open_cameras(capture)
    shown = list(range(source.num_views))
    if config.num_frames is not None and config.num_frames < source.num_views:
        step = (source.num_views - 1) / max(config.num_frames - 1, 1)
        shown = [round(index * step) for index in range(config.num_frames)]
    size = choose_image_size(source, patch_size=patch_size, max_pixels=max_pixels)
    size = size if config.image_size is None else ImageSize(*config.image_size)
    return load_cameras(source, shown, size), [f"{index:04d}_{source.image_paths[index].stem}" for index in shown]


def orbit_around(focus: Float[Tensor, "3"], radius: float, num_frames: int, size: ImageSize, up: str) -> Cameras:
    """Return cameras on a circle from which the ball around `focus` fills the image; `up` is an axis such as -y."""
    axis = torch.zeros(3)
    axis["xyz".index(up[-1])] = -1.0 if up.startswith("-") else 1.0
    east, north = torch.roll(axis.abs(), 1), torch.roll(axis.abs(), 2)
    angles = 2 * math.pi * torch.arange(num_frames) / num_frames
    flat = angles.cos()[:, None] * east + angles.sin()[:, None] * north
    focal = size.height / 2 / math.tan(FIELD_OF_VIEW / 2)
    narrow = math.atan(min(size) / 2 / focal)
    distance = MARGIN * radius / math.sin(narrow)
    centres = focus + distance * (math.cos(ELEVATION) * flat + math.sin(ELEVATION) * axis)
    intrinsics = torch.tensor([focal, focal, size.width / 2, size.height / 2]).expand(num_frames, 4)
    return Cameras(look_at(centres, focus.expand_as(centres), axis), intrinsics, size)
