"""The 3D smoothing filter of Mip-Splatting (arXiv 2311.16493): nothing is finer than the closest camera samples."""

import torch
from jaxtyping import Float
from torch import Tensor

from lrm_ttt.scene.cameras import Cameras

# The standard deviation of the filter, in sampling intervals: its variance is 0.2, as in the code of the paper.
FILTER_WIDTH = 0.2**0.5
# A camera samples what lies up to this share of the image outside it.
MARGIN = 0.15
# Variances in the image are widened by this, in square pixels, and opacities lowered in turn.
EPS2D = 0.1


@torch.no_grad()
def filter_scales(cameras: Cameras, means: Float[Tensor, "n 3"], near: float) -> Float[Tensor, "n"]:
    """Return the standard deviation of each Gaussian's filter, by the finest sampling of cameras `[v]` that see it.

    What no camera sees gets the widest filter of all.
    """
    height, width = cameras.image_size
    size = means.new_tensor([width, height])
    intervals = means.new_full((len(means),), torch.inf)
    # One camera after the other, for a large scene has hundreds, and millions of Gaussians.
    for index in range(cameras.shape[0]):
        camera = cameras[index]
        pixels, depths = camera.project(means)
        places = pixels / size
        seen = (depths > near) & ((places >= -MARGIN) & (places <= 1 + MARGIN)).all(-1)
        interval = depths / camera.intrinsics[:2].amax()
        intervals = torch.where(seen, torch.minimum(intervals, interval), intervals)
    widest = intervals.masked_fill(intervals.isinf(), 0).amax()
    return FILTER_WIDTH * torch.where(intervals.isinf(), widest, intervals)


def smooth(
    scales: Float[Tensor, "n 3"], opacities: Float[Tensor, "n"], widths: Float[Tensor, "n"]
) -> tuple[Float[Tensor, "n 3"], Float[Tensor, "n"]]:
    """Return scales convolved with filters of the standard deviations `widths`, and opacities that make up for it."""
    variances = scales * scales
    widened = variances + (widths * widths)[:, None]
    return widened.sqrt(), opacities * (variances / widened).prod(-1).sqrt()
