"""Scenes that a renderer meets once a year: the native backend and the plain version do the same."""

import logging

import pytest
import torch
from torch import Tensor

from lrm_ttt.errors import BackendUnavailable, LrmTttError
from lrm_ttt.eval.speed.gaussian_clouds import random_scene
from lrm_ttt.kernels.rasterizer import cpu, op
from lrm_ttt.kernels.rasterizer.op import Rasterized, rasterize
from lrm_ttt.kernels.rasterizer.recycled import ALIGNMENT, MIN_BYTES, RecycledMemory

SIZE = (18, 22)
BACKENDS = [
    "reference",
    pytest.param("cpu", marks=pytest.mark.skipif(cpu.library() is None, reason="the native library is not built")),
]


def draw(scene: dict[str, Tensor], backend: str, **options: object) -> tuple[Rasterized, dict[str, Tensor]]:
    """Draw, and return the gradients of the sum of everything; they must be finite."""
    dtype = torch.float64 if backend == "reference" else torch.float32
    leaves = {
        name: tensor.detach().to(dtype, copy=True).requires_grad_(name != "intrinsics")
        for name, tensor in scene.items()
    }
    drawn = rasterize(**leaves, image_size=SIZE, backend=backend, **options)
    torch.stack([image.sum() for image in drawn if image is not None]).sum().backward()
    gradients = {name: leaf.grad for name, leaf in leaves.items() if leaf.grad is not None}
    for name, tensor in gradients.items():
        assert tensor.isfinite().all(), name
    return drawn, gradients


@pytest.fixture
def scene() -> dict[str, Tensor]:
    """Return one scene with one view."""
    return random_scene(40, *SIZE, sh_count=4, scale=0.1, seed=21)


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_empty_scene_is_the_background(backend: str) -> None:
    drawn, _ = draw(random_scene(0, *SIZE, num_scenes=2, num_views=2), backend)
    background = random_scene(0, *SIZE, num_scenes=2, num_views=2)["background"]
    torch.testing.assert_close(drawn.colors.float(), background[..., None, None].expand(2, 2, 3, *SIZE))
    assert drawn.depths is not None
    assert not drawn.alphas.any()
    assert not drawn.depths.any()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", ["behind", "at the camera", "beyond", "beside", "transparent"])
def test_what_cannot_be_seen_changes_nothing(scene: dict[str, Tensor], backend: str, case: str) -> None:
    expected, _ = draw(scene, backend)
    more = random_scene(40, *SIZE, sh_count=4, scale=0.1, seed=22)
    # The camera is at (0, 0, -3) and looks along +z.
    if case == "behind":
        more["means"] = more["means"] - torch.tensor([0, 0, 5.0])
    elif case == "at the camera":
        more["means"] = torch.tensor([0, 0, -3.0]).expand_as(more["means"])
    elif case == "beyond":
        more["means"] = more["means"] + torch.tensor([0, 0, 30.0])
    elif case == "beside":
        more["means"] = more["means"] + torch.tensor([20.0, 0, 0])
    else:
        more["opacities"] = torch.zeros_like(more["opacities"])
    both = dict(scene)
    for name in ("means", "wxyz", "scales", "opacities", "sh"):
        both[name] = torch.cat([scene[name], more[name]], 1)
    drawn, gradients = draw(both, backend, far=20.0)
    for image, right in zip(drawn, expected, strict=True):
        assert torch.equal(image, right)
    for name in ("means", "wxyz", "scales", "opacities", "sh"):
        assert not gradients[name][:, 40:].any()
        assert gradients[name][:, :40].any()


