"""The loss in C++, called by ctypes: float32 on the CPU, value and gradient in one go."""

import ctypes
import functools
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from lrm_ttt.kernels.native import INSTRUCTION_SETS, load_library
from lrm_ttt.kernels.ssim.reference import STRUCTURE_SHARE


class _Task(ctypes.Structure):
    """`LrmLossTask` of native/task.h."""

    _fields_ = (
        *[(name, ctypes.c_int32) for name in ("planes", "height", "width", "threads", "instructions")],
        ("structure_share", ctypes.c_float),
        *[(name, ctypes.c_void_p) for name in ("images", "truths", "gradients", "loss")],
    )


@functools.cache
def library() -> ctypes.CDLL | None:
    """Return the compiled library, or None where it was not built."""
    return load_library(Path(__file__).parent)


@functools.cache
def instruction_sets() -> tuple[str, ...]:
    """Return the instruction sets that this processor has, best last."""
    built = library()
    return INSTRUCTION_SETS[: built.lrm_loss_instructions() + 1] if built else ()


class _Loss(torch.autograd.Function):
    """Find the gradient together with the value: most of the work serves both."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, truths: Tensor, instruction_set: str) -> Tensor:
        built = library()
        assert built is not None, "the native library is not built"
        images, truths = images.contiguous(), truths.contiguous()
        loss = images.new_empty(())
        gradients = torch.empty_like(images) if ctx.needs_input_grad[0] else None
        height, width = images.shape[-2:]
        task = _Task(
            *(images.numel() // (height * width), height, width),
            *(torch.get_num_threads(), INSTRUCTION_SETS.index(instruction_set), STRUCTURE_SHARE),
            *(images.data_ptr(), truths.data_ptr(), None if gradients is None else gradients.data_ptr()),
            loss.data_ptr(),
        )
        if built.lrm_loss(ctypes.byref(task)):
            raise MemoryError(f"no memory to compare images of {height}x{width}")
        ctx.save_for_backward(gradients)
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, None, None]:
        (found,) = ctx.saved_tensors
        # Where the loss is what is minimised there is nothing to multiply.
        return found if gradient.item() == 1 else found * gradient, None, None


def l1_ssim_loss_cpu(
    images: Float[Tensor, "*b h w"], truths: Float[Tensor, "*b h w"], instruction_set: str | None = None
) -> Float[Tensor, ""]:
    """Do what `l1_ssim_loss` does for float32 tensors on the CPU, differentiable once and in `images` alone.

    Neither value nor gradient depends on the number of threads, which is torch's. The library must be built.
    """
    assert images.shape == truths.shape, "images are compared pixel by pixel"
    assert images.dtype == truths.dtype == torch.float32 and images.device.type == truths.device.type == "cpu"
    chosen = instruction_set or instruction_sets()[-1]
    assert chosen in instruction_sets(), f"{chosen} is not among {instruction_sets()}"
    return _Loss.apply(images, truths, chosen)
