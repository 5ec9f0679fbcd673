"""Compose single objects out of primitives: figures with limbs, blocks, machines, furniture, tools, stacks, and plain
unions.

Every maker fills a `SceneBuilder` in its own units, standing on z = 0 or about the origin, z up; framing is somebody
else's work.
"""

import math
from collections.abc import Callable

from lrm_ttt.data.procedural_builder import (
    IDENTITY,
    Matrix,
    SceneBuilder,
    Style,
    Vector,
    random_rotation,
    rotation_to,
    times,
    turn,
)
from lrm_ttt.data.procedural_shapes import BALL, BOX, FRUSTUM, TORUS

Styles = Callable[[], Style]


def make_object(scene: SceneBuilder, styles: Styles) -> None:
    """Add one object of a random family."""
    makers, weights = zip(*_MAKERS, strict=True)
    scene.rng.choices(makers, weights)[0](scene, styles)


def random_solid(scene: SceneBuilder, size: Vector, centre: Vector, style: Style, rotation: Matrix = IDENTITY) -> None:
    """Add a solid of any kind in a box of half sizes `size`."""
    rng = scene.rng
    kind = rng.choices((BOX, BALL, FRUSTUM, TORUS), (4, 4, 4, 1))[0]
    if kind == FRUSTUM and rng.random() < 0.5:
        rotation = times(rotation, turn(math.pi / 2, rng.choice([0, 1])))
    parameter = {FRUSTUM: rng.choice([0.0, 1.0, 1.0, rng.uniform(0.2, 1)]), TORUS: rng.uniform(0.12, 0.4)}.get(
        kind, 1.0
    )
    scene.add(kind, size, centre, style, rotation, parameter)


def _figure(scene: SceneBuilder, styles: Styles) -> None:
    """Stand a body with head, arms and legs, blocky or roundish, with the odd hat or pack."""
    rng = scene.rng
    blocky = rng.random() < 0.4
    skin, shirt, trousers, shoes = styles(), styles(), styles(), styles()
    wide, deep, tall = rng.uniform(0.22, 0.5), rng.uniform(0.15, 0.4), rng.uniform(0.3, 0.6)
    leg = rng.uniform(0.15, 0.8)
    hip = leg + 0.05
    chest = hip + 2 * tall
    if blocky:
        scene.box((wide, deep, tall), (0, 0, hip + tall), shirt)
    elif rng.random() < 0.5:
        scene.ball((wide, deep, tall * 1.15), (0, 0, hip + tall), shirt)
    else:
        scene.add(FRUSTUM, (wide, deep, tall), (0, 0, hip + tall), shirt, parameter=rng.uniform(0.5, 1))
    limb = rng.uniform(0.06, 0.16)
    for side in (-1, 1):
        _leg(scene, side, wide, hip, limb, blocky, trousers, shoes)
    bend, lift = rng.uniform(-0.8, 0.8), rng.uniform(-1.2, 0.9)
    for side in (-1, 1):
        if rng.random() < 0.3:
            bend, lift = rng.uniform(-0.8, 0.8), rng.uniform(-1.2, 0.9)
        _arm(scene, side, wide, chest - 0.1 - limb, rng.uniform(0.25, 0.5), limb, bend, lift, shirt, skin)
    _head(scene, chest, blocky, skin, styles)
    if rng.random() < 0.3:
        scene.box((wide * 0.8, deep * 0.5, tall * 0.8), (0, deep * 1.4, hip + tall), styles())
    if rng.random() < 0.3:
        scene.ring(wide * 1.15, 0.15, (0, 0, hip + 0.1), styles())


def _leg(
    scene: SceneBuilder, side: int, wide: float, hip: float, limb: float, blocky: bool, trousers: Style, shoes: Style
) -> None:
    x, foot = side * wide * 0.55, limb * 1.3
    if blocky:
        scene.box((wide * 0.4, limb * 1.3, hip / 2), (x, 0, hip / 2), trousers)
    else:
        scene.rod((x, 0, 0.0), (x, 0, hip + 0.1), limb * 1.1, trousers, 1.2)
    if scene.rng.random() < 0.8:
        put = scene.box if blocky else scene.ball
        put((foot, foot * 1.7, foot * 0.7), (x, -foot * 0.7, foot * 0.6), shoes)


def _arm(
    scene: SceneBuilder,
    side: int,
    wide: float,
    shoulder: float,
    length: float,
    limb: float,
    bend: float,
    lift: float,
    upper: Style,
    skin: Style,
) -> None:
    start = (side * (wide + limb * 0.3), 0.0, shoulder)
    elbow = (start[0] + side * length * math.cos(lift), 0.0, start[2] + length * math.sin(lift))
    hand = (
        elbow[0] + side * length * 0.6 * math.cos(lift + bend),
        -length * 0.7,
        elbow[2] + length * 0.6 * math.sin(lift + bend),
    )
    scene.capsule(start, elbow, limb, upper, 0.9)
    scene.rod(elbow, hand, limb * 0.85, skin if scene.rng.random() < 0.6 else upper, 0.9)
    scene.ball((limb * 1.15,) * 3, hand, skin)


