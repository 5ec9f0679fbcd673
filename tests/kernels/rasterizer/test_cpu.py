"""The native backend against the plain version in float64: values, every gradient, and what must not matter."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from lrm_ttt.eval.speed.gaussian_clouds import random_scene
from lrm_ttt.kernels.rasterizer import cpu
from lrm_ttt.kernels.rasterizer.op import Rasterized, rasterize

pytestmark = pytest.mark.skipif(cpu.library() is None, reason="the native library is not built: no C++ compiler")

# Relative L2 error of a gradient against float64. Measured on the scenes here: at most 4e-6, for quaternions on the
# portable instruction set.
GRADIENT_ERROR = 1e-5
# Absolute error of a pixel against float64, on scenes where no pixel is at a threshold. Measured: mean 4e-7, most 6e-6,
# for depths of about 3.
MEAN_ERROR, PIXEL_ERROR = 2e-6, 1e-4


@pytest.fixture(params=cpu.INSTRUCTION_SETS)
def instruction_set(request: pytest.FixtureRequest) -> Iterator[str]:
    """Run the test on one instruction set, or skip it where the processor lacks that."""
    if cpu.instruction_set(request.param) != request.param:
        pytest.skip(f"this processor has no {request.param}")
    yield request.param
    cpu.instruction_set(cpu.INSTRUCTION_SETS[-1])


def weighted_sum(drawn: Rasterized) -> Tensor:
    """Return a sum of all pixels with random weights, always the same."""
    generator = torch.Generator().manual_seed(3)
    sums = []
    for image in drawn:
        if image is not None:
            weights = torch.randn(image.shape, generator=generator, dtype=torch.float64)
            sums.append((image * weights.to(image.dtype)).sum())
    return torch.stack(sums).sum()


def draw_with_gradients(
    scene: dict[str, Tensor], size: tuple[int, int], backend: str, **options: object
) -> tuple[Rasterized, dict[str, Tensor]]:
    """Draw in the dtype of the scene, and return gradients of a random sum of all outputs."""
    leaves = {name: tensor.clone().requires_grad_(name != "intrinsics") for name, tensor in scene.items()}
    drawn = rasterize(**leaves, image_size=size, backend=backend, **options)
    weighted_sum(drawn).backward()
    gradients = {}
    for name, leaf in leaves.items():
        if name != "intrinsics":
            assert leaf.grad is not None, name
            gradients[name] = leaf.grad
    return drawn, gradients


def in_float64(scene: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.double() for name, tensor in scene.items()}


def compare(scene: dict[str, Tensor], size: tuple[int, int], **options: object) -> None:
    """Compare values and gradients of a float32 scene with the plain version's in float64."""
    drawn, gradients = draw_with_gradients(scene, size, "cpu", **options)
    expected, expected_gradients = draw_with_gradients(in_float64(scene), size, "reference", **options)
    for name, image, right in zip(Rasterized._fields, drawn, expected, strict=True):
        assert image is not None
        assert right is not None
        error = (image - right).abs()
        assert error.mean() < MEAN_ERROR, name
        assert error.max() < PIXEL_ERROR, name
    for name, right in expected_gradients.items():
        assert right.norm() > 0, name
        assert (gradients[name] - right).norm() / right.norm() < GRADIENT_ERROR, name


@pytest.mark.parametrize("antialiased", [False, True])
@pytest.mark.parametrize("sh_count", [0, 1, 4, 9, 16])
def test_values_and_gradients(sh_count: int, antialiased: bool) -> None:
    # Neither side is a multiple of a tile or a block, nor the number of Gaussians of a vector.
    scene = random_scene(101, 37, 50, num_scenes=2, num_views=2, sh_count=sh_count, scale=0.08, seed=30)
    compare(scene, (37, 50), antialiased=antialiased)


def test_values_and_gradients_on_every_instruction_set(instruction_set: str) -> None:
    compare(random_scene(160, 30, 41, num_views=2, scale=0.08, seed=7), (30, 41), antialiased=True)


