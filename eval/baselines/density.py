"""What changes the Gaussians while they are optimised: our own strategies on the CPU, gsplat's on CUDA."""

from typing import Protocol, runtime_checkable

import torch

from lrm_ttt.eval.baselines.adaptive import AdaptiveDensity
from lrm_ttt.eval.baselines.config import OptimiseConfig
from lrm_ttt.eval.baselines.gsplat_density import GsplatAdaptive, GsplatMcmc
from lrm_ttt.eval.baselines.mcmc import McmcDensity
from lrm_ttt.eval.baselines.seen import Seen
from lrm_ttt.eval.baselines.splats import Splats


@runtime_checkable
class Density(Protocol):
    """A strategy, told of every step."""

    def watches(self, step: int) -> bool:
        """Say whether it wants to know what is seen in this step."""
        ...

    def after_step(self, splats: Splats, step: int, seen: Seen | None, means_lr: float) -> None:
        """Change the Gaussians where it is time, after the optimisers have made step number `step` (from 0)."""
        ...


def build_density(config: OptimiseConfig, device: torch.device, generator: torch.Generator) -> Density:
    """Return the strategy that the configuration names.

    On CUDA it is gsplat's, which draws from torch's global random numbers. Raises `BackendUnavailable` without it.
    """
    if device.type == "cuda":
        if config.strategy == "adaptive":
            return GsplatAdaptive(config.adaptive, config.iterations)
        return GsplatMcmc(config.mcmc, config.iterations)
    if config.strategy == "adaptive":
        return AdaptiveDensity(config.adaptive, config.iterations, generator)
    return McmcDensity(config.mcmc, config.iterations, generator)