def _head(scene: SceneBuilder, chest: float, blocky: bool, skin: Style, styles: Styles) -> None:
    rng = scene.rng
    size = rng.uniform(0.18, 0.42)
    z = chest + size * 0.9
    squash = rng.uniform(0.8, 1.25)
    if blocky:
        put = rng.choice([BOX, FRUSTUM])
        scene.add(put, (size, size, size * squash * 0.9), (0, 0, z), skin)
    else:
        scene.ball((size, size, size * squash), (0, 0, z), skin)
    eye, dark = size * rng.uniform(0.12, 0.28), styles()
    for side in (-1, 1):
        scene.ball((eye, eye * 0.6, eye), (side * size * 0.4, -size * 0.88, z + size * 0.15), dark)
    if rng.random() < 0.4:
        scene.ball((size * 0.2,) * 3, (0, -size, z - size * 0.15), styles())
    choice, hat, top = rng.random(), styles(), z + size * squash * 0.75
    if choice < 0.2:
        scene.rod((0, 0, top), (0, 0, top + size * rng.uniform(0.8, 2)), size * 0.9, hat, rng.choice([0.0, 1.0, 0.8]))
        scene.add(FRUSTUM, (size * 1.4, size * 1.4, size * 0.07), (0, 0, top), hat)
    elif choice < 0.35:
        for side in (-1, 1):
            scene.rod(
                (side * size * 0.5, 0, top), (side * size * 0.8, 0, top + size), size * 0.3, hat, rng.choice([0.0, 0.6])
            )
    elif choice < 0.5:
        scene.ball((size * 1.08, size * 1.08, size * 0.7), (0, size * 0.1, z + size * squash * 0.5), hat)


def _animal(scene: SceneBuilder, styles: Styles) -> None:
    """Stand a four-legged body."""
    rng = scene.rng
    coat, other = styles(), styles()
    long, wide, height = rng.uniform(0.4, 0.8), rng.uniform(0.18, 0.35), rng.uniform(0.3, 0.7)
    z = height + wide * 0.6
    body = rng.choice([BALL, BALL, BOX, FRUSTUM])
    if body == FRUSTUM:
        scene.rod((0, -long, z), (0, long, z), wide, coat, rng.uniform(0.7, 1))
    else:
        scene.add(body, (wide, long, wide * rng.uniform(0.8, 1.2)), (0, 0, z), coat)
    limb = rng.uniform(0.05, 0.12)
    for x in (-1, 1):
        for y in (-1, 1):
            scene.rod((x * wide * 0.7, y * long * 0.65, 0), (x * wide * 0.5, y * long * 0.6, z), limb, other, 1.3)
    head = rng.uniform(0.15, 0.3)
    neck = (0.0, -long - head * 0.6, z + rng.uniform(0.1, 0.6))
    scene.rod((0, -long * 0.7, z), neck, head * 0.6, coat, 0.9)
    scene.ball((head, head * 1.2, head), neck, coat)
    scene.ball((head * 0.5, head * 0.6, head * 0.45), (0, neck[1] - head, neck[2] - head * 0.2), other)
    for x in (-1, 1):
        ear = (x * head * 0.7, neck[1] + head * 0.2, neck[2] + head * 0.8)
        scene.ball((head * 0.3, head * 0.15, head * rng.uniform(0.3, 0.9)), ear, other)
    scene.rod((0, long * 0.9, z), (0, long * rng.uniform(1.2, 1.6), z + rng.uniform(-0.2, 0.5)), limb * 0.8, coat, 0.5)


def _blocks(scene: SceneBuilder, styles: Styles) -> None:
    """Heap studded bricks on a plate, as in a construction toy."""
    rng = scene.rng
    palette = [styles() for _ in range(rng.randint(2, 5))]
    unit = 0.2
    if rng.random() < 0.7:
        scene.box((5 * unit, 4 * unit, 0.05), (0, 0, -0.05), rng.choice(palette))
    for _ in range(rng.randint(4, 12)):
        wide, deep, tall = rng.randint(1, 4), rng.randint(1, 3), rng.choice([0.5, 1, 1, 2])
        x, y = rng.randint(-4 + wide, 4 - wide) * unit, rng.randint(-4 + deep, 4 - deep) * unit
        z = rng.choice([0, 0, 1, 2, 3]) * unit
        shrink = rng.uniform(0.93, 0.99)
        style = rng.choice(palette)
        centre = (x, y, z + tall * unit)
        scene.box((wide * unit * shrink, deep * unit * shrink, tall * unit), centre, style, turn(rng.gauss(0, 0.01)))
        if rng.random() < 0.4:
            scene.add(FRUSTUM, (unit * 0.5, unit * 0.5, 0.06), (x, y, z + 2 * tall * unit + 0.05), style)