@pytest.mark.skipif(cpu.library() is None, reason="the native library is not built")
@pytest.mark.parametrize("antialiased", [False, True])
@pytest.mark.parametrize("case", ["enormous", "needles", "points", "near the camera"])
def test_extreme_shapes(scene: dict[str, Tensor], case: str, antialiased: bool) -> None:
    if case == "enormous":
        scene["scales"] = 1e4 * scene["scales"]
    elif case == "needles":
        scene["scales"] = scene["scales"] * torch.tensor([100, 1e-3, 1e-3])
    elif case == "points":
        scene["scales"] = torch.zeros_like(scene["scales"])
    else:
        scene["means"] = scene["means"] * torch.tensor([0.3, 0.3, 1]) - torch.tensor([0, 0, 1.95])
    scene["opacities"] = 0.3 * scene["opacities"]
    drawn, _ = draw(scene, "cpu", antialiased=antialiased)
    expected, _ = draw(scene, "reference", antialiased=antialiased)
    for name, image, right in zip(Rasterized._fields, drawn, expected, strict=True):
        assert image is not None
        assert right is not None
        assert image.isfinite().all()
        # Single precision loses digits in covariances of 1e6 and more square pixels: measured 7e-5, else 2e-6.
        assert (image - right).abs().mean() < 2e-4, name


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["means", "wxyz", "scales", "opacities", "sh", "world_to_cam", "intrinsics"])
def test_not_a_number_is_refused_by_name(scene: dict[str, Tensor], backend: str, bad: float, name: str) -> None:
    flat = scene[name].reshape(-1)
    flat[flat.numel() // 2] = bad
    if name == "sh":
        scene["sh"][:] = bad
    with pytest.raises(LrmTttError, match=rf"{name}\b.* NaN"):
        rasterize(**scene, image_size=SIZE, backend=backend)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_quaternion_of_zeros_turns_nothing(scene: dict[str, Tensor], backend: str) -> None:
    zeros = {**scene, "wxyz": torch.zeros_like(scene["wxyz"])}
    ones = {**scene, "wxyz": torch.tensor([1.0, 0, 0, 0]).expand_as(scene["wxyz"])}
    assert torch.equal(draw(zeros, backend)[0].colors, draw(ones, backend)[0].colors)


def test_without_depth(scene: dict[str, Tensor]) -> None:
    for backend in ("reference", "auto"):
        drawn, _ = draw(scene, backend, render_depth=False)
        assert drawn.depths is None
        assert torch.equal(drawn.colors, draw(scene, backend)[0].colors)


def test_wrong_arguments(scene: dict[str, Tensor]) -> None:
    with pytest.raises(LrmTttError, match="exactly one"):
        rasterize(**scene, colors=torch.zeros(1, 40, 3), image_size=SIZE)
    with pytest.raises(LrmTttError, match="25 coefficients"):
        rasterize(**{**scene, "sh": torch.zeros(1, 40, 25, 3)}, image_size=SIZE)
    with pytest.raises(LrmTttError, match="near"):
        rasterize(**scene, image_size=SIZE, near=1.0, far=0.5)


def test_backends_that_cannot_be_used(scene: dict[str, Tensor]) -> None:
    with pytest.raises(BackendUnavailable, match="choose among"):
        rasterize(**scene, image_size=SIZE, backend="vulkan")
    with pytest.raises(BackendUnavailable, match="CUDA"):
        rasterize(**scene, image_size=SIZE, backend="gsplat")


def test_without_a_compiler_the_reference_serves(
    scene: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(cpu, "library", lambda: None)
    op._say_once.cache_clear()
    with caplog.at_level(logging.WARNING):
        drawn = [rasterize(**scene, image_size=SIZE) for _ in range(2)]
    op._say_once.cache_clear()
    assert [record.message.count("compiler") for record in caplog.records] == [1]
    expected = rasterize(**scene, image_size=SIZE, backend="reference")
    assert torch.equal(drawn[0].colors, expected.colors)
    with pytest.raises(BackendUnavailable, match="compiler"):
        rasterize(**scene, image_size=SIZE, backend="cpu")


def test_recycled_memory_is_never_shared() -> None:
    memory = RecycledMemory(max_free=1)
    shape = (MIN_BYTES // 4, 2)
    first, second = memory.empty(shape).fill_(1), memory.empty(shape).fill_(2)
    view = first[3:]
    address = first.data_ptr()
    del first
    # A view holds the memory as well as the tensor did.
    third = memory.empty(shape).fill_(3)
    assert (view == 1).all()
    assert (second == 2).all()
    assert len({address, second.data_ptr(), third.data_ptr()}) == 3
    assert not any(tensor.data_ptr() % ALIGNMENT for tensor in (second, third))
    del view
    assert memory.empty(shape).data_ptr() == address
