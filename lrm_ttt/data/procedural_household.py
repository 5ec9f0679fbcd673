"""Compose household things: furniture, tools, piles, packages, houses, standing about z = 0 in units of their own."""

import math

from lrm_ttt.data.procedural_builder import SceneBuilder, random_rotation, turn
from lrm_ttt.data.procedural_shapes import BALL, BOX, FRUSTUM, TORUS
from lrm_ttt.data.procedural_styles import Looks


def furniture(scene: SceneBuilder, looks: Looks) -> None:
    """Build a table, a chair, a stool or a shelf from plates and legs."""
    rng = scene.rng
    wood, other = looks.style(), looks.style()
    wide, deep, height = rng.uniform(0.4, 0.9), rng.uniform(0.35, 0.6), rng.uniform(0.4, 0.9)
    thick = rng.uniform(0.025, 0.07)
    if rng.random() < 0.25:
        for x in (-1, 1):
            scene.box((thick, deep, height), (x * wide, 0, height), wood)
        boards = rng.randint(2, 4)
        for i in range(boards + 1):
            scene.box((wide, deep, thick), (0, 0, 2 * height * i / boards), wood)
        for _ in range(rng.randint(0, 4)):
            size = (rng.uniform(0.05, 0.2), rng.uniform(0.1, 0.3), height / boards * rng.uniform(0.4, 0.8))
            z = 2 * height * rng.randrange(boards) / boards + thick + size[2]
            scene.solid(size, (rng.uniform(-0.6, 0.6) * wide, 0, z), looks.style())
        return
    round_top = rng.random() < 0.3
    leg, spread, reach = rng.uniform(0.025, 0.07), rng.uniform(0.95, 1.3), 0.62 if round_top else 0.85
    for x in (-1, 1):
        for y in (-1, 1):
            foot = (x * wide * spread * reach, y * deep * spread * reach, 0.0)
            scene.rod(foot, (x * wide * reach, y * deep * reach, height), leg, other)
    scene.add(FRUSTUM if round_top else BOX, (wide, deep, thick), (0, 0, height), wood)
    if round_top:
        scene.solid((0.15, 0.15, 0.2), (0, 0, height + thick + 0.19), looks.style())
        return
    if rng.random() < 0.55:
        for x in (-1, 1):
            scene.rod((x * wide * 0.85, deep * 0.9, height), (x * wide * 0.85, deep, 2.1 * height), leg, other)
        for i in range(rng.randint(1, 3)):
            scene.box((wide * 0.9, thick, 0.12), (0, deep * 0.97, height * (1.35 + 0.3 * i)), wood)
    elif rng.random() < 0.7:
        for _ in range(rng.randint(1, 4)):
            size = (rng.uniform(0.06, 0.2), rng.uniform(0.06, 0.2), rng.uniform(0.06, 0.25))
            centre = (rng.uniform(-0.6, 0.6) * wide, rng.uniform(-0.6, 0.6) * deep, height + thick + size[2])
            scene.solid(size, centre, looks.style())


def tool(scene: SceneBuilder, looks: Looks) -> None:
    """Make a mug, a hammer, a lamp, a bottle or a pan."""
    rng = scene.rng
    main, other = looks.style(), looks.style()
    choice = rng.randrange(5)
    if choice == 0:
        radius, tall = rng.uniform(0.35, 0.6), rng.uniform(0.4, 0.7)
        scene.add(FRUSTUM, (radius, radius, tall), (0, 0, tall), main, parameter=rng.uniform(0.85, 1))
        scene.add(FRUSTUM, (radius * 0.8, radius * 0.8, 0.02), (0, 0, 2 * tall), other)
        scene.ring(tall * 0.65, 0.16, (radius, 0, tall), rng.choice([main, other]), turn(math.pi / 2, 0))
    elif choice == 1:
        scene.rod((0, 0, -1), (0, 0, 0.8), rng.uniform(0.06, 0.12), other, rng.uniform(0.7, 1))
        scene.rod((-0.4, 0, 0.8), (0.3, 0, 0.8), rng.uniform(0.12, 0.22), main, rng.uniform(0.4, 1))
        scene.box((0.15, 0.15, 0.15), (0.35, 0, 0.8), main)
    elif choice == 2:
        scene.add(FRUSTUM, (0.4, 0.4, 0.05), (0, 0, 0), main)
        scene.rod((0, 0, 0), (0, 0, 1.3), 0.04, other)
        scene.add(FRUSTUM, (0.5, 0.5, 0.3), (0, 0, 1.3), main, parameter=rng.uniform(0.3, 0.8))
        scene.ball((0.2, 0.2, 0.2), (0, 0, 1.05), other)
    elif choice == 3:
        scene.rod((0, 0, 0), (0, 0, 1), 0.35, main)
        scene.rod((0, 0, 1), (0, 0, 1.35), 0.35, main, 0.35)
        scene.rod((0, 0, 1.3), (0, 0, 1.7), 0.12, other)
        scene.rod((0, 0, 0.3), (0, 0, 0.7), 0.36, looks.style())
    else:
        scene.add(FRUSTUM, (0.6, 0.6, 0.12), (0, 0, 0), main)
        scene.add(FRUSTUM, (0.55, 0.55, 0.02), (0, 0, 0.125), other)
        scene.rod((0.55, 0, 0), (1.4, 0, rng.uniform(0, 0.3)), 0.06, other)
        scene.solid((0.2, 0.2, 0.12), (rng.uniform(-0.3, 0.3), 0, 0.22), looks.style())