def _machine(scene: SceneBuilder, styles: Styles) -> None:
    """Put a chassis on wheels or tracks, with a cabin and a jointed arm."""
    rng = scene.rng
    body, second, dark = styles(), styles(), styles()
    long, wide, radius = rng.uniform(0.6, 1), rng.uniform(0.3, 0.5), rng.uniform(0.15, 0.32)
    z = radius * 1.3
    scene.box((wide, long, 0.16), (0, 0, z), body)
    for y in (-0.7, 0.7) if rng.random() < 0.6 else (-0.75, 0.0, 0.75):
        for x in (-1, 1):
            centre = (x * (wide + 0.08), y * long, radius)
            scene.add(FRUSTUM, (radius, radius, 0.09), centre, dark, turn(math.pi / 2, 1))
            if rng.random() < 0.25:
                scene.ring(radius * 1.1, 0.25, centre, second, turn(math.pi / 2, 1))
    cabin = (wide * 0.85, long * rng.uniform(0.25, 0.5), rng.uniform(0.15, 0.35))
    scene.box(cabin, (0, long * rng.uniform(-0.3, 0.4), z + 0.16 + cabin[2]), second)
    top = z + 0.16 + 2 * cabin[2]
    if rng.random() < 0.7:
        joint = (0.0, -long * rng.uniform(0.5, 1), top + rng.uniform(0, 0.6))
        tip = (0.0, joint[1] - rng.uniform(0.3, 0.8), joint[2] - rng.uniform(0, 0.9))
        for x in (-0.12, 0.12):
            scene.rod((x, 0, z + 0.2), (x, joint[1], joint[2]), 0.05, body)
            scene.rod((x, joint[1], joint[2]), (x, tip[1], tip[2]), 0.045, body)
        scene.box((wide * 0.8, 0.06, 0.2), tip, dark, turn(rng.uniform(-0.5, 0.5), 0))
    if rng.random() < 0.4:
        scene.rod((wide * 0.6, long * 0.6, z), (wide * 0.6, long * 0.6, top + 0.3), 0.05, dark)


def _furniture(scene: SceneBuilder, styles: Styles) -> None:
    """Build a table, a chair, a stool or a shelf from plates and legs."""
    rng = scene.rng
    wood, other = styles(), styles()
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
            random_solid(scene, size, (rng.uniform(-0.6, 0.6) * wide, 0, z), styles())
        return
    leg, spread = rng.uniform(0.025, 0.07), rng.uniform(0.8, 1.15)
    for x in (-1, 1):
        for y in (-1, 1):
            foot = (x * wide * spread * 0.9, y * deep * spread * 0.9, 0.0)
            scene.rod(foot, (x * wide * 0.85, y * deep * 0.85, height), leg, other)
    round_top = rng.random() < 0.3
    scene.add(FRUSTUM if round_top else BOX, (wide, deep, thick), (0, 0, height), wood)
    if rng.random() < 0.55:
        for x in (-1, 1):
            scene.rod((x * wide * 0.85, deep * 0.9, height), (x * wide * 0.85, deep, 2.1 * height), leg, other)
        for i in range(rng.randint(1, 3)):
            scene.box((wide * 0.9, thick, 0.12), (0, deep * 0.97, height * (1.35 + 0.3 * i)), wood)
    elif rng.random() < 0.7:
        for _ in range(rng.randint(1, 4)):
            size = (rng.uniform(0.06, 0.2), rng.uniform(0.06, 0.2), rng.uniform(0.06, 0.25))
            x, y = rng.uniform(-0.6, 0.6) * wide, rng.uniform(-0.6, 0.6) * deep
            random_solid(scene, size, (x, y, height + thick + size[2]), styles())


def _tool(scene: SceneBuilder, styles: Styles) -> None:
    """Make a mug, a hammer, a lamp, a bottle or a pan."""
    rng = scene.rng
    main, other = styles(), styles()
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
        scene.rod((0, 0, 0.3), (0, 0, 0.7), 0.36, styles())
    else:
        scene.add(FRUSTUM, (0.6, 0.6, 0.12), (0, 0, 0), main)
        scene.add(FRUSTUM, (0.55, 0.55, 0.02), (0, 0, 0.125), other)
        scene.rod((0.55, 0, 0), (1.4, 0, rng.uniform(0, 0.3)), 0.06, other)
        random_solid(scene, (0.2, 0.2, 0.12), (rng.uniform(-0.3, 0.3), 0, 0.22), styles())


