"""How Gaussians are optimised on one scene. Free of torch.

Lengths are in units of the mean distance between the cameras and what they look at. Where nothing else is said the
values are those of the examples of gsplat 1.5.3, which are those of the papers.
"""

from dataclasses import dataclass
from typing import Literal

from lrm_ttt.errors import InvalidConfig

Strategy = Literal["adaptive", "mcmc"]


@dataclass(frozen=True)
class RatesConfig:
    """Learning rates of Adam; that of the means falls exponentially to the share `final_means` over the run."""

    means: float = 1.6e-4
    final_means: float = 0.01
    scales: float = 5e-3
    quats: float = 1e-3
    opacities: float = 5e-2
    sh0: float = 2.5e-3
    sh_rest: float = 2.5e-3 / 20


@dataclass(frozen=True)
class AdaptiveConfig:
    """Adaptive density control (arXiv 2308.04079, section 5.2)."""

    initial_opacity: float = 0.5
    """gsplat's 0.1 costs 0.5 dB with a few thousand random Gaussians."""
    initial_scale: float = 1.0
    """Times the distance to the nearest neighbours."""
    start: int = 500
    every: int = 100
    stop: float = 0.5
    """The share of the iterations after which the number of Gaussians stays: 15,000 of 30,000."""
    grow_gradient: float = 1e-3
    """Mean gradient of the position in the image (-1..1) above which a Gaussian is cloned or split.

    The 0.0002 of the paper is for a hundred photographs of a million pixels: from 4 to 16 images of 128x128 it makes
    three to six times as many Gaussians, and held-out views no better on average. 0.0005 takes 1.4 times as long for
    29.5 instead of 29.7 dB (four other procedural scenes, 4 to 16 views, 7,000 steps).
    """
    grow_scale: float = 0.01
    """Up to this scale it is cloned, above split."""
    prune_opacity: float = 0.005
    prune_scale: float = 1.0
    """Larger ones go, once the opacities have been reset.

    The 0.1 of gsplat takes the walls of a room that few images of 128x128 show: 21.9 dB on held-out views, not 25.3.
    """
    reset_every: int = 3000
    """gsplat 1.5.3 means to reset opacities so often, and by a slip of precedence never does; here it is done.

    It gains 0.5 dB (an object and a room from 8 views).
    """


@dataclass(frozen=True)
class McmcConfig:
    """3D Gaussian splatting as Markov chain Monte Carlo (arXiv 2404.09591)."""

    cap: int = 4000
    """The most Gaussians there may be: for some images of 128x128 (the papers' million is for photographs)."""
    initial_opacity: float = 0.5
    initial_scale: float = 0.7
    """Times the distance to the nearest neighbours.

    gsplat's 0.1 leaves gaps between a few thousand Gaussians. From 0.5 to 1 a room from 8 views gains 1.8 dB, and an
    object from 16 loses 1.9: the value lies between.
    """
    start: int = 500
    every: int = 100
    stop: float = 25 / 30
    noise: float = 5e5
    """Noise of the positions, in units of their learning rate."""
    min_opacity: float = 0.005
    opacity_weight: float = 0.01
    scale_weight: float = 0.01


@dataclass(frozen=True)
class OptimiseConfig:
    """3D Gaussian splatting and its descendants, with the settings of their papers where nothing else is said."""

    strategy: Strategy = "adaptive"
    """How Gaussians come and go: adaptive density control (arXiv 2308.04079) or MCMC (arXiv 2404.09591)."""
    iterations: int = 7000
    """Steps, each on one input view."""
    mip: bool = False
    """The 3D smoothing filter and antialiased drawing of Mip-Splatting (arXiv 2311.16493)."""
    initial: int = 2000
    """Gaussians to begin with; where a capture has points, the most that are taken of them."""
    sh_degree: int = 3
    """Degree of the spherical harmonics at the end."""
    sh_degree_every: int = 1000
    """Steps after which the degree rises by one, from 0."""
    rates: RatesConfig = RatesConfig()
    adaptive: AdaptiveConfig = AdaptiveConfig()
    mcmc: McmcConfig = McmcConfig()

    def __post_init__(self) -> None:
        for name in ("iterations", "initial", "sh_degree_every"):
            if getattr(self, name) < 1:
                raise InvalidConfig(f"{name} {getattr(self, name)}: at least one.")
        if not 0 <= self.sh_degree <= 3:
            raise InvalidConfig(f"sh_degree {self.sh_degree}: 0, 1, 2 or 3.")


@dataclass(frozen=True)
class ScaffoldRatesConfig:
    """Learning rates of Adam at the beginning and at the end, between which they fall exponentially."""

    offsets: tuple[float, float] = (1e-2, 1e-4)
    features: tuple[float, float] = (7.5e-3, 7.5e-3)
    scales: tuple[float, float] = (7e-3, 7e-3)
    opacity: tuple[float, float] = (2e-3, 2e-5)
    shape: tuple[float, float] = (4e-3, 4e-3)
    color: tuple[float, float] = (8e-3, 5e-5)


@dataclass(frozen=True)
class ScaffoldConfig:
    """Scaffold-GS (arXiv 2312.00109): anchors in a grid, whose Gaussians small networks make for every camera anew."""

    iterations: int = 7000
    """Steps, each on one input view."""
    initial: int = 1000
    """Points to begin with, of which those in one cell are one anchor."""
    offsets: int = 10
    """Gaussians of each anchor."""
    features: int = 32
    """Numbers that each anchor tells the networks."""
    hidden: int = 32
    """Hidden values of each network."""
    cell: float = 0.008
    """The side of the smallest cells of the grid, in which one anchor has place: about a pixel of 128 at distance 1."""
    start: int = 500
    """Steps before anchors are watched; after two more such times their number changes."""
    every: int = 100
    stop: float = 0.5
    """The share of the iterations after which the number of anchors stays: 15,000 of 30,000."""
    grow_gradient: float = 1e-3
    """Mean gradient of the position in the image (-1..1) above which a Gaussian asks for an anchor of its own."""
    prune_opacity: float = 0.005
    """Anchors go whose Gaussians have less than this together, on average over the views."""
    volume_weight: float = 1e-3
    """The weight of the sum of the products of the scales in the loss."""
    rates: ScaffoldRatesConfig = ScaffoldRatesConfig()

    def __post_init__(self) -> None:
        for name in ("iterations", "initial", "offsets", "features", "hidden", "every"):
            if getattr(self, name) < 1:
                raise InvalidConfig(f"{name} {getattr(self, name)}: at least one.")
        if self.cell <= 0:
            raise InvalidConfig(f"cell {self.cell:g}: above zero.")
