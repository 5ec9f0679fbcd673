"""How near an image is to the truth: PSNR and SSIM, with the variant in words: they differ more than methods do."""

import dataclasses

import torch
from jaxtyping import Float
from torch import Tensor

# Printed beside every number: an SSIM with a 7x7 uniform window, for one, reads 0.007 to 0.015 higher.
VARIANTS = {
    "psnr": "per image over all pixels and channels of values clamped to 0..1, mean over images; at most 100 dB",
    "ssim": "11-tap Gaussian window (sigma 1.5), k1 0.01, k2 0.03, per RGB channel, reflected borders, mean of images",
}
SSIM_WINDOW = 11
LEAST_MSE = 1e-10
# SSIM takes some fifteen times the memory of the images that it compares.
IMAGES_AT_ONCE = 16


@dataclasses.dataclass(frozen=True)
class ImageScores:
    """The scores of each image; `ssim` is None for images smaller than its window."""

    psnr: tuple[float, ...]
    ssim: tuple[float, ...] | None

    @property
    def mean_psnr(self) -> float:
        """Mean over images, in dB."""
        return sum(self.psnr) / len(self.psnr)

    @property
    def mean_ssim(self) -> float | None:
        """Mean over images."""
        return None if self.ssim is None else sum(self.ssim) / len(self.ssim)


def psnr(images: Float[Tensor, "n 3 h w"], truths: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n"]:
    """Return the peak signal-to-noise ratio of each image in dB, of values clamped to 0..1; at most 100."""
    squared = (images.clamp(0, 1) - truths.clamp(0, 1)).square()
    return -10 * squared.double().flatten(1).mean(1).clamp(min=LEAST_MSE).log10()


def ssim(images: Float[Tensor, "n 3 h w"], truths: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n"]:
    """Return the structural similarity of each image (11-tap Gaussian), for sides of at least 11 pixels."""
    from torchmetrics.functional.image import structural_similarity_index_measure

    assert min(images.shape[-2:]) >= SSIM_WINDOW, "images are smaller than the window of SSIM"
    value = structural_similarity_index_measure(
        images.clamp(0, 1), truths.clamp(0, 1), gaussian_kernel=True, sigma=1.5, data_range=1.0, reduction="none"
    )
    assert isinstance(value, Tensor)
    return value.reshape(images.shape[0])


@torch.no_grad()
def score_images(images: Float[Tensor, "n 3 h w"], truths: Float[Tensor, "n 3 h w"]) -> ImageScores:
    """Return the scores of renderings against the truth."""
    large_enough = min(images.shape[-2:]) >= SSIM_WINDOW
    ratios: list[float] = []
    similarities: list[float] = []
    for some, true in zip(images.split(IMAGES_AT_ONCE), truths.split(IMAGES_AT_ONCE), strict=True):
        true = true.to(some)
        ratios += psnr(some, true).tolist()
        similarities += ssim(some, true).tolist() if large_enough else []
    return ImageScores(tuple(ratios), tuple(similarities) if large_enough else None)
