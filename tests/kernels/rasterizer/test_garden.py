"""A real scene: what another renderer made of it, and the two backends on it."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.neighbors import NearestNeighbors
from torch import Tensor

from lrm_ttt.kernels.rasterizer import cpu
from lrm_ttt.kernels.rasterizer.op import Rasterized, rasterize
from tests.helpers.shared import shared_path

pytestmark = pytest.mark.skipif(cpu.library() is None, reason="the native library is not built: no C++ compiler")


def garden() -> dict[str, Tensor]:
    """Return the points as Gaussians, with the shapes that the .ply files of shared/data/splat_files were given."""
    with np.load(shared_path("data", "garden", "test_garden.npz")) as points:
        means, colors = points["means3d"], points["colors"]
        cameras, intrinsics = points["viewmats"], points["Ks"]
    distances = NearestNeighbors(n_neighbors=4).fit(means).kneighbors(means)[0][:, 1:]
    size = np.sqrt((distances**2).mean(1)).clip(1e-7, 0.05)
    return {
        "means": torch.from_numpy(means),
        "wxyz": torch.from_numpy(np.random.default_rng(0).standard_normal((len(means), 4))).float(),
        "scales": torch.from_numpy(size).float()[:, None] * torch.tensor([0.7, 0.42, 0.21]),
        "opacities": torch.full((len(means),), 0.8),
        "colors": torch.from_numpy(colors).float() / 255,
        "world_to_cam": torch.from_numpy(cameras),
        "intrinsics": torch.from_numpy(intrinsics[:, [0, 1, 0, 1], [0, 1, 2, 2]]),
    }


def test_the_picture_is_that_of_another_renderer() -> None:
    camera = json.loads(shared_path("data", "splat_files", "full_garden138k_cam.json").read_text())
    path = shared_path("data", "splat_files", "full_garden138k_reference_render.png")
    with Image.open(path) as image:
        expected = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1) / 255
    scene = garden()
    matrix = torch.eye(4)
    matrix[:3] = torch.tensor(camera["w2c"][:12]).reshape(3, 4)
    fx, _, cx, _, fy, cy, *_ = camera["K"]
    scene["world_to_cam"], scene["intrinsics"] = matrix[None], torch.tensor([[fx, fy, cx, cy]])
    drawn = rasterize(**scene, image_size=(camera["H"], camera["W"]), backend="cpu").colors[0]
    error = drawn.clamp(0, 1) - expected
    # It blends in eight bits and cuts its Gaussians earlier. Measured: 30.6 dB, median 2.1 of 255; without the blur of
    # 0.3 square pixels 29.0 dB and 4.1, antialiased 3.7, and half a pixel aside 25 dB.
    assert -10 * torch.log10(error.square().mean()) > 30.4
    assert error.abs().median() < 2.5 / 255


def test_both_backends_draw_the_same_garden() -> None:
    scene = garden()
    size = (105, 162)
    scene["intrinsics"] = scene["intrinsics"] / 4
    for name in ("means", "wxyz", "scales", "opacities", "colors"):
        # The plain version takes a minute for all of them.
        scene[name] = scene[name][::8]
    drawn = rasterize(**scene, image_size=size, backend="cpu")
    one_view = {**scene, "world_to_cam": scene["world_to_cam"][1:2], "intrinsics": scene["intrinsics"][1:2]}
    expected = rasterize(**{name: tensor.double() for name, tensor in one_view.items()}, image_size=size,
                         backend="reference")  # fmt: skip
    for name, image, right in zip(Rasterized._fields, drawn, expected, strict=True):
        assert image is not None
        assert right is not None
        error = (image[1:2] - right).abs()
        assert error.mean() < 2e-6, name
        # Pixels with a Gaussian at a threshold, or with two at almost the same depth.
        assert (error > 1e-4).double().mean() < 1e-3, name
