"""Matched points between the views of a capture, and how well cameras agree with them."""

import dataclasses
import itertools
import statistics
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lrm_ttt.data.features import find_features, match
from lrm_ttt.data.images import load_views
from lrm_ttt.data.lens import Distortion
from lrm_ttt.data.source import SceneSource
from lrm_ttt.scene.cameras import Cameras

# The size at which points are sought: beyond it there are more of them, and not better ones.
MAX_PIXELS = 640 * 480
NUM_WORKERS = 2
# Images of different things have up to 20 matches; a pair counts when it has more, and when its points move by this
# share of the image's longer side, for else any camera would do.
FEWEST_MATCHES, LEAST_MOTION = 24, 0.015
PARTNERS = 2
# Right matches lie within half a pixel of their lines; this is where a match counts half.
HALF_WEIGHT_PX = 1.5
# Rays that differ by a smaller angle (radians) may meet before or behind the camera by chance.
LEAST_PARALLAX = 0.004
NEWTON_STEPS = 6


@dataclasses.dataclass(frozen=True)
class Matches:
    """Points of two views that show the same, in pixels of the images as they were taken (not undistorted).

    `pair` counts the pairs of views, of which there are `num_pairs`; views are counted within a sample.
    """

    pair: Int[Tensor, "m"]
    first: Int[Tensor, "m"]
    second: Int[Tensor, "m"]
    in_first: Float[Tensor, "m 2"]
    in_second: Float[Tensor, "m 2"]
    num_pairs: int

    def mean_by_pair(self, values: Float[Tensor, "m"]) -> Float[Tensor, "pairs"]:
        """Return the mean of a value over the matches of each pair."""
        counts = torch.bincount(self.pair, minlength=self.num_pairs)
        return torch.zeros(self.num_pairs, dtype=values.dtype).index_add(0, self.pair, values) / counts

    def views_of(self, pairs: Bool[Tensor, "pairs"]) -> set[int]:
        """Return the views that some of the pairs join."""
        kept = pairs[self.pair]
        return {*self.first[kept].tolist(), *self.second[kept].tolist()}


@dataclasses.dataclass(frozen=True)
class Evidence:
    """What the images of some views say, and the cameras (float64) and lenses that the capture claims for them.

    `num_still` pairs of views share points that hardly move from one to the other, which tells nothing of cameras.
    `num_features` is the median number of points that could have been matched.
    """

    cameras: Cameras
    lenses: tuple[Distortion | None, ...]
    matches: Matches
    num_still: int
    num_features: int

    @property
    def num_views(self) -> int:
        """Views that were looked at."""
        return len(self.lenses)


def gather_evidence(source: SceneSource, indices: Sequence[int]) -> Evidence:
    """Match the views `indices` of a capture with each other, and keep for each the partners it shares most with.

    Raises `UnreadableScene` for an image that cannot be decoded.
    """
    indices = list(indices)
    bent = dataclasses.replace(source, distortion=(None,) * source.num_views, depths=None)
    views = load_views(bent, indices, max_pixels=MAX_PIXELS)
    with ThreadPoolExecutor(NUM_WORKERS) as pool:
        features = list(pool.map(find_features, views.images.mean(1)))
    found: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}
    num_still = 0
    for first, second in itertools.combinations(range(len(indices)), 2):
        matched = match(features[first], features[second])
        points = features[first].points[matched[:, 0]], features[second].points[matched[:, 1]]
        if len(matched) < FEWEST_MATCHES:
            continue
        if (points[0] - points[1]).norm(dim=1).median() < LEAST_MOTION * max(views.image_size):
            num_still += 1
        else:
            found[first, second] = points
    return Evidence(
        cameras=Cameras(source.cam_to_world[indices], views.cameras.intrinsics.double(), views.image_size),
        lenses=tuple(source.distortion[index] for index in indices),
        matches=_best_pairs(found),
        num_still=num_still,
        num_features=int(statistics.median(len(one.points) for one in features)),
    )


def _best_pairs(found: dict[tuple[int, int], tuple[Tensor, Tensor]]) -> Matches:
    """Return for each view the matches with the partners with which it has most."""
    chosen = set()
    for view in {view for both in found for view in both}:
        own = sorted((both for both in found if view in both), key=lambda both: -len(found[both][0]))
        chosen |= set(own[:PARTNERS])
    pairs = sorted(chosen)
    counts = torch.tensor([len(found[both][0]) for both in pairs], dtype=torch.long)
    views = torch.tensor(pairs, dtype=torch.long).reshape(-1, 2).repeat_interleave(counts, 0)
    points = [torch.cat([torch.zeros(0, 2), *(found[both][side] for both in pairs)]).double() for side in (0, 1)]
    number = torch.arange(len(pairs)).repeat_interleave(counts)
    return Matches(number, views[:, 0], views[:, 1], points[0], points[1], len(pairs))