def test_alpha_is_accurate_to_its_last_bits(instruction_set: str) -> None:
    scene = random_scene(1, 128, 128, sh_count=0)
    scene |= {"means": torch.zeros(1, 1, 3), "scales": torch.full((1, 1, 3), 0.4), "opacities": torch.tensor([[0.75]])}
    # In round numbers, so that the distance of a pixel to the centre is exact.
    scene["intrinsics"] = torch.tensor([[[128.0, 128.0, 64.0, 64.0]]])
    drawn = rasterize(**scene, image_size=(128, 128), backend="cpu").alphas
    expected = rasterize(**in_float64(scene), image_size=(128, 128), backend="reference").alphas
    assert torch.equal(drawn > 0, expected > 0)
    seen = expected > 0
    # Alpha falls from 0.75 to 1/255 over the image; at the rim it repeats every rounding of the shape five times.
    # Measured: 8.4e-7.
    assert ((drawn - expected) / expected)[seen].abs().max() < 1.5e-6


def test_options() -> None:
    scene = random_scene(150, 33, 35, scale=0.1, seed=11)
    scene["opacities"] = scene["opacities"].clamp(min=0.97)
    compare(scene, (33, 35), near=2.5, far=3.6, eps2d=0.7, max_alpha=0.9)


def test_opaque_stacks_end_pixels() -> None:
    # Several batches of a tile's list, in which pixels end at different entries.
    scene = random_scene(700, 20, 20, scale=0.25, seed=12)
    scene["opacities"] = 0.3 + 0.7 * scene["opacities"]
    compare(scene, (20, 20))
    alphas = rasterize(**scene, image_size=(20, 20), backend="cpu").alphas
    assert (alphas > 0.999).double().mean() > 0.5


def test_a_dense_scene_and_its_flips() -> None:
    size = (96, 112)
    scene = random_scene(6000, *size, sh_count=4, seed=5)
    drawn = rasterize(**scene, image_size=size, backend="cpu")
    expected = rasterize(**in_float64(scene), image_size=size, backend="reference")
    for name, image, right in zip(Rasterized._fields, drawn, expected, strict=True):
        assert image is not None
        assert right is not None
        error = (image - right).abs()
        assert error.mean() < MEAN_ERROR, name
        # A Gaussian at the threshold of 1/255, or two at almost the same depth, may fall on either side.
        assert (error > PIXEL_ERROR).double().mean() < 1e-3, name
        # What falls on the other side weighs 1/255, or swaps two neighbours; measured 1e-3.
        assert error.max() < 0.05, name


@pytest.mark.parametrize("shape", [(1, 1, 64, 64), (2, 3, 30, 50)])
def test_the_number_of_threads_leaves_no_trace(shape: tuple[int, int, int, int]) -> None:
    num_scenes, num_views, *size = shape
    scene = random_scene(5000, *size, num_scenes=num_scenes, num_views=num_views, seed=1)
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            drawn, gradients = draw_with_gradients(scene, (size[0], size[1]), "cpu")
            results.append([*drawn, *gradients.values()])
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        for first, second in zip(results[0], other, strict=True):
            assert torch.equal(first, second)


def test_a_batch_is_its_images_one_by_one() -> None:
    scene = random_scene(300, 30, 40, num_scenes=2, num_views=3, seed=2)
    whole, gradients = draw_with_gradients(scene, (30, 40), "cpu")
    for i in range(2):
        one = {name: tensor[i] for name, tensor in scene.items()}
        single = rasterize(**one, image_size=(30, 40), backend="cpu")
        for batched, alone in zip(whole, single, strict=True):
            assert torch.equal(batched[i], alone)
    assert gradients["means"].shape == scene["means"].shape


def test_gradients_of_a_batch_are_those_of_its_scenes() -> None:
    scene = random_scene(300, 30, 40, num_scenes=2, num_views=3, seed=2)
    names = [name for name in scene if name != "intrinsics"]
    weights = torch.randn(2, 3, 3, 30, 40, generator=torch.Generator().manual_seed(0))

    def gradients(part: slice) -> tuple[Tensor, ...]:
        leaves = {name: tensor[part].clone().requires_grad_(name in names) for name, tensor in scene.items()}
        drawn = rasterize(**leaves, image_size=(30, 40), backend="cpu")
        assert drawn.depths is not None
        total = (drawn.colors * weights[part]).sum() + (drawn.depths * weights[part, :, :1]).sum()
        return torch.autograd.grad(total, [leaves[name] for name in names])

    apart = [gradients(slice(i, i + 1)) for i in range(2)]
    for name, whole, first, second in zip(names, gradients(slice(None)), *apart, strict=True):
        assert torch.equal(whole, torch.cat([first, second])), name


