"""Measure one trained model on held-out procedural scenes: quality, seconds and memory against the number of views.

`python -m lrm_ttt.eval.study CHECKPOINT -o FILE.json --views 4 8 16 32` is how the tables of docs/evidence.md are made.
"""

import dataclasses
import json
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro
from torch import Tensor

from lrm_ttt.data.procedural import ProceduralConfig, sample_batch
from lrm_ttt.errors import LrmTttError
from lrm_ttt.eval.metrics import psnr
from lrm_ttt.model.novel_view import NovelViewModel
from lrm_ttt.model.reconstructor import Reconstructor
from lrm_ttt.model.scene_model import SceneModel
from lrm_ttt.pipeline.checkpoint import load_as, locate
from lrm_ttt.pipeline.memory import keep_freed_memory
from lrm_ttt.pipeline.reconstruct import NEAR, draw, normalise
from lrm_ttt.pipeline.stream import push, start_stream
from lrm_ttt.pipeline.stream_config import Strategy
from lrm_ttt.scene.gaussians import Gaussians
from lrm_ttt.scene.manipulable import cat
from lrm_ttt.scene.similarity import normalising_similarity
from lrm_ttt.scene.views import Views

# Training draws its seeds from below 2 ** 31, validation from a little above; these scenes are nobody's.
FIRST_SEED = 3 * 2**30
NUM_TARGETS = 4
# Gaussians fainter than this leave no trace (tttLRM counts those above it).
VISIBLE = 0.001


@dataclasses.dataclass(frozen=True)
class Study:
    """What to measure."""

    checkpoint: tyro.conf.Positional[str]
    """A folder with model.safetensors and config.json, or `embedded`."""
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """A JSON file for the numbers."""
    views: tuple[int, ...] = (4, 8, 16, 32)
    """Numbers of input views."""
    scenes: int = 16
    """How many held-out scenes."""
    image_size: tuple[int, int] = (32, 32)
    """Height and width in pixels."""
    stream: int = 0
    """Stream the greatest number of views by this many a step, with both strategies (0: do not)."""
    timings: int = 3
    """How often each forward pass is timed; the median counts."""


@dataclasses.dataclass(frozen=True)
class HeldOut:
    """One scene: more inputs than any measurement takes, targets, and the colour behind both."""

    inputs: Views
    targets: Views
    background: Tensor


def held_out_scene(index: int, num_inputs: int, image_size: tuple[int, int]) -> HeldOut:
    """Draw an object that no training meets, in a frame that all inputs decide."""
    config = ProceduralConfig(image_size, (num_inputs, num_inputs), NUM_TARGETS, room_fraction=0.0)
    batch = sample_batch(config, 1, torch.Generator().manual_seed(FIRST_SEED + index), torch.device("cpu"))
    assert batch.targets is not None
    return HeldOut(batch.inputs[0], batch.targets[0], batch.backgrounds[0])


def in_frame_of(model: SceneModel, scene: HeldOut, num_inputs: int) -> HeldOut:
    """Keep the first inputs, and map everything to the frame that these alone decide."""
    inputs = scene.inputs[:num_inputs]
    to_scene = normalising_similarity(inputs.cameras, model.config.normalisation)
    return HeldOut(normalise(inputs, to_scene), normalise(scene.targets, to_scene), scene.background)


@torch.inference_mode()
def measure(model: SceneModel, scenes: list[HeldOut], num_inputs: int, timings: int) -> dict[str, Any]:
    """Return the mean PSNR of targets, the seconds of one forward pass, and the memory that it needs."""
    found: list[float] = []
    opacities: list[Tensor] = []
    for scene in (in_frame_of(model, scene, num_inputs) for scene in scenes):
        colors, gaussians = show(model, scene)
        found.append(float(psnr(colors, scene.targets.images).mean()))
        if gaussians is not None:
            opacities.append(gaussians.opacities)
    first = in_frame_of(model, scenes[0], num_inputs)
    state = model.update(model.start(1), first.inputs[None])
    row = {
        "views": num_inputs,
        "psnr": statistics.mean(found),
        "seconds": seconds_of(lambda: read_inputs(model, first), timings),
        "state_mb": sum(tensor.numel() * tensor.element_size() for tensor in state.tensors().values()) / 1e6,
    }
    if opacities:
        every = torch.stack(opacities)
        row |= {"visible_share": float((every > VISIBLE).float().mean()), "mean_opacity": float(every.mean())}
    return row


