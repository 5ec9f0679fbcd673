"""What refinement minimises: see `lrm_ttt.kernels.ssim`."""

import torch
from jaxtyping import Float
from torch import Tensor

from lrm_ttt.kernels.ssim.op import l1_ssim_loss


class RefineLoss:
    """`l1_ssim_loss` for images of one size."""

    def __init__(self, height: int, width: int, device: torch.device) -> None:
        pass

    def __call__(self, images: Float[Tensor, "v 3 h w"], truths: Float[Tensor, "v 3 h w"]) -> Float[Tensor, ""]:
        """Return the loss, differentiable in `images`."""
        return l1_ssim_loss(images, truths)
