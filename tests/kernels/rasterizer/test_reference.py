"""The plain version against derivatives, closed forms and gsplat's own formulas."""

import functools
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from lrm_ttt.eval.speed.gaussian_clouds import random_scene
from lrm_ttt.kernels.rasterizer.constants import EPS2D, MIN_TRANSMITTANCE, Settings
from lrm_ttt.kernels.rasterizer.op import Rasterized, rasterize
from lrm_ttt.kernels.rasterizer.reference import project_covariances, rotation_matrices
from lrm_ttt.kernels.rasterizer.spherical_harmonics import sh_basis

FOCAL = 20.0
SIZE = (9, 11)


def draw_on_axis(depths: list[float], opacities: list[float], colors: list[float], scale: float = 0.3) -> Rasterized:
    """Draw grey, round Gaussians on the axis of one camera whose principal point is the centre of pixel (4, 5)."""
    count = len(depths)
    means = torch.zeros(1, count, 3, dtype=torch.float64)
    means[0, :, 2] = torch.tensor(depths)
    return rasterize(
        means,
        torch.tensor([2.0, 0, 0, 0], dtype=torch.float64).expand(1, count, 4),
        torch.full((1, count, 3), scale, dtype=torch.float64),
        torch.tensor([opacities], dtype=torch.float64),
        colors=torch.tensor(colors, dtype=torch.float64)[None, :, None].expand(1, count, 3),
        world_to_cam=torch.eye(4, dtype=torch.float64).expand(1, 1, 4, 4),
        intrinsics=torch.tensor([[[FOCAL, FOCAL, 5.5, 4.5]]], dtype=torch.float64),
        image_size=SIZE,
        background=torch.tensor([0.5, 0.5, 0.5], dtype=torch.float64),
        backend="reference",
    )


def test_one_round_gaussian_is_a_gaussian_image() -> None:
    scale, depth, opacity = 0.3, 4.0, 0.7
    drawn = draw_on_axis([depth], [opacity], [0.9], scale)
    # Off the axis the projection is not round, but its Jacobian is taken at the mean, which is on it.
    variance = (FOCAL * scale / depth) ** 2 + EPS2D
    y, x = torch.meshgrid(torch.arange(9.0) - 4, torch.arange(11.0) - 5, indexing="ij")
    expected = opacity * torch.exp(-0.5 * (x * x + y * y).double() / variance)
    expected = torch.where(expected >= 1 / 255, expected, 0)
    assert (expected == 0).any()
    torch.testing.assert_close(drawn.alphas[0, 0, 0], expected)
    torch.testing.assert_close(drawn.colors[0, 0, 1], 0.9 * expected + 0.5 * (1 - expected))
    assert drawn.depths is not None
    torch.testing.assert_close(drawn.depths[0, 0, 0], torch.where(expected > 0, depth, 0.0).double())


def test_the_nearer_gaussian_covers_the_farther() -> None:
    drawn = draw_on_axis([4.0, 3.0], [0.6, 0.5], [1.0, 0.0])
    assert drawn.depths is not None
    weights = torch.tensor([0.5, 0.5 * 0.6], dtype=torch.float64)
    alpha = weights.sum()
    torch.testing.assert_close(drawn.alphas[0, 0, 0, 4, 5], alpha)
    torch.testing.assert_close(drawn.colors[0, 0, 0, 4, 5], weights[1] + 0.5 * (1 - alpha))
    torch.testing.assert_close(drawn.depths[0, 0, 0, 4, 5], (3 * weights[0] + 4 * weights[1]) / alpha)


def test_the_gaussian_that_would_exhaust_a_pixel_is_left_out() -> None:
    drawn = draw_on_axis([1.0, 2.0, 3.0, 4.0], [0.99, 0.98, 0.9, 0.9], [0.1, 0.2, 0.3, 0.4])
    left_over = 0.01 * 0.02
    assert left_over > MIN_TRANSMITTANCE > left_over * 0.1
    torch.testing.assert_close(drawn.alphas[0, 0, 0, 4, 5].item(), 1 - left_over)
    expected = 0.99 * 0.1 + 0.01 * 0.98 * 0.2 + left_over * 0.5
    torch.testing.assert_close(drawn.colors[0, 0, 2, 4, 5].item(), expected)


def test_alpha_is_clamped() -> None:
    assert draw_on_axis([1.0], [1.0], [0.3]).alphas.max().item() == pytest.approx(0.999)


