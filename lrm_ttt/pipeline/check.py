"""Judge a written .ply: read it again, render the views from it in the capture's own frame, and compare."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from lrm_ttt.pipeline.reconstruct import NEAR, Reconstruction, draw
from lrm_ttt.render.sheet import spread
from lrm_ttt.scene.gaussians import Gaussians
from lrm_ttt.scene.manipulable import cat
from lrm_ttt.scene.ply import read_ply
from lrm_ttt.scene.views import Views

# Views from which the model's own Gaussians are drawn too, to see what the file lost.
ROUND_TRIP_VIEWS = 16


@runtime_checkable
class Scores(Protocol):
    """Scores of images against the truth, one by one and in the mean (eval/metrics.py)."""

    @property
    def psnr(self) -> Sequence[float]: ...
    @property
    def ssim(self) -> Sequence[float] | None: ...
    @property
    def mean_psnr(self) -> float: ...
    @property
    def mean_ssim(self) -> float | None: ...


@runtime_checkable
class Metrics(Protocol):
    """How images are scored. Metrics stand above the front doors, so whoever runs one hands them in."""

    @property
    def VARIANTS(self) -> Mapping[str, str]: ...
    def score_images(self, images: Tensor, truths: Tensor, /) -> Scores: ...


@dataclasses.dataclass(frozen=True)
class Check:
    """Renderings of the input and held-out views, with their scores."""

    inputs: Float[Tensor, "v 3 h w"]
    held_out: Float[Tensor, "t 3 h w"] | None
    input_scores: Scores
    held_out_scores: Scores | None


@dataclasses.dataclass(frozen=True)
class PlyCheck(Check):
    """What a .ply shows, and what the file lost."""

    gaussians: Gaussians
    model_psnr: float
    round_trip_db_gap: float


def judge_images(drawn: Float[Tensor, "n 3 h w"], inputs: Views, held_out: Views | None, metrics: Metrics) -> Check:
    """Compare renderings of the input views, and of the held-out views behind them, with the truth."""
    num_inputs = inputs.shape[0]
    return Check(
        inputs=drawn[:num_inputs],
        held_out=None if held_out is None else drawn[num_inputs:],
        input_scores=metrics.score_images(drawn[:num_inputs], inputs.images.cpu()),
        held_out_scores=None if held_out is None else metrics.score_images(drawn[num_inputs:], held_out.images.cpu()),
    )


def check_ply(
    path: Path,
    reconstruction: Reconstruction,
    inputs: Views,
    held_out: Views | None,
    background: Float[Tensor, "3"],
    metrics: Metrics,
    *,
    backend: str,
    device: torch.device,
    advance: Callable[[int, int], None],
) -> PlyCheck:
    """Render every view from the file; from ROUND_TRIP_VIEWS of them also from the model's Gaussians in its own frame.

    The gap is the difference between the mean PSNR of the two over the same views, in dB: 0 but for rounding, unless
    the way back to the capture's frame or the file is wrong.
    """
    views = (
        inputs
        if held_out is None
        else cat([dataclasses.replace(v, masks=None, depths=None) for v in (inputs, held_out)])
    )
    gaussians = read_ply(path).to(device)
    near = reconstruction.near_in_capture
    drawn = draw(gaussians, views.cameras.to(device), background, near=near, backend=backend, advance=advance)
    some = spread(views.shape[0], ROUND_TRIP_VIEWS)
    cameras = reconstruction.world_to_scene.cameras(views.cameras.to(device))[some]
    by_model = draw(reconstruction.gaussians, cameras, background, near=NEAR, backend=backend)
    truths = views.images.cpu()
    model_psnr = metrics.score_images(by_model, truths[some]).mean_psnr
    file_psnr = metrics.score_images(drawn[some], truths[some]).mean_psnr
    return PlyCheck(
        **vars(judge_images(drawn, inputs, held_out, metrics)),
        gaussians=gaussians,
        model_psnr=model_psnr,
        round_trip_db_gap=abs(model_psnr - file_psnr),
    )
