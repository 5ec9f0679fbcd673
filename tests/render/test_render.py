"""Rendering a batch is rendering each view, whatever the memory allows."""

import torch

from lrm_ttt.render.render import render
from lrm_ttt.scene.cameras import Cameras, ImageSize, look_at
from lrm_ttt.scene.gaussians import Gaussians
from lrm_ttt.scene.views import Renderings


def scene(num_scenes: int = 2, num_views: int = 3, n: int = 40) -> tuple[Gaussians, Cameras, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(num_scenes, *shape, generator=generator)

    gaussians = Gaussians(
        draw(n, 3) * 0.4, 0.05 + 0.1 * draw(n, 3).abs(), draw(n, 4), draw(n).sigmoid(), draw(n, 4, 3) * 0.3
    )
    centres = draw(num_views, 3)
    centres = 3 * centres / centres.norm(dim=-1, keepdim=True)
    pose = look_at(centres, torch.zeros_like(centres), torch.tensor([0.0, 0.0, 1.0]))
    cameras = Cameras(pose, torch.tensor([30.0, 30.0, 10.0, 8.0]).expand(num_scenes, num_views, 4), ImageSize(16, 20))
    return gaussians, cameras, torch.rand(num_scenes, 3, generator=generator)


def gradients(gaussians: Gaussians, cameras: Cameras, backgrounds: torch.Tensor, limit: int) -> tuple[Renderings, dict]:
    leaf = gaussians.map(lambda tensor: tensor.clone().requires_grad_())
    drawn = render(leaf, cameras, backgrounds, max_projections=limit)
    weights = torch.linspace(-1, 1, drawn.colors.numel()).reshape(drawn.colors.shape)
    ((drawn.colors * weights).sum() + drawn.alphas.square().sum() + drawn.depths.sum()).backward()
    parts = ("means", "scales", "wxyz", "opacities", "sh")
    return drawn.detach(), {name: getattr(leaf, name).grad for name in parts}


def test_view_by_view_equals_all_at_once() -> None:
    whole, whole_gradients = gradients(*scene(), limit=10**9)
    pieces, piece_gradients = gradients(*scene(), limit=1)
    assert torch.equal(whole.colors, pieces.colors) and torch.equal(whole.depths, pieces.depths)
    for name, gradient in whole_gradients.items():
        # The sum over views is taken in another order.
        torch.testing.assert_close(piece_gradients[name], gradient, rtol=1e-4, atol=1e-5)


def test_scenes_do_not_mix() -> None:
    gaussians, cameras, backgrounds = scene()
    whole = render(gaussians, cameras, backgrounds)
    for i in range(2):
        alone = render(gaussians[i : i + 1], cameras[i : i + 1], backgrounds[i : i + 1])
        assert torch.equal(alone.colors[0], whole.colors[i])


def test_background_shows_through_what_is_not_covered() -> None:
    gaussians, cameras, backgrounds = scene()
    on_color, on_black = render(gaussians, cameras, backgrounds), render(gaussians, cameras)
    through = (1 - on_black.alphas) * backgrounds[:, None, :, None, None]
    torch.testing.assert_close(on_color.colors, on_black.colors + through, rtol=0, atol=2e-6)
    assert 0.05 < on_black.alphas.mean() < 0.95