@pytest.mark.parametrize("farthest", [0.5, 1e4])
@pytest.mark.parametrize("num_gaussians", [20, 400])
def test_equal_depths_are_drawn_in_order_of_index(num_gaussians: int, farthest: float, instruction_set: str) -> None:
    # Few depths, exact in float32, and one far away beside which all others look alike.
    scene = random_scene(num_gaussians, 20, 20, sh_count=0, scale=0.15, seed=13)
    depths = (8 * scene["means"][..., 2]).round() / 8
    depths[:, num_gaussians // 2] = farthest
    scene["means"] = torch.cat([scene["means"][..., :2], depths[..., None]], -1)
    scene["opacities"] = 0.1 * scene["opacities"] + 0.01
    drawn = rasterize(**scene, image_size=(20, 20), backend="cpu")
    expected = rasterize(**in_float64(scene), image_size=(20, 20), backend="reference")
    assert (drawn.colors - expected.colors).abs().max() < PIXEL_ERROR


@pytest.mark.parametrize("asked", range(3))
def test_gradients_of_one_output_alone(asked: int) -> None:
    scene = random_scene(80, 20, 30, sh_count=4, scale=0.1, seed=8)
    results = []
    for backend, arguments in (("cpu", scene), ("reference", in_float64(scene))):
        leaves = {name: tensor.clone().requires_grad_(name != "intrinsics") for name, tensor in arguments.items()}
        image = rasterize(**leaves, image_size=(20, 30), backend=backend)[asked]
        assert image is not None
        image.square().sum().backward()
        results.append({name: leaf.grad for name, leaf in leaves.items()})
    for name, right in results[1].items():
        given = results[0][name]
        if right is None or not right.any():
            assert given is None or not given.any(), name
        else:
            assert given is not None
            assert (given - right).norm() / right.norm() < GRADIENT_ERROR, name


def test_gradients_of_the_colours_are_the_same_without_depth(instruction_set: str) -> None:
    scene = random_scene(500, 40, 40, scale=0.1, seed=16)
    results = []
    for render_depth in (True, False):
        leaves = {name: tensor.clone().requires_grad_(name != "intrinsics") for name, tensor in scene.items()}
        drawn = rasterize(**leaves, image_size=(40, 40), backend="cpu", render_depth=render_depth)
        (drawn.colors.square().sum() + drawn.alphas.square().sum()).backward()
        results.append([drawn.colors, drawn.alphas, *(leaf.grad for leaf in leaves.values() if leaf.requires_grad)])
    for first, second in zip(*results, strict=True):
        assert torch.equal(first, second)


def test_only_the_gradients_that_are_wanted() -> None:
    scene = random_scene(50, 20, 20, seed=4)
    scene["opacities"].requires_grad_()
    rasterize(**scene, image_size=(20, 20), backend="cpu").colors.sum().backward()
    alone = scene["opacities"].grad
    for tensor in scene.values():
        tensor.requires_grad_()
        tensor.grad = None
    scene["intrinsics"].requires_grad_(False)
    rasterize(**scene, image_size=(20, 20), backend="cpu").colors.sum().backward()
    assert alone is not None
    assert torch.equal(alone, scene["opacities"].grad)


def test_other_dtypes_are_cast_and_gradients_cast_back() -> None:
    scene = {name: tensor.bfloat16() for name, tensor in random_scene(60, 24, 24, scale=0.1).items()}
    drawn, gradients = draw_with_gradients(scene, (24, 24), "cpu")
    expected, _ = draw_with_gradients({name: tensor.float() for name, tensor in scene.items()}, (24, 24), "cpu")
    assert {tensor.dtype for tensor in (*drawn, *gradients.values())} == {torch.bfloat16}
    assert torch.equal(drawn.colors, expected.colors.bfloat16())
