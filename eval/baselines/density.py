"""What changes the number of Gaussians while they are optimised: our own strategies on the CPU, gsplat's on CUDA."""

from typing import NamedTuple, Protocol

from jaxtyping import Float, Num
from torch import Tensor

from lrm_ttt.eval.baselines.splats import Splats
from lrm_ttt.scene.cameras import ImageSize


class Seen(NamedTuple):
    """What one drawing says of the Gaussians: positions in the image, whose gradient counts, and radii in pixels."""

    means2d: Float[Tensor, "v n 2"]
    radii: Num[Tensor, "v n"]
    image_size: ImageSize


class Density(Protocol):
    """A strategy, told of every step."""

    def after_step(self, splats: Splats, step: int, seen: Seen, means_lr: float) -> None:
        """Change the Gaussians where it is time, after the optimisers have made step number `step` (from 0)."""
        ...
