"""The native backend: C++ with SIMD and threads, called by ctypes, float32 on the CPU."""

import ctypes
import functools
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from lrm_ttt.errors import LrmTttError
from lrm_ttt.kernels.native import INSTRUCTION_SETS, load_library
from lrm_ttt.kernels.rasterizer.constants import INPUTS, NOT_FINITE, Rasterized, Screen, Settings
from lrm_ttt.kernels.rasterizer.recycled import RecycledMemory

# Work below this many Gaussians plus pixels is done in a millisecond by one thread.
SERIAL_BELOW = 10_000

_OUTPUTS = ("colors", "alphas", "depths")
_DIFFERENTIABLE = tuple(name for name in INPUTS if name != "intrinsics")

_gradient_memory = RecycledMemory()


class _Task(ctypes.Structure):
    """`LrmTask` of native/task.h."""

    _fields_ = (
        *[(name, ctypes.c_int32) for name in ("scenes", "views", "gaussians", "sh_coefficients", "height", "width")],
        *[(name, ctypes.c_int32) for name in ("antialiased", "threads")],
        *[(name, ctypes.c_float) for name in ("near", "far", "eps2d", "max_alpha")],
        *[(name, ctypes.c_void_p) for name in (*INPUTS, *_OUTPUTS, "radii")],
    )


class _Gradients(ctypes.Structure):
    """`LrmGradients` of native/task.h."""

    _fields_ = tuple((name, ctypes.c_void_p) for name in (*_OUTPUTS, *_DIFFERENTIABLE, "means2d"))


@functools.cache
def library() -> ctypes.CDLL | None:
    """Return the compiled library, or None where it was not built, or from sources that were others."""
    built = load_library(Path(__file__).parent)
    # A checkout may be newer than what was built in it.
    expected = ctypes.sizeof(_Task) + ctypes.sizeof(_Gradients)
    if built is None or not hasattr(built, "lrm_rasterize_bytes") or built.lrm_rasterize_bytes() != expected:
        return None
    built.lrm_rasterize_instruction_set.restype = ctypes.c_char_p
    built.lrm_rasterize_release.argtypes = (ctypes.c_void_p,)
    return built


def instruction_set(wanted: str = "") -> str:
    """Return the name of the instruction set in use; a name among INSTRUCTION_SETS asks for another one.

    Asking is for tests and measurements: the best that the processor has is chosen anyway, and a better one than that
    is not given. It holds for the whole process. Returns "" where the library is not built.
    """
    built = library()
    if built is None:
        return ""
    number = INSTRUCTION_SETS.index(wanted) if wanted else -1
    return built.lrm_rasterize_instruction_set(number).decode()


class _Kept:
    """What the library keeps between the passes, given back when nobody can ask for the backward pass any more."""

    def __init__(self, built: ctypes.CDLL, handle: int | None) -> None:
        self.handle = handle
        self._release = built.lrm_rasterize_release

    def __del__(self) -> None:
        self._release(self.handle)


def _task(inputs: tuple[Tensor | None, ...], outputs: tuple[Tensor | None, ...], settings: Settings) -> _Task:
    means, features, cameras = inputs[0], inputs[4], inputs[5]
    assert means is not None and features is not None and cameras is not None
    scenes, gaussians, views = means.shape[:-2].numel(), means.shape[-2], cameras.shape[-3]
    work = scenes * views * (gaussians + settings.height * settings.width)
    return _Task(
        *(scenes, views, gaussians, features.shape[-2] if features.ndim > means.ndim else 0),
        *(settings.height, settings.width, settings.antialiased),
        1 if work < SERIAL_BELOW else torch.get_num_threads(),
        *(settings.near, settings.far, settings.eps2d, settings.max_alpha),
        *(None if tensor is None else tensor.data_ptr() for tensor in (*inputs, *outputs)),
    )


