"""Gaussians that the ranks of a view group predicted, brought together on every rank."""

import torch

from lrm_ttt.parallel.collectives import gather, sizes_over
from lrm_ttt.parallel.sharing import Sharing
from lrm_ttt.scene.gaussians import Gaussians


def gather_gaussians(gaussians: Gaussians, sharing: Sharing, per_view: int | None) -> Gaussians:
    """Return the Gaussians `[b n]` of all ranks, in the order of the views; differentiable.

    There are `per_view` of each view; None: any number on each rank, and they come in the order of the ranks.
    """
    widths = (3, 3, 4, 1, 3 * gaussians.sh.shape[-2])
    fields = (gaussians.means, gaussians.scales, gaussians.wxyz, gaussians.opacities[..., None])
    packed = torch.cat([*fields, gaussians.sh.flatten(-2)], -1)
    if per_view is None:
        sizes = sizes_over(sharing.group, gaussians.num_gaussians, packed.device)
        joined = gather(sharing.group, packed, sizes, 1)
    else:
        joined = sharing.gather(packed, 1, per_view)
    means, scales, wxyz, opacities, sh = joined.split(widths, -1)
    return Gaussians(means, scales, wxyz, opacities[..., 0], sh.unflatten(-1, (-1, 3)))
