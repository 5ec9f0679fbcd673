"""Compose living things: figures with limbs, animals, trees, standing about z = 0 in units of their own."""

import math

from lrm_ttt.data.procedural_builder import SceneBuilder, Style
from lrm_ttt.data.procedural_shapes import BALL, BOX, FRUSTUM
from lrm_ttt.data.procedural_styles import Looks


def figure(scene: SceneBuilder, looks: Looks) -> None:
    """Stand a body with head, arms and legs, blocky or roundish, with the odd hat or pack."""
    rng = scene.rng
    blocky = rng.random() < 0.4
    skin, shirt, trousers, shoes = looks.style(), looks.style(), looks.style(), looks.style()
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
    _head(scene, chest, blocky, skin, looks)
    if rng.random() < 0.3:
        scene.box((wide * 0.8, deep * 0.5, tall * 0.8), (0, deep * 1.4, hip + tall), looks.style())
    if rng.random() < 0.3:
        scene.ring(wide * 1.15, 0.15, (0, 0, hip + 0.1), looks.style())


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


def _head(scene: SceneBuilder, chest: float, blocky: bool, skin: Style, looks: Looks) -> None:
    rng = scene.rng
    size = rng.uniform(0.18, 0.42)
    z = chest + size * 0.9
    squash = rng.uniform(0.8, 1.25)
    if blocky:
        put = rng.choice([BOX, FRUSTUM])
        scene.add(put, (size, size, size * squash * 0.9), (0, 0, z), skin)
    else:
        scene.ball((size, size, size * squash), (0, 0, z), skin)
    eye, dark = size * rng.uniform(0.12, 0.28), looks.style()
    for side in (-1, 1):
        scene.ball((eye, eye * 0.6, eye), (side * size * 0.4, -size * 0.88, z + size * 0.15), dark)
    if rng.random() < 0.4:
        scene.ball((size * 0.2,) * 3, (0, -size, z - size * 0.15), looks.style())
    choice, hat, top = rng.random(), looks.style(), z + size * squash * 0.75
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


def animal(scene: SceneBuilder, looks: Looks) -> None:
    """Stand a four-legged body."""
    rng = scene.rng
    coat, other = looks.style(), looks.style()
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


def tree(scene: SceneBuilder, looks: Looks) -> None:
    """Grow a stem with branches and crowns."""
    rng = scene.rng
    bark, leaves = looks.style(), looks.style()
    tall = rng.uniform(0.7, 1.4)
    scene.rod((0, 0, 0), (0, 0, tall), rng.uniform(0.06, 0.15), bark, 0.6)
    if rng.random() < 0.5:
        scene.add(FRUSTUM, (0.3, 0.3, 0.2), (0, 0, 0), looks.style(), parameter=1.2 / 1.6)
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
