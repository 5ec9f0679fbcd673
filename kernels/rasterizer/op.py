"""The public function: Gaussians and cameras to images, with the backend that fits the device."""

import functools
import logging
from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from lrm_ttt.errors import BackendUnavailable, LrmTttError
from lrm_ttt.kernels.rasterizer import cpu, gsplat
from lrm_ttt.kernels.rasterizer.constants import (
    EPS2D,
    FAR,
    INPUTS,
    MAX_ALPHA,
    NEAR,
    NOT_FINITE,
    NUM_CAMERA_INPUTS,
    SH_COUNTS,
    Rasterized,
    Screen,
    Settings,
)
from lrm_ttt.kernels.rasterizer.reference import rasterize_reference

__all__ = ["BACKENDS", "Rasterized", "Screen", "available_backends", "rasterize", "rasterize_tracked"]

BACKENDS = ("auto", "cpu", "gsplat", "reference")

_log = logging.getLogger(__name__)


@runtime_checkable
class Size(Protocol):
    """An image size in pixels, for example `lrm_ttt.scene.ImageSize`."""

    @property
    def height(self) -> int: ...

    @property
    def width(self) -> int: ...


def rasterize(
    means: Float[Tensor, "*b n 3"],
    wxyz: Float[Tensor, "*b n 4"],
    scales: Float[Tensor, "*b n 3"],
    opacities: Float[Tensor, "*b n"],
    sh: Float[Tensor, "*b n k 3"] | None = None,
    *,
    colors: Float[Tensor, "*b n 3"] | None = None,
    world_to_cam: Float[Tensor, "*b v 4 4"],
    intrinsics: Float[Tensor, "*b v 4"],
    image_size: Size | Sequence[int],
    background: Float[Tensor, "*b v 3"] | Float[Tensor, "3"] | None = None,
    near: float = NEAR,
    far: float = FAR,
    eps2d: float = EPS2D,
    antialiased: bool = False,
    max_alpha: float | None = None,
    render_depth: bool = True,
    backend: str = "auto",
    screen: Screen | None = None,
) -> Rasterized:
    """Draw every scene of a batch from its `v` cameras: colours, alphas and expected camera z.

    `scales` are standard deviations in scene units, `opacities` 0..1, quaternions need not have unit length. Colour is
    `sh` (k = 1, 4, 9 or 16, in world directions, +0.5) or plain `colors`, exactly one of the two. `world_to_cam` has
    OpenCV axes; `intrinsics` are fx fy cx cy in pixels, pixel centres at +0.5; `image_size` is (height, width), or has
    these attributes. `background` None is black. Gaussians outside `near`..`far` (camera z, scene units) are not drawn.
    `antialiased` lowers the opacity of Gaussians that `eps2d` (square pixels) has widened. `max_alpha` None is 0.999,
    or what the installed gsplat has. `screen` is for `rasterize_tracked`.

    Differentiable once in means, wxyz, scales, opacities, sh or colors, world_to_cam and background; bit-identical for
    any number of threads. `backend` "auto" takes gsplat for CUDA tensors, else the native library, else (and for
    float64) the torch reference. Raises `BackendUnavailable` for a backend that cannot run here, `LrmTttError` for NaN
    or infinity. Kerbl et al. 2023, arXiv 2308.04079.
    """
    features = sh if sh is not None else colors
    if features is None or (sh is not None and colors is not None):
        raise LrmTttError("rasterize takes either sh or colors: give exactly one of them")
    chosen = _choose(backend, means)
    most = max_alpha if max_alpha is not None else gsplat.max_alpha() if chosen == "gsplat" else MAX_ALPHA
    settings = Settings(*_height_width(image_size), near, far, eps2d, antialiased, most, render_depth)
    _check(settings, sh)
    if background is not None:
        background = background.expand(*world_to_cam.shape[:-2], 3)
    arguments = (means, wxyz, scales, opacities, features, world_to_cam, intrinsics, background)
    if chosen == "cpu":
        return cpu.rasterize_cpu(*arguments, settings, screen)
    return _draw_flat(chosen, arguments, settings, screen)


