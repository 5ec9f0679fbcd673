"""The 3D smoothing filter of Mip-Splatting, by hand and by its laws."""

import torch

from lrm_ttt.eval.baselines.smoothing import filter_scales, smooth
from lrm_ttt.scene.cameras import Cameras, ImageSize, look_at


def test_the_camera_that_samples_finest_decides() -> None:
    centres = torch.tensor([[0.0, 0.0, -2.0], [0.0, 0.0, -4.0], [3.0, 0.0, 0.0]])
    targets = torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, 0.0], [6.0, 0.0, 0.0]])
    cam_to_world = look_at(centres, targets, torch.tensor([0.0, -1.0, 0.0]))
    intrinsics = torch.tensor([[50.0, 50.0, 32.0, 32.0], [200.0, 200.0, 32.0, 32.0], [100.0, 100.0, 32.0, 32.0]])
    cameras = Cameras(cam_to_world, intrinsics, ImageSize(64, 64))
    # The first lies before two cameras, at 2 / 50 and 4 / 200 a pixel; the second before one, at 1.5 / 100; the third
    # is beside one's image, by less than the margin, at 2 / 50; the last is behind all.
    means = torch.tensor([[0.0, 0.0, 0.0], [4.5, 0.0, 0.0], [1.5, 0.0, 0.0], [0.0, 0.0, -9.0]])
    expected = 0.2**0.5 * torch.tensor([0.02, 0.015, 0.04, 0.04])
    torch.testing.assert_close(filter_scales(cameras, means, near=0.1), expected)


def test_smoothing_convolves() -> None:
    generator = torch.Generator().manual_seed(0)
    scales, opacities = torch.rand(20, 3, generator=generator) + 0.01, torch.rand(20, generator=generator)
    widths = torch.rand(20, generator=generator)
    wide, faint = smooth(scales, opacities, widths)
    # Variances add, and opacity times volume stays what it is.
    torch.testing.assert_close(wide.square(), scales.square() + widths.square()[:, None])
    torch.testing.assert_close(faint * wide.prod(-1), opacities * scales.prod(-1))
    unchanged = smooth(scales, opacities, torch.zeros(20))
    torch.testing.assert_close(unchanged, (scales, opacities))
