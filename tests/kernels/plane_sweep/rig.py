"""Cameras around the origin, and the arguments of a plane sweep made from them."""

import dataclasses

import torch
from torch import Tensor
from torch.nn.functional import interpolate, normalize

from lrm_ttt.kernels.plane_sweep.reference import SweepResult


@dataclasses.dataclass(frozen=True)
class Sweep:
    """The arguments of `plane_sweep`."""

    images: Tensor
    masks: Tensor
    world_to_pixel: Tensor
    origins: Tensor
    directions: Tensor
    distances: Tensor
    neighbours: Tensor
    silhouettes: Tensor

    def to(self, dtype: torch.dtype) -> "Sweep":
        return Sweep(*(value.to(dtype) if value.is_floating_point() else value for value in self.arguments))

    @property
    def arguments(self) -> tuple[Tensor, ...]:
        return tuple(getattr(self, field.name) for field in dataclasses.fields(self))

    @property
    def points(self) -> Tensor:
        """World points `[v planes h w 3]`."""
        return self.origins[:, None, None, None] + self.directions[:, None] * self.distances[..., None, None, None]


def looking(origins: Tensor, forward: Tensor, height: int, width: int, focal_px: float) -> tuple[Tensor, Tensor]:
    """Return `world_to_pixel [v 3 4]` and unit `directions [v h w 3]` of cameras with their z axes along `forward`."""
    forward = normalize(forward, dim=-1)
    up = torch.tensor([0.1, -1.0, 0.2], dtype=origins.dtype).expand_as(forward)
    right = normalize(torch.linalg.cross(forward, up), dim=-1)
    rotation = torch.stack([right, torch.linalg.cross(forward, right), forward], 1)
    intrinsics = origins.new_tensor([[focal_px, 0, width / 2], [0, focal_px, height / 2], [0, 0, 1]])
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    in_camera = torch.stack([(x - width / 2) / focal_px, (y - height / 2) / focal_px, torch.ones_like(x)], -1)
    directions = torch.einsum("hwi,vij->vhwj", normalize(in_camera.to(origins.dtype), dim=-1), rotation)
    return intrinsics @ torch.cat([rotation, -rotation @ origins[..., None]], -1), directions


def around(origins: Tensor, height: int, width: int, planes: int, colours: int, carving: int, seed: int = 0) -> Sweep:
    """Return float64 views of smooth random images from the origins, all towards the world's origin."""
    generator = torch.Generator().manual_seed(seed)
    num_views = len(origins)
    world_to_pixel, directions = looking(origins, -origins, height, width, 1.1 * width)
    coarse = torch.rand(num_views, 3, height // 6 + 2, width // 6 + 2, generator=generator, dtype=torch.float64)
    order = torch.cdist(origins, origins).fill_diagonal_(1e9).argsort(-1)[:, : max(1, num_views - 1)]
    distance = origins.norm(dim=-1, keepdim=True)
    return Sweep(
        interpolate(coarse, (height, width), mode="bilinear"),
        sphere_masks(origins, directions, 0.6),
        world_to_pixel,
        origins,
        directions,
        distance + torch.linspace(-1, 1, planes, dtype=torch.float64),
        order[:, :colours],
        order.flip(-1)[:, :carving],
    )


def random_origins(num_views: int, seed: int = 0) -> Tensor:
    """Return points `[v 3]` on a sphere of radius 2.5."""
    generator = torch.Generator().manual_seed(seed)
    return 2.5 * normalize(torch.randn(num_views, 3, generator=generator, dtype=torch.float64), dim=-1)


def sphere_masks(origins: Tensor, directions: Tensor, radius: float) -> Tensor:
    """Return `[v 1 h w]`: 1 where the ray through the pixel's centre meets the sphere around the world's origin."""
    along = (origins[:, None, None] * directions).sum(-1)
    nearest = origins.square().sum(-1)[:, None, None] - along.square()
    return (nearest < radius**2).to(origins.dtype)[:, None]


def share_beyond(result: SweepResult, expected: SweepResult, tolerance: float) -> float:
    """Return the share of values that differ by more than the tolerance, the larger of costs and hulls."""
    return max(
        float(((got.double() - want.double()).abs() > tolerance).double().mean())
        for got, want in zip(result, expected, strict=True)
    )
