"""Compose rooms: textured walls, a desk with things on it, and furniture along the walls."""

import math

from lrm_ttt.data.procedural_builder import IDENTITY, SceneBuilder, turn
from lrm_ttt.data.procedural_objects import make_object
from lrm_ttt.data.procedural_shapes import BOX, ROOM
from lrm_ttt.data.procedural_styles import Looks

# Things on the desk lie within this distance of its middle, which is the origin; cameras stay outside.
DESK_RADIUS = 1.0


def make_room(scene: SceneBuilder, looks: Looks) -> None:
    """Add a room around a desk whose top is at z = 0 and whose things lie within DESK_RADIUS of the origin."""
    rng = scene.rng
    half = (rng.uniform(2.8, 4.5), rng.uniform(2.8, 4.5))
    floor, ceiling = -rng.uniform(0.05, 1.2), rng.uniform(2.4, 3.5)
    offset = (rng.uniform(-0.4, 0.4), rng.uniform(-0.4, 0.4))
    walls = looks.style(2.0)
    for face in range(6):
        scene.texture(walls if face < 4 and rng.random() < 0.6 else looks.style(2.0))
    first = len(scene.textures) - 6
    size = (half[0], half[1], (ceiling - floor) / 2)
    scene.add(ROOM, size, (*offset, (ceiling + floor) / 2), first, IDENTITY, faceted=True)
    if floor < -0.3:
        _desk(scene, looks, floor)
    for _ in range(rng.randint(3, 8)):
        _thing(scene, looks)
    for _ in range(rng.randint(0, 4)):
        _along_wall(scene, looks, half, offset, floor)
    for _ in range(rng.randint(0, 3)):
        _on_wall(scene, looks, half, offset)


def _desk(scene: SceneBuilder, looks: Looks, floor: float) -> None:
    rng = scene.rng
    top = looks.style()
    wide, deep = rng.uniform(0.9, 1.25), rng.uniform(0.7, 1.1)
    spin = turn(rng.uniform(0, math.pi))
    scene.add(BOX, (wide, deep, 0.04), (0, 0, -0.04), top, spin)
    legs = looks.style()
    for x in (-0.9, 0.9):
        for y in (-0.9, 0.9):
            foot = tuple(spin[i][0] * x * wide + spin[i][1] * y * deep for i in range(2))
            scene.rod((foot[0], foot[1], floor), (foot[0], foot[1], -0.05), 0.05, legs)


def _thing(scene: SceneBuilder, looks: Looks) -> None:
    """Put a solid or a small object on the desk."""
    rng = scene.rng
    angle, reach = rng.uniform(0, 2 * math.pi), DESK_RADIUS * 0.65 * math.sqrt(rng.random())
    x, y = reach * math.cos(angle), reach * math.sin(angle)
    if rng.random() < 0.45:
        part = SceneBuilder(rng)
        make_object(part, looks, 16)
        scene.fit(part, rng.uniform(0.25, 0.5), (x, y, 0), rng.uniform(0, 2 * math.pi))
        return
    size = (rng.uniform(0.08, 0.3), rng.uniform(0.08, 0.3), rng.uniform(0.02, 0.35))
    scene.solid(size, (x, y, size[2] * 0.99), looks.style(), turn(rng.uniform(0, math.pi)))


def _along_wall(
    scene: SceneBuilder, looks: Looks, half: tuple[float, float], offset: tuple[float, float], floor: float
) -> None:
    """Stand a piece of furniture against a wall, out of the cameras' way."""
    rng = scene.rng
    axis, side = rng.randrange(2), rng.choice([-1, 1])
    depth, wide, tall = rng.uniform(0.1, 0.25), rng.uniform(0.2, 0.8), rng.uniform(0.3, 1.4)
    along = rng.uniform(-0.7, 0.7) * half[1 - axis]
    away = offset[axis] + side * (half[axis] - depth)
    centre = (away, along, floor + tall) if axis == 0 else (along, away, floor + tall)
    size = (depth, wide, tall) if axis == 0 else (wide, depth, tall)
    scene.solid(size, centre, looks.style())


def _on_wall(scene: SceneBuilder, looks: Looks, half: tuple[float, float], offset: tuple[float, float]) -> None:
    """Hang a picture or a shelf."""
    rng = scene.rng
    axis, side = rng.randrange(2), rng.choice([-1, 1])
    wide, tall, thick = rng.uniform(0.2, 0.9), rng.uniform(0.2, 0.6), rng.uniform(0.02, 0.1)
    along, z = rng.uniform(-0.7, 0.7) * half[1 - axis], rng.uniform(0.4, 1.8)
    away = offset[axis] + side * (half[axis] - thick)
    centre = (away, along, z) if axis == 0 else (along, away, z)
    scene.box((thick, wide, tall) if axis == 0 else (wide, thick, tall), centre, looks.style())
