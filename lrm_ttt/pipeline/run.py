"""The main job from end to end: a capture's name in, a folder of results out, or one error and nothing."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lrm_ttt.model.slices import Slices
from lrm_ttt.parallel.collectives import sizes_over
from lrm_ttt.parallel.launched import join_launched, launched_rank, leave_launched
from lrm_ttt.parallel.view_group import ViewGroup
from lrm_ttt.pipeline.check import Metrics, PlyCheck, check_ply
from lrm_ttt.pipeline.checkpoint import choose_device, load
from lrm_ttt.pipeline.config import ReconstructConfig
from lrm_ttt.pipeline.fields import compute_field, make_field
from lrm_ttt.pipeline.job import Job, notes, prepare
from lrm_ttt.pipeline.memory import out_of_memory_explained, release_freed_memory
from lrm_ttt.pipeline.numbers import collect, collect_gaussians, resolved
from lrm_ttt.pipeline.outputs import check_replaceable, output_folder
from lrm_ttt.pipeline.present import write_orbit, write_pictures
from lrm_ttt.pipeline.provenance import provenance
from lrm_ttt.pipeline.reconstruct import NEAR, Reconstruction, draw, drop_invisible, normalise, prune, reconstruct
from lrm_ttt.pipeline.refine import RefineConfig, refine
from lrm_ttt.pipeline.report import write_report
from lrm_ttt.pipeline.stages import Listener, Stages
from lrm_ttt.pipeline.virtual import Virtual
from lrm_ttt.scene.cameras import Cameras
from lrm_ttt.scene.ply import write_ply
from lrm_ttt.scene.views import Views


def run(
    config: ReconstructConfig, metrics: Metrics, listener: Listener | None = None, command: str = ""
) -> dict[str, Any]:
    """Reconstruct a capture into `config.out` and return what metrics.json holds.

    `metrics` is `lrm_ttt.eval.metrics`. Raises `LrmTttError` kinds, and then `config.out` is as it was before.
    Processes that were launched together share the views; the first one writes, the others return nothing.
    """
    if launched_rank():
        return help_the_first(config)
    stages = Stages(choose_device(config.device), listener)
    check_replaceable(Path(config.out).expanduser().resolve(), config.overwrite)
    with stages("open"):
        job = prepare(config)
        for note in notes(job):
            stages.listener.noticed(note)
        stages.describe(f"{job.plan.source.name}: {job.plan.source.num_views} views")
    with output_folder(config.out, overwrite=config.overwrite) as folder, out_of_memory_explained():
        with stages("read"):
            inputs = job.load_inputs()
            size = inputs.image_size
            stages.describe(f"{job.num_inputs} input views of {size.height}x{size.width}, {job.num_tokens:,} tokens")
        make = make_gaussians if job.model.representation == "gaussians" else make_field
        group = join_launched(job.device)
        numbers = make(job, inputs, folder, metrics, stages, group) | provenance(command)
        (folder / "metrics.json").write_text(json.dumps(numbers, indent=2) + "\n", encoding="utf-8")
        (folder / "config.yaml").write_text(resolved(job), encoding="utf-8")
        title = f"{job.plan.source.name}, reconstructed"
        pictures = folder / "renders" / "sheet.png", folder / "video.mp4"
        write_report(folder / "report.html", title, numbers, *pictures)
    return numbers


def help_the_first(config: ReconstructConfig) -> dict[str, Any]:
    """Do this process's share of a reconstruction that another one writes."""
    job = prepare(config)
    stages, inputs, group = Stages(job.device), job.load_inputs(), join_launched(job.device)
    if job.model.representation == "gaussians":
        compute(job, inputs, stages, group)
        leave_launched()
    else:
        compute_field(job, inputs, stages, group)
    return {}


def make_gaussians(
    job: Job, inputs: Views, folder: Path, metrics: Metrics, stages: Stages, group: ViewGroup
) -> dict[str, Any]:
    """Make and write Gaussians, judge and show them; return what metrics.json holds of them."""
    made = compute(job, inputs, stages, group)
    leave_launched()
    with stages("write"):
        write_ply(folder / "scene.ply", made.gaussians, made.world_to_scene.inverse())
        stages.describe(f"scene.ply, {(folder / 'scene.ply').stat().st_size / 1e6:.1f} MB")
    check = judge(folder, job, inputs, made, metrics, stages)
    return collect(job, check, metrics, stages) | collect_gaussians(job, made, check)


def compute(job: Job, inputs: Views, stages: Stages, group: ViewGroup) -> Reconstruction:
    """Run the model, and in the first process of the group the refinement where it is asked for."""
    config = job.config
    virtual: Virtual | None = job.virtual.positions
    if job.virtual.capture is not None:
        with stages("read"):
            virtual = job.virtual.load(job.model.tokenizer.patch_size, config.background).to(job.device)
            stages.describe(f"{job.virtual.num_views} virtual views")
    with stages("checkpoint"):
        model = load(
            job.checkpoint,
            job.device,
            precision=job.precision,
            schedule=config.schedule,
            compiled=config.compile,
        )
        stages.describe(f"{model.num_parameters / 1e6:.1f} M parameters, {job.precision}")
    at_once = views_at_once(job, inputs.shape[0], group)
    model.slices = Slices(at_once, None if at_once is None else drop_invisible)
    model.share(group)
    with stages("model"):
        views = inputs.to(job.device)
        made = reconstruct(
            model,
            views,
            keep_fraction=config.keep_fraction,
            virtual=virtual,
            background=job.background,
            backend=job.backend,
        )
        stages.describe(f"{made.num_predicted:,} Gaussians, {made.gaussians.num_gaussians:,} kept")
    del model
    release_freed_memory()
    if not config.refine or group.rank:
        return made
    with stages("refine"):
        refined = refine(
            made.gaussians,
            normalise(views, made.world_to_scene),
            job.background,
            RefineConfig(config.refine, start_share=config.refine_share),
            generator=torch.Generator().manual_seed(config.seed),
            near=NEAR,
            backend=job.backend,
            advance=stages.advance,
        )
        stages.describe(f"{config.refine} steps")
    return dataclasses.replace(made, gaussians=prune(refined, 1.0))


def views_at_once(job: Job, num_inputs: int, group: ViewGroup) -> int | None:
    """Return the size of slices, of which processes that measured their memory apart take the smallest."""
    if not group.is_shared:
        return job.slices.views
    least = min(sizes_over(group, job.slices.views or num_inputs, job.device))
    return None if least >= num_inputs else least


def judge(folder: Path, job: Job, inputs: Views, made: Reconstruction, metrics: Metrics, stages: Stages) -> PlyCheck:
    """Read the .ply again, compare what it shows with the views, and write what there is to look at."""
    with stages("check"):
        held_out = job.load_held_out()
        check = check_ply(
            folder / "scene.ply",
            made,
            inputs,
            held_out,
            job.background,
            metrics,
            backend=job.backend,
            device=job.device,
            advance=stages.advance,
        )
        scores, gap = check.held_out_scores, check.round_trip_db_gap
        held = "" if scores is None else f"{scores.mean_psnr:.2f} dB held out, "
        stages.describe(f"{held}{check.input_scores.mean_psnr:.2f} dB on inputs, {gap:.4f} dB lost in the .ply")
    with stages("pictures"):
        write_pictures(folder, job, inputs, held_out, check)
    with stages("video"):
        near = made.near_in_capture

        def show(cameras: Cameras) -> Tensor:
            return draw(check.gaussians, cameras.to(job.device), job.background, near=near, backend=job.backend)

        write_orbit(folder / "video.mp4", inputs.cameras, show, stages)
    return check
