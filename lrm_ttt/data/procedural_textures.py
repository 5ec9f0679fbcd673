"""Solid textures: a colour for every point of space, from a few numbers per texture.

A texture maps a world point into its own frame (unit period), computes one pattern value 0..1 there and mixes its
colours by it. Patterns are soft-edged, and noise comes from one periodic random lattice, so a texture costs tens of
operations per point.
"""

import dataclasses

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lrm_ttt.scene.manipulable import Manipulable

PLAIN, NOISE, STRIPES, CHECKS, GRADIENT, SPOTS, MARKS, RINGS, BRICKS, PANEL = range(10)

LATTICE_SIDE = 32


@dataclasses.dataclass(frozen=True)
class Textures(Manipulable):
    """Parameters of solid textures.

    `frames` maps world points to texture coordinates (linear part and offset). A pattern value 0 shows the first of
    `colors`, 1 the second; noise mixes in the third by `mottle` 0..1. `softness` is the width of an edge in periods;
    `amount` is the pattern's own parameter (gain, share of the second colour, radius), `warp` how far noise bends it.
    `gloss` is the strength of highlights.
    """

    kinds: Int[Tensor, "*b"]
    frames: Float[Tensor, "*b 3 4"]
    colors: Float[Tensor, "*b 3 3"]
    softness: Float[Tensor, "*b"]
    amount: Float[Tensor, "*b"]
    warp: Float[Tensor, "*b"]
    mottle: Float[Tensor, "*b"]
    gloss: Float[Tensor, "*b"]

    @property
    def shape(self) -> torch.Size:
        """Leading batch dimensions: scenes and textures."""
        return self.kinds.shape


def texture_colors(
    textures: Textures,
    index: Int[Tensor, " n"],
    points: Float[Tensor, "3 n"],
    normals: Float[Tensor, "3 n"],
    lattice: Float[Tensor, " cells"],
) -> tuple[Float[Tensor, "3 n"], Float[Tensor, " n"]]:
    """Return colours 0..1 and gloss at world points; `index` is into the flattened textures, `lattice` is uniform
    noise 0..1."""
    flat = textures.flatten()
    scalars = [flat.softness, flat.amount, flat.warp, flat.mottle, flat.gloss]
    table = torch.cat([flat.frames.flatten(1), flat.colors.flatten(1), torch.stack(scalars, 1)], 1)
    gathered = table.T.contiguous().gather(1, index.expand(table.shape[1], -1))
    frames, colors, softness, amount, warp, mottle, gloss = gathered.split([12, 9, 1, 1, 1, 1, 1])
    own = torch.stack([_affine(frames[4 * i : 4 * i + 4], points) for i in range(3)])
    kinds = flat.kinds.index_select(0, index)
    pattern = torch.zeros_like(points[0])
    for kind, function in _PATTERNS.items():
        here = (kinds == kind).nonzero().squeeze(1)
        if here.shape[0] == 0:
            continue
        u = own.index_select(1, here)
        if kind in (MARKS, BRICKS, PANEL):
            u = _face_coordinates(u, frames.index_select(1, here), normals.index_select(1, here))
        a, s, w = (values[0].index_select(0, here) for values in (amount, softness, warp))
        pattern.index_copy_(0, here, function(u, a, s, w, lattice))
    mixed = colors[:3] + (colors[3:6] - colors[:3]) * pattern.clamp(max=1)
    mixed += (colors[6:] - colors[3:6]) * (pattern - 1).clamp_(min=0)
    spotted = (mottle[0] > 0).nonzero().squeeze(1)
    share = torch.zeros_like(pattern)
    share.index_copy_(
        0, spotted, _noise(own.index_select(1, spotted) * 0.7 + 5, lattice) * mottle[0].index_select(0, spotted)
    )
    return mixed + (colors[6:] - mixed) * share, gloss[0]


def _affine(row: Tensor, points: Tensor) -> Tensor:
    return torch.addcmul(row[3], row[0], points[0]).addcmul_(row[1], points[1]).addcmul_(row[2], points[2])


