"""How far renderings are from the images of the target views."""

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import mse_loss


def color_error(colors: Float[Tensor, "*b 3 h w"], images: Float[Tensor, "*b 3 h w"]) -> Float[Tensor, ""]:
    """Return the mean squared error of colours 0..1."""
    return mse_loss(colors, images)


def alpha_error(alphas: Float[Tensor, "*b 1 h w"], masks: Float[Tensor, "*b 1 h w"]) -> Float[Tensor, ""]:
    """Return the mean squared error between rendered coverage and the true mask, both 0..1."""
    return mse_loss(alphas, masks)
