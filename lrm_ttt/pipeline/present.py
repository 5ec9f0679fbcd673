"""A reconstruction to look at: images beside the truth, a sheet of them, and a flight around the scene."""

from collections.abc import Callable, Iterator
from pathlib import Path

from torch import Tensor

from lrm_ttt.pipeline.check import Check
from lrm_ttt.pipeline.job import Job
from lrm_ttt.pipeline.stages import Stages
from lrm_ttt.render.sheet import Comparison, draw_sheet
from lrm_ttt.render.video import write_png, write_video
from lrm_ttt.scene.cameras import Cameras
from lrm_ttt.scene.trajectories import orbit
from lrm_ttt.scene.views import Views

VIDEO_FRAMES = 72


def write_pictures(folder: Path, job: Job, inputs: Views, held_out: Views | None, check: Check) -> None:
    """Write every held-out view (without any, every input view) as a PNG beside its truth, and the sheet of them."""
    choice = job.plan.choice
    indices, views, drawn, scores = choice.inputs, inputs, check.inputs, check.input_scores
    if held_out is not None and check.held_out is not None and check.held_out_scores is not None:
        indices, views, drawn, scores = choice.targets, held_out, check.held_out, check.held_out_scores
    renders = folder / "renders"
    renders.mkdir()
    compared = []
    for position, index in enumerate(indices):
        truth, rendering = views.images[position].cpu(), drawn[position]
        write_png(renders / f"{index:04d}_truth.png", truth)
        write_png(renders / f"{index:04d}_render.png", rendering)
        compared.append(Comparison(f"view {index}: {scores.psnr[position]:.1f} dB", truth, rendering))
    counts = f"{len(choice.inputs)} inputs, {len(choice.targets)} held out"
    kind = "input" if held_out is None else "held-out"
    title = f"{job.plan.source.name}: {counts}; {scores.mean_psnr:.2f} dB on {kind} views"
    labels = [str(index) for index in choice.inputs]
    draw_sheet(title, inputs.images.cpu(), labels, compared).save(renders / "sheet.png")


def write_orbit(path: Path, inputs: Cameras, show: Callable[[Cameras], Tensor], stages: Stages) -> None:
    """Write a video of what `show` draws of cameras `[1]`, around what the input cameras `[v]` look at."""
    cameras = orbit(inputs, VIDEO_FRAMES)

    def frames() -> Iterator[Tensor]:
        for index in range(VIDEO_FRAMES):
            stages.advance(index, VIDEO_FRAMES)
            yield show(cameras[index : index + 1])[0]

    write_video(path, frames())