def _stack(scene: SceneBuilder, styles: Styles) -> None:
    """Pile solids of one axis on each other: towers, vases, chess pieces."""
    rng = scene.rng
    z, radius = 0.0, rng.uniform(0.4, 0.8)
    several = rng.random() < 0.6
    style = styles()
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
        scene.add(kind, size, (0, 0, z + tall), styles() if several else style, spin, parameter)
        z += tall * (2 if kind in (FRUSTUM, BOX) else 1.7)
        radius = min(max(radius * rng.uniform(0.6, 1.15), 0.12), 0.8)


def _tree(scene: SceneBuilder, styles: Styles) -> None:
    """Grow a stem with branches and crowns."""
    rng = scene.rng
    bark, leaves = styles(), styles()
    tall = rng.uniform(0.7, 1.4)
    scene.rod((0, 0, 0), (0, 0, tall), rng.uniform(0.06, 0.15), bark, 0.6)
    if rng.random() < 0.5:
        scene.add(FRUSTUM, (0.3, 0.3, 0.2), (0, 0, 0), styles(), parameter=1.2 / 1.6)
    cones = rng.random() < 0.4
    for i in range(rng.randint(2, 6)):
        azimuth, reach = rng.uniform(0, 2 * math.pi), 0.0 if cones else rng.uniform(0.1, 0.6)
        tip = (
            reach * math.cos(azimuth),
            reach * math.sin(azimuth),
            tall * (1 + 0.2 * i if cones else rng.uniform(0.7, 1.2)),
        )
        size = rng.uniform(0.2, 0.45)
        if cones:
            scene.add(FRUSTUM, (size * 1.3 - 0.06 * i, size * 1.3 - 0.06 * i, size * 0.7), tip, leaves, parameter=0.0)
        else:
            scene.rod((0, 0, tall * 0.6), tip, 0.04, bark)
            scene.ball((size, size, size * rng.uniform(0.6, 1)), tip, leaves)


def _union(scene: SceneBuilder, styles: Styles) -> None:
    """Throw solids of any kind and turn together, sometimes mirrored."""
    rng = scene.rng
    palette = [styles() for _ in range(rng.randint(1, 4))]
    mirrored = rng.random() < 0.35
    for _ in range(rng.randint(2, 8) if mirrored else rng.randint(3, 14)):
        big = rng.uniform(0.12, 0.55)
        size = (big, big * rng.uniform(0.3, 1), big * rng.choice([0.08, rng.uniform(0.3, 1), 1.0, 2.0]))
        reach = 0.75
        centre = (rng.uniform(-reach, reach), rng.uniform(-reach, reach), rng.uniform(-reach, reach))
        rotation = random_rotation(rng) if rng.random() < 0.6 else turn(rng.uniform(0, 6.3), rng.randrange(3))
        style = rng.choice(palette)
        random_solid(scene, size, centre, style, rotation)
        if mirrored:
            # Mirroring a solid is the same solid with the mirrored rotation, up to its own symmetries.
            kind, *linear = scene.parts[-1][:10]
            flipped = (*(-part for part in linear[:3]), *linear[3:])
            scene.parts.append((kind, *flipped, -centre[0], *scene.parts[-1][11:]))


def _spokes(scene: SceneBuilder, styles: Styles) -> None:
    """Arrange equal parts around an axis."""
    rng = scene.rng
    hub, arm, tip = styles(), styles(), styles()
    count, reach = rng.randint(3, 8), rng.uniform(0.5, 0.9)
    random_solid(scene, (0.3, 0.3, rng.uniform(0.1, 0.4)), (0, 0, 0), hub)
    rise = rng.uniform(-0.4, 0.4)
    for i in range(count):
        angle = 2 * math.pi * i / count
        end = (reach * math.cos(angle), reach * math.sin(angle), rise)
        scene.rod((0, 0, 0), end, rng.choice([0.04, 0.08]), arm)
        scene.ball((0.15,) * 3, end, tip) if i % 2 else scene.box((0.13,) * 3, end, tip, rotation_to(end))
    if rng.random() < 0.5:
        scene.ring(reach * 1.1, rng.uniform(0.05, 0.12), (0, 0, rise), tip)


_MAKERS = (
    (_figure, 5),
    (_animal, 2),
    (_blocks, 3),
    (_machine, 3),
    (_furniture, 2),
    (_tool, 2),
    (_stack, 2),
    (_tree, 1),
    (_union, 4),
    (_spokes, 1),
)
