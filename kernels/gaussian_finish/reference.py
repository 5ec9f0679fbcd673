"""Raw channels to Gaussians by the book (MODEL.md, Gaussian head): pure, out of place, float64-capable."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize

# Channels of a Gaussian that are no spherical harmonics: position 3, scale 3, rotation 4, opacity 1.
NUM_OTHERS = 11


class Activations(NamedTuple):
    """The constants of the activations; `scale_shift` and `opacity_shift` are added to raw values."""

    scale_shift: float
    max_log_scale: float
    opacity_shift: float


class Rays(NamedTuple):
    """Where Gaussians may lie: on the ray of their pixel, at a distance from `near` to `far` of its view."""

    origins: Float[Tensor, "s 3"]
    directions: Float[Tensor, "s n 3"]
    near: Float[Tensor, "s"]
    far: Float[Tensor, "s"]


class Finished(NamedTuple):
    """Activated Gaussians, as lrm_ttt.scene.gaussians.Gaussians has them."""

    means: Float[Tensor, "m 3"]
    scales: Float[Tensor, "m 3"]
    wxyz: Float[Tensor, "m 4"]
    opacities: Float[Tensor, "m"]
    sh: Float[Tensor, "m k 3"]


def finish_reference(
    raw: Float[Tensor, "s n c"], rays: Rays, activations: Activations, keep: Int[Tensor, "m"] | None = None
) -> Finished:
    """Return the Gaussians of `s` views with `n` pixels each, or those at the positions `keep` among all s n.

    Channels are position 3, spherical harmonics [k, 3], scale 3, rotation 4 (wxyz), opacity 1. The mean of the first
    three says how far along its unit ray a Gaussian lies.
    """
    if keep is not None:
        # As if each were a view with one pixel.
        view = keep // raw.shape[1]
        raw, directions = (part.flatten(0, 1).index_select(0, keep)[:, None] for part in (raw, rays.directions))
        rays = Rays(rays.origins[view], directions, rays.near[view], rays.far[view])
    num_sh = raw.shape[-1] - NUM_OTHERS
    wide = raw.to(torch.promote_types(raw.dtype, torch.float32))
    position, sh, scale, rotation, opacity = wide.split([3, num_sh, 3, 4, 1], -1)
    near, far = (bound[:, None, None] for bound in (rays.near, rays.far))
    distance = near + torch.sigmoid(position.mean(-1, keepdim=True)) * (far - near)
    return Finished(
        means=(rays.origins[:, None] + distance * rays.directions).flatten(0, 1),
        scales=torch.exp((scale + activations.scale_shift).clamp(max=activations.max_log_scale)).flatten(0, 1),
        wxyz=normalize(rotation, dim=-1).flatten(0, 1),
        opacities=torch.sigmoid(opacity + activations.opacity_shift).flatten(),
        sh=sh.unflatten(-1, (num_sh // 3, 3)).flatten(0, 1),
    )
