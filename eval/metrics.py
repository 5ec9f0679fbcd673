"""How near an image is to the truth, each metric with its variant in words: variants differ more than methods do."""

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from lrm_ttt.losses.perceptual import cached_weights, load_lpips

Alignment = Literal["none", "median", "affine"]
Network = Literal["vgg", "alex"]

ALIGNMENTS: dict[Alignment, str] = {
    "none": "as rendered, without alignment",
    "median": "after scaling each image's depth by the ratio of the medians",
    "affine": "after the least-squares scale and shift of each image's depth",
}
NETWORKS: dict[Network, tuple[str, str]] = {"vgg": ("VGG-16", "vgg16"), "alex": ("AlexNet", "alexnet")}
DELTA = 1.25
SSIM_WINDOW = 11
UNIFORM_WINDOW = 7
# LPIPS' networks halve an image four or five times.
LPIPS_LEAST_SIDE = 32
LEAST_MSE = 1e-10
# SSIM takes some fifteen times the memory of the images that it compares.
IMAGES_AT_ONCE = 16


def variants(lpips: Network = "vgg", alignment: Alignment = "none") -> dict[str, str]:
    """Return what each number that `score` gives is, in words to be printed beside it."""
    depth = f"of camera z, over the pixels of the truth whose depth is known, {ALIGNMENTS[alignment]}, mean of images"
    return {
        "psnr": "per image over all pixels and channels of values clamped to 0..1, mean over images; at most 100 dB",
        "ssim": "11-tap Gaussian window (sigma 1.5), k1 0.01, k2 0.03, per RGB channel, reflected borders, "
        "mean of images",
        "ssim_uniform7": "7x7 uniform window inside the image alone (3 pixels cropped at each side), k1 0.01, k2 0.03, "
        "sample covariance, per RGB channel, mean of images; the default of scikit-image",
        "lpips": f"LPIPS 0.1 on {NETWORKS[lpips][0]}, images scaled to [-1, 1], mean of images",
        "depth_abs_rel": f"mean of |d - d*| / d* {depth}",
        "depth_delta1": f"share with max(d / d*, d* / d) < {DELTA} {depth}",
    }


# A uniform window, for one, reads 0.007 to 0.015 higher than the Gaussian one.
VARIANTS = variants()


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


@dataclasses.dataclass(frozen=True)
class Scores(ImageScores):
    """All scores of each image.

    `ssim_uniform7` and `lpips` are None for images smaller than their window or network, `lpips` also without its
    weights; the depths are None without a true depth, and nan for an image of which none is known.
    """

    ssim_uniform7: tuple[float, ...] | None
    lpips: tuple[float, ...] | None
    depth_abs_rel: tuple[float, ...] | None
    depth_delta1: tuple[float, ...] | None

    @property
    def means(self) -> dict[str, float | None]:
        """The mean over images of each metric, by its name in `variants`."""
        return {field.name: _mean(getattr(self, field.name)) for field in dataclasses.fields(self)}


