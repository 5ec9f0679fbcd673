"""Rays against canonical solids, in closed form: box, ball, frustum, torus, and a room seen from inside.

Every primitive is an affine image of one of these solids, so that a ray need only be brought into the solid's own
frame; the ray parameter is the same in both. Vectors are stored components first, `[3 n]`, which keeps every
operation contiguous.
"""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

BOX, BALL, FRUSTUM, TORUS, ROOM = range(5)
KINDS = (BOX, BALL, FRUSTUM, TORUS, ROOM)

# Radius of the canonical solid's bounding ball around its origin; None where every ray may hit.
BOUNDING_RADIUS: dict[int, float | None] = {BOX: 3**0.5, BALL: 1.0, FRUSTUM: 2**0.5, TORUS: 1.0, ROOM: None}

_TORUS_STEPS = 9


def intersect(
    kind: int, origins: Float[Tensor, "3 n"], directions: Float[Tensor, "3 n"], parameters: Float[Tensor, " n"]
) -> Float[Tensor, " n"]:
    """Return the ray parameter of the first hit in front of the origin, infinity where the ray misses.

    Directions need no unit length. Origins lie outside the solid (inside for ROOM). `parameters` is the radius at z =
    1 of a FRUSTUM (whose radius at z = -1 is 1; 0 makes a cone, 1 a cylinder), the tube radius of a TORUS (whose
    outer radius is 1), and unused else.
    """
    if kind == BOX:
        t = _box(origins, directions)
    elif kind == BALL:
        t = _ball(origins, directions)
    elif kind == FRUSTUM:
        t = _frustum(origins, directions, parameters)
    elif kind == TORUS:
        t = _torus(origins, directions, parameters)
    else:
        assert kind == ROOM, f"no solid of kind {kind}"
        t = _room(origins, directions)
    return t.masked_fill_(~(t > 1e-6), torch.inf)


def outward(kind: int, points: Float[Tensor, "3 n"], parameters: Float[Tensor, " n"]) -> Float[Tensor, "3 n"]:
    """Return the surface's normal at canonical surface points: outward (inward for ROOM), of any length."""
    if kind == BALL:
        return points
    if kind in (BOX, ROOM):
        return _largest(points) if kind == BOX else _largest(points).neg_()
    x, y, z = points.unbind(0)
    if kind == FRUSTUM:
        slope = (parameters - 1) / 2
        radius = (1 + parameters) / 2 + slope * z
        # A point on the cap lies nearer to the plane than to the mantle.
        on_cap = 1 - z.abs() < (radius - (x * x + y * y).sqrt()).abs()
        side = torch.where(on_cap, 0.0, 1.0)
        return torch.stack([x * side, y * side, torch.where(on_cap, z.sign(), -slope * radius)])
    assert kind == TORUS, f"no solid of kind {kind}"
    ring = 1 - (1 - parameters) / (x * x + y * y).sqrt().clamp_(min=1e-9)
    return torch.stack([x * ring, y * ring, z])


def box_face(normals: Float[Tensor, "3 n"]) -> Int[Tensor, " n"]:
    """Return the face (-x, +x, -y, +y, -z, +z) of a BOX or ROOM that has these canonical normals, of unit length."""
    positive = normals.sum(0) > 0
    return torch.add(normals[1].abs().mul_(2), normals[2].abs(), alpha=4).long().add_(positive)


def _largest(points: Tensor) -> Tensor:
    """Return the sign of the coordinate of largest magnitude, and 0 for the other two."""
    x, y, z = points.abs().unbind(0)
    first = (x >= y) & (x >= z)
    second = (y >= z) & ~first
    third = ~(first | second)
    return points.sign().mul_(torch.stack([first, second, third]))


