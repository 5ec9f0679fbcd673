"""3D Gaussian splatting as Markov chain Monte Carlo (arXiv 2404.09591), the twin of gsplat's MCMCStrategy."""

import functools
import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lrm_ttt.eval.baselines.config import McmcConfig
from lrm_ttt.eval.baselines.seen import Seen
from lrm_ttt.eval.baselines.splats import Splats, replace, take
from lrm_ttt.scene.rotations import rotate_by_wxyz

# One Gaussian becomes at most so many at a time.
MOST_COPIES = 51
GROWTH = 1.05
# Noise is for what is nearly transparent: its share is a sigmoid of this steepness around the opacity 0.005, which
# leaves less than a millionth of it to opacities above MOST_OPACITY.
STEEPNESS, MIDDLE, MOST_OPACITY = 100.0, 0.005, 0.15


class McmcDensity:
    """Move dead Gaussians onto live ones, add some up to a cap, and shake those that are nearly transparent."""

    def __init__(self, config: McmcConfig, iterations: int, generator: torch.Generator) -> None:
        self.config = config
        self.stop = round(config.stop * iterations)
        self.generator = generator

    def watches(self, step: int) -> bool:
        """Say that what is seen does not matter."""
        return False

    @torch.no_grad()
    def after_step(self, splats: Splats, step: int, seen: Seen | None, means_lr: float) -> None:
        """Change the Gaussians where it is time after step number `step` (from 0), and shake them always."""
        config = self.config
        if config.start < step < self.stop and step % config.every == 0:
            dead = splats.parameters["opacities"].sigmoid() <= config.min_opacity
            if dead.any() and not dead.all():
                relocate(splats, dead, config.min_opacity, self.generator)
            more = min(config.cap, int(GROWTH * splats.num_gaussians)) - splats.num_gaussians
            if more > 0:
                add(splats, more, config.min_opacity, self.generator)
        shake(splats, means_lr * config.noise, self.generator)


@torch.no_grad()
def relocate(splats: Splats, dead: Tensor, min_opacity: float, generator: torch.Generator) -> None:
    """Move the dead Gaussians (a mask) onto live ones, drawn by opacity, so that the image stays about the same."""
    alive, places = (~dead).nonzero()[:, 0], dead.nonzero()[:, 0]
    chances = splats.parameters["opacities"].detach().sigmoid()[alive]
    drawn = alive[torch.multinomial(chances, len(places), replacement=True, generator=generator)]
    share(splats, drawn, min_opacity)

    def moment(part: Tensor) -> Tensor:
        return part.index_fill(0, drawn, 0)

    for name, parameter in list(splats.parameters.items()):
        value = parameter.detach()
        value[places] = value[drawn]
        replace(splats, name, value, moment)


@torch.no_grad()
def add(splats: Splats, number: int, min_opacity: float, generator: torch.Generator) -> None:
    """Add Gaussians on top of others, drawn by opacity, so that the image stays about the same."""
    chances = splats.parameters["opacities"].detach().sigmoid()
    drawn = torch.multinomial(chances, number, replacement=True, generator=generator)
    share(splats, drawn, min_opacity)
    take(splats, torch.cat([torch.arange(splats.num_gaussians), drawn]), number)


@torch.no_grad()
def share(splats: Splats, drawn: Int[Tensor, "m"], min_opacity: float) -> None:
    """Give each drawn Gaussian the opacity and scales of one of as many as it will be: itself and its copies."""
    opacities, scales = splats.parameters["opacities"], splats.parameters["scales"]
    copies = torch.bincount(drawn)[drawn] + 1
    shared, factors = shares(opacities[drawn].sigmoid(), copies)
    opacities[drawn] = shared.clamp(min_opacity, 1 - torch.finfo(torch.float32).eps).logit()
    scales[drawn] = (scales[drawn].exp() * factors[:, None]).log()


def shares(opacities: Float[Tensor, "m"], copies: Int[Tensor, "m"]) -> tuple[Float[Tensor, "m"], Float[Tensor, "m"]]:
    """Return the opacity of each of some equal Gaussians that replace one, and the factor of their scales.

    arXiv 2404.09591, equation 9, with its two sums of binomial coefficients taken together. In float64, for the terms
    cancel.
    """
    copies = copies.clamp(max=MOST_COPIES)
    whole = opacities.double()
    shared = 1 - (1 - whole) ** (1 / copies.double())
    powers = shared[:, None] ** torch.arange(1, MOST_COPIES + 1)
    denominators = (_alternating_binomials()[copies] * powers).sum(-1)
    return shared.to(opacities), (whole / denominators).to(opacities)


@functools.cache
def _alternating_binomials() -> Float[Tensor, "n k"]:
    """Return (-1)^(k - 1) binomial(n, k) / sqrt(k) for n from 0 and k from 1 to MOST_COPIES."""
    numbers = range(MOST_COPIES + 1)
    rows = [[-((-1) ** k) * math.comb(n, k) / math.sqrt(k) for k in numbers[1:]] for n in numbers]
    return torch.tensor(rows, dtype=torch.float64)


@torch.no_grad()
def shake(splats: Splats, strength: float, generator: torch.Generator) -> None:
    """Move what is nearly transparent at random, by `strength` times its covariance times a standard normal vector.

    The vector is drawn in the axes of the Gaussian, where it is as likely as in those of the world.
    """
    parameters = splats.parameters
    faint = (parameters["opacities"] < math.log(MOST_OPACITY / (1 - MOST_OPACITY))).nonzero()[:, 0]
    if not len(faint):
        return
    opacities = parameters["opacities"][faint].sigmoid()
    weights = strength * torch.sigmoid(STEEPNESS * (MIDDLE - opacities))
    noise = torch.randn(len(faint), 3, generator=generator) * weights[:, None]
    variances = (2 * parameters["scales"][faint]).exp()
    parameters["means"].index_add_(0, faint, rotate_by_wxyz(parameters["quats"][faint], variances * noise))