@dataclasses.dataclass(frozen=True)
class Rays:
    """Directions of matched points in the axes of their cameras, z = 1, and the focal lengths in pixels."""

    first: Float[Tensor, "m 3"]
    second: Float[Tensor, "m 3"]
    focal_first: Float[Tensor, "m"]
    focal_second: Float[Tensor, "m"]


def rays(matches: Matches, intrinsics: Float[Tensor, "v 4"], lenses: Sequence[Distortion | None]) -> Rays:
    """Return the rays of all matches through cameras of these intrinsics and lenses."""
    directions, focal = [], []
    for view, points in ((matches.first, matches.in_first), (matches.second, matches.in_second)):
        plane = (points - intrinsics[view, 2:]) / intrinsics[view, :2]
        for lens in dict.fromkeys(lenses):
            if lens is not None:
                through = torch.tensor([own == lens for own in lenses])[view]
                plane[through] = straight_plane(plane[through], lens)
        directions.append(torch.cat([plane, torch.ones_like(plane[:, :1])], 1))
        focal.append(intrinsics[view, :2].mean(1))
    return Rays(*directions, *focal)


def agreement(matches: Matches, through: Rays, cam_to_world: Float[Tensor, "v 4 4"]) -> Float[Tensor, "pairs"]:
    """Return for each pair the share 0..1 of matches that lie on each other's epipolar lines, before both cameras.

    A match counts 1 / (1 + (distance / 1.5 px)^2).
    """
    relative = torch.linalg.solve(cam_to_world[matches.second], cam_to_world[matches.first])
    rotation, translation = relative[:, :3, :3], relative[:, :3, 3]
    turned = (rotation @ through.first[..., None])[..., 0]
    lines = torch.linalg.cross(translation, turned)
    # The other image's lines are those of the transposed essential matrix.
    other_lines = (rotation.mT @ torch.linalg.cross(through.second, translation)[..., None])[..., 0]
    product = (lines * through.second).sum(1).abs()
    in_second, in_first = (product / side[:, :2].norm(dim=1).clamp(min=1e-12) for side in (lines, other_lines))
    distance = torch.maximum(in_second * through.focal_second, in_first * through.focal_first)
    weights = 1 / (1 + (distance / HALF_WEIGHT_PX) ** 2)
    return matches.mean_by_pair(weights * _ahead(turned, through.second, translation))


def _ahead(
    first: Float[Tensor, "m 3"], second: Float[Tensor, "m 3"], translation: Float[Tensor, "m 3"]
) -> Bool[Tensor, "m"]:
    """Say which rays, in the axes of the second camera and the first from `translation`, meet before both cameras."""
    normal = torch.linalg.cross(first, second)
    parallel = normal.square().sum(1) < LEAST_PARALLAX**2 * first.square().sum(1) * second.square().sum(1)
    # The signs of the depths at which the common perpendicular of both rays stands.
    depth_first = (torch.linalg.cross(second, translation) * normal).sum(1)
    depth_second = (torch.linalg.cross(first, translation) * normal).sum(1)
    return parallel | ((depth_first > 0) & (depth_second > 0))


def straight_plane(bent: Float[Tensor, "n 2"], lens: Distortion) -> Float[Tensor, "n 2"]:
    """Return the points of the plane z = 1 that a lens puts at `bent`, by Newton's method."""
    plane, step = bent, 1e-6
    shifts = step * torch.eye(2, dtype=bent.dtype)
    for _ in range(NEWTON_STEPS):
        columns = [(lens.distort(plane + shift) - lens.distort(plane - shift)) / (2 * step) for shift in shifts]
        a, c, b, d = *columns[0].unbind(-1), *columns[1].unbind(-1)
        # Where the lens folds the plane over there is no answer; the bound keeps the steps finite.
        determinant = (a * d - b * c).clamp(min=0.05)
        x, y = (bent - lens.distort(plane)).unbind(-1)
        plane = plane + torch.stack([d * x - b * y, a * y - c * x], -1) / determinant[:, None]
    return plane
