"""Collect the parts, textures and lights of one scene in plain Python numbers, then turn many scenes into tensors at
once.

Composition draws from `random.Random`, which gives the same numbers on every machine and costs far less than small
tensors.
"""

import colorsys
import dataclasses
import math
from random import Random

import torch
from torch import Tensor

from lrm_ttt.data.procedural_primitives import Primitives
from lrm_ttt.data.procedural_shapes import BALL, BOX, FRUSTUM, TORUS
from lrm_ttt.data.procedural_textures import Textures

# Whole numbers are welcome in coordinates, and the shape checks tell them from floats.
Real = float | int
Vector = tuple[Real, Real, Real]
Matrix = tuple[Vector, Vector, Vector]
Color = Vector

IDENTITY: Matrix = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))

_EMPTY_PART = (-1.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.5, 0.0, 0.0)


@dataclasses.dataclass(frozen=True)
class Style:
    """A texture without a place: pattern, period and looks as in `Textures`."""

    kind: int
    period: Vector
    colors: tuple[Color, Color, Color]
    softness: float
    amount: float
    warp: float
    mottle: float
    gloss: float


class SceneBuilder:
    """Hold what has been put into a scene so far."""

    def __init__(self, rng: Random) -> None:
        """Start an empty scene that draws from `rng`."""
        self.rng = rng
        self.parts: list[tuple[float, ...]] = []
        self.textures: list[list[float]] = []

    def texture(self, style: Style, rotation: Matrix = IDENTITY) -> int:
        """Place a style in space, along the axes of `rotation`, and return its index."""
        row: list[float] = [float(style.kind)]
        for axis in range(3):
            scale = 1 / style.period[axis]
            row += [rotation[i][axis] * scale for i in range(3)]
            row.append(self.rng.uniform(0, 31))
        for color in style.colors:
            row += color
        row += [style.softness, style.amount, style.warp, style.mottle, style.gloss]
        self.textures.append(row)
        return len(self.textures) - 1

    def panel(self, size: Vector, centre: Vector, style: Style, rotation: Matrix = IDENTITY) -> None:
        """Add a box each of whose faces shows one cell of the pattern, as printed boxes and toy blocks do."""
        period = (2 * size[0], 2 * size[1], 2 * size[2])
        index = self.texture(dataclasses.replace(style, period=period), rotation)
        row = self.textures[index]
        for i in range(1, 13, 4):
            # Whole numbers tell the pattern which block this is.
            row[i + 3] = 0.5 + self.rng.randrange(997) - sum(row[i + k] * centre[k] for k in range(3))
        self.add(BOX, size, centre, index, rotation)

    def solid(self, size: Vector, centre: Vector, style: Style, rotation: Matrix = IDENTITY) -> None:
        """Add a solid of any kind in a box of half sizes `size`."""
        rng = self.rng
        kind = rng.choices((BOX, BALL, FRUSTUM, TORUS), (4, 4, 4, 1))[0]
        if kind == FRUSTUM and rng.random() < 0.4:
            rotation = times(rotation, turn(math.pi / 2, rng.choice([0, 1])))
        top = rng.choice([0.0, 1.0, 1.0, rng.uniform(0.2, 1)])
        parameter = {FRUSTUM: top, TORUS: rng.uniform(0.12, 0.4)}.get(kind, 1.0)
        self.add(kind, size, centre, style, rotation, parameter)

    def add(
        self,
        kind: int,
        size: Vector,
        centre: Vector,
        style: Style | int,
        rotation: Matrix = IDENTITY,
        parameter: Real = 1.0,
        faceted: bool = False,
    ) -> None:
        """Add a solid of half sizes `size` (before the rotation); a style is placed along the part's own axes, an
        index is used as it is."""
        texture = style if isinstance(style, int) else self.texture(style, rotation)
        linear = [rotation[i][j] * size[j] for i in range(3) for j in range(3)]
        self.parts.append((float(kind), *linear, *centre, parameter, float(texture), float(faceted)))

    def box(self, size: Vector, centre: Vector, style: Style | int, rotation: Matrix = IDENTITY) -> None:
        """Add a box of half sizes `size`."""
        self.add(BOX, size, centre, style, rotation)

    def ball(self, size: Vector, centre: Vector, style: Style | int, rotation: Matrix = IDENTITY) -> None:
        """Add an ellipsoid of radii `size`."""
        self.add(BALL, size, centre, style, rotation)

    def rod(self, start: Vector, end: Vector, radius: Real, style: Style | int, top: Real = 1.0) -> None:
        """Add a frustum from `start` (where it has `radius`) to `end` (where it has `top` times that)."""
        axis = (end[0] - start[0], end[1] - start[1], end[2] - start[2])
        length = math.hypot(*axis)
        middle = ((start[0] + end[0]) / 2, (start[1] + end[1]) / 2, (start[2] + end[2]) / 2)
        self.add(FRUSTUM, (radius, radius, max(length / 2, 1e-3)), middle, style, rotation_to(axis), top)

    def capsule(self, start: Vector, end: Vector, radius: Real, style: Style | int, top: Real = 1.0) -> None:
        """Add a rod whose ends are closed by balls."""
        self.rod(start, end, radius, style, top)
        self.ball((radius,) * 3, start, style)
        self.ball((radius * top,) * 3, end, style)

    def ring(self, radius: Real, tube: Real, centre: Vector, style: Style | int, rotation: Matrix = IDENTITY) -> None:
        """Add a torus of outer `radius`; `tube` is the tube's radius relative to it (below 0.5)."""
        self.add(TORUS, (radius,) * 3, centre, style, rotation, tube)

    def extent(self) -> tuple[Vector, Vector]:
        """Return the lower and upper corner of a box that holds all parts."""
        lows, highs = [], []
        for part in self.parts:
            spread = [sum(abs(entry) for entry in part[1 + 3 * i : 4 + 3 * i]) for i in range(3)]
            lows.append([part[10 + i] - spread[i] for i in range(3)])
            highs.append([part[10 + i] + spread[i] for i in range(3)])
        low, high = [min(axis) for axis in zip(*lows, strict=True)], [max(axis) for axis in zip(*highs, strict=True)]
        return (low[0], low[1], low[2]), (high[0], high[1], high[2])

    def place(self, other: "SceneBuilder", scale: Vector, rotation: Matrix, base: Vector, target: Vector) -> None:
        """Add another builder's parts: `base` goes to `target`, with axes scaled first and then rotated."""
        offset = len(self.textures)
        for row in other.textures:
            moved = list(row)
            for i in range(1, 13, 4):
                x, y, z = (row[i + k] / scale[k] for k in range(3))
                new = [x * r[0] + y * r[1] + z * r[2] for r in rotation]
                shift = sum(row[i + k] * base[k] for k in range(3)) - sum(new[k] * target[k] for k in range(3))
                moved[i : i + 4] = [*new, row[i + 3] + shift]
            self.textures.append(moved)
        mixed = [[rotation[i][k] * scale[k] for k in range(3)] for i in range(3)]
        for kind, *part in other.parts:
            linear = [r[0] * part[j] + r[1] * part[3 + j] + r[2] * part[6 + j] for r in mixed for j in range(3)]
            x, y, z = (part[9 + k] - base[k] for k in range(3))
            centre = [target[i] + mixed[i][0] * x + mixed[i][1] * y + mixed[i][2] * z for i in range(3)]
            self.parts.append((kind, *linear, *centre, part[12], part[13] + offset, part[14]))

    def fit(self, other: "SceneBuilder", radius: Real, target: Vector, angle: Real) -> None:
        """Add another builder's parts, turned about z and scaled to about `radius`, standing on `target`."""
        low, high = other.extent()
        scale = radius / max(math.dist(low, high) / 2, 1e-6)
        base = ((low[0] + high[0]) / 2, (low[1] + high[1]) / 2, low[2])
        self.place(other, (scale, scale, scale), turn(angle), base, target)


