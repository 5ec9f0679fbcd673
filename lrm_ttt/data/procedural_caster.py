"""Cast the pixel grids of many cameras at many primitives, visiting only the pairs that can meet.

A bounding ball under an affine map is an ellipsoid, and the rays of a pinhole camera that meet an ellipsoid are those
for which a quadratic form of the pixel position is positive. One matrix product therefore finds the pairs (pixel,
primitive in a view), and the closed forms of `procedural_shapes` run on those alone, kind by kind.
"""

import dataclasses

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lrm_ttt.data.procedural_shapes import BOUNDING_RADIUS, KINDS, ROOM, box_face, intersect, outward
from lrm_ttt.scene.cameras import Cameras
from lrm_ttt.scene.manipulable import Manipulable

_NOTHING = torch.iinfo(torch.int64).max


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
class Hits:
    """First hits, one per ray that hits anything, in the order of the primitives' kinds.

    `rays` indexes the flattened `[b v h w]`, `scenes` is 0..b-1, `primitives` indexes the flattened `[b p]`. `depths`
    is camera z; `local` is the point in the solid's own frame, `points` and the unit `normals` are in world axes.
    `textures` is the index within the scene.
    """

    rays: Int[Tensor, " n"]
    scenes: Int[Tensor, " n"]
    primitives: Int[Tensor, " n"]
    textures: Int[Tensor, " n"]
    depths: Float[Tensor, " n"]
    local: Float[Tensor, "3 n"]
    points: Float[Tensor, "3 n"]
    normals: Float[Tensor, "3 n"]


@dataclasses.dataclass(frozen=True)
class _Rows:
    """Tables with one column per (primitive, view), sorted by kind; `spans` gives each kind's range of columns."""

    spans: dict[int, tuple[int, int]]
    primitives: Tensor
    views: Tensor
    parameters: Tensor
    # Ray origin, then the direction's constant, x and y terms over the pixel grid -1..1, all in the solid's frame:
    # [12 r].
    frames: Tensor
    # The quadratic form over (1, x, y, xx, xy, yy) that is positive where a ray meets the bounding ellipsoid: [r 6].
    bounds: Tensor


def cast(primitives: Primitives, cameras: Cameras) -> Hits:
    """Return the first hits of the rays through all pixel centres of cameras `[b v]` on primitives `[b p]`.

    Cameras are outside of all solids, and inside of ROOMs. The parameter of a ray is its depth, so hits are exact to
    rounding.
    """
    b, v = cameras.shape
    height, width = cameras.image_size
    device = cameras.intrinsics.device
    rows = _rows(primitives, cameras)
    x = ((torch.arange(width, device=device) + 0.5) * (2 / width) - 1).repeat(height)
    y = ((torch.arange(height, device=device) + 0.5) * (2 / height) - 1).repeat_interleave(width)
    nearest = torch.full((b * v * height * width,), _NOTHING, dtype=torch.int64, device=device)
    features = torch.stack([torch.ones_like(x), x, y, x * x, x * y, y * y])
    for kind, (start, stop) in rows.spans.items():
        _cast_kind(rows, kind, start, stop, features, nearest)
    return _hits(rows, primitives, cameras, x, y, nearest)


def _cast_kind(rows: _Rows, kind: int, start: int, stop: int, features: Tensor, nearest: Tensor) -> None:
    """Lower `nearest` (bits of the depth, then the row) by the hits on the primitives of one kind."""
    pixels_per_view = features.shape[1]
    if BOUNDING_RADIUS[kind] is None:
        pairs = torch.arange((stop - start) * pixels_per_view, device=nearest.device)
    else:
        pairs = ((rows.bounds[start:stop] @ features) > 0).view(-1).nonzero().squeeze(1)
    row = torch.div(pairs, pixels_per_view, rounding_mode="floor")
    pixel = pairs.addcmul_(row, torch.full_like(row[:1], pixels_per_view), value=-1)
    row += start
    origins, directions = _rays(rows, row, features[1].index_select(0, pixel), features[2].index_select(0, pixel))
    t = intersect(kind, origins, directions, rows.parameters.index_select(0, row))
    # Bits of positive floats are ordered as the floats are; the row breaks ties, the same way on every device.
    key = (t.view(torch.int32).to(torch.int64) << 32) | row
    ray = rows.views.index_select(0, row).mul_(pixels_per_view).add_(pixel)
    nearest.scatter_reduce_(0, ray, torch.where(t < torch.inf, key, _NOTHING), "amin")


