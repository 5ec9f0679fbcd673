"""The plane sweep by the book, in torch."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import grid_sample

# Cost where no other view sees the point: between a good match and a bad one.
UNSEEN_COST = 0.25


class SweepResult(NamedTuple):
    """For every pixel and plane: how badly the best views match, and the share of silhouettes that hold the point."""

    costs: Float[Tensor, "swept planes h w"]
    hulls: Float[Tensor, "swept planes h w"]


def plane_sweep_reference(
    images: Float[Tensor, "v 3 h w"],
    masks: Float[Tensor, "v 1 h w"],
    world_to_pixel: Float[Tensor, "v 3 4"],
    origins: Float[Tensor, "swept 3"],
    directions: Float[Tensor, "swept h w 3"],
    distances: Float[Tensor, "swept planes"],
    neighbours: Int[Tensor, "swept colours"],
    silhouettes: Int[Tensor, "swept silhouettes"],
) -> SweepResult:
    """Compare each pixel, at each of the distances along its unit ray, with what other views show there.

    The first of the views are swept, as many as there are rows of `distances`; the others are only looked at.
    `costs` is the mean over the two best `neighbours` of the mean absolute colour difference (0..1; UNSEEN_COST
    where none sees the point). `hulls` is the least coverage 0..1 that any of the `silhouettes` shows there (1
    where none sees the point). `world_to_pixel` maps world points to (x z, y z, z) in pixels. Not differentiable.
    Colours are bilinear; views that a point falls outside of abstain.
    """
    results = [
        _sweep_view(view, images, masks, world_to_pixel, origins[view], directions[view], distances[view], near, around)
        for view, (near, around) in enumerate(zip(neighbours.tolist(), silhouettes.tolist(), strict=True))
    ]
    return SweepResult(
        torch.stack([result.costs for result in results]), torch.stack([result.hulls for result in results])
    )


def _sweep_view(
    view: int,
    images: Tensor,
    masks: Tensor,
    world_to_pixel: Tensor,
    origin: Tensor,
    directions: Tensor,
    distances: Tensor,
    near: list[int],
    around: list[int],
) -> SweepResult:
    points = origin + directions * distances[:, None, None, None]
    best = torch.full_like(points[..., 0], float("inf"))
    second = torch.full_like(best, float("inf"))
    hull = torch.ones_like(best)
    for other in dict.fromkeys(near + around):
        sampled, seen = _sample(torch.cat([images[other], masks[other]]), world_to_pixel[other], points)
        if other in near:
            cost = (sampled[:3] - images[view][:, None]).abs().mean(0)
            cost = torch.where(seen, cost, float("inf"))
            second = torch.minimum(second, torch.maximum(best, cost))
            best = torch.minimum(best, cost)
        if other in around:
            hull = torch.where(seen, torch.minimum(hull, sampled[3]), hull)
    both = torch.where(second.isinf(), best, (best + second) / 2)
    return SweepResult(torch.where(both.isinf(), UNSEEN_COST, both), hull)


def _sample(image: Tensor, matrix: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """Return bilinear samples `[c planes h w]` of an image where it sees the points, and whether it does."""
    height, width = image.shape[-2:]
    projected = points @ matrix[:, :3].T + matrix[:, 3]
    depth = projected[..., 2]
    pixel = projected[..., :2] / torch.where(depth > 1e-6, depth, torch.ones_like(depth))[..., None]
    size = pixel.new_tensor([width, height])
    seen = (depth > 1e-6) & ((pixel >= 0) & (pixel < size)).all(-1)
    grid = (pixel / size * 2 - 1).reshape(1, -1, width, 2)
    sampled = grid_sample(image[None], grid, mode="bilinear", padding_mode="border", align_corners=False)
    return sampled[0].reshape(image.shape[0], *points.shape[:-1]), seen