def _face_coordinates(u: Tensor, frames: Tensor, normals: Tensor) -> Tensor:
    """Drop the coordinate along which the surface faces most, so that flat patterns are not smeared over any side."""
    x, y, z = ((frames[4 * i : 4 * i + 3] * normals).sum(0).abs() for i in range(3))
    first = torch.where((x >= y) & (x >= z), u[1], u[0])
    second = torch.where((z > x) & (z > y), u[1], u[2])
    # The face, as a number that differs between all six.
    face = torch.where((x >= y) & (x >= z), 1.0, torch.where((z > x) & (z > y), 3.0, 2.0))
    across = torch.where(face == 1, normals[0], torch.where(face == 3, normals[2], normals[1]))
    return torch.stack([first, second, face * torch.where(across < 0, -1.0, 1.0)])


def _noise(u: Tensor, lattice: Tensor) -> Tensor:
    """Return smooth value noise 0..1 of unit cell size: the lattice's values, blended by a cubic fade."""
    whole = u.floor()
    part = u - whole
    fade = part * part * (3 - 2 * part)
    low = whole.to(torch.int32) & (LATTICE_SIDE - 1)
    high = (low + 1) & (LATTICE_SIDE - 1)
    x0, y0, z0 = low[0], low[1] * LATTICE_SIDE, low[2] * LATTICE_SIDE**2
    x1, y1, z1 = high[0], high[1] * LATTICE_SIDE, high[2] * LATTICE_SIDE**2

    def along_x(base: Tensor) -> Tensor:
        return torch.lerp(lattice.index_select(0, base + x0), lattice.index_select(0, base + x1), fade[0])

    near = torch.lerp(along_x(y0 + z0), along_x(y1 + z0), fade[1])
    far = torch.lerp(along_x(y0 + z1), along_x(y1 + z1), fade[1])
    return torch.lerp(near, far, fade[2])


def _hash(cells: list[Tensor], lattice: Tensor, salt: int) -> Tensor:
    """Return a random number 0..1 per integer cell (float coordinates)."""
    mixed = torch.full_like(cells[0], salt, dtype=torch.int32)
    for factor, cell in zip((73, 179, 283), cells, strict=False):
        mixed = mixed + cell.to(torch.int32) * factor
    return lattice.index_select(0, mixed & (LATTICE_SIDE**3 - 1))


def _edge(signed: Tensor, softness: Tensor) -> Tensor:
    """Return 0 below and 1 above zero, blended over `softness`."""
    return (signed / softness + 0.5).clamp_(0, 1)


def _wave(u: Tensor) -> Tensor:
    """Return the triangle wave of period 1 between 0 and 1."""
    return ((u - u.floor()) * 2 - 1).abs_()


def _fractal(u: Tensor, amount: Tensor, softness: Tensor, warp: Tensor, lattice: Tensor) -> Tensor:
    noise = _noise(u, lattice).add_(_noise(u * 2 + 11, lattice) * warp)
    return ((noise / (1 + warp) - 0.5) * amount + 0.5).clamp_(0, 1)


def _stripes(u: Tensor, amount: Tensor, softness: Tensor, warp: Tensor, lattice: Tensor) -> Tensor:
    return _edge(_wave(u[0] + warp * _noise(u, lattice)) - (1 - amount), 2 * softness)


def _checks(u: Tensor, amount: Tensor, softness: Tensor, warp: Tensor, lattice: Tensor) -> Tensor:
    waves = (_wave(u[:2]) - 0.5) / softness
    return (waves.clamp_(-1, 1).prod(0) + 1) / 2


def _gradient(u: Tensor, amount: Tensor, softness: Tensor, warp: Tensor, lattice: Tensor) -> Tensor:
    return (u[0] * amount + 0.5 + warp * (_noise(u, lattice) - 0.5)).clamp_(0, 1)


