"""Radiance fields and cameras to renderings by quadrature of the volume rendering integral (Max 1995; NeRF,
arXiv 2003.08934).

Whatever is known of a pixel's ray is a row of n distances; rays outside the cube have length 0, and so no effect.
"""

import functools
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from lrm_ttt.scene.cameras import Cameras
from lrm_ttt.scene.views import Renderings

# This share of the importance samples goes anywhere on the ray, so that what the coarse samples missed can be found.
UNIFORM_SHARE = 0.01
# Below this coverage the expected depth is that of nothing.
MIN_ALPHA = 1e-10


@runtime_checkable
class Field(Protocol):
    """A batch of radiance fields in cubes around the origin, for example `lrm_ttt.scene.triplanes.Triplanes`."""

    @property
    def extent(self) -> float: ...

    @property
    def shape(self) -> torch.Size: ...

    def radiance(self, points: Tensor) -> tuple[Tensor, Tensor]: ...


def render_volume(
    field: Field,
    cameras: Cameras,
    backgrounds: Float[Tensor, "b 3"] | None = None,
    num_stratified: int = 48,
    num_importance: int = 48,
    rays_per_chunk: int = 4096,
    generator: torch.Generator | None = None,
) -> Renderings:
    """Render fields `[b]` from cameras `[b v]`; colours lie on `backgrounds` (None: black), depth is camera z.

    Each ray takes `num_stratified` samples over its way through the cube, and `num_importance` more where these found
    something. With a generator samples lie at random in their strata, without one in the middle. `rays_per_chunk`
    bounds memory: beyond it chunks are rendered one after the other, and again in the backward pass, with the same
    result (with a generator: if it is one of the CPU).
    """
    assert field.shape == cameras.shape[:1], "one field for each row of cameras"
    origins, directions = (rays.flatten(1, 3) for rays in cameras.rays())
    batch, num_rays, _ = origins.shape
    render_rays = functools.partial(_render_rays, field, num_stratified=num_stratified)
    size = max(1, rays_per_chunk // batch)
    parts = []
    for start in range(0, num_rays, size):
        rays = origins[:, start : start + size], directions[:, start : start + size]
        noise = _noise(rays[0], num_stratified + num_importance, generator)
        if size < num_rays and torch.is_grad_enabled():
            parts.append(checkpoint(render_rays, *rays, noise, use_reentrant=False, preserve_rng_state=False))
        else:
            parts.append(render_rays(*rays, noise))
    colors, alphas, distances = (torch.cat(part, -1) for part in zip(*parts, strict=True))
    if backgrounds is not None:
        colors = colors + (1 - alphas)[:, None] * backgrounds[..., None]
    height, width = cameras.image_size
    along = (directions.reshape(*cameras.shape, -1, 3) * cameras.forward[..., None, :]).sum(-1)
    depths = distances / alphas.clamp(min=MIN_ALPHA) * along.flatten(1)
    shape = (*cameras.shape, 1, height, width)
    colors = colors.reshape(batch, 3, cameras.shape[1], height, width).transpose(1, 2)
    return Renderings(colors, alphas.reshape(shape), depths.reshape(shape))


def _noise(like: Float[Tensor, "b n 3"], num_samples: int, generator: torch.Generator | None) -> Tensor:
    """Return where in their strata the samples lie, 0..1.

    They are drawn on the generator's device, ray by ray: from one on the CPU a seed gives the same samples wherever and
    in whatever chunks they are rendered. One on a GPU draws others for other chunks.
    """
    batch, num_rays, _ = like.shape
    shape = (num_rays, batch, num_samples)
    if generator is None:
        return like.new_full(shape, 0.5).transpose(0, 1)
    drawn = torch.rand(shape, generator=generator, device=generator.device, dtype=like.dtype)
    return drawn.to(like.device).transpose(0, 1)


def _render_rays(
    field: Field,
    origins: Float[Tensor, "b n 3"],
    directions: Float[Tensor, "b n 3"],
    noise: Float[Tensor, "b n s"],
    num_stratified: int,
) -> tuple[Float[Tensor, "b 3 n"], Float[Tensor, "b n"], Float[Tensor, "b n"]]:
    """Return colour on black, coverage, and coverage times expected distance."""

    def radiance(distances: Tensor) -> tuple[Tensor, Tensor]:
        points = origins[..., None, :] + distances[..., None] * directions[..., None, :]
        density, color = field.radiance(points.flatten(1, 2))
        return density.reshape(distances.shape), color.reshape(color.shape[0], 3, *distances.shape[1:])

    near, far = intersect_cube(origins, directions, field.extent)
    distances = stratified_samples(near, far, noise[..., :num_stratified])
    density, color = radiance(distances)
    if noise.shape[-1] > num_stratified:
        with torch.no_grad():
            edges = interval_edges(distances, near, far)
            found = quadrature_weights(density, edges)
            extra = importance_samples(edges, found, noise[..., num_stratified:])
        extra_density, extra_color = radiance(extra)
        distances, order = torch.cat([distances, extra], -1).sort(-1)
        density = torch.cat([density, extra_density], -1).gather(-1, order)
        color = torch.cat([color, extra_color], -1).gather(-1, order[:, None].expand(-1, 3, -1, -1))
    weights = quadrature_weights(density, interval_edges(distances, near, far))
    return (weights[:, None] * color).sum(-1), weights.sum(-1), (weights * distances).sum(-1)


def intersect_cube(
    origins: Float[Tensor, "*b 3"], directions: Float[Tensor, "*b 3"], extent: float
) -> tuple[Float[Tensor, "*b"], Float[Tensor, "*b"]]:
    """Return where rays enter and leave the cube -extent..extent, as distances; equal where they miss it.

    Rays that begin inside enter at 0.
    """
    tiny = 1e-12
    inverse = 1 / torch.where(directions.abs() < tiny, tiny, directions)
    sides = torch.stack([(-extent - origins) * inverse, (extent - origins) * inverse])
    near = sides.amin(0).amax(-1).clamp(min=0)
    far = sides.amax(0).amin(-1)
    hit = far > near
    return torch.where(hit, near, 0.0), torch.where(hit, far, 0.0)


def stratified_samples(
    near: Float[Tensor, "*b"], far: Float[Tensor, "*b"], noise: Float[Tensor, "*b s"]
) -> Float[Tensor, "*b s"]:
    """Return one distance in each of `s` equal strata between near and far, at the share `noise` (0..1) of it."""
    count = noise.shape[-1]
    share = (torch.arange(count, device=noise.device, dtype=noise.dtype) + noise) / count
    return near[..., None] + share * (far - near)[..., None]


def interval_edges(
    distances: Float[Tensor, "*b s"], near: Float[Tensor, "*b"], far: Float[Tensor, "*b"]
) -> Float[Tensor, "*b e"]:
    """Return the `s + 1` edges of the intervals that sorted samples stand for.

    They tile near..far, halfway between the samples, so that a constant density is integrated exactly.
    """
    between = (distances[..., 1:] + distances[..., :-1]) / 2
    return torch.cat([near[..., None], between, far[..., None]], -1)


def quadrature_weights(density: Float[Tensor, "*b s"], edges: Float[Tensor, "*b e"]) -> Float[Tensor, "*b s"]:
    """Return the share of the light that each interval sends: what reaches it, times what it stops."""
    thickness = density * edges.diff(dim=-1)
    before = thickness.cumsum(-1) - thickness
    return torch.exp(-before) * -torch.expm1(-thickness)


def importance_samples(
    edges: Float[Tensor, "*b e"], weights: Float[Tensor, "*b s"], noise: Float[Tensor, "*b i"]
) -> Float[Tensor, "*b i"]:
    """Return distances distributed as `weights` over the intervals, by inverting their cumulative sum at stratified
    levels.

    Sorted along each ray. UNIFORM_SHARE of them, and all where nothing was found, are spread over the intervals.
    """
    weights = weights + UNIFORM_SHARE / weights.shape[-1]
    cumulative = weights.cumsum(-1) / weights.sum(-1, keepdim=True)
    cumulative = torch.cat([torch.zeros_like(cumulative[..., :1]), cumulative], -1)
    count = noise.shape[-1]
    levels = (torch.arange(count, device=noise.device, dtype=noise.dtype) + noise) / count
    upper = torch.searchsorted(cumulative, levels.contiguous(), right=True).clamp(1, weights.shape[-1])
    below, above = cumulative.gather(-1, upper - 1), cumulative.gather(-1, upper)
    start, end = edges.gather(-1, upper - 1), edges.gather(-1, upper)
    return start + ((levels - below) / (above - below)).clamp(0, 1) * (end - start)