def _slab(origins: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
    """Return where the rays enter and leave each of the slabs |x_i| <= 1."""
    inverse = torch.where(directions.abs() < 1e-12, 1e-12, directions).reciprocal_()
    middle = origins * inverse
    half = inverse.abs_()
    return -(middle + half), half.sub_(middle)


def _box(origins: Tensor, directions: Tensor) -> Tensor:
    enter, leave = _slab(origins, directions)
    first = torch.maximum(torch.maximum(enter[0], enter[1]), enter[2])
    last = torch.minimum(torch.minimum(leave[0], leave[1]), leave[2])
    return first.masked_fill_(first > last, torch.inf)


def _room(origins: Tensor, directions: Tensor) -> Tensor:
    _, leave = _slab(origins, directions)
    return torch.minimum(torch.minimum(leave[0], leave[1]), leave[2])


def _centred(origins: Tensor, directions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the parameter and the point of nearest approach to the origin, and the squared length of the direction.

    Starting there keeps the quadratics exact in single precision for far cameras and thin solids.
    """
    squared = _dot(directions, directions)
    nearest = _dot(origins, directions).div_(squared).neg_()
    return nearest, torch.addcmul(origins, directions, nearest), squared


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a[0] * b[0]).addcmul_(a[1], b[1]).addcmul_(a[2], b[2])


def _ball(origins: Tensor, directions: Tensor) -> Tensor:
    nearest, points, squared = _centred(origins, directions)
    # The square root of a negative number is NaN, which counts as a miss.
    return nearest.sub_(((1 - _dot(points, points)) / squared).sqrt_())


def _frustum(origins: Tensor, directions: Tensor, top: Tensor) -> Tensor:
    nearest, (x, y, z), _ = _centred(origins, directions)
    dx, dy, dz = directions
    slope = (top - 1) / 2
    radius = torch.addcmul((1 + top) / 2, slope, z)
    slope_dz = slope * dz
    a = (dx * dx).addcmul_(dy, dy).addcmul_(slope_dz, slope_dz, value=-1)
    b = (x * dx).addcmul_(y, dy).addcmul_(slope_dz, radius, value=-1)
    c = (x * x).addcmul_(y, y).addcmul_(radius, radius, value=-1)
    q = (b * b).addcmul_(a, c, value=-1).sqrt_().copysign_(b).add_(b).neg_()
    best = torch.full_like(a, torch.inf)
    # A little more than the height, so that no ray slips between mantle and cap.
    height = 1 + 1e-6
    for root in (q / a, c / q):
        inside = torch.addcmul(z, root, dz).abs_() <= height
        best = torch.where(inside & (root < best), root, best)
    safe_dz = torch.where(dz.abs() < 1e-12, 1e-12, dz)
    cap = (-dz.sign() - z) / safe_dz
    cap_radius = torch.where(dz > 0, 1.0, top)
    cap_x, cap_y = torch.addcmul(x, cap, dx), torch.addcmul(y, cap, dy)
    on_cap = cap_x.square_().addcmul_(cap_y, cap_y) <= cap_radius * cap_radius
    best = torch.where(on_cap & (cap < best), cap, best)
    return best.add_(nearest)


def _torus(origins: Tensor, directions: Tensor, tube: Tensor) -> Tensor:
    """Solve t^4 + p t^2 + q t + s = 0 for its least root.

    Measured from the point nearest to the centre the quartic has no cubic term, so its extrema are a depressed
    cubic's roots and its inflections a square root. From the entry into the bounding ball (convex side) or from the
    second inflection Newton's iteration is monotone, so it needs no safeguard.
    """
    nearest, (x, y, z), squared = _centred(origins, directions)
    length = squared.sqrt()
    dx, dy, dz = directions / length
    ring = (1 - tube).square()
    planar = x * x + y * y
    k = planar + z * z + ring - tube * tube
    p = 2 * k - 4 * ring * (dx * dx + dy * dy)
    q = -8 * ring * (x * dx + y * dy)
    s = k * k - 4 * ring * planar

    def value(t: Tensor) -> Tensor:
        square = t * t
        return torch.addcmul(s, square + p, square).addcmul_(q, t)

    first_low, last_low = _cubic_extremes(p / 2, q / 4)
    bend = (-p / 6).clamp_(min=0).sqrt_()
    entry = -(1 - planar - z * z).clamp_(min=0).sqrt_()
    hits_first = value(torch.minimum(first_low, -bend)) <= 0
    hits_last = (last_low >= bend) & (value(last_low) <= 0)
    t = torch.where(hits_first, entry, bend)
    for _ in range(_TORUS_STEPS):
        square = t * t
        slope = (4 * square + 2 * p).mul_(t).add_(q)
        t = t - (torch.addcmul(s, square + p, square).addcmul_(q, t)) / slope.clamp_(max=-1e-9)
    # The quartic of a thin tube is shallow; one step along the distance to the surface wins its lost digits back.
    x, y, z = torch.addcmul(x, t, dx), torch.addcmul(y, t, dy), torch.addcmul(z, t, dz)
    radius = (x * x + y * y).sqrt()
    aside = radius + tube - 1
    away = (aside * aside + z * z).sqrt()
    closing = (aside * (x * dx + y * dy) / radius + z * dz) / away
    t -= (away - tube) / closing.clamp(max=-0.05)
    return (t / length + nearest).masked_fill_(~(hits_first | hits_last), torch.inf)


def _cubic_extremes(p: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
    """Return the least and the greatest real root of t^3 + p t + q."""
    discriminant = (q / 2).square() + (p / 3) ** 3
    root = discriminant.clamp(min=0).sqrt()
    # The cube root of the larger of the two Cardano terms; the other one follows from their product.
    larger = -(q.abs() / 2 + root).pow(1 / 3).copysign(q)
    single = larger - p / (3 * torch.where(larger.abs() < 1e-12, 1e-12, larger))
    amplitude = (-p / 3).clamp(min=1e-20).sqrt()
    angle = torch.acos((-q / (2 * amplitude**3)).clamp(-1, 1)) / 3
    greatest = 2 * amplitude * angle.cos()
    least = 2 * amplitude * (angle + 2 * math.pi / 3).cos()
    three = discriminant < 0
    return torch.where(three, least, single), torch.where(three, greatest, single)
