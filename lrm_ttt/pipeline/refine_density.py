"""Begin refinement with few and large Gaussians, and split those that the images pull at: for few or distant views.

From few views the optimisation of one Gaussian a pixel fits the inputs and spoils what lies between them. A share of
them, grown to cover what the others did, keeps the shape of the scene while it finds its place; details come with the
splits (as in 3D Gaussian splatting, arXiv 2308.04079, section 5.2, by rank rather than by threshold).
"""

import dataclasses

import torch
from jaxtyping import Float
from torch import Tensor

from lrm_ttt.scene.gaussians import Gaussians
from lrm_ttt.scene.rotations import rotate_by_wxyz

# When Gaussians are split, as shares of the steps, and which share of them each time.
SPLITS = (0.2, 0.4)
SPLIT_SHARE = 0.7
# Both halves of a split Gaussian are smaller by this, as in 3D Gaussian splatting.
SHRINK = 1.6
FAINTEST = 1e-3


def thin_out(gaussians: Gaussians, share: float, generator: torch.Generator) -> Gaussians:
    """Return a share of the Gaussians of one scene, drawn by opacity and grown to fill the volume of all."""
    number = max(1, round(share * gaussians.num_gaussians))
    if number == gaussians.num_gaussians:
        return gaussians
    chances = gaussians.opacities.detach().cpu().clamp(min=FAINTEST)
    # Not torch.multinomial, which knows no more than 2 ** 24 of them: the largest keys are drawn by weight, too.
    keys = torch.rand(chances.shape, generator=generator).log() / chances
    drawn = gaussians.select(keys.topk(number).indices.to(gaussians.means.device))
    return dataclasses.replace(drawn, scales=drawn.scales * share ** (-1 / 3))


def split_steps(steps: int, share: float) -> tuple[int, ...]:
    """Return after how many steps Gaussians are split: never where all of them were there from the beginning."""
    return tuple(round(part * steps) for part in SPLITS) if share < 1 else ()


@torch.no_grad()
def split(
    stored: dict[str, Tensor], optimiser: torch.optim.Optimizer, pull: Float[Tensor, "n"], generator: torch.Generator
) -> dict[str, Tensor]:
    """Split the Gaussians with the strongest `pull` in two, and return all parameters (lrm_ttt/pipeline/refine.py).

    `optimiser` has one group for each, in the same order; what it knows of those that were split begins anew.
    """
    chosen = pull.topk(round(SPLIT_SHARE * len(pull))).indices
    scales = stored["log_scales"][chosen].exp()
    noise = torch.randn(2, *scales.shape, generator=generator).to(scales) * scales
    moved = stored["means"][chosen] + rotate_by_wxyz(stored["wxyz"][chosen], noise)
    smaller = (scales / SHRINK).log()
    changed = {"means": (moved[0], moved[1]), "log_scales": (smaller, smaller)}
    grown = {}
    for group, (name, tensor) in zip(optimiser.param_groups, stored.items(), strict=True):
        first, second = changed.get(name, (tensor[chosen], tensor[chosen]))
        value = torch.cat([tensor.index_copy(0, chosen, first), second]).requires_grad_()
        state = optimiser.state.pop(tensor)
        for moment in ("exp_avg", "exp_avg_sq"):
            known = state[moment].index_fill(0, chosen, 0)
            state[moment] = torch.cat([known, torch.zeros_like(known[: len(chosen)])])
        optimiser.state[value] = state
        group["params"] = [value]
        grown[name] = value
    return grown
