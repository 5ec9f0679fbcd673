"""Random looks: colour palettes that belong together, and textures from smooth to busy."""

from random import Random

from lrm_ttt.data.procedural_builder import Color, Style, hsv
from lrm_ttt.data.procedural_textures import BRICKS, CHECKS, GRADIENT, MARKS, NOISE, PLAIN, RINGS, SPOTS, STRIPES

_SMOOTH_KINDS = (PLAIN, NOISE, GRADIENT)
_BUSY_KINDS = (STRIPES, CHECKS, SPOTS, MARKS, RINGS, BRICKS)
_BUSY_WEIGHTS = (3, 2, 3, 2, 2, 2)


class Palette:
    """Draw colours of one family: greys, pastels, natural or saturated, around one to three hues."""

    def __init__(self, rng: Random) -> None:
        """Choose the family."""
        self.rng = rng
        kind = rng.random()
        if kind < 0.2:
            self.saturation = (0.0, 0.12)
        elif kind < 0.65:
            self.saturation = (0.15, 0.65)
        else:
            self.saturation = (0.6, 1.0)
        self.value = rng.choice([(0.15, 0.95), (0.35, 1.0), (0.55, 1.0), (0.1, 0.6)])
        self.hues = [rng.random() for _ in range(rng.choice([1, 2, 3, 3, 5]))]

    def color(self) -> Color:
        """Draw a colour; one in six is a grey whatever the family."""
        rng = self.rng
        value = rng.uniform(*self.value)
        if rng.random() < 0.17:
            return hsv(0, 0, rng.uniform(0.05, 1))
        return hsv(rng.choice(self.hues) + rng.gauss(0, 0.03), rng.uniform(*self.saturation), value)

    def near(self, color: Color, spread: float) -> Color:
        """Draw a colour like another one."""
        rng = self.rng
        shift = rng.gauss(0, spread)
        red, green, blue = (min(max(part + shift + rng.gauss(0, spread / 2), 0), 1) for part in color)
        return (red, green, blue)


def random_style(rng: Random, palette: Palette, smoothness: float, size: float = 1.0) -> Style:
    """Draw a texture for things of about `size`; `smoothness` 0..1 is the share of plain, cloudy and graded ones, and
    lengthens periods."""
    smooth = rng.random() < smoothness
    kind = rng.choice(_SMOOTH_KINDS) if smooth else rng.choices(_BUSY_KINDS, _BUSY_WEIGHTS)[0]
    first = palette.color()
    strong = rng.random() < 0.5
    second = palette.color() if strong else palette.near(first, 0.25)
    third = palette.near(first, 0.2)
    period = size * rng.uniform(0.25, 0.8) * (1 + smoothness * rng.random())
    stretch = (1.0, 1.0, 1.0)
    if kind in (NOISE, SPOTS) and rng.random() < 0.3:
        stretch = (1.0, 1.0, rng.uniform(2, 5))
    amount, warp = _parameters(rng, kind)
    if kind == GRADIENT:
        period *= 2
    elif kind in (MARKS, BRICKS):
        period *= 0.5
    return Style(
        kind=kind,
        period=(period * stretch[0], period * stretch[1], period * stretch[2]),
        colors=(first, second, third),
        softness=rng.uniform(0.04, 0.3) if kind != MARKS else 0.1,
        amount=amount,
        warp=warp,
        mottle=rng.uniform(0.2, 0.8) if rng.random() < 0.35 else 0.0,
        gloss=rng.uniform(0.05, 0.4) if rng.random() < 0.3 else 0.0,
    )


def _parameters(rng: Random, kind: int) -> tuple[float, float]:
    """Draw the pattern's amount and warp."""
    if kind == NOISE:
        return rng.uniform(1.2, 4), rng.uniform(0, 0.8)
    if kind == GRADIENT:
        return rng.uniform(0.7, 1.4), rng.uniform(0, 0.5)
    if kind == SPOTS:
        amount = rng.uniform(0.2, 0.42)
        return amount, rng.uniform(0, 2 * (0.48 - amount))
    if kind == MARKS:
        return rng.uniform(0.5, 0.9), 0.0
    if kind == BRICKS:
        return rng.uniform(0.2, 0.6), rng.choice([0.0, 0.15, 0.4])
    return rng.uniform(0.25, 0.75), rng.choice([0.0, 0.0, rng.uniform(0.1, 0.8)])
