"""Plane-sweep evidence of a set of views: which distances along each pixel's ray the other views agree with.

Ours, not the papers': multi-view stereo's oldest idea as extra channels, so that few training scenes suffice. Its
cost is linear in the number of views, because each is compared with a fixed number of others.
"""

import dataclasses

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lrm_ttt.kernels.plane_sweep.op import SweepResult, plane_sweep
from lrm_ttt.model.config import EvidenceConfig
from lrm_ttt.scene.cameras import Cameras
from lrm_ttt.scene.manipulable import Manipulable
from lrm_ttt.scene.views import Views

# Distances swept in captures without masks, as multiples of the distance to the focus.
NEAREST, FARTHEST = 0.4, 6.0
# Some of the views of a scene: a range of them, or their positions.
Part = slice | Tensor


@dataclasses.dataclass(frozen=True)
class DistanceRange(Manipulable):
    """Nearest and farthest distance along the rays of each view, in scene units."""

    near: Float[Tensor, "*b"]
    far: Float[Tensor, "*b"]

    @property
    def shape(self) -> torch.Size:
        """One range a view."""
        return self.near.shape

    def at(self, u: Float[Tensor, "*b n"]) -> Float[Tensor, "*b n"]:
        """Return the distance at 0 <= u <= 1, which is linear in inverse distance from near (0) to far (1)."""
        near, far = 1 / self.near[..., None], 1 / self.far[..., None]
        return 1 / (near + u * (far - near))

    def share(self, distance: Float[Tensor, "*b n"]) -> Float[Tensor, "*b n"]:
        """Return where a distance lies between near (0) and far (1): the inverse of `at`."""
        near, far = 1 / self.near[..., None], 1 / self.far[..., None]
        return (near - 1 / distance) / (near - far)


@dataclasses.dataclass(frozen=True)
class Evidence(Manipulable):
    """Costs 0..1 (0: the views agree) and hulls 0..1 (1: inside all silhouettes) of every pixel at every plane."""

    costs: Float[Tensor, "*b planes h w"]
    hulls: Float[Tensor, "*b planes h w"]

    @property
    def shape(self) -> torch.Size:
        """Scenes and views."""
        return self.costs.shape[:-3]


def distance_range(cameras: Cameras, is_object: bool, inputs: Cameras | None = None) -> DistanceRange:
    """Return the range of views `[*b v]` of a scene that has its focus in the origin.

    An object lies in the ball around the focus that fills the images of the `inputs` (None: of these views); anything
    else from NEAREST to FARTHEST times the distance to the focus.
    """
    distance = cameras.centres.square().sum(-1).sqrt()
    if not is_object:
        return DistanceRange(NEAREST * distance, FARTHEST * distance)
    radius = _object_radius(cameras if inputs is None else inputs)
    return DistanceRange(torch.maximum(distance - radius, 0.1 * distance), distance + radius)


def _object_radius(cameras: Cameras) -> Float[Tensor, "*b 1"]:
    distance = cameras.centres.square().sum(-1).sqrt()
    half = torch.tensor([cameras.image_size.width, cameras.image_size.height], device=distance.device) / 2
    slope = (half / cameras.intrinsics[..., :2]).amax(-1)
    return (1.1 * distance * slope / (1 + slope * slope).sqrt()).mean(-1, keepdim=True)


@torch.no_grad()
def gather_evidence(views: Views, ranges: DistanceRange, config: EvidenceConfig, part: Part = slice(None)) -> Evidence:
    """Sweep the views `part` (all) of each scene `[b v]`, each against its nearest others among all views."""
    own = ranges[:, part]
    planes = (torch.arange(config.num_planes, device=own.near.device, dtype=own.near.dtype) + 0.5) / config.num_planes
    distances = own.at(planes.expand(*own.shape, -1))
    neighbours = choose_neighbours(views.cameras, config.num_neighbours, part)
    # Views without masks fill their images: their silhouettes carve nothing.
    count = 0 if views.masks is None else config.num_silhouettes
    silhouettes = choose_silhouettes(views.cameras, count, part)
    swept = [
        _sweep(views[scene], part, distances[scene], neighbours[scene], silhouettes[scene])
        for scene in range(views.shape[0])
    ]
    return Evidence(torch.stack([one.costs for one in swept]), torch.stack([one.hulls for one in swept]))


def _sweep(
    views: Views,
    part: Part,
    distances: Float[Tensor, "s planes"],
    neighbours: Int[Tensor, "s n"],
    silhouettes: Int[Tensor, "s m"],
) -> SweepResult:
    """Sweep the views `part` of one scene; no other view is touched but those that they look at."""
    num_views = views.shape[0]
    own = torch.arange(num_views, device=distances.device)[part]
    if len(own) < num_views or not isinstance(part, slice):
        others = torch.cat([neighbours.flatten(), silhouettes.flatten()]).unique()
        rig = torch.cat([own, others[~torch.isin(others, own)]])
        place = torch.empty(num_views, dtype=torch.long, device=rig.device)
        place[rig] = torch.arange(len(rig), device=rig.device)
        views, neighbours, silhouettes = views[rig], place[neighbours], place[silhouettes]
    cameras = views.cameras
    world_to_pixel = _intrinsic_matrices(cameras) @ cameras.world_to_cam[:, :3]
    swept = cameras[: len(own)]
    rays = swept.centres, swept.rays()[1]
    return plane_sweep(views.images, views.coverage, world_to_pixel, *rays, distances, neighbours, silhouettes)


def choose_neighbours(cameras: Cameras, count: int, part: Part = slice(None)) -> Int[Tensor, "b s n"]:
    """Return the nearest others of the views `part` (all) of `[b v]`, nearest first: at most `count`."""
    return _others_by_distance(cameras, part)[..., :count]


def choose_silhouettes(cameras: Cameras, count: int, part: Part = slice(None)) -> Int[Tensor, "b s n"]:
    """Return at most `count` others of the views `part` (all) of `[b v]`, evenly from the nearest to the farthest."""
    order = _others_by_distance(cameras, part)
    spread = torch.linspace(0, order.shape[-1] - 1, min(count, order.shape[-1]), device=order.device)
    return order[..., spread.round().long()]


def _others_by_distance(cameras: Cameras, part: Part) -> Int[Tensor, "b s n"]:
    num_views = cameras.shape[-1]
    centres, forward = cameras.centres.double(), cameras.forward.double()
    # Not by a matrix product, whose rounding depends on how many rows there are.
    apart = torch.cdist(centres[:, part], centres, compute_mode="donot_use_mm_for_euclid_dist")
    apart = apart + 1 - forward[:, part] @ forward.mT
    apart = apart + torch.eye(num_views, device=apart.device)[part] * 1e9
    # Ties (regular rigs have many) go to the lower index, and rounding must not decide.
    return (apart * 1e6).round().argsort(dim=-1, stable=True)[..., : num_views - 1]


def _intrinsic_matrices(cameras: Cameras) -> Float[Tensor, "*b 3 3"]:
    fx, fy, cx, cy = cameras.intrinsics.unbind(-1)
    zero, one = torch.zeros_like(fx), torch.ones_like(fx)
    rows = [torch.stack([fx, zero, cx], -1), torch.stack([zero, fy, cy], -1), torch.stack([zero, zero, one], -1)]
    return torch.stack(rows, -2)
