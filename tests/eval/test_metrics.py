"""Closed forms of the metrics, and that the SSIM is the variant that its name says."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import conv2d, pad

from lrm_ttt.eval.metrics import psnr, score_images, ssim


def random_images(seed: int, *shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("offset", [0.1, 0.25])
def test_psnr_of_a_constant_error(offset: float) -> None:
    truths = random_images(0, 2, 3, 16, 20) * (1 - offset)
    assert psnr(truths + offset, truths).tolist() == pytest.approx([-20 * math.log10(offset)] * 2, abs=1e-4)


def test_psnr_is_taken_per_image_and_of_clamped_values() -> None:
    truths = torch.stack([torch.zeros(3, 12, 12), torch.ones(3, 12, 12)])
    images = torch.stack([torch.full((3, 12, 12), 0.1), torch.full((3, 12, 12), 7.0)])
    scores = score_images(images, truths)
    assert scores.psnr == pytest.approx((20.0, 100.0), abs=1e-4)
    assert scores.mean_psnr == pytest.approx(60.0, abs=1e-4)


def test_ssim_is_that_of_the_gaussian_window() -> None:
    """An independent one in float64: 11 taps of a Gaussian with sigma 1.5, images reflected at their borders."""
    images, truths = random_images(1, 2, 3, 24, 31), random_images(2, 2, 3, 24, 31)
    taps = torch.exp(-0.5 * ((torch.arange(11).double() - 5) / 1.5) ** 2)
    window = torch.outer(taps, taps)[None, None] / taps.sum() ** 2

    def blur(values: Tensor) -> Tensor:
        reflected = pad(values.reshape(6, 1, 24, 31), (5, 5, 5, 5), mode="reflect")
        return conv2d(reflected, window).reshape(2, 3, 24, 31)

    x, y = images.double(), truths.double()
    mean_x, mean_y = blur(x), blur(y)
    var_x, var_y = blur(x * x) - mean_x**2, blur(y * y) - mean_y**2
    covariance = blur(x * y) - mean_x * mean_y
    top = (2 * mean_x * mean_y + 0.01**2) * (2 * covariance + 0.03**2)
    bottom = (mean_x**2 + mean_y**2 + 0.01**2) * (var_x + var_y + 0.03**2)
    expected = (top / bottom).mean((1, 2, 3))
    assert ssim(images, truths).tolist() == pytest.approx(expected.tolist(), abs=1e-5)


def test_images_smaller_than_the_window_have_no_ssim() -> None:
    images = random_images(3, 1, 3, 8, 40)
    assert score_images(images, images).ssim is None
    assert score_images(images, images).mean_ssim is None