def show(model: SceneModel, scene: HeldOut) -> tuple[Tensor, Gaussians | None]:
    """Return the targets `[t 3 h w]` as the model shows them, and the Gaussians where there are any."""
    if isinstance(model, NovelViewModel):
        return model(scene.inputs[None], scene.targets.cameras[None])[0], None
    assert isinstance(model, Reconstructor), "triplanes are measured by their own validation"
    gaussians = model(scene.inputs[None])[0]
    return draw(gaussians, scene.targets.cameras, scene.background, near=NEAR), gaussians


def read_inputs(model: SceneModel, scene: HeldOut) -> None:
    """Do what every model does with its inputs, without the head: tokens, update, and what the tokens read."""
    model.backbone.update(model.tokenize(scene.inputs[None]).tokens, model.start(1), model.precision)


def seconds_of(work: Callable[[], None], times: int) -> float:
    """Return the median of some runs, after one to warm up."""
    work()
    seconds = []
    for _ in range(times):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def measure_stream(
    model: Reconstructor, scenes: list[HeldOut], strategy: Strategy, num_views: int, step: int
) -> list[dict[str, Any]]:
    """Return, after each step of a stream, the mean PSNR of targets and of the views of the first step."""
    rows: dict[int, list[tuple[float, float]]] = {}
    for scene in scenes:
        inputs = scene.inputs[:num_views]
        stream = start_stream(model, inputs.cameras, strategy=strategy, num_virtual=num_views)
        targets = normalise(cat([bare(scene.targets), bare(inputs[:step])]), stream.world_to_scene)
        for start in range(0, num_views, step):
            stream, made = push(stream, inputs[start : start + step], partial(recall, inputs))
            with torch.inference_mode():
                colors = draw(made.gaussians, targets.cameras, scene.background, near=NEAR)
                scores = psnr(colors, targets.images)
            pair = float(scores[:NUM_TARGETS].mean()), float(scores[NUM_TARGETS:].mean())
            rows.setdefault(stream.num_views, []).append(pair)
    return [
        {"strategy": strategy, "views": seen, "psnr": mean_of(pairs, 0), "psnr_first_views": mean_of(pairs, 1)}
        for seen, pairs in rows.items()
    ]


def recall(inputs: Views, chosen: tuple[int, ...]) -> Views:
    """Return views that were seen."""
    return inputs[list(chosen)]


def bare(views: Views) -> Views:
    """Leave out masks and depths, which some views have and others may not."""
    return dataclasses.replace(views, masks=None, depths=None)


def mean_of(pairs: list[tuple[float, float]], index: int) -> float:
    """Return the mean of one of the two numbers."""
    return statistics.mean(pair[index] for pair in pairs)


def run(study: Study) -> dict[str, Any]:
    """Measure everything that is asked for."""
    folder = locate(None if study.checkpoint == "embedded" else study.checkpoint)
    model = load_as(SceneModel, folder, torch.device("cpu"))
    scenes = [held_out_scene(index, max(study.views), study.image_size) for index in range(study.scenes)]
    found: dict[str, Any] = {"checkpoint": study.checkpoint, "scenes": study.scenes}
    found["views"] = [measure(model, scenes, count, study.timings) for count in study.views]
    if study.stream:
        assert isinstance(model, Reconstructor)
        strategies: tuple[Strategy, ...] = ("re-predict", "merge")
        rows = [measure_stream(model, scenes, each, max(study.views), study.stream) for each in strategies]
        found["stream"] = [row for each in rows for row in each]
    return found


def main() -> None:
    """Measure, and write the numbers."""
    keep_freed_memory()
    study = tyro.cli(Study, description=__doc__)
    try:
        found = run(study)
    except LrmTttError as error:
        raise SystemExit(f"study: {error}") from error
    study.output.parent.mkdir(parents=True, exist_ok=True)
    study.output.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    for row in (*found["views"], *found.get("stream", [])):
        print(
            ", ".join(
                f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}" for key, value in row.items()
            )
        )


if __name__ == "__main__":
    main()
