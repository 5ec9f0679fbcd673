"""Closed forms of the metrics, and that each is the variant that its name says."""

import math
from pathlib import Path

import lpips
import pytest
import torch
import torchvision
from skimage.metrics import structural_similarity
from torch import Tensor
from torch.nn.functional import conv2d, normalize, pad
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

from lrm_ttt.errors import InvalidConfig
from lrm_ttt.eval.metrics import (
    VARIANTS,
    Lpips,
    depth_errors,
    psnr,
    score,
    score_images,
    ssim,
    ssim_uniform7,
    variants,
    why_no_lpips,
)
from tests.helpers.vgg import random_vgg


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


def test_psnr_and_gaussian_ssim_are_those_of_torchmetrics_and_scikit_image() -> None:
    images, truths = random_images(4, 1, 3, 40, 33), random_images(5, 1, 3, 40, 33)
    assert psnr(images, truths).item() == pytest.approx(peak_signal_noise_ratio(images, truths, data_range=1.0).item())
    ours = ssim(images, truths).item()
    assert ours == structural_similarity_index_measure(images, truths, data_range=1.0).item()
    # Scikit-image has the same 11 taps; the two differ in how they go on beyond the border.
    _, theirs = structural_similarity(
        *(x[0].double().numpy() for x in (images, truths)),
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        data_range=1.0,
        channel_axis=0,
        full=True,
    )
    _, full = structural_similarity_index_measure(images, truths, data_range=1.0, return_full_image=True)
    assert torch.allclose(full[0].double()[:, 5:-5, 5:-5], torch.from_numpy(theirs)[:, 5:-5, 5:-5], atol=1e-5)


def test_uniform_ssim_is_the_default_of_scikit_image() -> None:
    truths = random_images(6, 3, 3, 20, 29)
    images = (truths + 0.3 * random_images(7, 3, 3, 20, 29) - 0.1).clamp(0, 1)
    expected = [
        structural_similarity(a.double().numpy(), b.double().numpy(), data_range=1.0, channel_axis=0)
        for a, b in zip(images, truths, strict=True)
    ]
    assert ssim_uniform7(images, truths).tolist() == pytest.approx(expected, abs=1e-12)
    # It is not the other variant.
    assert (ssim_uniform7(images, truths) - ssim(images, truths)).abs().min() > 5e-4


@pytest.mark.parametrize(("value", "truth"), [(0.5, 0.5), (0.25, 0.75), (0.0, 1.0)])
def test_similarity_of_even_images(value: float, truth: float) -> None:
    """Without contrast only the means count."""
    expected = (2 * value * truth + 1e-4) / (value**2 + truth**2 + 1e-4)
    images, truths = torch.full((1, 3, 16, 16), value), torch.full((1, 3, 16, 16), truth)
    assert ssim_uniform7(images, truths).item() == pytest.approx(expected, abs=1e-9)
    # In float32 variances of 1e-7 are left, beside a constant of 9e-4; 3e-4 measured.
    assert ssim(images, truths).item() == pytest.approx(expected, abs=5e-4)


