"""What a step of training shows beside its losses."""

import torch
from torch import Tensor

from lrm_ttt.eval.metrics import psnr
from lrm_ttt.scene.gaussians import Gaussians
from lrm_ttt.scene.views import Renderings, Views

# Gaussians below this opacity are as good as absent (tttLRM counts those above).
USED_OPACITY = 1e-3


@torch.no_grad()
def step_measures(
    renderings: Renderings, targets: Views, gaussians: Gaussians | None, num_kept: int | None = None
) -> dict[str, Tensor | float]:
    """Return `psnr` of the rendered views in dB, and of Gaussians before pruning the share `gaussians_used` above
    USED_OPACITY; `gaussians_kept` is the number rendered of each scene (None: all).

    Nothing waits for a device.
    """
    found: dict[str, Tensor | float] = {
        "psnr": psnr(renderings.colors.flatten(0, 1), targets.images.flatten(0, 1)).mean()
    }
    if gaussians is not None:
        found["gaussians_used"] = (gaussians.opacities > USED_OPACITY).float().mean()
        found["gaussians_kept"] = float(gaussians.num_gaussians if num_kept is None else num_kept)
    return found