def _rays(rows: _Rows, row: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return ray origins and directions in the frames of the solids."""
    frames = rows.frames.gather(1, row.expand(12, -1))
    return frames[:3], frames[3:6].addcmul_(frames[6:9], x).addcmul_(frames[9:], y)


def _rows(primitives: Primitives, cameras: Cameras) -> _Rows:
    """Tabulate every primitive in every view of its scene, in double precision until the last step."""
    _, v = cameras.shape
    kinds, order = primitives.kinds.flatten().sort(stable=True)
    order = order[kinds >= 0]
    counts = torch.bincount(kinds[kinds >= 0], minlength=len(KINDS)).tolist()
    scenes = torch.div(order, primitives.shape[1], rounding_mode="floor")
    to_local = torch.linalg.inv(primitives.linear.flatten(0, 1)[order].double())
    poses = cameras.cam_to_world.double()[scenes]
    origins = (to_local[:, None] @ (poses[..., :3, 3] - primitives.centres.flatten(0, 1)[order, None])[..., None])[
        ..., 0
    ]
    grid = to_local[:, None] @ poses[..., :3, :3] @ _grid_to_camera(cameras)[scenes]
    frames = torch.cat([origins[..., None], grid], -1)

    radii = torch.tensor([BOUNDING_RADIUS[kind] or 0.0 for kind in KINDS], dtype=torch.float64, device=order.device)
    squared = origins.square().sum(-1)
    # The margin outweighs the rounding of the product in single precision.
    slack = squared - radii[kinds[kinds >= 0]].square()[:, None] * (1.01 + 1e-5 * squared)
    form = origins[..., :, None] * origins[..., None, :] - slack[..., None, None] * torch.eye(3, device=order.device)
    form = (grid.mT @ form @ grid).flatten(0, 1)
    i, j = [0, 0, 0, 1, 1, 2], [0, 1, 2, 1, 2, 2]
    bounds = form[:, i, j] * form.new_tensor([1, 2, 2, 1, 2, 1])

    spans: dict[int, tuple[int, int]] = {}
    start = 0
    for kind, count in zip(KINDS, counts, strict=True):
        if count:
            spans[kind] = (start * v, (start + count) * v)
        start += count
    return _Rows(
        spans=spans,
        primitives=order.repeat_interleave(v),
        views=(scenes[:, None] * v + torch.arange(v, device=order.device)).flatten(),
        parameters=primitives.parameters.flatten()[order].repeat_interleave(v),
        frames=frames.flatten(0, 1).permute(2, 1, 0).reshape(12, -1).float().contiguous(),
        bounds=bounds.float().contiguous(),
    )


def _grid_to_camera(cameras: Cameras) -> Tensor:
    """Return the matrices [b v 3 3] from (1, x, y), x and y in -1..1 over the image, to camera directions of unit z."""
    height, width = cameras.image_size
    fx, fy, cx, cy = cameras.intrinsics.double().unbind(-1)
    zero, one = torch.zeros_like(fx), torch.ones_like(fx)
    entries = [
        (width / 2 - cx) / fx,
        width / 2 / fx,
        zero,
        (height / 2 - cy) / fy,
        zero,
        height / 2 / fy,
        one,
        zero,
        zero,
    ]
    return torch.stack(entries, -1).unflatten(-1, (3, 3))


def _hits(rows: _Rows, primitives: Primitives, cameras: Cameras, x: Tensor, y: Tensor, nearest: Tensor) -> Hits:
    """Recompute points and normals where the nearest hits are."""
    rays_all = (nearest != _NOTHING).nonzero().squeeze(1)
    keys = nearest.index_select(0, rays_all)
    rows_all = keys & 0xFFFFFFFF
    depths_all = (keys >> 32).to(torch.int32).view(torch.float32)
    found: list[tuple[Tensor, ...]] = []
    for kind, (start, stop) in rows.spans.items():
        here = ((rows_all >= start) & (rows_all < stop)).nonzero().squeeze(1)
        row, ray, depth = (values.index_select(0, here) for values in (rows_all, rays_all, depths_all))
        pixel = torch.remainder(ray, x.shape[0])
        origins, directions = _rays(rows, row, x.index_select(0, pixel), y.index_select(0, pixel))
        local = origins.addcmul_(directions, depth)
        primitive = rows.primitives.index_select(0, row)
        texture = primitives.textures.flatten().index_select(0, primitive)
        if kind in (0, ROOM):
            texture = texture + box_face(local) * primitives.faceted.flatten().index_select(0, primitive)
        normal = outward(kind, local, rows.parameters.index_select(0, row))
        found.append((ray, primitive, texture, depth, local, normal))
    ray, primitive, texture, depth, local, normal = (torch.cat(parts, -1) for parts in zip(*found, strict=True))
    linear = primitives.linear.flatten(0, 1)
    tables = torch.cat([linear.flatten(1), primitives.centres.flatten(0, 1), torch.linalg.inv(linear).flatten(1)], 1)
    table = tables.T.contiguous().gather(1, primitive.expand(21, -1))
    points = torch.stack([(table[3 * i : 3 * i + 3] * local).sum(0) for i in range(3)]) + table[9:12]
    # Normals map by the transposed inverse.
    normals = table[12:15] * normal[0] + table[15:18] * normal[1] + table[18:21] * normal[2]
    return Hits(
        rays=ray,
        scenes=torch.div(primitive, primitives.shape[1], rounding_mode="floor"),
        primitives=primitive,
        textures=texture,
        depths=depth,
        local=local,
        points=points,
        normals=torch.nn.functional.normalize(normals, dim=0),
    )
