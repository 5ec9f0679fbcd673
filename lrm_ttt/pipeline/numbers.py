"""What is written beside a result to read and to repeat it: metrics.json and config.yaml."""

import dataclasses
import math
from typing import Any

import torch
import yaml

from lrm_ttt.config_io import to_mapping
from lrm_ttt.pipeline.check import Check, Metrics, PlyCheck
from lrm_ttt.pipeline.checkpoint import EMBEDDED
from lrm_ttt.pipeline.job import Job
from lrm_ttt.pipeline.memory import peak_memory_mb
from lrm_ttt.pipeline.reconstruct import Reconstruction
from lrm_ttt.pipeline.refine import RefineConfig
from lrm_ttt.pipeline.stages import Stages

# The stages that make the .ply, or what stands in its place; the others find, judge and show.
TO_RESULT = ("read", "checkpoint", "model", "refine", "write")


def collect(job: Job, check: Check, metrics: Metrics, stages: Stages) -> dict[str, Any]:
    """Return the numbers of metrics.json that all representations have; what does not exist is null."""
    held_out, choice = check.held_out_scores, job.plan.choice
    seconds = {name: round(value, 4) for name, value in stages.seconds.items()}
    to_result = "read_to_ply" if job.model.representation == "gaussians" else "read_to_result"
    seconds[to_result] = round(sum(stages.seconds.get(name, 0.0) for name in TO_RESULT), 4)
    seconds["total"] = round(sum(stages.seconds.values()), 4)
    return {
        "scene": job.plan.source.name,
        "representation": job.model.representation,
        "num_input_views": len(choice.inputs),
        "num_held_out_views": len(choice.targets),
        "image_size": list(job.plan.image_size),
        "num_tokens": job.num_tokens,
        "psnr_input": finite(check.input_scores.mean_psnr),
        "psnr_held_out": None if held_out is None else finite(held_out.mean_psnr),
        "ssim_input": finite(check.input_scores.mean_ssim),
        "ssim_held_out": None if held_out is None else finite(held_out.mean_ssim),
        "seconds": seconds,
        "peak_memory_mb": round(peak_memory_mb(job.device), 1),
        "predicted_peak_memory_mb": round(job.slices.peak_mb, 1),
        "views_at_once": job.slices.views,
        "device": device_name(job.device),
        "checkpoint": str(job.config.checkpoint or EMBEDDED),
        "precision": job.precision,
        "schedule": job.model.backbone.schedule,
        "per_view": per_view(job, check),
        "metric_variants": {name: metrics.VARIANTS[name] for name in ("psnr", "ssim")},
    }


def collect_gaussians(job: Job, made: Reconstruction, check: PlyCheck) -> dict[str, Any]:
    """Return the numbers of metrics.json that Gaussians alone have."""
    return {
        "result": "scene.ply",
        **job.virtual.numbers(),
        "num_predicted": made.num_predicted,
        "num_gaussians": check.gaussians.num_gaussians,
        "ply_round_trip_db_gap": finite(check.round_trip_db_gap),
        "refine_steps": job.config.refine,
        "refine_share": job.config.refine_share,
        "backend": job.backend,
    }


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
    asked = {field.name: to_mapping(getattr(job.config, field.name)) for field in dataclasses.fields(job.config)}
    asked["out"] = str(job.config.out)
    came_to = {
        "image_size": list(job.plan.image_size),
        "device": str(job.device),
        "backend": job.backend,
        "precision": job.precision,
        "schedule": job.model.backbone.schedule,
        "inputs": list(job.plan.choice.inputs),
        "held_out": list(job.plan.choice.targets),
        "virtual": job.virtual.resolved(job.plan.choice.inputs),
        "model": to_mapping(job.model),
    }
    if job.config.refine:
        came_to["refinement"] = to_mapping(RefineConfig(job.config.refine, start_share=job.config.refine_share))
    return yaml.safe_dump(asked | {"resolved": came_to}, sort_keys=False)
