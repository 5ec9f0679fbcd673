"""The plain version, by the book: Gaussians are projected, sorted, and blended pixel by pixel in torch."""

import functools
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from lrm_ttt.kernels.rasterizer.constants import (
    CLIP_MARGIN,
    MIN_ALPHA,
    MIN_ALPHA_FOR_DEPTH,
    MIN_TRANSMITTANCE,
    Rasterized,
    Screen,
    Settings,
)
from lrm_ttt.kernels.rasterizer.spherical_harmonics import sh_to_colors

# Pixels are blended in square patches, against the Gaussians whose bounding box touches the patch.
PATCH = 16


def rasterize_reference(
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
    """Draw Gaussians as 3D Gaussian splatting does (Kerbl et al. 2023, arXiv 2308.04079), with gsplat's conventions.

    `features` are spherical harmonics, or plain colours. Works in the dtype and on the device of the inputs.
    Differentiable once in every input; there is no gradient through the order, the thresholds and the cuts.
    """
    images = []
    for scene in range(means.shape[0]):
        for view in range(world_to_cam.shape[1]):
            back = None if background is None else background[scene, view]
            camera = (world_to_cam[scene, view], intrinsics[scene, view])
            gaussians = (means[scene], wxyz[scene], scales[scene], opacities[scene], features[scene])
            seen = None if screen is None else Screen(screen.means2d[scene, view], screen.radii[scene, view])
            images.append(_draw(*gaussians, *camera, back, settings, seen))
    shape = (means.shape[0], world_to_cam.shape[1], 5, settings.height, settings.width)
    planes = torch.stack(images).reshape(shape) if images else means.new_zeros(shape)
    colors, alphas, depths = planes.split([3, 1, 1], dim=2)
    return Rasterized(colors, alphas, depths if settings.render_depth else None)


def rotation_matrices(wxyz: Float[Tensor, "n 4"]) -> Float[Tensor, "n 3 3"]:
    """Return the rotations of quaternions, which are normalised first."""
    w, x, y, z = torch.nn.functional.normalize(wxyz, dim=-1).unbind(-1)
    rows = [
        (1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
        (2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
        (2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
    ]
    return torch.stack([torch.stack(row, -1) for row in rows], -2)


def project_covariances(
    in_camera: Float[Tensor, "n 3"],
    covariances: Float[Tensor, "n 3 3"],
    rotation: Float[Tensor, "3 3"],
    intrinsics: Float[Tensor, "4"],
    settings: Settings,
) -> Float[Tensor, "n 2 2"]:
    """Return image covariances in square pixels (Zwicker et al. 2001), before any blur.

    The Jacobian is taken at the mean moved to the border of the field of view plus a margin, where it lies outside.
    """
    fx, fy, cx, cy = intrinsics.unbind(-1)
    x, y, z = in_camera.unbind(-1)
    margin_x, margin_y = CLIP_MARGIN * 0.5 * settings.width / fx, CLIP_MARGIN * 0.5 * settings.height / fy
    x = z * torch.clamp(x / z, -cx / fx - margin_x, (settings.width - cx) / fx + margin_x)
    y = z * torch.clamp(y / z, -cy / fy - margin_y, (settings.height - cy) / fy + margin_y)
    none = torch.zeros_like(z)
    row_u = torch.stack([fx / z, none, -fx * x / (z * z)], -1)
    row_v = torch.stack([none, fy / z, -fy * y / (z * z)], -1)
    to_image = torch.stack([row_u, row_v], -2) @ rotation
    return to_image @ covariances @ to_image.mT


def _draw(
    means: Tensor,
    wxyz: Tensor,
    scales: Tensor,
    opacities: Tensor,
    features: Tensor,
    world_to_cam: Tensor,
    intrinsics: Tensor,
    background: Tensor | None,
    settings: Settings,
    screen: Screen | None,
) -> Float[Tensor, "5 h w"]:
    """Draw one image: colour, alpha and depth."""
    rotation, translation = world_to_cam[:3, :3], world_to_cam[:3, 3]
    in_camera = means @ rotation.mT + translation
    depth = in_camera[:, 2]
    # The order is that of float32 depths, ties by index, so that every backend draws the same order.
    inside = torch.nonzero((depth >= settings.near) & (depth <= settings.far))[:, 0]
    inside = inside[torch.sort(depth[inside].detach().float(), stable=True).indices]
    in_camera, means, features, opacity = in_camera[inside], means[inside], features[inside], opacities[inside]

    axes = rotation_matrices(wxyz[inside]) * scales[inside][:, None, :]
    sharp = project_covariances(in_camera, axes @ axes.mT, rotation, intrinsics, settings)
    covariances = sharp + settings.eps2d * torch.eye(2, dtype=means.dtype, device=means.device)
    determinants = torch.linalg.det(covariances)
    if settings.antialiased:
        ratio = torch.linalg.det(sharp) / determinants
        safe = ratio > 0
        opacity = opacity * torch.where(safe, torch.where(safe, ratio, 1).sqrt(), 0)
    if features.ndim == 3:
        center = torch.linalg.inv(world_to_cam)[:3, 3]
        colors = sh_to_colors(features, torch.nn.functional.normalize(means - center, dim=-1))
    else:
        colors = features
    fx, fy, cx, cy = intrinsics.unbind(-1)
    centers = torch.stack([fx * in_camera[:, 0], fy * in_camera[:, 1]], -1) / in_camera[:, 2:] + torch.stack([cx, cy])

    good = (determinants.detach() > 0) & (opacity.detach() >= MIN_ALPHA) & (covariances.detach().isfinite().all((1, 2)))
    channels = torch.cat([colors, torch.ones_like(colors[:, :1]), in_camera[:, 2:]], -1)
    if screen is not None:
        centers = centers + screen.means2d[inside]
    parts = [part[good] for part in (centers, covariances, opacity, channels)]
    extents = _extents(parts[1].detach(), parts[2].detach())
    if screen is not None:
        touching = _touching(parts[0].detach(), extents, 0, 0, (settings.height, settings.width))
        screen.radii[inside[good][touching]] = extents[touching].amax(1).float()
    return _blend_patches(parts, extents, background, settings)


class _Recomputed(torch.autograd.Function):
    """Call a function of tensors (or None), keep only its arguments, and call it again in the backward pass.

    Dense patches would fill the memory otherwise. `torch.utils.checkpoint` does the same, and takes seconds to import.
    """

    @staticmethod
    def forward(ctx: Any, function: Callable[..., Tensor], *arguments: Tensor | None) -> Tensor:
        ctx.function = function
        ctx.save_for_backward(*arguments)
        return function(*arguments)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        needed = ctx.needs_input_grad[1:]
        leaves = [None if a is None else a.detach() for a in ctx.saved_tensors]
        wanted = [leaf.requires_grad_() for leaf, need in zip(leaves, needed, strict=True) if need and leaf is not None]
        with torch.enable_grad():
            found = iter(torch.autograd.grad((ctx.function(*leaves) * gradient).sum(), wanted))
        return (None, *(next(found) if need else None for need in needed))


def _extents(covariances: Float[Tensor, "m 2 2"], opacity: Float[Tensor, " m"]) -> Float[Tensor, "m 2"]:
    """Return half the sides of the boxes in which alpha is at least 1/255, in pixels."""
    deviations = torch.sqrt(2 * torch.log(torch.clamp(opacity / MIN_ALPHA, min=1)))
    # A little more than exact, for rounding must not lose a pixel.
    return deviations[:, None] * torch.diagonal(covariances, dim1=1, dim2=2).sqrt() * 1.001 + 0.01


def _blend_patches(
    parts: list[Tensor], extents: Float[Tensor, "m 2"], background: Tensor | None, settings: Settings
) -> Float[Tensor, "5 h w"]:
    """Draw the image in patches, each against the Gaussians whose bounding box touches it."""
    centers = parts[0].detach()
    rows = []
    for top in range(0, settings.height, PATCH):
        row = []
        for left in range(0, settings.width, PATCH):
            size = (min(PATCH, settings.height - top), min(PATCH, settings.width - left))
            touching = _touching(centers, extents, left, top, size)
            blend = functools.partial(_blend, left=left, top=top, size=size, settings=settings)
            row.append(_Recomputed.apply(blend, *(part[touching] for part in parts), background))
        rows.append(torch.cat(row, 2))
    return torch.cat(rows, 1)


def _touching(
    centers: Float[Tensor, "m 2"], extents: Float[Tensor, "m 2"], left: int, top: int, size: tuple[int, int]
) -> Int[Tensor, " touching"]:
    low = centers.new_tensor([left, top]) + 0.5
    high = centers.new_tensor([left + size[1], top + size[0]]) - 0.5
    touches: Bool[Tensor, " m"] = ((centers + extents >= low) & (centers - extents <= high)).all(-1)
    return torch.nonzero(touches)[:, 0]


def _blend(
    centers: Float[Tensor, "m 2"],
    covariances: Float[Tensor, "m 2 2"],
    opacity: Float[Tensor, " m"],
    channels: Float[Tensor, "m 5"],
    background: Float[Tensor, "3"] | None,
    *,
    left: int,
    top: int,
    size: tuple[int, int],
    settings: Settings,
) -> Float[Tensor, "5 patch_h patch_w"]:
    """Blend sorted Gaussians front to back into one patch. Channels are colour, one, depth."""
    y = torch.arange(top, top + size[0], dtype=centers.dtype, device=centers.device) + 0.5
    x = torch.arange(left, left + size[1], dtype=centers.dtype, device=centers.device) + 0.5
    pixels = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1).reshape(-1, 2)
    offsets = pixels - centers[:, None]
    sigma = 0.5 * torch.einsum("mpi,mij,mpj->mp", offsets, torch.linalg.inv(covariances), offsets)
    alpha = torch.clamp(opacity[:, None] * torch.exp(-sigma), max=settings.max_alpha)
    alpha = torch.where(alpha >= MIN_ALPHA, alpha, 0)
    after = torch.cumprod(1 - alpha, 0)
    before = torch.cat([torch.ones_like(after[:1]), after[:-1]])
    # `after` never grows, so a pixel that has ended stays ended.
    drawn = after > MIN_TRANSMITTANCE
    sums = torch.einsum("mp,mc->cp", torch.where(drawn, alpha * before, 0), channels)
    left_over = torch.where(drawn, 1 - alpha, 1).prod(0)
    colors, total, depth = sums[:3], sums[3:4], sums[4:5]
    if background is not None:
        colors = colors + background[:, None] * left_over
    planes = torch.cat([colors, total, depth / total.clamp(min=MIN_ALPHA_FOR_DEPTH)])
    return planes.reshape(5, *size)