def _spots(u: Tensor, amount: Tensor, softness: Tensor, warp: Tensor, lattice: Tensor) -> Tensor:
    cells = u.floor()
    offsets = torch.stack([_hash(list(cells), lattice, salt) for salt in (1, 5003, 9001)]) - 0.5
    radius = (u - cells - 0.5 - offsets * warp).square().sum(0).sqrt_()
    return _edge(amount - radius, softness)


def _marks(u: Tensor, amount: Tensor, softness: Tensor, warp: Tensor, lattice: Tensor) -> Tensor:
    """Draw lines of glyphs: letters are 3x5 random strokes with a gap, words end at random letters."""
    line = u[1].floor()
    height = (u[1] - line) * 7
    across = u[0] * 2
    letter = across.floor()
    column = (across - letter) * 4
    stroke = _hash([letter * 4 + column.floor(), line * 8 + height.floor()], lattice, 77) < 0.62
    written = _hash([letter, line], lattice, 401) < amount
    return ((column < 3) & (height < 5) & stroke & written).to(u.dtype)


def _rings(u: Tensor, amount: Tensor, softness: Tensor, warp: Tensor, lattice: Tensor) -> Tensor:
    radius = (u[0] * u[0] + u[1] * u[1]).sqrt_()
    return _edge(_wave(radius + warp * _noise(u, lattice)) - (1 - amount), 2 * softness)


def _bricks(u: Tensor, amount: Tensor, softness: Tensor, warp: Tensor, lattice: Tensor) -> Tensor:
    """Lay rows of tiles with joints of the second colour; rows are shifted by half a tile where `warp` is positive."""
    row = u[1].floor()
    across = u[0] * 0.5 + row * 0.5 * (warp > 0)
    tile = across.floor()
    inside = torch.minimum(_wave(u[1] + 0.5), 2 * _wave(across + 0.5))
    tint = _hash([tile, row], lattice, 17) * warp.clamp(max=0.4)
    joint = _edge(0.3 * amount - inside, softness)
    return torch.maximum(joint, tint)


def _panel(u: Tensor, amount: Tensor, softness: Tensor, warp: Tensor, lattice: Tensor) -> Tensor:
    """Fill each cell with a frame (1) and, inside of it, a disc, a ring or a letter of straight strokes (2)."""
    cell = u[:2].floor()
    x, y = (u[:2] - cell).unbind(0)
    frame = _edge(0.5 * amount - 0.5 + torch.maximum((x - 0.5).abs(), (y - 0.5).abs()), softness)

    def on(which: int) -> Tensor:
        return _hash([cell[0], cell[1], u[2]], lattice, which * 1009)

    x, y = (x - 0.5).mul_(1.8 / (1 - amount)), (y - 0.5).mul_(1.4 / (1 - amount))
    across, along = 0.5 - (x.abs() - 0.45).abs(), 0.5 - (y.abs() - 0.45).abs()
    left, upper = (x < 0).to(x.dtype), (y < 0).to(x.dtype)
    side = (
        on(1) * left * upper
        + on(2) * left * (1 - upper)
        + on(3) * (1 - left) * upper
        + on(4) * (1 - left) * (1 - upper)
    )
    bar = torch.where(y.abs() < 0.25, on(5), torch.where(y < 0, on(6), on(7)))
    along = torch.where(y.abs() < 0.25, 0.5 - y.abs(), along)
    inside = (x.abs() < 0.6) & (y.abs() < 0.6)
    letter = (((across > 0.38) & (side > 0.3)) | ((along > 0.38) & (bar > 0.4))) & inside
    radius = (x * x + y * y).sqrt_()
    disc = (radius < 0.55) & ((radius > 0.3) | (on(8) < 0.5))
    drawn = torch.where(on(9) < 0.75, letter, disc)
    return torch.where(drawn, 2.0, frame)


_PATTERNS = {
    NOISE: _fractal,
    STRIPES: _stripes,
    CHECKS: _checks,
    GRADIENT: _gradient,
    SPOTS: _spots,
    MARKS: _marks,
    RINGS: _rings,
    BRICKS: _bricks,
    PANEL: _panel,
}