def stack(scene: SceneBuilder, looks: Looks) -> None:
    """Pile solids of one axis on each other: towers, vases, chess pieces."""
    rng = scene.rng
    z, radius = 0.0, rng.uniform(0.4, 0.8)
    several = rng.random() < 0.6
    style = looks.style()
    for _ in range(rng.randint(3, 8)):
        tall = rng.uniform(0.06, 0.35)
        size = (radius, radius * rng.uniform(0.8, 1) if rng.random() < 0.3 else radius, tall)
        kind = rng.choices((FRUSTUM, BALL, BOX, TORUS), (4, 3, 2, 1))[0]
        tube = rng.uniform(0.2, 0.4)
        if kind == TORUS:
            tall = radius * tube
            size = (radius,) * 3
        spin = turn(rng.uniform(0, 2 * math.pi))
        parameter = {FRUSTUM: rng.uniform(0.4, 1), TORUS: tube}.get(kind, 1.0)
        scene.add(kind, size, (0, 0, z + tall), looks.style() if several else style, spin, parameter)
        z += tall * (2 if kind in (FRUSTUM, BOX) else 1.7)
        radius = min(max(radius * rng.uniform(0.6, 1.15), 0.12), 0.8)


def package(scene: SceneBuilder, looks: Looks) -> None:
    """Print a few boxes and bind them together, or pile them up."""
    rng = scene.rng
    z = 0.0
    for _ in range(rng.choice([1, 1, 2, 3, 4])):
        size = (rng.uniform(0.3, 0.8), rng.uniform(0.1, 0.6), rng.choice([0.1, 0.2, rng.uniform(0.3, 0.9)]))
        spin = turn(rng.gauss(0, 0.4))
        centre = (rng.gauss(0, 0.08), rng.gauss(0, 0.08), z + size[2])
        if rng.random() < 0.6:
            scene.panel(size, centre, looks.print(), spin)
        else:
            scene.box(size, centre, looks.style(), spin)
        if rng.random() < 0.4:
            band = (size[0] * 1.01, size[1] * 0.2, size[2] * 1.01)
            scene.box(band, centre, looks.style(), spin)
        z += 2 * size[2]
    if rng.random() < 0.3:
        scene.solid((0.2, 0.2, 0.2), (0, 0, z + 0.19), looks.style(), random_rotation(rng))


def house(scene: SceneBuilder, looks: Looks) -> None:
    """Build a house or a castle: walls, a roof, towers, a door and windows."""
    rng = scene.rng
    wall, roof, trim = looks.style(), looks.style(), looks.style()
    wide, deep, tall = rng.uniform(0.5, 0.9), rng.uniform(0.4, 0.8), rng.uniform(0.3, 0.6)
    scene.box((wide, deep, tall), (0, 0, tall), wall)
    if rng.random() < 0.6:
        # A box on its edge is a gable roof.
        edge = deep * 1.1 / math.sqrt(2)
        scene.box((wide * 1.05, edge, edge), (0, 0, 2 * tall), roof, turn(math.pi / 4, 0))
    else:
        scene.add(FRUSTUM, (wide * 1.3, deep * 1.3, tall * 0.6), (0, 0, 2.6 * tall), roof, parameter=0.2)
    for x in (-1, 1):
        if rng.random() < 0.6:
            scene.box((0.1, 0.02, 0.12), (x * wide * 0.5, -deep, tall * 1.2), trim)
            scene.box((0.1, 0.02, 0.12), (x * wide * 0.5, deep, tall * 1.2), trim)
        if rng.random() < 0.3:
            radius, high = rng.uniform(0.15, 0.3), rng.uniform(1, 2) * tall
            y = deep * rng.choice([-1, 1])
            scene.add(FRUSTUM, (radius, radius, high), (x * wide, y, high), wall)
            scene.rod(
                (x * wide, scene.parts[-1][11], 2 * high),
                (x * wide, scene.parts[-1][11], 2 * high + 0.4),
                radius * 1.2,
                roof,
                0.0,
            )
    scene.box((0.12, 0.03, 0.25), (0, -deep, 0.25), trim)
    if rng.random() < 0.5:
        scene.box((0.08, 0.08, 0.3), (wide * 0.5, deep * 0.3, 2 * tall + deep * 0.5), looks.style())
    if rng.random() < 0.4:
        scene.box((1.3, 1.1, 0.03), (0, 0, -0.02), looks.style())
