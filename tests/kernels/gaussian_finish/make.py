"""Raw channels and rays to try the end of a head on."""

import torch
from torch import Tensor
from torch.nn.functional import normalize

from lrm_ttt.kernels.gaussian_finish.op import Activations, Rays

# The published ones (MODEL.md, Gaussian head).
PUBLISHED = Activations(scale_shift=-2.3, max_log_scale=-1.2, opacity_shift=-2.0)


def random(*shape: int, seed: int = 0) -> Tensor:
    """Return normal float64."""
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def raw_and_rays(num_views: int, num_pixels: int, num_sh: int) -> tuple[Tensor, Rays]:
    """Return channels, of which some scales are above their greatest, and rays with a range of each view."""
    raw = 2 * random(num_views, num_pixels, 11 + 3 * num_sh)
    near = 1 + random(num_views, seed=3).abs()
    directions = normalize(random(num_views, num_pixels, 3, seed=2), dim=-1)
    return raw, Rays(random(num_views, 3, seed=1), directions, near, near + 5)
