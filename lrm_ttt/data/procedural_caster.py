"""Cast the pixel grids of many cameras at many primitives, visiting only the pairs that can meet.

A bounding ball under an affine map is an ellipsoid, and the rays of a pinhole camera that meet an ellipsoid are those
for which a quadratic form of the pixel position is positive. One matrix product therefore finds the pairs (pixel,
primitive in a view), and the closed forms of `procedural_shapes` run on those alone, kind by kind.
"""

import dataclasses
from collections.abc import Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lrm_ttt.data.procedural_primitives import Primitives, tabulate
from lrm_ttt.data.procedural_shapes import BOUNDING_RADIUS, BOX, ROOM, box_face, intersect, outward
from lrm_ttt.scene.cameras import Cameras

_NOTHING = torch.iinfo(torch.int64).max
# Low half of a key: the row that was hit, all ones where nothing was.
_ROW = 0xFFFFFFFF


@dataclasses.dataclass(frozen=True)
class Hits:
    """First hits, one per ray that hits anything, in the order of the primitives' kinds.

    `rays` indexes the rays that were cast, `views` the flattened `[b v]`, `scenes` is 0..b-1, `textures` counts within
    the scene. `depths` is camera z, `points` and the unit `normals` are in world axes.
    """

    rays: Int[Tensor, " n"]
    views: Int[Tensor, " n"]
    scenes: Int[Tensor, " n"]
    textures: Int[Tensor, " n"]
    depths: Float[Tensor, " n"]
    points: Float[Tensor, "3 n"]
    normals: Float[Tensor, "3 n"]


