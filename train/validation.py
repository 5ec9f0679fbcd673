"""Quality on held-out scenes: PSNR of target views, and how far the Gaussians lie from the surface."""

import torch

from lrm_ttt.losses.geometry import log_depth_error, own_depths, surface
from lrm_ttt.model.reconstructor import Reconstructor
from lrm_ttt.render.render import render
from lrm_ttt.scene.views import SceneBatch


@torch.no_grad()
def validate(model: Reconstructor, batches: list[SceneBatch]) -> dict[str, float]:
    """Return the mean over scenes of `psnr` (of target views, decibels, over all pixels) and of `log_depth_error`."""
    was_training = model.training
    model.eval()
    psnr, depth_errors = [], []
    for batch in batches:
        assert batch.targets is not None
        gaussians = model(batch.inputs)
        colors = render(gaussians, batch.targets.cameras, batch.backgrounds).colors.clamp(0, 1)
        error = (colors - batch.targets.images).square().mean((-3, -2, -1))
        psnr.append(-10 * error.clamp(min=1e-10).log10().mean())
        z = own_depths(gaussians.means, batch.inputs.cameras)
        depth_errors.append(log_depth_error(z, *surface(batch.inputs, model.config.tokenizer.patch_size)))
    model.train(was_training)
    return {"psnr": float(torch.stack(psnr).mean()), "log_depth_error": float(torch.stack(depth_errors).mean())}
