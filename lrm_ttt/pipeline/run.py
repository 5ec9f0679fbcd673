"""The main job from end to end: a capture's name in, a folder of results out, or one error and nothing."""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import torch
import yaml

from lrm_ttt.config_io import to_mapping
from lrm_ttt.model.config import ModelConfig
from lrm_ttt.pipeline.capture import CapturePlan, plan_capture
from lrm_ttt.pipeline.check import Check, Metrics, check_ply
from lrm_ttt.pipeline.checkpoint import EMBEDDED, choose_backend, choose_device, load, locate, model_config
from lrm_ttt.pipeline.config import ReconstructConfig
from lrm_ttt.pipeline.outputs import output_folder
from lrm_ttt.pipeline.provenance import provenance
from lrm_ttt.pipeline.reconstruct import NEAR, Reconstruction, draw, normalise, prune, reconstruct
from lrm_ttt.pipeline.refine import RefineConfig, refine
from lrm_ttt.pipeline.report import write_report
from lrm_ttt.pipeline.stages import Listener, Stages, peak_memory_mb
from lrm_ttt.render.sheet import Comparison, draw_sheet
from lrm_ttt.render.video import write_png, write_video
from lrm_ttt.scene.ply import write_ply
from lrm_ttt.scene.trajectories import orbit
from lrm_ttt.scene.views import Views

VIDEO_FRAMES = 72
# The stages that make the .ply; the others judge and show it.
TO_PLY = ("read", "checkpoint", "model", "refine", "write")


@dataclasses.dataclass(frozen=True)
class Job:
    """What a run knows before it computes anything."""

    config: ReconstructConfig
    model: ModelConfig
    checkpoint: Path
    plan: CapturePlan
    device: torch.device
    backend: str

    @property
    def background(self) -> torch.Tensor:
        """The colour behind everything, on the device."""
        return torch.tensor(self.config.background, device=self.device)


def prepare(config: ReconstructConfig) -> Job:
    """Find device, checkpoint and capture, and choose the views; everything that a user can get wrong fails here."""
    device = choose_device(config.device)
    backend = choose_backend(config.backend, device)
    checkpoint = locate(config.checkpoint)
    model = model_config(checkpoint, config.schedule)
    return Job(config, model, checkpoint, plan_capture(config, model.tokenizer.patch_size), device, backend)


def run(
    config: ReconstructConfig, metrics: Metrics, listener: Listener | None = None, command: str = ""
) -> dict[str, Any]:
    """Reconstruct a capture into `config.out` and return what metrics.json holds.

    `metrics` is `lrm_ttt.eval.metrics`. Raises `LrmTttError` kinds, and then `config.out` is as it was before.
    """
    with output_folder(config.out, overwrite=config.overwrite) as folder:
        stages = Stages(choose_device(config.device), listener)
        with stages("open"):
            job = prepare(config)
            for note in notes(job):
                stages.listener.noticed(note)
            stages.describe(f"{job.plan.source.name}: {job.plan.source.num_views} views")
        with stages("read"):
            inputs = load_inputs(job)
            stages.describe(f"{inputs.shape[0]} input views of {inputs.image_size.height}x{inputs.image_size.width}")
        reconstruction = compute(job, inputs, stages)
        with stages("write"):
            write_ply(folder / "scene.ply", reconstruction.in_capture())
            stages.describe(f"scene.ply, {(folder / 'scene.ply').stat().st_size / 1e6:.1f} MB")
        held_out = load_held_out(job)
        with stages("check"):
            check = check_ply(
                folder / "scene.ply", reconstruction, inputs, held_out, job.background, metrics,
                backend=job.backend, device=job.device, advance=stages.advance,
            )  # fmt: skip
            stages.describe(summary(check))
        with stages("pictures"):
            write_pictures(folder, job, inputs, held_out, check)
        with stages("video"):
            write_orbit(folder / "video.mp4", job, inputs, reconstruction, check, stages)
        numbers = collect(job, reconstruction, check, metrics, stages) | provenance(command)
        (folder / "metrics.json").write_text(json.dumps(numbers, indent=2) + "\n", encoding="utf-8")
        (folder / "config.yaml").write_text(resolved(job), encoding="utf-8")
        write_report(
            folder / "report.html", f"{job.plan.source.name}, reconstructed", numbers,
            folder / "renders" / "sheet.png", folder / "video.mp4",
        )  # fmt: skip
    return numbers


def notes(job: Job) -> list[str]:
    """Return what the user should know before the work begins."""
    sentences = [f"{job.plan.source.name}: {note}" for note in job.plan.notes]
    trained = model_config(job.checkpoint).backbone.schedule
    if job.model.backbone.schedule != trained:
        sentences.append(
            f"--schedule {job.model.backbone.schedule}: this model was trained with '{trained}', which is another computation; "
            "expect less of it"
        )
    return sentences


def load_inputs(job: Job) -> Views:
    """Decode the input views `[v]`."""
    return job.plan.load(job.plan.choice.inputs, job.model.tokenizer.patch_size, job.config.background)


def load_held_out(job: Job) -> Views | None:
    """Decode the held-out views `[t]`, after the model has run."""
    if not job.plan.choice.targets:
        return None
    return job.plan.load(job.plan.choice.targets, job.model.tokenizer.patch_size, job.config.background)


