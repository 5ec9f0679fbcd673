"""The geometric terms against cases whose answer is known."""

import math

import torch

from lrm_ttt.losses.geometry import own_depths, position_error, relative_disparity_error, surface
from lrm_ttt.losses.regularisers import stray_opacity
from lrm_ttt.scene.cameras import Cameras, ImageSize, look_at
from lrm_ttt.scene.views import Views

PATCH = 4


def make_views(masked: bool = True) -> Views:
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(2, 3, 3, generator=generator)
    centres = 3 * centres / centres.norm(dim=-1, keepdim=True)
    size = ImageSize(8, 12)
    pose = look_at(centres, torch.zeros_like(centres), torch.tensor([0.0, 0.0, 1.0]))
    cameras = Cameras(pose, torch.tensor([14.0, 15.0, 5.5, 4.5]).expand(2, 3, 4), size)
    depths = 2 + torch.rand(2, 3, 1, *size, generator=generator)
    masks = (torch.rand(2, 3, 1, *size, generator=generator) > 0.3).float()
    return Views(torch.rand(2, 3, 3, *size), cameras, masks if masked else None, depths * masks if masked else depths)


def pixel_means(views: Views, depths: torch.Tensor) -> torch.Tensor:
    """Return the points behind the pixels in the order of the Gaussians, by rays and a loop over patches."""
    origins, directions = views.cameras.rays()
    along = (directions * views.cameras.forward[:, :, None, None]).sum(-1)
    points = origins + directions * (depths[:, :, 0] / along)[..., None]
    height, width = views.image_size
    cut = [
        points[:, :, row : row + PATCH, column : column + PATCH].flatten(2, 3)
        for row in range(0, height, PATCH)
        for column in range(0, width, PATCH)
    ]
    return torch.cat(cut, 2).flatten(1, 2)


def test_gaussians_on_the_surface_have_no_error() -> None:
    views = make_views()
    assert views.depths is not None
    z = own_depths(pixel_means(views, views.depths), views.cameras)
    depths, known = surface(views, PATCH)
    # Rounding of unprojecting and projecting in float32.
    torch.testing.assert_close(z[known], depths[known], atol=2e-5, rtol=0)
    assert position_error(z, depths, known, beta=0.05) < 1e-8
    assert relative_disparity_error(z, depths, known) < 1e-8


def test_scaled_depths_have_the_logarithm_as_error() -> None:
    views = make_views(masked=False)
    depths, known = surface(views, PATCH)
    assert known.all()
    for factor, beta in ((1.5, 0.05), (1.01, 0.5)):
        step = math.log(factor)
        expected = step - beta / 2 if step > beta else step**2 / (2 * beta)
        assert abs(float(position_error(depths * factor, depths, known, beta)) - expected) < 1e-6


def test_depth_term_ignores_scale_and_offset_of_the_teachers_disparity() -> None:
    views = make_views()
    depths, known = surface(views, PATCH)
    teacher = 1 / (3 / depths.clamp(min=0.5) + 0.2)
    assert relative_disparity_error(depths, teacher, known) < 1e-6
    assert relative_disparity_error(depths, depths.flip(-1) + 0.1, known) > 1e-2


def test_nothing_known_gives_zero_and_finite_gradients() -> None:
    z = torch.rand(1, 2, 8, requires_grad=True)
    nothing = torch.zeros(1, 2, 8, dtype=torch.bool)
    total = position_error(z, torch.zeros(1, 2, 8), nothing, 0.1) + relative_disparity_error(z, z.detach(), nothing)
    total.backward()
    assert total == 0 and z.grad is not None and (z.grad == 0).all()


def test_stray_opacity_counts_pixels_off_the_object_only() -> None:
    views = make_views()
    assert views.masks is not None
    off = views.masks == 0
    opacities = torch.where(off, 0.25, 0.9)
    cut = opacities[:, :, 0].unfold(2, PATCH, PATCH).unfold(3, PATCH, PATCH).flatten(1)
    assert abs(float(stray_opacity(cut, views, PATCH)) - 0.25) < 1e-6