class _Rasterize(torch.autograd.Function):
    """Draw, and keep the sorted lists and the final transmittance for the backward pass."""

    @staticmethod
    def forward(
        ctx: Any, settings: Settings, keep: bool, radii: Tensor | None, means2d: Tensor | None, *inputs: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        built = library()
        assert built is not None, "the native library is not built"
        cameras = inputs[5]
        assert cameras is not None
        views, size = cameras.shape[:-2], (settings.height, settings.width)
        colors, alphas = cameras.new_empty(*views, 3, *size), cameras.new_empty(*views, 1, *size)
        depths = torch.empty_like(alphas) if settings.render_depth else None
        handle = ctypes.c_void_p()
        task = _task(inputs, (colors, alphas, depths, radii), settings)
        status = built.lrm_rasterize(ctypes.byref(task), ctypes.byref(handle))
        kept = _Kept(built, handle.value)
        _raise_for(status)
        if keep:
            ctx.save_for_backward(*inputs)
            ctx.kept, ctx.settings = kept, settings
            ctx.shape2d = None if means2d is None else means2d.shape
            ctx.set_materialize_grads(False)
        return colors, alphas, depths

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *output_gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        built = library()
        assert built is not None
        inputs = ctx.saved_tensors
        if all(gradient is None for gradient in output_gradients):
            return (None,) * (4 + len(inputs))
        given = [None if g is None else g.float().contiguous() for g in output_gradients]
        means2d = None if ctx.shape2d is None else _gradient_memory.empty(ctx.shape2d)
        # The intrinsics have no gradient.
        wanted = [
            _gradient_memory.empty(tensor.shape) if needed and name in _DIFFERENTIABLE else None
            for name, tensor, needed in zip(INPUTS, inputs, ctx.needs_input_grad[4:], strict=True)
        ]
        task = _task(inputs, (None, None, None, None), ctx.settings)
        to_inputs = [gradient for name, gradient in zip(INPUTS, wanted, strict=True) if name in _DIFFERENTIABLE]
        gradients = (*given, *to_inputs, means2d)
        pointers = _Gradients(*(None if tensor is None else tensor.data_ptr() for tensor in gradients))
        _raise_for(
            built.lrm_rasterize_backward(ctypes.byref(task), ctypes.byref(pointers), ctypes.c_void_p(ctx.kept.handle))
        )
        return (None, None, None, means2d, *wanted)


def _raise_for(status: int) -> None:
    if status < 0:
        raise MemoryError("no memory for the rasterizer's lists; draw fewer views at a time, or smaller Gaussians")
    for bit, name in enumerate(INPUTS):
        if status >> bit & 1:
            raise LrmTttError(NOT_FINITE.format(name))


def rasterize_cpu(
    means: Float[Tensor, "*b n 3"],
    wxyz: Float[Tensor, "*b n 4"],
    scales: Float[Tensor, "*b n 3"],
    opacities: Float[Tensor, "*b n"],
    features: Float[Tensor, "*b n k 3"] | Float[Tensor, "*b n 3"],
    world_to_cam: Float[Tensor, "*b v 4 4"],
    intrinsics: Float[Tensor, "*b v 4"],
    background: Float[Tensor, "*b v 3"] | None,
    settings: Settings,
    screen: Screen | None = None,
) -> Rasterized:
    """Do what `rasterize_reference` does, in float32 whatever the dtype of the inputs, once differentiable.

    Results and gradients do not depend on the number of threads (torch's). Raises `LrmTttError` for NaN or infinity,
    in the features as far as they are seen.
    """
    each, views = means.shape[:-1], world_to_cam.shape[:-2]
    # The library reads as many as it is told.
    assert wxyz.shape[:-1] == scales.shape[:-1] == opacities.shape == features.shape[: len(each)] == each
    assert intrinsics.shape[:-1] == views and views[:-1] == each[:-1]
    dtype = means.dtype
    means2d, radii = (None, None) if screen is None else (screen.means2d.float(), screen.radii)
    inputs = (means, wxyz, scales, opacities, features, world_to_cam, intrinsics, background)
    arrays = [None if tensor is None else tensor.float().contiguous() for tensor in inputs]
    keep = torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in (means2d, *arrays))
    colors, alphas, depths = _Rasterize.apply(settings, keep, radii, means2d, *arrays)
    return Rasterized(colors.to(dtype), alphas.to(dtype), None if depths is None else depths.to(dtype))
