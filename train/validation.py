"""Quality on held-out scenes: PSNR of target views, and how far Gaussians lie from the surface."""

import torch

from lrm_ttt.losses.geometry import log_depth_error, own_depths, surface
from lrm_ttt.model.scene_model import SceneModel
from lrm_ttt.scene.views import SceneBatch
from lrm_ttt.train.logging import Stopwatch
from lrm_ttt.train.tasks import render_targets


@torch.no_grad()
def validate(model: SceneModel, batches: list[SceneBatch]) -> dict[str, float]:
    """Return the mean over scenes of `psnr` (of target views, decibels, over all pixels) and, for Gaussians, of
    `log_depth_error`.
    """
    was_training = model.training
    model.eval()
    rows: dict[str, list[torch.Tensor]] = {}
    for batch in batches:
        assert batch.targets is not None
        renderings, gaussians = render_targets(model, model.config, batch, batch.targets, Stopwatch())
        error = (renderings.colors.clamp(0, 1) - batch.targets.images).square().mean((-3, -2, -1))
        rows.setdefault("psnr", []).append(-10 * error.clamp(min=1e-10).log10().mean())
        if gaussians is not None:
            z = own_depths(gaussians.means, batch.inputs.cameras)
            depths = surface(batch.inputs, model.config.tokenizer.patch_size)
            rows.setdefault("log_depth_error", []).append(log_depth_error(z, *depths))
    model.train(was_training)
    return {name: float(torch.stack(values).mean()) for name, values in rows.items()}
