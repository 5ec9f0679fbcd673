"""What models that predict no Gaussians make of a capture: a triplane, or the state of the scene, which is asked for
images. Either is written, read again, and judged by what the file shows.
"""

from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from lrm_ttt.model.novel_view import NovelViewModel
from lrm_ttt.model.scene_model import SceneModel
from lrm_ttt.model.slices import Slices
from lrm_ttt.model.state import SceneState
from lrm_ttt.model.triplane import TriplaneModel
from lrm_ttt.parallel.launched import leave_launched
from lrm_ttt.parallel.view_group import ALONE, ViewGroup
from lrm_ttt.pipeline.check import Metrics, judge_images
from lrm_ttt.pipeline.checkpoint import load_as
from lrm_ttt.pipeline.job import Job
from lrm_ttt.pipeline.numbers import collect
from lrm_ttt.pipeline.present import write_orbit, write_pictures
from lrm_ttt.pipeline.reconstruct import normalise
from lrm_ttt.pipeline.saved_field import Show, show_state, show_triplanes
from lrm_ttt.pipeline.stages import Stages
from lrm_ttt.pipeline.state_file import SavedState, fingerprint, save_state
from lrm_ttt.scene.cameras import Cameras
from lrm_ttt.scene.manipulable import cat
from lrm_ttt.scene.similarity import Similarity, normalising_similarity
from lrm_ttt.scene.triplanes import Triplanes
from lrm_ttt.scene.triplanes_file import write_triplanes
from lrm_ttt.scene.views import Views

FILES = {"triplane": "triplanes.safetensors", "images": "state.safetensors"}


class Field(NamedTuple):
    """What a model made of the inputs of a capture, `world_to_scene` being the way to its frame."""

    model: SceneModel
    state: SceneState
    triplanes: Triplanes | None
    world_to_scene: Similarity


def compute_field(job: Job, inputs: Views, stages: Stages, group: ViewGroup) -> Field:
    """Run the model."""
    with stages("checkpoint"):
        model = load_as(
            SceneModel,
            job.checkpoint,
            job.device,
            precision=job.precision,
            schedule=job.config.schedule,
            compiled=job.config.compile,
        )
        stages.describe(f"{model.num_parameters / 1e6:.1f} M parameters, {job.precision}")
    model.slices = Slices(job.slices.views)
    model.share(group)
    # Transposed in memory it would round otherwise than after saving and loading.
    world_to_scene = normalising_similarity(inputs.cameras, model.config.normalisation).map(Tensor.contiguous)
    with stages("model"), torch.inference_mode():
        state = model.update(model.start(1), normalise(inputs, world_to_scene).to(job.device)[None])
        triplanes = model.query(state)[0] if isinstance(model, TriplaneModel) else None
    # What comes next one process does alone.
    model.share(ALONE)
    leave_launched()
    return Field(model, state, triplanes, world_to_scene)


def make_field(
    job: Job, inputs: Views, folder: Path, metrics: Metrics, stages: Stages, group: ViewGroup
) -> dict[str, Any]:
    """Run the model, write what it predicts, read that again and show it; return what metrics.json holds of it."""
    model, state, triplanes, world_to_scene = compute_field(job, inputs, stages, group)
    path = folder / FILES[job.model.representation]
    with stages("write"):
        if triplanes is not None:
            write_triplanes(path, triplanes, world_to_scene)
        else:
            record = {"schedule": model.config.backbone.schedule, "image_size": list(inputs.image_size)}
            save_state(path, SavedState(state, world_to_scene, fingerprint(model), record))
        stages.describe(f"{path.name}, {path.stat().st_size / 1e6:.1f} MB")
    if isinstance(model, NovelViewModel):
        show_one = show_state(path, model)
    else:
        show_one = show_triplanes(path, job.background, model.config.triplane)

    def show(cameras: Cameras) -> Float[Tensor, "v 3 h w"]:
        return show_all(show_one, cameras, stages)

    with stages("check"):
        held_out = job.load_held_out()
        views = inputs.cameras if held_out is None else cat([inputs.cameras, held_out.cameras])
        check = judge_images(show(views), inputs, held_out, metrics)
        scores = check.held_out_scores
        held = "" if scores is None else f"{scores.mean_psnr:.2f} dB held out, "
        stages.describe(f"{held}{check.input_scores.mean_psnr:.2f} dB on inputs")
    with stages("pictures"):
        write_pictures(folder, job, inputs, held_out, check)
    with stages("video"):
        write_orbit(folder / "video.mp4", inputs.cameras, show, stages)
    result = {"result": path.name, "world_to_scene": as_numbers(world_to_scene)}
    return collect(job, check, metrics, stages) | result


@torch.inference_mode()
def show_all(show_one: Show, cameras: Cameras, stages: Stages) -> Float[Tensor, "v 3 h w"]:
    """Show cameras `[v]`, one after the other; colours 0..1, on the CPU."""
    images = []
    for index in range(cameras.shape[0]):
        images.append(show_one(cameras[index : index + 1].to(stages.device)).clamp(0, 1).cpu())
        if cameras.shape[0] > 1:
            stages.advance(index + 1, cameras.shape[0])
    return torch.stack(images)


def as_numbers(similarity: Similarity) -> dict[str, Any]:
    """Return a similarity as plain numbers, to the last bit of float32."""
    return {name: tensor.tolist() for name, tensor in vars(similarity).items()}