class Lpips:
    """The learned perceptual distance of arXiv 1801.03924 on torchvision's weights, read once.

    Raises `InvalidConfig` where the weights are missing (`why_no_lpips` says so before) or of another network.
    """

    def __init__(self, network: Network = "vgg", device: torch.device | str = "cpu") -> None:
        self.network: Network = network
        path, _ = cached_weights(NETWORKS[network][1])
        self._metric = load_lpips(network, path).to(device)
        self._device = torch.device(device)

    @torch.no_grad()
    def __call__(self, images: Float[Tensor, "n 3 h w"], truths: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n"]:
        """Return the distance of each image from its truth, for sides of at least 32 pixels; values 0..1 go in."""
        assert min(images.shape[-2:]) >= LPIPS_LEAST_SIDE, "images are too small for the networks of LPIPS"
        ours, theirs = (x.to(self._device, torch.float32).clamp(0, 1) for x in (images, truths))
        distances: Tensor = self._metric(ours, theirs, normalize=True)
        return distances.flatten().cpu()


def why_no_lpips(network: Network = "vgg") -> str | None:
    """Return why LPIPS cannot be had, in one sentence for the reader of its empty column, or None."""
    path, url = cached_weights(NETWORKS[network][1])
    if path.is_file():
        return None
    return (
        f"LPIPS was not computed: the weights of {NETWORKS[network][0]} are not at hand (put {url} into "
        f"{str(path.parent).replace(str(Path.home()), '~', 1)})."
    )


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


def ssim_uniform7(images: Float[Tensor, "n 3 h w"], truths: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n"]:
    """Return the structural similarity of each image (7x7 uniform window), for sides of at least 7 pixels.

    What `skimage.metrics.structural_similarity` gives by default with data_range=1 and channel_axis, in float64.
    """
    assert min(images.shape[-2:]) >= UNIFORM_WINDOW, "images are smaller than the window of SSIM"
    x, y = images.clamp(0, 1).double(), truths.clamp(0, 1).double()
    mean_x, mean_y, mean_xx, mean_yy, mean_xy = (_window_mean(v) for v in (x, y, x * x, y * y, x * y))
    samples = UNIFORM_WINDOW**2
    unbiased = samples / (samples - 1)
    variances = unbiased * (mean_xx - mean_x**2 + mean_yy - mean_y**2)
    covariance = unbiased * (mean_xy - mean_x * mean_y)
    c1, c2 = 0.01**2, 0.03**2
    similar = (2 * mean_x * mean_y + c1) * (2 * covariance + c2) / ((mean_x**2 + mean_y**2 + c1) * (variances + c2))
    return similar.flatten(1).mean(1)


def depth_errors(
    depths: Float[Tensor, "n 1 h w"], truths: Float[Tensor, "n 1 h w"], alignment: Alignment = "none"
) -> tuple[Float[Tensor, "n"], Float[Tensor, "n"]]:
    """Return AbsRel and delta < 1.25 of each image, over the pixels whose true depth is known (finite, above 0).

    A pixel where nothing was rendered (depth 0) counts as wrong by its whole depth; `alignment` is fitted to the
    others. nan for an image without known depths.
    """
    found = [_depth_error(*pair, alignment) for pair in zip(depths.double(), truths.double(), strict=True)]
    errors, shares = torch.tensor(found, dtype=torch.float64).reshape(-1, 2).unbind(1)
    return errors, shares


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


@torch.no_grad()
def score(
    images: Float[Tensor, "n 3 h w"],
    truths: Float[Tensor, "n 3 h w"],
    lpips: Lpips | None = None,
    depths: Float[Tensor, "n 1 h w"] | None = None,
    true_depths: Float[Tensor, "n 1 h w"] | None = None,
    alignment: Alignment = "none",
) -> Scores:
    """Return all scores of renderings against the truth; depths are camera z in the same units, 0 where unknown."""
    assert (depths is None) == (true_depths is None), "depths are compared with true ones"
    side = min(images.shape[-2:])
    uniform: list[float] = []
    distances: list[float] = []
    for some, true in zip(images.split(IMAGES_AT_ONCE), truths.split(IMAGES_AT_ONCE), strict=True):
        true = true.to(some)
        uniform += ssim_uniform7(some, true).tolist() if side >= UNIFORM_WINDOW else []
        distances += lpips(some, true).tolist() if lpips is not None and side >= LPIPS_LEAST_SIDE else []
    known = None if depths is None or true_depths is None else depth_errors(depths, true_depths.to(depths), alignment)
    return Scores(
        **vars(score_images(images, truths)),
        ssim_uniform7=tuple(uniform) or None,
        lpips=tuple(distances) or None,
        depth_abs_rel=None if known is None else tuple(known[0].tolist()),
        depth_delta1=None if known is None else tuple(known[1].tolist()),
    )


def _window_mean(values: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 3 _ _"]:
    """Return the mean of every 7x7 window that lies inside the image, across and then down."""
    across = torch.nn.functional.avg_pool2d(values, (1, UNIFORM_WINDOW), 1)
    return torch.nn.functional.avg_pool2d(across, (UNIFORM_WINDOW, 1), 1)


def _depth_error(depth: Tensor, truth: Tensor, alignment: Alignment) -> tuple[float, float]:
    known = truth.isfinite() & (truth > 0)
    if not known.any():
        return math.nan, math.nan
    depth, truth = depth[known], truth[known]
    drawn = depth.isfinite() & (depth > 0)
    depth = torch.where(drawn, depth, torch.zeros_like(depth))
    if drawn.any():
        scale, shift = _fitted(depth[drawn], truth[drawn], alignment)
        depth = torch.where(drawn, scale * depth + shift, depth)
    ratio = torch.maximum(depth / truth, truth / depth.clamp(min=0))
    return ((depth - truth).abs() / truth).mean().item(), (ratio < DELTA).double().mean().item()


def _fitted(depth: Float[Tensor, "p"], truth: Float[Tensor, "p"], alignment: Alignment) -> tuple[float, float]:
    """Return the scale and the shift that bring depths to the truth."""
    if alignment == "none":
        return 1.0, 0.0
    if alignment == "median":
        return (truth.median() / depth.median()).item(), 0.0
    centred = depth - depth.mean()
    scale = ((centred * truth).sum() / centred.square().sum().clamp(min=torch.finfo(depth.dtype).tiny)).item()
    return scale, (truth.mean() - scale * depth.mean()).item()


def _mean(values: Sequence[float] | None) -> float | None:
    """Return the mean of the values that exist."""
    existing = [value for value in values or () if not math.isnan(value)]
    return sum(existing) / len(existing) if existing else None