def rasterize_tracked(
    means: Float[Tensor, "*b n 3"], *others: Tensor, world_to_cam: Float[Tensor, "*b v 4 4"], **options: Any
) -> tuple[Rasterized, Screen]:
    """Do what `rasterize` does with these arguments, and say how large each Gaussian is in each view.

    After the backward pass it also says what the gradient to the projected means is: see `Screen`.
    """
    shape = (*means.shape[:-2], world_to_cam.shape[-3], means.shape[-2])
    screen = Screen(
        means.new_zeros(*shape, 2, requires_grad=True), torch.zeros(shape, dtype=torch.float32, device=means.device)
    )
    return rasterize(means, *others, world_to_cam=world_to_cam, screen=screen, **options), screen


def available_backends(device: torch.device | str = "cpu") -> dict[str, str]:
    """Return, for every backend, why it cannot draw tensors of this device; "" where it can."""
    return {backend: _why_not(backend, torch.device(device)) for backend in BACKENDS if backend != "auto"}


def _why_not(backend: str, device: torch.device) -> str:
    if backend == "gsplat":
        return gsplat.why_not(device)
    if backend == "cpu" and device.type != "cpu":
        return f"it draws tensors on the CPU, not on {device}"
    if backend == "cpu" and cpu.library() is None:
        return "the native library is not built: install a C++ compiler, then install lrm-ttt again"
    return ""


def _choose(backend: str, means: Tensor) -> str:
    """Return the backend that draws; a slower one than the device deserves is logged, once."""
    if backend not in BACKENDS:
        raise BackendUnavailable(f"there is no rasterizer backend {backend!r}; choose among {', '.join(BACKENDS)}")
    best = backend if backend != "auto" else "gsplat" if means.device.type == "cuda" else "cpu"
    lacks = _why_not(best, means.device)
    if backend != "auto":
        if lacks:
            raise BackendUnavailable(f"rasterizer backend {backend!r} cannot be used: {lacks}")
        return backend
    if best == "cpu" and means.dtype == torch.float64:
        lacks = "tensors are float64"
    if lacks:
        _say_once(lacks)
        return "reference"
    return best


@functools.cache
def _say_once(reason: str) -> None:
    _log.warning("rasterizer: the torch reference serves, 8-200 times slower, because %s", reason)


def _height_width(image_size: Size | Sequence[int]) -> tuple[int, int]:
    if isinstance(image_size, Sequence):
        height, width = image_size
        return int(height), int(width)
    return image_size.height, image_size.width


def _check(settings: Settings, sh: Tensor | None) -> None:
    if sh is not None and sh.shape[-2] not in SH_COUNTS:
        raise LrmTttError(f"sh has {sh.shape[-2]} coefficients per channel; degrees 0 to 3 have {SH_COUNTS}")
    positive = settings.height > 0 and settings.width > 0 and 0 < settings.max_alpha < 1 and settings.eps2d >= 0
    if not (positive and 0 < settings.near < settings.far):
        raise LrmTttError(f"cannot draw with {settings}: sizes, near and max_alpha are positive, near is below far")


def _draw_flat(
    backend: str, arguments: tuple[Tensor | None, ...], settings: Settings, screen: Screen | None
) -> Rasterized:
    """Draw with a backend that knows one dimension of scenes; `arguments` are INPUTS."""
    # Whether Gaussians on a GPU are finite would have to be waited for.
    checked = len(INPUTS) if backend == "reference" else NUM_CAMERA_INPUTS
    for name, tensor in list(zip(INPUTS, arguments, strict=True))[-checked:]:
        if tensor is not None and not bool(tensor.detach().isfinite().all()):
            raise LrmTttError(NOT_FINITE.format(name))
    means, cameras = arguments[0], arguments[5]
    assert means is not None and cameras is not None
    batch = means.shape[:-2]
    flat = [None if t is None else t.reshape(batch.numel(), *t.shape[len(batch) :]) for t in arguments]
    if screen is not None:
        seen = (batch.numel(), cameras.shape[-3], means.shape[-2])
        screen = Screen(screen.means2d.reshape(*seen, 2), screen.radii.view(seen))
    draw: Callable[..., Rasterized] = gsplat.rasterize_gsplat if backend == "gsplat" else rasterize_reference
    drawn = draw(*flat, settings, screen)
    colors, alphas = (image.reshape(*batch, *image.shape[1:]) for image in drawn[:2])
    depths = None if drawn.depths is None else drawn.depths.reshape(*batch, *drawn.depths.shape[1:])
    return Rasterized(colors, alphas, depths)