def rotation_to(axis: Vector) -> Matrix:
    """Return a rotation that takes +z to the direction of `axis`."""
    x, y, z = axis
    length = math.hypot(x, y, z) or 1.0
    z_axis = (x / length, y / length, z / length)
    helper = (1.0, 0.0, 0.0) if abs(z_axis[0]) < 0.8 else (0.0, 1.0, 0.0)
    y_axis = _unit(_cross(z_axis, helper))
    x_axis = _cross(y_axis, z_axis)
    return _columns(x_axis, y_axis, z_axis)


def turn(angle: Real, axis: int = 2) -> Matrix:
    """Return the rotation by `angle` (radians) about a coordinate axis."""
    c, s = math.cos(angle), math.sin(angle)
    if axis == 0:
        return ((1.0, 0.0, 0.0), (0.0, c, -s), (0.0, s, c))
    if axis == 1:
        return ((c, 0.0, s), (0.0, 1.0, 0.0), (-s, 0.0, c))
    return ((c, -s, 0.0), (s, c, 0.0), (0.0, 0.0, 1.0))


def times(a: Matrix, b: Matrix) -> Matrix:
    """Return the matrix product."""
    rows = [tuple(sum(a[i][k] * b[k][j] for k in range(3)) for j in range(3)) for i in range(3)]
    return (rows[0], rows[1], rows[2])  # type: ignore[return-value]


