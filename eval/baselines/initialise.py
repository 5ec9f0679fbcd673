"""Where Gaussians begin: on the points of the capture, or at random where several cameras look."""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import grid_sample

from lrm_ttt.scene.views import Views

# Fewer points of the capture than this in view say too little.
LEAST_POINTS = 100
NEIGHBOURS = 3
# Random Gaussians lie between these shares of the distance from a camera to the origin, where the cameras look.
NEAREST, FARTHEST = 0.3, 2.0
# They are seen by at least so many inputs, where there are that many, and by half of those that have masks, for an
# object that is cut out is in most of them.
LEAST_VIEWS, LEAST_SHARE = 3, 0.5
ROUNDS = 100
# The constant of the spherical harmonics.
SH_CONSTANT = 0.5 / np.pi**0.5


class Cloud(NamedTuple):
    """Points with a colour (0..1) and a distance to their nearest neighbours."""

    points: Float[Tensor, "n 3"]
    colors: Float[Tensor, "n 3"]
    spacing: Float[Tensor, "n"]


def make_cloud(
    views: Views, points: Float[Tensor, "p 3"] | None, number: int, near: float, generator: torch.Generator
) -> Cloud:
    """Return at most `number` of the `points` that views `[v]` see, or as many random ones where there are too few.

    Views and points are in a frame with the origin where the cameras look. All on the CPU.
    """
    if points is not None:
        seen = points[sightings(views, points, near)[0] > 0]
        if len(seen) >= LEAST_POINTS:
            return colored(views, seen[torch.randperm(len(seen), generator=generator)[:number]], near)
    return colored(views, random_points(views, number, near, generator), near)


def random_points(views: Views, number: int, near: float, generator: torch.Generator) -> Float[Tensor, "n 3"]:
    """Draw points that enough views see, uniform in each frustum; one view will do where none are found for long."""
    height, width = views.image_size
    distances = views.cameras.centres.norm(dim=-1)
    found: list[Tensor] = []
    share = 0.0 if views.masks is None else LEAST_SHARE
    least = min(max(LEAST_VIEWS, share * views.shape[0]), views.shape[0])
    for turn in range(ROUNDS):
        camera = torch.randint(views.shape[0], (number,), generator=generator)
        chances = torch.rand(number, 3, generator=generator)
        # A frustum grows with the square of the depth.
        low, high = NEAREST**3, FARTHEST**3
        depths = distances[camera] * (low + (high - low) * chances[:, 2]) ** (1 / 3)
        pixels = chances[:, :2] * torch.tensor([width, height])
        points = views.cameras[camera].unproject(pixels[:, None], depths[:, None])[:, 0]
        counts, covered, _ = sightings(views, points, near)
        found.append(points[(counts >= least) & covered | (turn >= ROUNDS // 2)])
        if sum(map(len, found)) >= number:
            break
    return torch.cat(found)[:number]


def sightings(
    views: Views, points: Float[Tensor, "n 3"], near: float
) -> tuple[Float[Tensor, "n"], Bool[Tensor, "n"], Float[Tensor, "n 3"]]:
    """Return how many views see each point, whether all that do show something there, and the mean colour there.

    Nothing hides anything. Without masks something is everywhere.
    """
    height, width = views.image_size
    pixels, depths = views.cameras.project(points.expand(*views.shape, *points.shape))
    places = pixels / pixels.new_tensor([width, height]) * 2 - 1
    seen = (depths > near) & (places.abs() <= 1).all(-1)
    images = torch.cat([views.images, views.coverage], 1)
    values = grid_sample(images, places[:, :, None].clamp(-2, 2), align_corners=False, padding_mode="border")[..., 0]
    counts = seen.float().sum(0)
    colors = (values[:, :3] * seen[:, None]).sum(0) / counts.clamp(min=1)
    covered = ((values[:, 3] > 0) | ~seen).all(0)
    return counts, covered, colors.T


def colored(views: Views, points: Float[Tensor, "n 3"], near: float) -> Cloud:
    """Return points with the mean colour of where views show them, grey where none does."""
    counts, _, colors = sightings(views, points, near)
    grey = torch.full_like(colors, 0.5)
    return Cloud(points, torch.where(counts[:, None] > 0, colors, grey), spacing(points))


def spacing(points: Float[Tensor, "n 3"]) -> Float[Tensor, "n"]:
    """Return the root mean square distance of each point to its nearest NEIGHBOURS."""
    from sklearn.neighbors import NearestNeighbors

    neighbours = min(NEIGHBOURS, len(points) - 1)
    if neighbours < 1:
        return torch.full((len(points),), 0.1)
    apart = NearestNeighbors(n_neighbors=neighbours).fit(points.numpy()).kneighbors()[0]
    return torch.from_numpy(np.sqrt((apart**2).mean(-1))).to(points).clamp(min=1e-7)


def initial_values(cloud: Cloud, opacity: float, scale: float, generator: torch.Generator) -> dict[str, Tensor]:
    """Return parameters for `make_splats`: round Gaussians of one colour, `scale` times as large as their spacing."""
    number = len(cloud.points)
    return {
        "means": cloud.points,
        "scales": (scale * cloud.spacing).log()[:, None].repeat(1, 3),
        "quats": torch.rand(number, 4, generator=generator),
        "opacities": torch.full((number,), opacity).logit(),
        "sh0": ((cloud.colors - 0.5) / SH_CONSTANT)[:, None],
        "shN": torch.zeros(number, 15, 3),
    }
