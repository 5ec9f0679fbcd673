"""How Gaussians are optimised on one scene. Free of torch."""

from dataclasses import dataclass
from typing import Literal

from lrm_ttt.errors import InvalidConfig

Strategy = Literal["adaptive", "mcmc"]


@dataclass(frozen=True)
class OptimiseConfig:
    """3D Gaussian splatting and its descendants, with the settings of their papers where nothing else is said."""

    strategy: Strategy = "adaptive"
    """How Gaussians come and go: adaptive density control (arXiv 2308.04079) or MCMC (arXiv 2404.09591)."""
    iterations: int = 7000
    """Steps, each on one input view."""
    mip: bool = False
    """The 3D smoothing filter and antialiased drawing of Mip-Splatting (arXiv 2311.16493)."""

    def __post_init__(self) -> None:
        if self.iterations < 1:
            raise InvalidConfig(f"iterations {self.iterations}: at least one.")