class Caster:
    """Answer what rays of cameras `[b v]` hit among primitives `[b p]`.

    Cameras are outside of all solids, and inside of ROOMs. The parameter of a ray is its depth, so hits are exact to
    rounding. Rays are told apart by keys, the bits of the depth above the number of the row that was hit: bits of
    positive floats are ordered as the floats are, and the row breaks ties the same way on every device.
    """

    def __init__(self, primitives: Primitives, cameras: Cameras) -> None:
        """Tabulate every primitive in every view."""
        height, width = cameras.image_size
        device = cameras.intrinsics.device
        self.primitives = primitives
        self.num_rays = cameras.shape.numel() * height * width
        self.pixels = height * width
        self.rows = tabulate(primitives, cameras)
        self.x = ((torch.arange(width, device=device) + 0.5) * (2 / width) - 1).repeat(height)
        self.y = ((torch.arange(height, device=device) + 0.5) * (2 / height) - 1).repeat_interleave(width)

    def grid(self) -> Int[Tensor, " rays"]:
        """Return the keys of the rays through all pixel centres, flattened `[b v h w]`."""
        x, y, rows = self.x, self.y, self.rows
        features = torch.stack([torch.ones_like(x), x, y, x * x, x * y, y * y])
        keys = torch.full((self.num_rays,), _NOTHING, dtype=torch.int64, device=x.device)
        for kind, (start, stop) in rows.spans.items():
            if BOUNDING_RADIUS[kind] is None:
                pairs = torch.arange((stop - start) * self.pixels, device=x.device)
            else:
                pairs = ((rows.bounds[start:stop] @ features) > 0).view(-1).nonzero().squeeze(1)
            row = torch.div(pairs, self.pixels, rounding_mode="floor")
            pixel = pairs.sub_(row * self.pixels)
            row += start
            ray = rows.views.index_select(0, row).mul_(self.pixels).add_(pixel)
            self._lower(keys, kind, ray, row, x.index_select(0, pixel), y.index_select(0, pixel))
        return keys

    def samples(
        self,
        rows: Int[Tensor, "n c"],
        x: Float[Tensor, "s n"],
        y: Float[Tensor, "s n"],
    ) -> Int[Tensor, " rays"]:
        """Return the keys [s n] of `s` rays at grid positions x, y in each of `n` pixels, tried against their rows.

        `rows` are the candidates as `row_of` gives them; a row may come twice, and so may nothing.
        """
        num_samples, n = x.shape
        keys = torch.full((num_samples * n,), _NOTHING, dtype=torch.int64, device=x.device)
        candidates = rows.sort(-1).values
        fresh = torch.ones_like(candidates, dtype=torch.bool)
        fresh[:, 1:] = candidates[:, 1:] != candidates[:, :-1]
        pixel, column = ((candidates != _ROW) & fresh).nonzero().unbind(1)
        row = candidates[pixel, column]
        for kind, here in self._by_kind(row):
            row_here, pixel_here = row.index_select(0, here), pixel.index_select(0, here)
            sample = torch.arange(num_samples, device=x.device)[:, None] * n
            ray = (sample + pixel_here).flatten()
            at_x, at_y = x.flatten().index_select(0, ray), y.flatten().index_select(0, ray)
            self._lower(keys, kind, ray, row_here.repeat(num_samples), at_x, at_y)
        return keys

    def hits(
        self,
        keys: Int[Tensor, " rays"],
        x: Float[Tensor, " rays"] | None = None,
        y: Float[Tensor, " rays"] | None = None,
    ) -> Hits:
        """Return the hits behind keys; x and y are the rays' positions, None for those of the grid."""
        cast = (keys != _NOTHING).nonzero().squeeze(1)
        keys = keys.index_select(0, cast)
        rows = row_of(keys)
        found: list[tuple[Tensor, ...]] = []
        for kind, here in self._by_kind(rows):
            row, ray = rows.index_select(0, here), cast.index_select(0, here)
            depth = depth_of(keys.index_select(0, here))
            if x is None or y is None:
                pixel = torch.remainder(ray, self.pixels)
                at_x, at_y = self.x.index_select(0, pixel), self.y.index_select(0, pixel)
            else:
                at_x, at_y = x.index_select(0, ray), y.index_select(0, ray)
            origins, directions = self._local_rays(row, at_x, at_y)
            local = origins.addcmul_(directions, depth)
            primitive = self.rows.primitives.index_select(0, row)
            texture = self.primitives.textures.flatten().index_select(0, primitive)
            normal = outward(kind, local, self.rows.parameters.index_select(0, row))
            if kind in (BOX, ROOM):
                faceted = self.primitives.faceted.flatten().index_select(0, primitive)
                texture = texture + box_face(normal) * faceted
            found.append((ray, self.rows.views.index_select(0, row), primitive, texture, depth, local, normal))
        ray, view, primitive, texture, depth, local, normal = (
            torch.cat(parts, -1) for parts in zip(*found, strict=True)
        )
        points, normals = self._to_world(primitive, local, normal)
        scene = torch.div(primitive, self.primitives.shape[1], rounding_mode="floor")
        return Hits(ray, view, scene, texture, depth, points, normals)

    def _by_kind(self, rows: Tensor) -> Iterator[tuple[int, Tensor]]:
        """Yield each kind with the positions of its rows."""
        for kind, (start, stop) in self.rows.spans.items():
            yield kind, ((rows >= start) & (rows < stop)).nonzero().squeeze(1)

    def _lower(self, keys: Tensor, kind: int, rays: Tensor, rows: Tensor, x: Tensor, y: Tensor) -> None:
        """Lower the keys of rays by their hits on primitives of one kind."""
        origins, directions = self._local_rays(rows, x, y)
        t = intersect(kind, origins, directions, self.rows.parameters.index_select(0, rows))
        key = (t.view(torch.int32).to(torch.int64) << 32).bitwise_or_(rows)
        keys.scatter_reduce_(0, rays, key.masked_fill_(t == torch.inf, _NOTHING), "amin")

    def _local_rays(self, rows: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return ray origins and directions in the frames of the solids."""
        frames = self.rows.frames.gather(1, rows.expand(12, -1))
        return frames[:3], frames[3:6].addcmul_(frames[6:9], x).addcmul_(frames[9:], y)

    def _to_world(self, primitives: Tensor, local: Tensor, normal: Tensor) -> tuple[Tensor, Tensor]:
        """Map points and normals out of the solids' frames; normals map by the transposed inverse, and become units."""
        linear, centres = self.primitives.linear.flatten(0, 1), self.primitives.centres.flatten(0, 1)
        tables = torch.cat([linear.mT.flatten(1), centres, torch.linalg.inv(linear).flatten(1)], 1)
        table = tables.T.contiguous().gather(1, primitives.expand(21, -1))
        points = torch.addcmul(table[9:12], table[:3], local[0])
        points.addcmul_(table[3:6], local[1]).addcmul_(table[6:9], local[2])
        normals = (table[12:15] * normal[0]).addcmul_(table[15:18], normal[1]).addcmul_(table[18:21], normal[2])
        return points, normals.div_(normals.square().sum(0).sqrt_())


def row_of(keys: Int[Tensor, "*n"]) -> Int[Tensor, "*n"]:
    """Return the rows that were hit; the number is beyond all rows where nothing was."""
    return keys & _ROW


def depth_of(keys: Int[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """Return the depths of hits; NaN where nothing was hit."""
    return (keys >> 32).to(torch.int32).view(torch.float32)