def random_rotation(rng: Random) -> Matrix:
    """Draw a rotation uniformly."""
    w, x, y, z = (rng.gauss(0, 1) for _ in range(4))
    n = 2 / (w * w + x * x + y * y + z * z + 1e-12)
    return (
        (1 - n * (y * y + z * z), n * (x * y - w * z), n * (x * z + w * y)),
        (n * (x * y + w * z), 1 - n * (x * x + z * z), n * (y * z - w * x)),
        (n * (x * z - w * y), n * (y * z + w * x), 1 - n * (x * x + y * y)),
    )


def hsv(hue: Real, saturation: Real, value: Real) -> Color:
    """Return RGB 0..1; the hue wraps, the others are clamped."""
    return colorsys.hsv_to_rgb(hue % 1, min(max(saturation, 0.0), 1.0), min(max(value, 0.0), 1.0))


def collate(scenes: list[SceneBuilder]) -> tuple[Primitives, Textures]:
    """Return primitives [b p] and textures [b m] of several scenes, padded to the longest."""
    most_parts = max(len(scene.parts) for scene in scenes)
    most_textures = max(len(scene.textures) for scene in scenes)
    parts = torch.tensor([scene.parts + [_EMPTY_PART] * (most_parts - len(scene.parts)) for scene in scenes])
    padding = [0.0] * len(scenes[0].textures[0])
    textures = torch.tensor([scene.textures + [padding] * (most_textures - len(scene.textures)) for scene in scenes])
    return _primitives(parts), _textures(textures)


def _primitives(parts: Tensor) -> Primitives:
    return Primitives(
        kinds=parts[..., 0].long(),
        linear=parts[..., 1:10].unflatten(-1, (3, 3)),
        centres=parts[..., 10:13],
        parameters=parts[..., 13],
        textures=parts[..., 14].long(),
        faceted=parts[..., 15].long(),
    )


def _textures(rows: Tensor) -> Textures:
    return Textures(
        kinds=rows[..., 0].long(),
        frames=rows[..., 1:13].unflatten(-1, (3, 4)),
        colors=rows[..., 13:22].unflatten(-1, (3, 3)),
        softness=rows[..., 22],
        amount=rows[..., 23],
        warp=rows[..., 24],
        mottle=rows[..., 25],
        gloss=rows[..., 26],
    )


def _cross(a: Vector, b: Vector) -> Vector:
    return (a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0])


def _unit(a: Vector) -> Vector:
    length = math.hypot(*a)
    return (a[0] / length, a[1] / length, a[2] / length)


def _columns(x: Vector, y: Vector, z: Vector) -> Matrix:
    return ((x[0], y[0], z[0]), (x[1], y[1], z[1]), (x[2], y[2], z[2]))