@pytest.mark.parametrize("features", ["sh", "colors"])
@pytest.mark.parametrize("antialiased", [False, True])
def test_gradients_of_every_input(features: str, antialiased: bool) -> None:
    # Coefficients of degree 2 and above have another test: their number costs time here.
    sh_count = 4 if features == "sh" else 0
    scene = random_scene(3, 5, 6, num_scenes=2, num_views=2, sh_count=sh_count, scale=0.35, dtype=torch.float64)
    names = [name for name in scene if name != "intrinsics"]

    def draw(*tensors: Tensor) -> tuple[Tensor, ...]:
        arguments = dict(zip(names, tensors, strict=True))
        drawn = rasterize(**arguments, intrinsics=scene["intrinsics"], image_size=(5, 6), antialiased=antialiased,
                          backend="reference")  # fmt: skip
        assert drawn.depths is not None
        return drawn.colors, drawn.alphas, drawn.depths

    leaves = [scene[name].clone().requires_grad_() for name in names]
    # The step is small, for a pixel at the threshold of 1/255 must not cross it.
    assert torch.autograd.gradcheck(draw, leaves, eps=1e-7, atol=1e-5, rtol=1e-4, fast_mode=True)


def test_gradients_of_spherical_harmonics() -> None:
    directions = torch.nn.functional.normalize(torch.randn(5, 3, dtype=torch.float64), dim=-1).requires_grad_()
    assert torch.autograd.gradcheck(functools.partial(sh_basis, degree=3), (directions,))


def test_spherical_harmonics_are_orthonormal() -> None:
    # Gauss-Legendre in z and equal steps in angle integrate polynomials of degree 6 exactly.
    heights, weights = (torch.tensor(a) for a in np.polynomial.legendre.leggauss(8))
    angles = torch.arange(16, dtype=torch.float64) * math.tau / 16
    radius = (1 - heights**2).sqrt()
    x, y = (radius[:, None] * f(angles) for f in (torch.cos, torch.sin))
    directions = torch.stack([x, y, heights[:, None].expand_as(x)], -1).reshape(-1, 3)
    basis = sh_basis(directions, 3)
    products = torch.einsum("n,nk,nl->kl", weights.repeat_interleave(16) * math.tau / 16, basis, basis)
    torch.testing.assert_close(products, torch.eye(16, dtype=torch.float64))


def test_a_batch_is_its_images_one_by_one() -> None:
    scene = random_scene(40, 12, 14, num_scenes=2, num_views=3, scale=0.1, dtype=torch.float64)
    whole = rasterize(**scene, image_size=(12, 14), backend="reference")
    for i in range(2):
        for j in range(3):
            one = {name: tensor[i] for name, tensor in scene.items()}
            for name in ("world_to_cam", "intrinsics", "background"):
                one[name] = one[name][j : j + 1]
            for batched, single in zip(whole, rasterize(**one, image_size=(12, 14), backend="reference"), strict=True):
                assert batched is not None
                assert single is not None
                assert torch.equal(batched[i, j : j + 1], single)


def test_formulas_are_those_of_gsplat() -> None:
    formulas = pytest.importorskip("gsplat.cuda._torch_impl", exc_type=ImportError)
    scene = {name: tensor[0] for name, tensor in random_scene(300, 30, 40, num_views=2, dtype=torch.float64).items()}
    # Means far outside the view test the limits of the Jacobian.
    means = 2.5 * scene["means"]
    fx, fy, cx, cy = scene["intrinsics"][0].tolist()
    matrices = torch.tensor([[fx, 0, cx], [0, fy, cy], [0, 0, 1]], dtype=torch.float64).expand(2, 3, 3)
    covariances, _ = formulas._quat_scale_to_covar_preci(scene["wxyz"], scene["scales"], True, False)
    axes = rotation_matrices(scene["wxyz"]) * scene["scales"][:, None]
    torch.testing.assert_close(axes @ axes.mT, covariances)
    cameras = scene["world_to_cam"]
    in_camera = torch.einsum("vij,nj->vni", cameras[:, :3, :3], means) + cameras[:, None, :3, 3]
    in_view = torch.einsum("vij,njk,vlk->vnil", cameras[:, :3, :3], covariances, cameras[:, :3, :3])
    _, expected = formulas._persp_proj(in_camera, in_view, matrices, 40, 30)
    for view in range(2):
        ours = project_covariances(
            in_camera[view], covariances, cameras[view, :3, :3], scene["intrinsics"][view], Settings(30, 40)
        )
        torch.testing.assert_close(ours, expected[view])
    directions = torch.nn.functional.normalize(means, dim=-1)
    torch.testing.assert_close(sh_basis(directions, 3), formulas._eval_sh_bases_fast(16, directions))
