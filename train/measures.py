"""What a step of training shows beside its losses."""

import torch
from torch import Tensor

from lrm_ttt.eval.metrics import psnr
from lrm_ttt.scene.gaussians import Gaussians, kept_numbers
from lrm_ttt.scene.views import Renderings, Views

# Gaussians below this opacity are as good as absent (tttLRM counts those above).
USED_OPACITY = 1e-3


@torch.no_grad()
def step_measures(
    renderings: Renderings, targets: Views, gaussians: Gaussians | None, keep: tuple[float, float] = (1.0, 0.0)
) -> dict[str, Tensor | float]:
    """Return `psnr` of the rendered views in dB, of Gaussians before pruning the share `gaussians_used` above
    USED_OPACITY, and the number `gaussians_kept` of each scene that the shares `keep` leave to be rendered.

    Nothing waits for a device.
    """
    found: dict[str, Tensor | float] = {
        "psnr": psnr(renderings.colors.flatten(0, 1), targets.images.flatten(0, 1)).mean()
    }
    if gaussians is not None:
        found["gaussians_used"] = (gaussians.opacities > USED_OPACITY).float().mean()
        found["gaussians_kept"] = float(sum(kept_numbers(gaussians.num_gaussians, *keep)))
    return found
