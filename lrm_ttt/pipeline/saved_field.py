"""What models that predict no Gaussians have made of a capture, read from its file and shown from any camera."""

from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from lrm_ttt.errors import IncompatibleCheckpoint, InvalidConfig, UnreadableScene
from lrm_ttt.model import state
from lrm_ttt.model.config import TriplaneConfig
from lrm_ttt.model.novel_view import NovelViewModel
from lrm_ttt.pipeline.capture import check_size
from lrm_ttt.pipeline.checkpoint import load_as, locate, model_config
from lrm_ttt.pipeline.config import RenderConfig
from lrm_ttt.pipeline.path_cameras import path_cameras
from lrm_ttt.pipeline.state_file import load_state, read_record
from lrm_ttt.render.volume import render_volume
from lrm_ttt.scene import triplanes_file
from lrm_ttt.scene.cameras import Cameras, ImageSize
from lrm_ttt.scene.triplanes_file import read_triplanes

# From one camera `[1]` in the capture's frame to its image `[3 h w]`.
Show = Callable[[Cameras], Tensor]
# To what shows the scene that a run is asked for, the cameras `[v]` to show, and a name for each.
Plan = Callable[[RenderConfig, torch.device], tuple[Show, Cameras, list[str]]]
KINDS = "Give a .ply of Gaussians, a triplanes.safetensors or a state.safetensors: what `lrm-ttt reconstruct` writes."


def show_triplanes(path: Path, background: Tensor, samples: TriplaneConfig) -> Show:
    """Return what renders the field in a file, on a background `[3]` and its device."""
    triplanes, world_to_scene = read_triplanes(path)
    field, to_scene = triplanes.to(background.device)[None], world_to_scene.to(background.device)
    counts = samples.num_stratified, samples.num_importance, samples.rays_per_chunk

    def show(camera: Cameras) -> Tensor:
        return render_volume(field, to_scene.cameras(camera)[None], background[None], *counts).colors[0, 0]

    return show


def show_state(path: Path, model: NovelViewModel) -> Show:
    """Return what asks the state in a file for images; their background is the one that the inputs had.

    Raises `IncompatibleCheckpoint` for a state that another model made.
    """
    saved = load_state(path, model)
    return lambda camera: model.query(saved.state, saved.world_to_scene.cameras(camera)[None])[0, 0]


def plan_field(config: RenderConfig, device: torch.device) -> tuple[Show, Cameras, list[str]]:
    """Return what shows the field or state that a run is asked for, the cameras `[v]` to show, and a name for each.

    Raises `InvalidConfig` for flags that mean nothing to it, `IncompatibleCheckpoint` for the wrong model, and
    `UnreadableScene` for a file of another kind.
    """
    plan = PLANS.get(_format(config.scene))
    if plan is None:
        raise UnreadableScene(f"{config.scene}: holds no scene. {KINDS}")
    if config.backend != "auto":
        raise InvalidConfig(f"--backend draws Gaussians, and {config.scene} holds none. Leave it out.")
    return plan(config, device)


def _format(path: Path) -> str:
    """Return what a safetensors file says it holds; "" where it says nothing."""
    try:
        with safe_open(path, "pt") as file:
            return (file.metadata() or {}).get("format", "")
    except (OSError, SafetensorError) as error:
        raise UnreadableScene(f"{path}: cannot be read ({error}). {KINDS}") from error


def _plan_triplanes(config: RenderConfig, device: torch.device) -> tuple[Show, Cameras, list[str]]:
    samples = TriplaneConfig()
    if config.checkpoint is not None:
        model = model_config(locate(config.checkpoint))
        if model.representation != "triplane":
            raise IncompatibleCheckpoint(
                f"--checkpoint {config.checkpoint} predicts '{model.representation}', and {config.scene} holds "
                "triplanes, which need no model to be rendered. Leave it out, or give the one that made them."
            )
        samples = model.triplane
    show = show_triplanes(config.scene, torch.tensor(config.background, device=device), samples)
    triplanes, world_to_scene = read_triplanes(config.scene)
    scene_to_world = world_to_scene.inverse()
    # What the cube holds is seldom in its corners: the ball touches its sides.
    ball = scene_to_world.translation, triplanes.extent * float(scene_to_world.scale)
    return show, *path_cameras(config, ball)


def _plan_state(config: RenderConfig, device: torch.device) -> tuple[Show, Cameras, list[str]]:
    if config.checkpoint is None:
        raise InvalidConfig(f"{config.scene} is the state of a model: pass the --checkpoint that made it.")
    if config.background != RenderConfig.background:
        raise InvalidConfig(
            f"--background: {config.scene} shows the background that its inputs had. Leave the flag out."
        )
    folder, record = locate(config.checkpoint), read_record(config.scene)
    kind = model_config(folder).representation
    if kind != "images":
        raise IncompatibleCheckpoint(
            f"--checkpoint {config.checkpoint} predicts '{kind}': only a model of 'images' renders from a state. "
            "Pass the one that made it, or render the scene.ply of the run."
        )
    if "image_size" not in record:
        raise IncompatibleCheckpoint(
            f"{config.scene}: does not say how large its inputs were, as those of `lrm-ttt reconstruct` do."
        )
    model = load_as(NovelViewModel, folder, device, schedule=record.get("schedule"))
    show = show_state(config.scene, model)
    patch, seen = model.config.tokenizer.patch_size, ImageSize(*record["image_size"])
    if config.image_size is not None:
        check_size(ImageSize(*config.image_size), patch)
    return show, *path_cameras(config, None, patch_size=patch, max_pixels=seen.height * seen.width)


# By the format that the file's metadata name.
PLANS: dict[str, Plan] = {state.FORMAT: _plan_state, triplanes_file.FORMAT: _plan_triplanes}
