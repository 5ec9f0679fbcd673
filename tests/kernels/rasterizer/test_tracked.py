"""What `rasterize_tracked` says of the Gaussians on the screen, by laws and against the plain version in float64."""

import types

import pytest
import torch
from torch import Tensor

from lrm_ttt.eval.speed.gaussian_clouds import random_scene
from lrm_ttt.kernels.rasterizer import cpu, gsplat
from lrm_ttt.kernels.rasterizer.constants import Screen, Settings
from lrm_ttt.kernels.rasterizer.op import rasterize, rasterize_tracked

SIZE = (37, 50)
BACKENDS = [
    "reference",
    pytest.param("cpu", marks=pytest.mark.skipif(cpu.library() is None, reason="the native library is not built")),
]


def wide_scene(num_gaussians: int, **options: int) -> dict[str, Tensor]:
    """Return a scene in which some Gaussians are beside the image, behind the camera or too faint."""
    scene = random_scene(num_gaussians, *SIZE, scale=0.08, seed=30, sh_count=4, **options)
    scene["opacities"] = torch.where(scene["opacities"] < 0.1, 0.003, scene["opacities"])
    return scene | {"means": 2 * scene["means"]}


def track(scene: dict[str, Tensor], backend: str, antialiased: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradient of a random sum of the colours to the projected means, the radii, and the colours."""
    dtype = torch.float64 if backend == "reference" else torch.float32
    arguments = {name: tensor.to(dtype) for name, tensor in scene.items()}
    drawn, screen = rasterize_tracked(**arguments, image_size=SIZE, backend=backend, antialiased=antialiased)
    weights = torch.randn(drawn.colors.shape, generator=torch.Generator().manual_seed(3))
    (drawn.colors * weights).sum().backward()
    assert screen.means2d.grad is not None
    return screen.means2d.grad, screen.radii, drawn.colors.detach()


@pytest.mark.skipif(cpu.library() is None, reason="the native library is not built")
@pytest.mark.parametrize("antialiased", [False, True])
def test_the_native_library_says_what_the_reference_says(antialiased: bool) -> None:
    scene = wide_scene(203, num_scenes=2, num_views=2)
    scene["means"].requires_grad_()
    gradient, radii, _ = track(scene, "cpu", antialiased)
    expected, expected_radii, _ = track(scene, "reference", antialiased)
    assert gradient.shape == (2, 2, 203, 2) and radii.shape == (2, 2, 203)
    assert (gradient - expected).norm() / expected.norm() < 1e-5
    assert torch.equal(radii > 0, expected_radii > 0)
    # Both are a little too large, lest rounding lose a pixel.
    torch.testing.assert_close(radii, expected_radii, rtol=3e-3, atol=0.02)
    assert 0.1 < (radii > 0).double().mean() < 0.9


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("antialiased", [False, True])
def test_what_is_drawn_has_a_radius(backend: str, antialiased: bool) -> None:
    """Each Gaussian in a scene of its own, so that the alphas tell which pixels it has."""
    scene = wide_scene(1, num_scenes=150)
    drawn, screen = rasterize_tracked(**scene, image_size=SIZE, backend=backend, antialiased=antialiased)
    seen, radii = drawn.alphas[:, 0, 0] > 0, screen.radii[:, 0, 0]
    is_drawn = seen.any(2).any(1)
    # The box of a slanted ellipse may hold a pixel that the ellipse does not.
    assert not is_drawn[radii == 0].any() and is_drawn[radii > 0].double().mean() > 0.97
    assert 0.1 < is_drawn.double().mean() < 0.9
    # Of ellipses that are wholly inside: pixels along the larger side.
    inside = is_drawn & ~(seen[:, [0, -1]].any(2).any(1) | seen[:, :, [0, -1]].any(1).any(1))
    sides = torch.stack([seen.any(1).sum(1), seen.any(2).sum(1)]).amax(0)
    assert inside.sum() > 20 and ((sides - 2 * radii)[inside].abs() <= 1.1).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_moving_all_means_is_moving_the_principal_point(backend: str) -> None:
    scene = random_scene(60, *SIZE, num_views=2, scale=0.06, sh_count=0, seed=4)
    gradient, _, _ = track(scene, backend)
    moved = {name: tensor.double() for name, tensor in scene.items()}
    track(moved | {"intrinsics": moved["intrinsics"].requires_grad_()}, "reference")
    expected = moved["intrinsics"].grad
    assert expected is not None
    torch.testing.assert_close(gradient.sum(-2).double(), expected[..., 2:], rtol=1e-4, atol=1e-3)


@pytest.mark.skipif(cpu.library() is None, reason="the native library is not built")
def test_neither_threads_nor_tracking_leave_a_trace() -> None:
    scene = wide_scene(5000, num_views=2)
    scene["means"].requires_grad_()
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            scene["means"].grad = None
            results.append((*track(scene, "cpu"), scene["means"].grad))
    finally:
        torch.set_num_threads(before)
    for first, second in zip(*results, strict=True):
        assert first is not None and torch.equal(first, second)
    assert torch.equal(rasterize(**scene, image_size=SIZE, backend="cpu").colors, results[0][2])


@pytest.mark.parametrize("backend", BACKENDS)
def test_one_scene_without_a_batch_and_nothing_in_sight(backend: str) -> None:
    batch = wide_scene(40, num_views=2)
    gradient, radii, _ = track({name: tensor[0] for name, tensor in batch.items()}, backend)
    expected, expected_radii, _ = track(batch, backend)
    assert torch.equal(gradient, expected[0]) and torch.equal(radii, expected_radii[0])
    gradient, radii, _ = track(batch | {"means": batch["means"] - torch.tensor([0.0, 0.0, 50.0])}, backend)
    assert not gradient.any() and not radii.any()


def test_what_gsplat_says_is_handed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a stand-in with gsplat's names and shapes, for there is no GPU to ask the real one."""

    def rasterization(means: Tensor, *_: object, **options: object) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        info = {"means2d": 2 * means[:, None, :, :2], "radii": torch.tensor([[[[3, 2], [0, 4], [1, 7]]]])}
        images = (info["means2d"].square().sum() * torch.ones(1, 1, 4, 5, 4)).split([3, 1], -1)
        return torch.cat(images, -1), images[1], info

    monkeypatch.setattr(gsplat, "_import_gsplat", lambda: types.SimpleNamespace(rasterization=rasterization))
    scene = random_scene(3, 4, 5, sh_count=0)
    scene["means"].requires_grad_()
    screen = Screen(torch.zeros(1, 1, 3, 2, requires_grad=True), torch.zeros(1, 1, 3))
    arguments = [scene[name] for name in ("means", "wxyz", "scales", "opacities", "colors")]
    settings = Settings(4, 5, max_alpha=gsplat.max_alpha())
    drawn = gsplat.rasterize_gsplat(*arguments, scene["world_to_cam"], scene["intrinsics"], None, settings, screen)
    drawn.colors.sum().backward()
    assert screen.radii.tolist() == [[[3.0, 0.0, 7.0]]]
    assert screen.means2d.grad is not None
    torch.testing.assert_close(screen.means2d.grad[0, 0], 60 * 4 * scene["means"].detach()[0, :, :2])
    torch.testing.assert_close(scene["means"].grad[0, :, :2], 2 * screen.means2d.grad[0, 0])
