"""Random looks: colour palettes that belong together, and textures from smooth to busy."""

from collections.abc import Callable
from random import Random

from lrm_ttt.data.procedural_builder import Color, Style, hsv
from lrm_ttt.data.procedural_textures import BRICKS, CHECKS, GRADIENT, MARKS, NOISE, PANEL, PLAIN, RINGS, SPOTS, STRIPES

Styles = Callable[[], Style]

_SMOOTH_KINDS = (PLAIN, NOISE, GRADIENT)
_BUSY_KINDS = (STRIPES, CHECKS, SPOTS, MARKS, RINGS, BRICKS)
_BUSY_WEIGHTS = (3, 2, 3, 2, 2, 2)


class Looks:
    """Draw colours and textures of one family for one scene.

    Colours are greyish, natural or saturated, around a few hues, with strangers among them. `smoothness` 0..1 is the
    share of plain, cloudy and graded textures, and lengthens periods.
    """

    def __init__(self, rng: Random, smoothness: float) -> None:
        """Choose the family."""
        self.rng = rng
        self.smoothness = smoothness
        self.saturation = rng.choices([(0.0, 0.15), (0.1, 0.6), (0.5, 1.0)], (2, 5, 4))[0]
        self.value = rng.choices([(0.2, 0.95), (0.4, 1.0), (0.6, 1.0), (0.12, 0.7)], (3, 3, 3, 1))[0]
        self.hues = [rng.random() for _ in range(rng.choice([1, 2, 3, 4, 6]))]
        self.strangers = rng.choice([0.0, 0.1, 0.3])

    def color(self) -> Color:
        """Draw a colour; one in six is a grey whatever the family."""
        rng = self.rng
        if rng.random() < 0.17:
            return hsv(0, 0, rng.uniform(0.08, 1))
        if rng.random() < self.strangers:
            return hsv(rng.random(), rng.random(), rng.uniform(0.3, 1))
        return hsv(rng.choice(self.hues) + rng.gauss(0, 0.03), rng.uniform(*self.saturation), rng.uniform(*self.value))

    def near(self, color: Color, spread: float) -> Color:
        """Draw a colour like another one."""
        rng = self.rng
        shift = rng.gauss(0, spread)
        red, green, blue = (min(max(part + shift + rng.gauss(0, spread / 2), 0.0), 1.0) for part in color)
        return (red, green, blue)

    def style(self, size: float = 1.0) -> Style:
        """Draw a texture for things of about `size`."""
        rng = self.rng
        smooth = rng.random() < self.smoothness
        kind = rng.choice(_SMOOTH_KINDS) if smooth else rng.choices(_BUSY_KINDS, _BUSY_WEIGHTS)[0]
        first = self.color()
        second = self.color() if rng.random() < 0.5 else self.near(first, 0.25)
        period = size * rng.uniform(0.25, 0.8) * (1 + self.smoothness * rng.random())
        period *= {GRADIENT: 2.0, MARKS: 0.5, BRICKS: 0.5}.get(kind, 1.0)
        stretch = rng.uniform(2, 5) if kind in (NOISE, SPOTS) and rng.random() < 0.3 else 1.0
        amount, warp = _parameters(rng, kind)
        return Style(
            kind=kind,
            period=(period, period, period * stretch),
            colors=(first, second, self.near(first, 0.2)),
            softness=rng.uniform(0.04, 0.3),
            amount=amount,
            warp=warp,
            mottle=rng.uniform(0.2, 0.8) if rng.random() < 0.35 else 0.0,
            gloss=rng.uniform(0.05, 0.4) if rng.random() < 0.3 else 0.0,
        )

    def print(self) -> Style:
        """Draw a printed face: a ground, a frame and a sign in three colours."""
        rng = self.rng
        ground = self.color() if rng.random() < 0.6 else self.near((0.9, 0.85, 0.75), 0.08)
        colors = (ground, self.color(), self.color())
        mottle = rng.uniform(0.1, 0.3) if rng.random() < 0.3 else 0.0
        return Style(PANEL, (1.0, 1.0, 1.0), colors, 0.03, rng.choice([0.0, 0.15, 0.25, 0.3]), 0.0, mottle, 0.0)


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
