"""What opacities should be like, whatever the images show."""

from jaxtyping import Float
from torch import Tensor

from lrm_ttt.losses.geometry import in_gaussian_order
from lrm_ttt.scene.views import Views


def mean_opacity(opacities: Float[Tensor, "b n"]) -> Float[Tensor, ""]:
    """Return the mean opacity before pruning; it takes the share of visible Gaussians from 97 % to 47 % (tttLRM)."""
    return opacities.mean()


def stray_opacity(opacities: Float[Tensor, "b n"], inputs: Views, patch_size: int) -> Float[Tensor, ""]:
    """Return the mean opacity of the Gaussians whose pixel shows nothing of the object (mask 0)."""
    assert inputs.masks is not None
    outside = in_gaussian_order(inputs.masks, patch_size).flatten(1) == 0
    return (opacities * outside).sum() / outside.sum().clamp(min=1)
