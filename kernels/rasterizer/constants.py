"""The numbers and the settings that all backends share."""

import dataclasses
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor

NEAR = 0.01
FAR = 1e10
# Added to both variances in the image, in square pixels: a Gaussian is never thinner than a pixel can show.
EPS2D = 0.3
# Below this a Gaussian leaves a pixel as it is.
MIN_ALPHA = 1.0 / 255.0
# A Gaussian that would take a pixel's transmittance to this or below is left out and ends the pixel.
MIN_TRANSMITTANCE = 1e-4
# gsplat up to 1.5.3; from 1.6 on it has 0.99.
MAX_ALPHA = 0.999
MAX_ALPHA_GSPLAT_16 = 0.99
# The Jacobian of the projection is taken at most this far outside the image, in half image sizes.
CLIP_MARGIN = 0.3
MIN_ALPHA_FOR_DEPTH = 1e-10
SH_COUNTS = (1, 4, 9, 16)
# The arguments of a backend; the last three are those of the cameras.
INPUTS = ("means", "wxyz", "scales", "opacities", "sh or colors", "world_to_cam", "intrinsics", "background")
NUM_CAMERA_INPUTS = 3
NOT_FINITE = "the rasterizer was given {} with NaN or infinity; look at what computes them"


@dataclasses.dataclass(frozen=True)
class Settings:
    """How to draw, apart from what: image size in pixels, planes in scene units, `eps2d` in square pixels."""

    height: int
    width: int
    near: float = NEAR
    far: float = FAR
    eps2d: float = EPS2D
    antialiased: bool = False
    max_alpha: float = MAX_ALPHA
    render_depth: bool = True


class Rasterized(NamedTuple):
    """Images. Colours lie on the background; depth is the expected camera z, 0 where nothing is; None if not wanted."""

    colors: Float[Tensor, "*b v 3 h w"]
    alphas: Float[Tensor, "*b v 1 h w"]
    depths: Float[Tensor, "*b v 1 h w"] | None


class Screen(NamedTuple):
    """Gaussians as the cameras see them, for those who add and remove Gaussians by it.

    `means2d` requires a gradient; after the backward pass its `.grad` is that of the loss to the projected means, in
    pixels. Its values are not the projected means. `radii` are in pixels: half the larger side of the box in which a
    Gaussian's alpha is at least 1/255, and 0 where this box holds no pixel, or the Gaussian is outside near..far.
    """

    means2d: Float[Tensor, "*b v n 2"]
    radii: Float[Tensor, "*b v n"]
