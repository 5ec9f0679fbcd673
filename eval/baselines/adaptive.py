"""Adaptive density control of 3D Gaussian splatting (arXiv 2308.04079), the twin of gsplat's DefaultStrategy."""

import torch
from torch import Tensor

from lrm_ttt.eval.baselines.config import AdaptiveConfig
from lrm_ttt.eval.baselines.seen import Seen
from lrm_ttt.eval.baselines.splats import Splats, duplicate, lower_opacities, split, take


class AdaptiveDensity:
    """Clone and split Gaussians that the loss wants to move in the image, remove the faint and the huge."""

    def __init__(self, config: AdaptiveConfig, iterations: int, generator: torch.Generator) -> None:
        self.config = config
        self.stop = round(config.stop * iterations)
        self.generator = generator
        self.gradients = self.counts = torch.zeros(0)

    def watches(self, step: int) -> bool:
        """Say whether it wants to know what is seen in this step."""
        return step < self.stop

    @torch.no_grad()
    def after_step(self, splats: Splats, step: int, seen: Seen | None, means_lr: float) -> None:
        """Note what step number `step` (from 0) saw, and change the Gaussians where it is time."""
        if seen is None:
            return
        self._note(splats, seen)
        if step > self.config.start and step % self.config.every == 0:
            self._grow(splats)
            self._prune(splats, too_big=step > self.config.reset_every)
            self.gradients = self.counts = torch.zeros(0)
        if resets(self.config, step):
            lower_opacities(splats, 2 * self.config.prune_opacity)

    def _note(self, splats: Splats, seen: Seen) -> None:
        """Add up the gradients of the positions in the image, whose sides are 2, where a Gaussian was drawn."""
        if not len(self.counts):
            self.gradients = torch.zeros(splats.num_gaussians)
            self.counts = torch.zeros(splats.num_gaussians)
        (height, width), gradient = seen.image_size, seen.screen.means2d.grad
        assert gradient is not None
        x, y = gradient[0].unbind(-1)
        drawn = seen.screen.radii[0] > 0
        self.gradients += torch.hypot(x * (width / 2), y * (height / 2)) * drawn
        self.counts += drawn

    def _grow(self, splats: Splats) -> None:
        moving = self.gradients / self.counts.clamp(min=1) > self.config.grow_gradient
        small = largest_scales(splats) <= self.config.grow_scale
        cloned, halved = (moving & small).nonzero()[:, 0], (moving & ~small).nonzero()[:, 0]
        if len(cloned):
            duplicate(splats, cloned)
        if len(halved):
            split(splats, halved, self.generator)

    def _prune(self, splats: Splats, too_big: bool) -> None:
        kept = splats.parameters["opacities"].sigmoid() >= self.config.prune_opacity
        if too_big:
            kept &= largest_scales(splats) <= self.config.prune_scale
        # A strategy that has removed everything has nothing to grow from.
        if kept.any() and not kept.all():
            take(splats, kept.nonzero()[:, 0])


def largest_scales(splats: Splats) -> Tensor:
    """Return the largest standard deviation of every Gaussian."""
    return splats.parameters["scales"].detach().amax(-1).exp()


def resets(config: AdaptiveConfig, step: int) -> bool:
    """Say whether opacities are reset after this step."""
    return step > 0 and step % config.reset_every == 0
