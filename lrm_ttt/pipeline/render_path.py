"""A .ply of Gaussians to images and video, from given cameras or on an orbit around them."""

import math
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from lrm_ttt.data.images import choose_image_size, crop_box
from lrm_ttt.data.open_scene import open_scene
from lrm_ttt.errors import InvalidConfig, OutputExists
from lrm_ttt.pipeline.checkpoint import choose_backend, choose_device
from lrm_ttt.pipeline.config import RenderConfig
from lrm_ttt.pipeline.outputs import refusals_explained
from lrm_ttt.pipeline.reconstruct import draw
from lrm_ttt.render.video import write_png, write_video
from lrm_ttt.scene.cameras import Cameras, ImageSize, look_at
from lrm_ttt.scene.gaussians import Gaussians
from lrm_ttt.scene.manipulable import stack
from lrm_ttt.scene.ply import read_ply

ORBIT_SIZE = ImageSize(512, 512)
ORBIT_FRAMES = 72
# Vertical angle of view and elevation of an orbit.
FIELD_OF_VIEW, ELEVATION = math.radians(50), math.radians(20)
# Share of the Gaussians, the most central, that an orbit shows whole: a few that lie far off must not decide.
CORE = 0.95
# Room around them.
MARGIN = 1.2
# Nothing nearer than this share of the distance to the middle of the Gaussians is drawn.
NEAR_SHARE = 0.02


def render_path(config: RenderConfig, advance: Callable[[int, int], None] = lambda done, total: None) -> list[Path]:
    """Render a .ply and return the files that were written: one video, or a PNG for each camera.

    Raises `LrmTttError` kinds for a .ply, cameras or an output that cannot be. Every file appears when it is complete,
    in place of an earlier one of the same name.
    """
    device = choose_device(config.device)
    backend = choose_backend(config.backend, device)
    gaussians = read_ply(config.scene).to(device)
    cameras, names = path_cameras(config, gaussians)
    cameras = cameras_of_size(cameras, config.image_size)
    background = torch.tensor(config.background, device=device)
    near = NEAR_SHARE * float((middle(gaussians) - cameras.centres.to(device)).norm(dim=-1).median())

    def frames() -> Iterator[Tensor]:
        for index in range(cameras.shape[0]):
            camera = cameras[index : index + 1].to(device)
            yield draw(gaussians, camera, background, near=near, backend=backend)[0]
            advance(index + 1, cameras.shape[0])

    out = config.out or config.scene.with_name(f"{config.scene.stem}_render.mp4")
    if out.suffix.lower() == ".mp4":
        return [write_whole_video(out, frames())]
    if out.suffix:
        raise InvalidConfig(f"-o {out}: give a video (.mp4), or a folder for PNG images.")
    return write_images(out, frames(), names)


def path_cameras(config: RenderConfig, gaussians: Gaussians) -> tuple[Cameras, list[str]]:
    """Return the cameras `[v]` to render from, and a name for each."""
    if config.cameras is None:
        size = ImageSize(*(config.image_size or ORBIT_SIZE))
        cameras = orbit_around(gaussians.to("cpu"), config.num_frames or ORBIT_FRAMES, size, config.up)
        return cameras, [f"{index:04d}" for index in range(cameras.shape[0])]
    source = open_scene(config.cameras, allow_missing=True)
    size = choose_image_size(source, patch_size=1)
    every = []
    for index in range(source.num_views):
        camera = Cameras(source.cam_to_world[index], source.intrinsics[index], source.image_sizes[index])
        top, left, box = crop_box(source.image_sizes[index], size)
        every.append(camera.cropped(top, left, box).resized(size))
    names = [f"{index:04d}_{path.stem}" for index, path in enumerate(source.image_paths)]
    shown = list(range(source.num_views))
    if config.num_frames is not None and config.num_frames < source.num_views:
        step = (source.num_views - 1) / max(config.num_frames - 1, 1)
        shown = [round(index * step) for index in range(config.num_frames)]
    return stack([every[index] for index in shown]).to(torch.float32), [names[index] for index in shown]


def cameras_of_size(cameras: Cameras, image_size: tuple[int, int] | None) -> Cameras:
    """Return the cameras with images of another size; where the shape differs it is cut from the middle."""
    if image_size is None or ImageSize(*image_size) == cameras.image_size:
        return cameras
    top, left, box = crop_box(cameras.image_size, ImageSize(*image_size))
    return cameras.cropped(top, left, box).resized(ImageSize(*image_size))


def orbit_around(gaussians: Gaussians, num_frames: int, size: ImageSize, up: str) -> Cameras:
    """Return cameras on a circle from which CORE of the Gaussians fill the image; `up` is an axis such as -y."""
    focus = middle(gaussians)
    axis = torch.zeros(3)
    axis["xyz".index(up[-1])] = -1.0 if up.startswith("-") else 1.0
    east, north = torch.roll(axis.abs(), 1), torch.roll(axis.abs(), 2)
    angles = 2 * math.pi * torch.arange(num_frames) / num_frames
    flat = angles.cos()[:, None] * east + angles.sin()[:, None] * north
    focal = size.height / 2 / math.tan(FIELD_OF_VIEW / 2)
    narrow = math.atan(min(size) / 2 / focal)
    distance = MARGIN * core_radius(gaussians) / math.sin(narrow)
    centres = focus + distance * (math.cos(ELEVATION) * flat + math.sin(ELEVATION) * axis)
    intrinsics = torch.tensor([focal, focal, size.width / 2, size.height / 2]).expand(num_frames, 4)
    return Cameras(look_at(centres, focus.expand_as(centres), axis), intrinsics, size)


def middle(gaussians: Gaussians) -> Float[Tensor, "3"]:
    """Return the median of the means of those Gaussians that can be seen well."""
    return solid(gaussians).median(0).values


def core_radius(gaussians: Gaussians) -> float:
    """Return the distance from the middle within which CORE of the visible Gaussians lie."""
    distances = (solid(gaussians) - middle(gaussians)).norm(dim=-1)
    rank = max(1, round(CORE * distances.numel()))
    return max(float(distances.kthvalue(rank).values), 1e-6)


def solid(gaussians: Gaussians) -> Float[Tensor, "m 3"]:
    """Return the means of the Gaussians that are at least half as opaque as the median one."""
    opaque = gaussians.opacities >= 0.5 * gaussians.opacities.median()
    return gaussians.means[opaque]


def write_whole_video(path: Path, frames: Iterator[Tensor]) -> Path:
    """Write a video that appears when it is complete."""
    if path.is_dir():
        raise OutputExists(f"{path}: is a folder. Name a file.")
    partial = path.with_name(f".{path.stem}.partial.mp4")
    with refusals_explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            write_video(partial, frames)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
    return path


def write_images(folder: Path, frames: Iterator[Tensor], names: list[str]) -> list[Path]:
    """Write a PNG for each name; every file appears when it is complete."""
    if folder.exists() and not folder.is_dir():
        raise OutputExists(f"{folder}: is a file, where a folder of images belongs. Name another one with -o.")
    paths = []
    with refusals_explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for name, frame in zip(names, frames, strict=True):
            path = folder / f"{name}.png"
            write_png(path.with_suffix(".partial"), frame)
            path.with_suffix(".partial").replace(path)
            paths.append(path)
    return paths