@pytest.mark.parametrize(
    ("network", "model", "file", "layers"),
    [
        ("vgg", "vgg16", "vgg16-397923af.pth", (3, 8, 15, 22, 29)),
        ("alex", "alexnet", "alexnet-owt-7be5be79.pth", (1, 4, 7, 9, 11)),
    ],
)
def test_lpips_is_the_distance_of_its_paper(
    network: str, model: str, file: str, layers: tuple[int, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Equation 1 of arXiv 1801.03924: unit features, squared, weighted, mean over places, sum over layers."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    reason = why_no_lpips(network)
    assert reason is not None and file in reason and str(tmp_path) in reason
    with pytest.raises(InvalidConfig, match=file):
        Lpips(network)
    random_vgg(model, tmp_path / "checkpoints" / file)
    assert why_no_lpips(network) is None

    with torch.device("meta"):
        features = torchvision.models.get_model(model, weights=None).features.eval()
    weights = torch.load(tmp_path / "checkpoints" / file)
    features.load_state_dict({name.removeprefix("features."): value for name, value in weights.items()}, assign=True)
    heads = torch.load(Path(lpips.__file__).parent / "weights" / "v0.1" / f"{network}.pth", map_location="cpu")
    images, truths = random_images(8, 2, 3, 40, 48), random_images(9, 2, 3, 40, 48)
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    ours, theirs = ((x - mean[:, None, None]) / deviation[:, None, None] for x in (images, truths))
    expected = torch.zeros(2)
    with torch.no_grad():
        for number, layer in enumerate(features[: layers[-1] + 1]):
            ours, theirs = layer(ours), layer(theirs)
            if number in layers:
                head = heads[f"lin{layers.index(number)}.model.1.weight"][0, :, 0, 0]
                squared = (normalize(ours, dim=1) - normalize(theirs, dim=1)).square()
                expected += torch.einsum("nchw,c->nhw", squared, head).mean((1, 2))
    metric = Lpips(network)
    assert metric(images, truths).tolist() == pytest.approx(expected.tolist(), rel=1e-4)
    assert metric(truths, truths).tolist() == [0, 0]
    assert score(images, truths, metric).means["lpips"] == pytest.approx(expected.mean().item(), rel=1e-4)


def test_depth_errors_of_a_known_factor_and_shift() -> None:
    truths = 1 + random_images(10, 2, 1, 6, 8)
    truths[0, 0, :3] = 0.0
    truths[1, 0, 0, 0] = math.inf
    # Scaling both does not matter, nor what lies where the truth is unknown.
    depths = torch.where((truths > 0) & truths.isfinite(), 1.2 * truths, torch.full_like(truths, 77.0))
    errors, shares = depth_errors(depths, truths)
    assert errors.tolist() == pytest.approx([0.2, 0.2], abs=1e-6) and shares.tolist() == [1, 1]
    assert depth_errors(1.5 * depths, truths)[1].tolist() == [0, 0]
    for alignment in ("median", "affine"):
        assert depth_errors(depths, truths, alignment)[0].tolist() == pytest.approx([0, 0], abs=1e-6)
    shifted = depths + 3
    assert depth_errors(shifted, truths, "affine")[0].tolist() == pytest.approx([0, 0], abs=1e-6)
    assert depth_errors(shifted, truths, "median")[0].min() > 0.01


def test_pixels_without_a_rendering_are_wrong_whatever_the_alignment() -> None:
    truths = 2 + random_images(11, 1, 1, 4, 4)
    depths = 0.5 * truths
    depths[..., :2] = 0.0
    for alignment in ("median", "affine"):
        errors, shares = depth_errors(depths, truths, alignment)
        assert errors.item() == pytest.approx(0.5, abs=1e-6) and shares.item() == 0.5


def test_the_least_squares_alignment_is_the_best_in_squares() -> None:
    truths, depths = 1 + random_images(12, 1, 1, 9, 9), 1 + random_images(13, 1, 1, 9, 9)
    system = torch.stack([depths.flatten(), torch.ones(81)], 1).double()
    scale, shift = torch.linalg.lstsq(system, truths.flatten().double()[:, None]).solution.flatten()
    aligned = scale * depths.double() + shift
    expected = ((aligned - truths).abs() / truths).mean().item()
    assert depth_errors(depths, truths, "affine")[0].item() == pytest.approx(expected, rel=1e-9)


def test_score_gives_every_metric_that_has_words_and_none_where_it_is_absent() -> None:
    images, truths = random_images(14, 20, 3, 16, 16), random_images(15, 20, 3, 16, 16)
    depths = 1 + random_images(16, 20, 1, 16, 16)
    known = depths.clone()
    known[3] = 0
    found = score(images, truths, depths=depths, true_depths=known)
    assert set(found.means) == set(VARIANTS) == set(variants("alex", "median"))
    assert found.psnr == score_images(images, truths).psnr and found.ssim == score_images(images, truths).ssim
    assert found.ssim_uniform7 == tuple(ssim_uniform7(images, truths).tolist())
    # An image without a true depth does not count.
    assert found.depth_abs_rel is not None and math.isnan(found.depth_abs_rel[3])
    assert found.means["depth_abs_rel"] == 0 and found.means["depth_delta1"] == 1
    without = score(images[..., :6], truths[..., :6])
    names = ("ssim", "ssim_uniform7", "lpips", "depth_abs_rel", "depth_delta1")
    assert all(without.means[name] is None for name in names) and without.means["psnr"] is not None


def test_the_words_name_network_and_alignment() -> None:
    assert "VGG-16" in variants("vgg")["lpips"] and "AlexNet" in variants("alex")["lpips"]
    words = {alignment: variants(alignment=alignment)["depth_abs_rel"] for alignment in ("none", "median", "affine")}
    assert "without alignment" in words["none"] and "medians" in words["median"]
    assert "least-squares scale and shift" in words["affine"]
