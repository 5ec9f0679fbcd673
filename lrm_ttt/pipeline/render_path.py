"""A saved scene to images and video: from given cameras, or on an orbit around it."""

from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from lrm_ttt.errors import InvalidConfig, OutputExists, UnreadableScene
from lrm_ttt.pipeline.checkpoint import choose_backend, choose_device
from lrm_ttt.pipeline.config import RenderConfig
from lrm_ttt.pipeline.memory import out_of_memory_explained
from lrm_ttt.pipeline.outputs import refusals_explained
from lrm_ttt.pipeline.path_cameras import path_cameras
from lrm_ttt.pipeline.reconstruct import draw
from lrm_ttt.pipeline.saved_field import KINDS, Plan, Show, plan_field
from lrm_ttt.render.video import write_png, write_video
from lrm_ttt.scene.cameras import Cameras
from lrm_ttt.scene.gaussians import Gaussians
from lrm_ttt.scene.ply import read_ply

# Share of the Gaussians, the most central, that an orbit shows whole: a few that lie far off must not decide.
CORE = 0.95
# Nothing nearer than this share of the distance to the middle of the Gaussians is drawn.
NEAR_SHARE = 0.02


def render_path(config: RenderConfig, advance: Callable[[int, int], None] = lambda done, total: None) -> list[Path]:
    """Render a saved scene and return the files that were written: one video, or a PNG for each camera.

    Raises `LrmTttError` kinds for a scene, cameras or an output that cannot be. Every file appears when it is complete,
    in place of an earlier one of the same name.
    """
    plan = PLANS.get(config.scene.suffix.lower())
    if plan is None or config.scene.is_dir():
        raise UnreadableScene(f"{config.scene}: is no file of a scene. {KINDS}")
    if not config.scene.exists():
        raise UnreadableScene(f"{config.scene}: there is no such file. {KINDS}")
    with out_of_memory_explained():
        return _render(plan, config, advance)


def _render(plan: Plan, config: RenderConfig, advance: Callable[[int, int], None]) -> list[Path]:
    device = choose_device(config.device)
    show, cameras, names = plan(config, device)

    def frames() -> Iterator[Tensor]:
        for index in range(cameras.shape[0]):
            with torch.inference_mode():
                image = show(cameras[index : index + 1].to(device)).clamp(0, 1).cpu()
            yield image
            advance(index + 1, cameras.shape[0])

    out = config.out or config.scene.with_name(f"{config.scene.stem}_render.mp4")
    if out.suffix.lower() == ".mp4":
        return [write_whole_video(out, frames())]
    if out.suffix:
        raise InvalidConfig(f"-o {out}: give a video (.mp4), or a folder for PNG images.")
    return write_images(out, frames(), names)


def plan_gaussians(config: RenderConfig, device: torch.device) -> tuple[Show, Cameras, list[str]]:
    """Return what shows the Gaussians of a .ply, the cameras `[v]` to show, and a name for each."""
    if config.checkpoint is not None:
        raise InvalidConfig(f"--checkpoint: {config.scene} needs no model to be rendered. Leave it out.")
    backend = choose_backend(config.backend, device)
    gaussians = read_ply(config.scene).to(device)
    cameras, names = path_cameras(config, (middle(gaussians).cpu(), core_radius(gaussians)))
    background = torch.tensor(config.background, device=device)
    near = NEAR_SHARE * float((middle(gaussians) - cameras.centres.to(device)).norm(dim=-1).median())
    return lambda camera: draw(gaussians, camera, background, near=near, backend=backend)[0], cameras, names


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


# By the suffix of the scene.
PLANS: dict[str, Plan] = {".ply": plan_gaussians, ".safetensors": plan_field}
