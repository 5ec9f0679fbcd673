"""The public function, and how it runs."""

import functools
import logging

import torch
from jaxtyping import Float
from torch import Tensor

from lrm_ttt.kernels.ssim.cpu import l1_ssim_loss_cpu, library
from lrm_ttt.kernels.ssim.reference import l1_ssim_loss_reference

_log = logging.getLogger(__name__)

__all__ = ["l1_ssim_loss"]


def l1_ssim_loss(images: Float[Tensor, "*b h w"], truths: Float[Tensor, "*b h w"]) -> Float[Tensor, ""]:
    """Return 0.8 times the mean absolute error plus 0.2 times (1 - SSIM): Kerbl et al. 2023, arXiv 2308.04079.

    SSIM (Wang et al. 2004, for values 0..1) has the 11-tap Gaussian window of deviation 1.5 and is taken where the
    window lies inside the image; images smaller than the window are compared by absolute error alone. Differentiable
    in `images`. Float32 on the CPU takes the native library, which finds the gradient together with the value; anything
    else takes torch.
    """
    on_cpu = images.device.type == truths.device.type == "cpu"
    if not (on_cpu and images.dtype == truths.dtype == torch.float32) or truths.requires_grad or not images.numel():
        return l1_ssim_loss_reference(images, truths)
    if library() is None:
        _say_that_torch_serves()
        return l1_ssim_loss_reference(images, truths)
    return l1_ssim_loss_cpu(images, truths)


@functools.cache
def _say_that_torch_serves() -> None:
    _log.warning("ssim: torch serves, ten times slower, for the library is not built (reinstall with a C++ compiler)")
