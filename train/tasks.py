"""What a batch asks of each kind of model: renderings of its target views, and the Gaussians where there are any."""

import torch
from torch import nn

from lrm_ttt.model.config import ModelConfig
from lrm_ttt.render.render import render
from lrm_ttt.scene.gaussians import Gaussians
from lrm_ttt.scene.views import Renderings, SceneBatch, Views
from lrm_ttt.train.logging import Stopwatch


def render_targets(
    model: nn.Module,
    config: ModelConfig,
    batch: SceneBatch,
    targets: Views,
    stopwatch: Stopwatch,
    generator: torch.Generator | None = None,
    keep: tuple[float, float] = (1.0, 0.0),
) -> tuple[Renderings, Gaussians | None]:
    """Return what `model`, of the representation in `config`, shows of the inputs of `batch` in the views `targets`.

    `model` may be wrapped. A novel-view model tells colours alone: its coverage is 1 and its depth 0 everywhere.
    `generator` decides where a triplane is sampled (without one in the middle of the strata), and which Gaussians are
    drawn: the share `keep[0]` with the highest opacity, and `keep[1]` of the rest. All of them are returned.
    """
    if config.representation == "images":
        with stopwatch("forward"):
            colors = model(batch.inputs, targets.cameras)
        flat = colors[..., :1, :, :].detach()
        return Renderings(colors, torch.ones_like(flat), torch.zeros_like(flat)), None
    if config.representation == "triplane":
        with stopwatch("forward"):
            return model(batch.inputs, targets.cameras, batch.backgrounds, generator), None
    with stopwatch("forward"):
        gaussians = model(batch.inputs)
    with stopwatch("render"):
        return render(gaussians.prune(*keep, generator), targets.cameras, batch.backgrounds), gaussians
