"""Primitives of a batch of scenes, and what all their views need to know about them."""

import dataclasses

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lrm_ttt.data.procedural_shapes import BOUNDING_RADIUS, KINDS
from lrm_ttt.scene.cameras import Cameras
from lrm_ttt.scene.manipulable import Manipulable


@dataclasses.dataclass(frozen=True)
class Primitives(Manipulable):
    """Solids of `procedural_shapes` under affine maps, in world axes; `kinds` is -1 where a slot is empty.

    `textures` indexes the scene's textures; where `faceted`, faces 0..5 of a BOX or ROOM take that texture and the
    next five.
    """

    kinds: Int[Tensor, "*b"]
    linear: Float[Tensor, "*b 3 3"]
    centres: Float[Tensor, "*b 3"]
    parameters: Float[Tensor, "*b"]
    textures: Int[Tensor, "*b"]
    faceted: Int[Tensor, "*b"]

    @property
    def shape(self) -> torch.Size:
        """Leading batch dimensions: scenes and primitives."""
        return self.kinds.shape


@dataclasses.dataclass(frozen=True)
class Rows:
    """Tables with one entry per (primitive, view), sorted by kind.

    `spans` gives each kind's range of rows; `primitives` and `views` index the flattened `[b p]` and `[b v]`. `frames`
    holds, in the solid's own frame, the camera centre and the constant, x and y terms of the ray direction over the
    pixel grid -1..1. `bounds` holds the quadratic form over (1, x, y, xx, xy, yy) that is positive where a ray meets
    the bounding ellipsoid.
    """

    spans: dict[int, tuple[int, int]]
    primitives: Int[Tensor, " r"]
    views: Int[Tensor, " r"]
    parameters: Float[Tensor, " r"]
    frames: Float[Tensor, "12 r"]
    bounds: Float[Tensor, "r 6"]


def tabulate(primitives: Primitives, cameras: Cameras) -> Rows:
    """Return the rows of primitives [b p] in cameras [b v], computed in double precision and rounded once."""
    _, v = cameras.shape
    kinds, order = primitives.kinds.flatten().sort(stable=True)
    order, kinds = order[kinds >= 0], kinds[kinds >= 0]
    scenes = torch.div(order, primitives.shape[1], rounding_mode="floor")
    to_local = torch.linalg.inv(primitives.linear.flatten(0, 1)[order].double())
    poses = cameras.cam_to_world.double()[scenes]
    offsets = poses[..., :3, 3] - primitives.centres.flatten(0, 1)[order, None]
    origins = (to_local[:, None] @ offsets[..., None])[..., 0]
    grid = to_local[:, None] @ poses[..., :3, :3] @ _grid_to_camera(cameras)[scenes]
    frames = torch.cat([origins[..., None], grid], -1)
    return Rows(
        spans=_spans(torch.bincount(kinds, minlength=len(KINDS)).tolist(), v),
        primitives=order.repeat_interleave(v),
        views=(scenes[:, None] * v + torch.arange(v, device=order.device)).flatten(),
        parameters=primitives.parameters.flatten()[order].repeat_interleave(v),
        frames=frames.flatten(0, 1).permute(2, 1, 0).reshape(12, -1).float().contiguous(),
        bounds=_bounds(kinds, origins, grid).float().contiguous(),
    )


def _spans(counts: list[int], num_views: int) -> dict[int, tuple[int, int]]:
    spans: dict[int, tuple[int, int]] = {}
    start = 0
    for kind, count in zip(KINDS, counts, strict=True):
        if count:
            spans[kind] = (start * num_views, (start + count) * num_views)
        start += count
    return spans


def _bounds(kinds: Tensor, origins: Tensor, grid: Tensor) -> Tensor:
    """Return the quadratic forms [r 6] whose positive sign means that a ray's line meets the bounding ball."""
    radii = torch.tensor([BOUNDING_RADIUS[kind] or 0.0 for kind in KINDS], dtype=torch.float64, device=kinds.device)
    squared = origins.square().sum(-1)
    # The margin outweighs the rounding of the product in single precision.
    slack = squared - radii[kinds].square()[:, None] * (1.01 + 1e-5 * squared)
    form = origins[..., :, None] * origins[..., None, :] - slack[..., None, None] * torch.eye(3, device=kinds.device)
    form = (grid.mT @ form @ grid).flatten(0, 1)
    i, j = [0, 0, 0, 1, 1, 2], [0, 1, 2, 1, 2, 2]
    return form[:, i, j] * form.new_tensor([1, 2, 2, 1, 2, 1])


def _grid_to_camera(cameras: Cameras) -> Tensor:
    """Return the matrices [b v 3 3] from (1, x, y), x and y in -1..1 over the image, to camera directions of unit z."""
    height, width = cameras.image_size
    fx, fy, cx, cy = cameras.intrinsics.double().unbind(-1)
    zero, one = torch.zeros_like(fx), torch.ones_like(fx)
    x = [(width / 2 - cx) / fx, width / 2 / fx, zero]
    y = [(height / 2 - cy) / fy, zero, height / 2 / fy]
    return torch.stack([*x, *y, one, zero, zero], -1).unflatten(-1, (3, 3))
