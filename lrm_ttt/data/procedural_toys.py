"""Compose toys: bricks, lettered blocks, machines, aeroplanes. All stand about z = 0, z up, in units of their own."""

import math

from lrm_ttt.data.procedural_builder import SceneBuilder, turn
from lrm_ttt.data.procedural_shapes import FRUSTUM
from lrm_ttt.data.procedural_styles import Looks


def bricks(scene: SceneBuilder, looks: Looks) -> None:
    """Heap studded bricks on a plate, as in a construction toy."""
    rng = scene.rng
    palette = [looks.style() for _ in range(rng.randint(2, 5))]
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


def machine(scene: SceneBuilder, looks: Looks) -> None:
    """Put a chassis on wheels or tracks, with a cabin and a jointed arm."""
    rng = scene.rng
    body, second, dark = looks.style(), looks.style(), looks.style()
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
        for beside in (-0.12, 0.12):
            scene.rod((beside, 0, z + 0.2), (beside, joint[1], joint[2]), 0.05, body)
            scene.rod((beside, joint[1], joint[2]), (beside, tip[1], tip[2]), 0.045, body)
        scene.box((wide * 0.8, 0.06, 0.2), tip, dark, turn(rng.uniform(-0.5, 0.5), 0))
    if rng.random() < 0.4:
        scene.rod((wide * 0.6, long * 0.6, z), (wide * 0.6, long * 0.6, top + 0.3), 0.05, dark)


def letters(scene: SceneBuilder, looks: Looks) -> None:
    """Build a wall or a heap of printed cubes."""
    rng = scene.rng
    prints = [looks.print() for _ in range(rng.randint(2, 5))]
    half, gap = 0.15, rng.choice([1.0, 1.02, 1.1])
    columns, rows, layers = rng.randint(1, 6), rng.randint(1, 4), rng.choice([1, 1, 2, 3])
    for column in range(columns):
        for layer in range(layers):
            high = rng.randint(1, rows) if rng.random() < 0.4 else rows
            for row in range(high):
                x = (column - (columns - 1) / 2) * 2 * half * gap
                y = (layer - (layers - 1) / 2) * 2 * half * gap
                spin = turn(rng.gauss(0, 0.03 if gap < 1.1 else 0.1))
                scene.panel((half,) * 3, (x, y, half * (2 * row + 1)), rng.choice(prints), spin)


def aeroplane(scene: SceneBuilder, looks: Looks) -> None:
    """Fly a body with thin wings, a tail and engines or a rotor."""
    rng = scene.rng
    body, wing, dark = looks.style(), looks.style(), looks.style()
    radius = rng.uniform(0.12, 0.28)
    scene.ball((radius, 1.0, radius * rng.uniform(0.9, 1.3)), (0, 0, 0), body)
    if rng.random() < 0.75:
        span, chord, sweep = rng.uniform(0.5, 1), rng.uniform(0.12, 0.3), rng.uniform(0, 0.5)
        for side in (-1, 1):
            centre = (side * span * 0.55, sweep * 0.5 * span, rng.uniform(-0.05, 0.05))
            scene.box((span / 2, chord, 0.025), centre, wing, turn(side * sweep))
            if rng.random() < 0.5:
                scene.rod((side * span * 0.5, -0.25, -0.1), (side * span * 0.5, 0.2, -0.1), 0.08, dark)
            scene.box((0.18, 0.1, 0.02), (side * 0.2, 0.85, 0.05), wing)
    else:
        scene.rod((0, 0, radius), (0, 0, radius + 0.25), 0.04, dark)
        for i in range(rng.randint(1, 2)):
            scene.box((1.0, 0.05, 0.015), (0, 0, radius + 0.25), wing, turn(rng.uniform(0, 1.5) + 1.57 * i))
        for side in (-1, 1):
            scene.rod((side * 0.25, -0.6, -radius - 0.15), (side * 0.25, 0.5, -radius - 0.15), 0.03, dark)
    scene.box((0.02, 0.12, 0.22), (0, 0.88, 0.2), wing)
    scene.ball((radius * 0.7, radius * 1.3, radius * 0.7), (0, -0.4, radius * 0.7), dark)