def compute(job: Job, inputs: Views, stages: Stages) -> Reconstruction:
    """Run the model, and the refinement where it is asked for."""
    config = job.config
    with stages("checkpoint"):
        model = load(job.checkpoint, job.device, config.schedule)
        stages.describe(f"{model.num_parameters / 1e6:.1f} M parameters")
    with stages("model"):
        views = inputs.to(job.device)
        made = reconstruct(model, views, keep_fraction=config.keep_fraction)
        stages.describe(f"{made.num_predicted:,} Gaussians, {made.gaussians.num_gaussians:,} kept")
    if config.refine:
        with stages("refine"):
            refined = refine(
                made.gaussians, normalise(views, made.world_to_scene), job.background, RefineConfig(steps=config.refine),
                generator=torch.Generator().manual_seed(config.seed), near=NEAR, backend=job.backend, advance=stages.advance,
            )  # fmt: skip
            made = dataclasses.replace(made, gaussians=prune(refined, 1.0))
            stages.describe(f"{config.refine} steps")
    return made


def summary(check: Check) -> str:
    """Say in a few words what the check found."""
    held_out = "" if check.held_out_scores is None else f"{check.held_out_scores.mean_psnr:.2f} dB held out, "
    return (
        f"{held_out}{check.input_scores.mean_psnr:.2f} dB on inputs, gap of the .ply {check.round_trip_db_gap:.4f} dB"
    )


def write_pictures(folder: Path, job: Job, inputs: Views, held_out: Views | None, check: Check) -> None:
    """Write every held-out view (or, without any, every input view) as a PNG beside its truth, and the sheet of them."""
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
    kind = "input" if held_out is None else "held-out"
    title = f"{job.plan.source.name}: {len(choice.inputs)} inputs, {len(choice.targets)} held out; {kind} {scores.mean_psnr:.2f} dB"
    labels = [str(index) for index in choice.inputs]
    draw_sheet(title, inputs.images.cpu(), labels, compared).save(renders / "sheet.png")


def write_orbit(
    path: Path, job: Job, inputs: Views, reconstruction: Reconstruction, check: Check, stages: Stages
) -> None:
    """Write a video from the .ply's Gaussians, around what the input cameras look at."""
    cameras = orbit(inputs.cameras, VIDEO_FRAMES).to(job.device)
    near = reconstruction.near_in_capture
    frames = (
        draw(check.gaussians, cameras[index : index + 1], job.background, near=near, backend=job.backend)[0]
        for index in range(VIDEO_FRAMES)
    )
    write_video(path, (stages.advance(index, VIDEO_FRAMES) or frame for index, frame in enumerate(frames)))


def collect(job: Job, made: Reconstruction, check: Check, metrics: Metrics, stages: Stages) -> dict[str, Any]:
    """Return the numbers of metrics.json; what does not exist is null."""
    held_out, choice = check.held_out_scores, job.plan.choice
    seconds = {name: round(value, 4) for name, value in stages.seconds.items()}
    seconds["read_to_ply"] = round(sum(stages.seconds.get(name, 0.0) for name in TO_PLY), 4)
    seconds["total"] = round(sum(stages.seconds.values()), 4)
    return {
        "scene": job.plan.source.name,
        "num_input_views": len(choice.inputs),
        "num_held_out_views": len(choice.targets),
        "image_size": list(job.plan.image_size),
        "num_tokens": num_tokens(job),
        "num_predicted": made.num_predicted,
        "num_gaussians": check.gaussians.num_gaussians,
        "psnr_input": finite(check.input_scores.mean_psnr),
        "psnr_held_out": None if held_out is None else finite(held_out.mean_psnr),
        "ssim_input": finite(check.input_scores.mean_ssim),
        "ssim_held_out": None if held_out is None else finite(held_out.mean_ssim),
        "ply_round_trip_db_gap": finite(check.round_trip_db_gap),
        "refine_steps": job.config.refine,
        "seconds": seconds,
        "peak_memory_mb": round(peak_memory_mb(job.device), 1),
        "device": device_name(job.device),
        "backend": job.backend,
        "checkpoint": str(job.config.checkpoint or EMBEDDED),
        "schedule": job.model.backbone.schedule,
        "per_view": per_view(job, check),
        "metric_variants": dict(metrics.VARIANTS),
    }


def num_tokens(job: Job) -> int:
    """Return how many tokens the input views become."""
    patch, size = job.model.tokenizer.patch_size, job.plan.image_size
    return len(job.plan.choice.inputs) * (size.height // patch) * (size.width // patch)


def per_view(job: Job, check: Check) -> list[dict[str, Any]]:
    """Return the scores of each view, held-out ones first."""
    rows = []
    groups = (
        ("held_out", job.plan.choice.targets, check.held_out_scores),
        ("input", job.plan.choice.inputs, check.input_scores),
    )
    for kind, indices, scores in groups:
        for position, index in enumerate(indices if scores is not None else ()):
            assert scores is not None
            similarity = None if scores.ssim is None else finite(scores.ssim[position])
            name = job.plan.source.image_paths[index].name
            rows.append(
                {"view": index, "image": name, "kind": kind, "psnr": finite(scores.psnr[position]), "ssim": similarity}
            )
    return rows


def finite(value: float | None) -> float | None:
    """Return a number that JSON knows, to six digits."""
    return None if value is None or not math.isfinite(value) else float(f"{value:.6g}")


def device_name(device: torch.device) -> str:
    """Return the device, with the name of a GPU."""
    return f"{device} ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else str(device)


def resolved(job: Job) -> str:
    """Return config.yaml: what was asked for, then what it came to."""
    asked = to_mapping(dataclasses.replace(job.config, out=str(job.config.out)))  # type: ignore[arg-type]
    came_to = {
        "image_size": list(job.plan.image_size),
        "device": str(job.device),
        "backend": job.backend,
        "schedule": job.model.backbone.schedule,
        "inputs": list(job.plan.choice.inputs),
        "held_out": list(job.plan.choice.targets),
        "model": to_mapping(job.model),
    }
    if job.config.refine:
        came_to["refinement"] = to_mapping(RefineConfig(steps=job.config.refine))
    return yaml.safe_dump(asked | {"resolved": came_to}, sort_keys=False)
