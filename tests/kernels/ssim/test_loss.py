"""The loss of 3D Gaussian splatting: torch against an independent formula, and the native library against torch."""

import pytest
import torch
from torch import Tensor
from torch.nn.functional import conv2d

from lrm_ttt.kernels.native import INSTRUCTION_SETS
from lrm_ttt.kernels.ssim import op
from lrm_ttt.kernels.ssim.cpu import instruction_sets, l1_ssim_loss_cpu, library
from lrm_ttt.kernels.ssim.op import l1_ssim_loss
from lrm_ttt.kernels.ssim.reference import l1_ssim_loss_reference, ssim

needs_library = pytest.mark.skipif(library() is None, reason="the native library is not built: no C++ compiler")
# The window and a little more, a vector and a little more, several vectors; one side, or both, below the window.
SIZES = [(1, 3, 11, 11), (2, 3, 37, 50), (3, 12, 300), (2, 2, 3, 27, 26), (64, 33), (2, 3, 8, 40), (1, 1), (3, 40, 10)]


def pair(*shape: int) -> tuple[Tensor, Tensor]:
    """Return images and truths that resemble each other; some pixels are equal."""
    generator = torch.Generator().manual_seed(sum(shape))
    truths = torch.rand(shape, generator=generator)
    return (truths + 0.2 * torch.randn(shape, generator=generator)).clamp(0, 1), truths.clamp(0.1, 1)


def test_the_structural_part_is_ssim() -> None:
    """An independent one, by convolution in float64 over the valid region."""
    images, truths = pair(2, 3, 20, 31)
    taps = torch.exp(-0.5 * ((torch.arange(11).double() - 5) / 1.5) ** 2)
    window = torch.outer(taps, taps)[None, None] / taps.sum() ** 2
    x, y = images.double().reshape(6, 1, 20, 31), truths.double().reshape(6, 1, 20, 31)
    mean_x, mean_y, xx, yy, xy = (conv2d(values, window) for values in (x, y, x * x, y * y, x * y))
    top = (2 * mean_x * mean_y + 1e-4) * (2 * (xy - mean_x * mean_y) + 9e-4)
    bottom = (mean_x**2 + mean_y**2 + 1e-4) * (xx - mean_x**2 + yy - mean_y**2 + 9e-4)
    assert float(ssim(images.double(), truths.double())) == pytest.approx(float((top / bottom).mean()), abs=1e-12)
    expected = 0.8 * float((images - truths).abs().mean()) + 0.2 * (1 - float((top / bottom).mean()))
    assert float(l1_ssim_loss(images, truths)) == pytest.approx(expected, abs=1e-6)


@needs_library
@pytest.mark.parametrize("instruction_set", INSTRUCTION_SETS)
@pytest.mark.parametrize("shape", SIZES, ids=str)
def test_the_library_does_what_torch_does_in_float64(shape: tuple[int, ...], instruction_set: str) -> None:
    if instruction_set not in instruction_sets():
        pytest.skip(f"this processor has no {instruction_set}")
    images, truths = pair(*shape)
    precise = images.double().requires_grad_()
    expected = l1_ssim_loss_reference(precise, truths.double())
    (3 * expected).backward()
    images.requires_grad_()
    loss = l1_ssim_loss_cpu(images, truths, instruction_set)
    (3 * loss).backward()
    assert images.grad is not None and precise.grad is not None
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), abs=3e-7)
    # Measured: at most 6e-7, relative.
    assert (images.grad - precise.grad).norm() <= 3e-6 * precise.grad.norm()
    assert torch.equal(l1_ssim_loss_cpu(images.detach(), truths, instruction_set), loss)


@pytest.mark.parametrize("size", [(8, 40), (11, 11), (24, 32)])
def test_the_truth_is_the_least(size: tuple[int, int]) -> None:
    truths = pair(1, 3, *size)[1].requires_grad_()
    loss = l1_ssim_loss(truths, truths.detach())
    assert float(loss.detach()) == pytest.approx(0, abs=1e-6)
    loss.backward()
    assert truths.grad is not None and truths.grad.abs().max() < 1e-5


def test_flat_images_of_one_colour_have_small_gradients() -> None:
    """Where nothing varies the variances are differences of almost equal numbers."""
    images, truths = torch.full((1, 3, 20, 40), 0.9), torch.ones(1, 3, 20, 40)
    precise = images.double().requires_grad_()
    l1_ssim_loss(precise, truths.double()).backward()
    images.requires_grad_()
    l1_ssim_loss(images, truths).backward()
    assert images.grad is not None and precise.grad is not None
    assert (images.grad - precise.grad).norm() < 3e-3 * precise.grad.norm()


@needs_library
def test_the_number_of_threads_leaves_no_trace() -> None:
    images, truths = pair(2, 3, 40, 50)
    images.requires_grad_()
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 5, 9):
            torch.set_num_threads(threads)
            loss = l1_ssim_loss(images, truths)
            results.append((loss, *torch.autograd.grad(loss, images)))
    finally:
        torch.set_num_threads(before)
    for result in results[1:]:
        assert all(torch.equal(first, second) for first, second in zip(results[0], result, strict=True))


def test_strides_do_not_matter() -> None:
    images, truths = pair(2, 20, 31, 3)
    apart = [tensor.movedim(-1, 1) for tensor in (images, truths)]
    expected = l1_ssim_loss(*(tensor.contiguous() for tensor in apart))
    assert torch.equal(l1_ssim_loss(*apart), expected)
    images.requires_grad_()
    l1_ssim_loss(images.movedim(-1, 1), truths.movedim(-1, 1)).backward()
    assert images.grad is not None and images.grad.shape == images.shape


def test_torch_serves_where_the_library_cannot(monkeypatch: pytest.MonkeyPatch) -> None:
    images, truths = pair(3, 20, 31)
    expected = l1_ssim_loss(images, truths)
    # The gradient to the truths is torch's alone.
    loss = l1_ssim_loss(truths, images.requires_grad_())
    loss.backward()
    assert images.grad is not None and images.grad.any()
    torch.testing.assert_close(loss, expected)
    monkeypatch.setattr(op, "library", lambda: None)
    with torch.inference_mode():
        torch.testing.assert_close(l1_ssim_loss(images, truths), expected)
    torch.testing.assert_close(l1_ssim_loss(images.double(), truths.double()).float(), expected)


def test_a_graph_can_be_gone_through_twice() -> None:
    images, truths = pair(3, 20, 31)
    images.requires_grad_()
    loss = l1_ssim_loss(images, truths)
    loss.backward(retain_graph=True)
    assert images.grad is not None
    once = images.grad.clone()
    loss.backward()
    assert torch.equal(images.grad, 2 * once)
