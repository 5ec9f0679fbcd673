"""Draw single objects of any family, among them plain unions of solids."""

import math
from collections.abc import Callable

from lrm_ttt.data.procedural_builder import IDENTITY, SceneBuilder, random_rotation, rotation_to, turn
from lrm_ttt.data.procedural_figures import animal, figure, tree
from lrm_ttt.data.procedural_household import furniture, house, package, stack, tool
from lrm_ttt.data.procedural_styles import Looks
from lrm_ttt.data.procedural_toys import aeroplane, bricks, letters, machine

Maker = Callable[[SceneBuilder, Looks], None]


def make_object(scene: SceneBuilder, looks: Looks, max_primitives: int) -> None:
    """Add one object, centred on the origin, within the unit ball and about filling it."""
    rng = scene.rng
    makers, weights = zip(*_MAKERS, strict=True)
    part = SceneBuilder(rng)
    rng.choices(makers, weights)[0](part, looks)
    del part.parts[max_primitives:]
    stretch = [rng.uniform(0.75, 1.3) if rng.random() < 0.5 else 1.0 for _ in range(3)]
    # Most things stand; some lie about.
    rotation = random_rotation(rng) if rng.random() < 0.15 else turn(rng.uniform(0, 2 * math.pi))
    turned = SceneBuilder(rng)
    turned.place(part, (stretch[0], stretch[1], stretch[2]), rotation, (0, 0, 0), (0, 0, 0))
    low, high = turned.extent()
    middle = ((low[0] + high[0]) / 2, (low[1] + high[1]) / 2, (low[2] + high[2]) / 2)
    scale = 2 / math.dist(low, high)
    scene.place(turned, (scale, scale, scale), IDENTITY, middle, (0, 0, 0))


def union(scene: SceneBuilder, looks: Looks) -> None:
    """Throw solids of any kind and turn together, sometimes mirrored."""
    rng = scene.rng
    palette = [looks.style() for _ in range(rng.randint(1, 4))]
    mirrored = rng.random() < 0.35
    for _ in range(rng.randint(2, 8) if mirrored else rng.randint(3, 14)):
        big = rng.uniform(0.12, 0.55)
        size = (big, big * rng.uniform(0.3, 1), big * rng.choice([0.08, rng.uniform(0.3, 1), 1.0, 2.0]))
        reach = 0.75
        centre = (rng.uniform(-reach, reach), rng.uniform(-reach, reach), rng.uniform(-reach, reach))
        rotation = random_rotation(rng) if rng.random() < 0.6 else turn(rng.uniform(0, 6.3), rng.randrange(3))
        style = rng.choice(palette)
        scene.solid(size, centre, style, rotation)
        if mirrored:
            # Mirroring a solid is the same solid with the mirrored rotation, up to its own symmetries.
            kind, *linear = scene.parts[-1][:10]
            flipped = (*(-part for part in linear[:3]), *linear[3:])
            scene.parts.append((kind, *flipped, -centre[0], *scene.parts[-1][11:]))


def spokes(scene: SceneBuilder, looks: Looks) -> None:
    """Arrange equal parts around an axis."""
    rng = scene.rng
    hub, arm, tip = looks.style(), looks.style(), looks.style()
    count, reach = rng.randint(3, 8), rng.uniform(0.5, 0.9)
    scene.solid((0.3, 0.3, rng.uniform(0.1, 0.4)), (0, 0, 0), hub)
    rise = rng.uniform(-0.4, 0.4)
    for i in range(count):
        angle = 2 * math.pi * i / count
        end = (reach * math.cos(angle), reach * math.sin(angle), rise)
        scene.rod((0, 0, 0), end, rng.choice([0.04, 0.08]), arm)
        scene.ball((0.15,) * 3, end, tip) if i % 2 else scene.box((0.13,) * 3, end, tip, rotation_to(end))
    if rng.random() < 0.5:
        scene.ring(reach * 1.1, rng.uniform(0.05, 0.12), (0, 0, rise), tip)


_MAKERS: tuple[tuple[Maker, float], ...] = (
    (figure, 5),
    (animal, 2),
    (tree, 1),
    (bricks, 3),
    (letters, 3),
    (machine, 3),
    (aeroplane, 1),
    (furniture, 2),
    (tool, 2),
    (stack, 2),
    (package, 2.5),
    (house, 1),
    (union, 4),
    (spokes, 1),
)
