"""The CUDA backend: gsplat, imported only when tensors are on a CUDA device.

Its first use compiles its CUDA code, once, in minutes; that needs nvcc and ninja.
"""

import functools
import importlib
import importlib.metadata
import importlib.util
import re

import torch
from jaxtyping import Float
from torch import Tensor

from lrm_ttt.errors import BackendUnavailable
from lrm_ttt.kernels.rasterizer.constants import MAX_ALPHA, MAX_ALPHA_GSPLAT_16, Rasterized, Screen, Settings


def why_not(device: torch.device) -> str:
    """Return why gsplat cannot draw tensors of this device, "" where it can as far as one sees without importing it."""
    if device.type != "cuda":
        return f"it draws tensors on a CUDA device, not on {device}"
    if importlib.util.find_spec("gsplat") is None:
        return "the package gsplat is not installed: pip install gsplat"
    return ""


@functools.cache
def max_alpha() -> float:
    """Return the largest alpha that the installed gsplat knows: it was lowered in 1.6."""
    version = re.findall(r"\d+", importlib.metadata.version("gsplat"))
    return MAX_ALPHA_GSPLAT_16 if tuple(map(int, version[:2])) >= (1, 6) else MAX_ALPHA


def rasterize_gsplat(
    means: Float[Tensor, "b n 3"],
    wxyz: Float[Tensor, "b n 4"],
    scales: Float[Tensor, "b n 3"],
    opacities: Float[Tensor, "b n"],
    features: Float[Tensor, "b n k 3"] | Float[Tensor, "b n 3"],
    world_to_cam: Float[Tensor, "b v 4 4"],
    intrinsics: Float[Tensor, "b v 4"],
    background: Float[Tensor, "b v 3"] | None,
    settings: Settings,
    screen: Screen | None = None,
) -> Rasterized:
    """Do what `rasterize_reference` does, in float32 on a CUDA device.

    Raises `BackendUnavailable` when gsplat cannot be imported or has another `max_alpha`, which it fixes when compiled.
    """
    if settings.max_alpha != max_alpha():
        raise BackendUnavailable(f"the installed gsplat has max_alpha={max_alpha()}: leave it out, or use reference")
    library = _import_gsplat()
    dtype = means.dtype
    flat = [tensor.float() for tensor in (means, wxyz, scales, opacities, features, world_to_cam)]
    drawn, alphas, info = library.rasterization(
        *flat,
        _matrices(intrinsics.float()),
        settings.width,
        settings.height,
        near_plane=settings.near,
        far_plane=settings.far,
        eps2d=settings.eps2d,
        sh_degree=round(features.shape[2] ** 0.5) - 1 if features.ndim == 4 else None,
        packed=False,
        backgrounds=None if background is None else background.float(),
        render_mode="RGB+ED" if settings.render_depth else "RGB",
        rasterize_mode="antialiased" if settings.antialiased else "classic",
    )
    if screen is not None:
        _track(info, screen)
    channels_first = drawn.movedim(-1, 2).to(dtype)
    depths = channels_first[:, :, 3:] if settings.render_depth else None
    return Rasterized(channels_first[:, :, :3], alphas.movedim(-1, 2).to(dtype), depths)


def _track(info: dict[str, Tensor], screen: Screen) -> None:
    """Fill the radii, and let the gradient of gsplat's projected means go to `means2d`."""
    # Two of each Gaussian since 1.5, along the axes of the image; one of 0 means that it is not drawn.
    radii = info["radii"].reshape(*screen.radii.shape, -1)
    screen.radii.copy_(torch.where((radii > 0).all(-1), radii.amax(-1), 0))
    if info["means2d"].requires_grad:
        info["means2d"].register_hook(screen.means2d.backward)


def _matrices(intrinsics: Float[Tensor, "b v 4"]) -> Float[Tensor, "b v 3 3"]:
    fx, fy, cx, cy = intrinsics.unbind(-1)
    none, one = torch.zeros_like(fx), torch.ones_like(fx)
    rows = [torch.stack(row, -1) for row in ((fx, none, cx), (none, fy, cy), (none, none, one))]
    return torch.stack(rows, -2)


@functools.cache
def _import_gsplat():  # type: ignore[no-untyped-def]
    # Importing gsplat compiles or loads its extension, which fails in as many ways as there are toolchains.
    try:
        return importlib.import_module("gsplat")
    except (ImportError, OSError, RuntimeError) as error:
        raise BackendUnavailable(f"gsplat cannot be imported ({error}); see `lrm-ttt doctor`") from error
