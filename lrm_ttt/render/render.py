"""Gaussians and cameras to renderings, differentiably: all views in one call, or view by view where memory is short."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from lrm_ttt.kernels.rasterizer.op import rasterize
from lrm_ttt.scene.cameras import Cameras
from lrm_ttt.scene.gaussians import Gaussians
from lrm_ttt.scene.manipulable import cat
from lrm_ttt.scene.views import Renderings

# Views times Gaussians that one call may hold; each keeps some 200 bytes for the backward pass.
MAX_PROJECTIONS = 2**24
NEAR = 0.01


def render(
    gaussians: Gaussians,
    cameras: Cameras,
    backgrounds: Float[Tensor, "b 3"] | None = None,
    backend: str = "auto",
    near: float = NEAR,
    max_projections: int = MAX_PROJECTIONS,
) -> Renderings:
    """Render Gaussians `[b]` from cameras `[b v]`; colours lie on `backgrounds` (None: black), depth is camera z.

    Gaussians nearer than `near` (scene units) are not drawn. When views times Gaussians exceed `max_projections` each
    view is drawn alone and drawn again in the backward pass, which costs a third more time and the memory of one view.
    `backend` as in `lrm_ttt.kernels.rasterizer`.
    """
    assert gaussians.shape == cameras.shape[:1], "one set of Gaussians for each row of cameras"
    num_views = cameras.shape[1]
    if gaussians.means.shape[:-1].numel() * num_views <= max_projections or num_views == 1:
        return _render_views(gaussians, cameras, backgrounds, backend, near)
    return cat([_recomputed(gaussians, cameras[:, i : i + 1], backgrounds, backend, near) for i in range(num_views)], 1)


def arguments(gaussians: Gaussians, cameras: Cameras) -> dict[str, Any]:
    """Return what `rasterize` is to be told of Gaussians `[*b]` and cameras `[*b v]`."""
    return {
        "means": gaussians.means,
        "wxyz": gaussians.wxyz,
        "scales": gaussians.scales,
        "opacities": gaussians.opacities,
        "sh": gaussians.sh,
        "world_to_cam": cameras.world_to_cam,
        "intrinsics": cameras.intrinsics,
        "image_size": cameras.image_size,
    }


def _recomputed(
    gaussians: Gaussians, cameras: Cameras, backgrounds: Tensor | None, backend: str, near: float
) -> Renderings:
    """Render, keeping nothing for the backward pass but the arguments."""
    if not torch.is_grad_enabled():
        return _render_views(gaussians, cameras, backgrounds, backend, near)

    def run(means: Tensor, scales: Tensor, wxyz: Tensor, opacities: Tensor, sh: Tensor) -> tuple[Tensor, ...]:
        drawn = _render_views(Gaussians(means, scales, wxyz, opacities, sh), cameras, backgrounds, backend, near)
        return drawn.colors, drawn.alphas, drawn.depths

    parts = (gaussians.means, gaussians.scales, gaussians.wxyz, gaussians.opacities, gaussians.sh)
    return Renderings(*checkpoint(run, *parts, use_reentrant=False))


def _render_views(
    gaussians: Gaussians, cameras: Cameras, backgrounds: Tensor | None, backend: str, near: float
) -> Renderings:
    drawn = rasterize(
        **arguments(gaussians, cameras),
        background=None if backgrounds is None else backgrounds[:, None].expand(*cameras.shape, 3),
        near=near,
        backend=backend,
    )
    assert drawn.depths is not None
    return Renderings(drawn.colors, drawn.alphas, drawn.depths)
