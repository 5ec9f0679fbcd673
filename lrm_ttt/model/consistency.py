"""Whether the views agree on the surface that they see: the filter of multi-view stereo, as evidence for the head."""

import torch
from jaxtyping import Float
from torch import Tensor

from lrm_ttt.model.evidence import DistanceRange, Part, choose_silhouettes
from lrm_ttt.scene.cameras import Cameras

NUM_VERDICTS = 4
# Differences are counted in planes of the sweep: within one the views agree, beyond three they surely do not.
CLOSE_PLANES, FAR_PLANES = 1.0, 3.0
# More views are not asked, so that the cost stays linear in their number.
NUM_OTHERS = 8


@torch.no_grad()
def surfaces(share: Float[Tensor, "n h w"], masks: Float[Tensor, "n 1 h w"]) -> Float[Tensor, "n h w"]:
    """Return depth maps as other views are to see them: what lies behind the background of a mask is seen through."""
    return torch.where(masks[:, 0] > 0.5, share, float("inf"))


@torch.no_grad()
def judge(
    cameras: Cameras,
    ranges: DistanceRange,
    share: Float[Tensor, "n h w"],
    surface: Float[Tensor, "b v h w"],
    num_planes: int,
    part: Part = slice(None),
) -> Float[Tensor, "n c h w"]:
    """Look from other views at the point that each pixel of the views `part` (all) shows, and compare depths.

    `cameras` and `ranges` are those of all views `[b v]`, and `surface` their depth maps; `share` 0..1 is where the
    point of a pixel lies between the near and the far distance of its view, n = b s. Returns how many of the other
    views see through the point, and surely so, and how many see it, closely and roughly. Not differentiable: the depth
    maps are taken as they are. Nearest pixels are compared; views that a point falls outside of abstain.
    """
    batch, num_judged = ranges[:, part].shape
    height, width = share.shape[-2:]
    origins, directions = cameras[:, part].rays()
    distance = ranges[:, part].at(share.reshape(batch, num_judged, -1)).reshape(origins[..., 0].shape)
    points = (origins + distance[..., None] * directions).flatten(2, 3)
    others = choose_silhouettes(cameras, NUM_OTHERS, part)
    scene = torch.arange(batch, device=share.device)[:, None]
    verdicts = share.new_zeros(batch, num_judged, NUM_VERDICTS, height * width)
    for other in others.unbind(-1):
        theirs = cameras[scene, other]
        pixels, depths = theirs.project(points)
        column, row = pixels[..., 0].floor(), pixels[..., 1].floor()
        seen = (depths > 0) & (column >= 0) & (column < width) & (row >= 0) & (row < height)
        index = torch.where(seen, row * width + column, torch.zeros_like(row)).long()
        apart = (points - theirs.centres[..., None, :]).square().sum(-1).sqrt()
        nearest = surface[scene, other].flatten(2).gather(-1, index)
        ahead = (nearest - ranges[scene, other].share(apart)) * num_planes
        found = [ahead > CLOSE_PLANES, ahead > FAR_PLANES, ahead.abs() < CLOSE_PLANES, ahead.abs() < FAR_PLANES]
        verdicts += torch.stack(found, 2) & seen[:, :, None]
    return verdicts.reshape(batch * num_judged, NUM_VERDICTS, height, width)
