"""The objective: named terms and their weighted sum."""

import dataclasses

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lrm_ttt.losses import geometry, photometric, regularisers
from lrm_ttt.losses.config import LossConfig
from lrm_ttt.losses.perceptual import PerceptualError
from lrm_ttt.scene.gaussians import Gaussians
from lrm_ttt.scene.views import Renderings, Views


@dataclasses.dataclass(frozen=True)
class LossTerms:
    """Terms before weighting, by name, and their weighted sum `total`."""

    terms: dict[str, Float[Tensor, ""]]
    total: Float[Tensor, ""]


class Objective(nn.Module):
    """Weigh the terms of `LossConfig`; only those of positive weight are computed.

    Raises `InvalidConfig` when made if the perceptual term is wanted and its weights are not there.
    """

    def __init__(self, config: LossConfig, patch_size: int) -> None:
        super().__init__()
        self.config = config
        self.patch_size = patch_size
        self.perceptual = None
        if config.perceptual > 0:
            assert config.perceptual_weights is not None
            self.perceptual = PerceptualError(config.perceptual_network, config.perceptual_weights)

    def forward(self, renderings: Renderings, targets: Views, gaussians: Gaussians | None, inputs: Views) -> LossTerms:
        """Compare renderings `[b v]` with targets, and Gaussians, if any, with the depths and masks of their inputs.

        There is one Gaussian per pixel of the inputs. Terms that need depths or masks are left out where the views have
        none (rooms have no mask).
        """
        terms = self._photometric(renderings, targets)
        if gaussians is not None:
            terms |= self._geometric(gaussians, inputs)
        weighted = [getattr(self.config, name) * term for name, term in terms.items()]
        assert weighted, "every loss weight is 0"
        return LossTerms(terms, torch.stack(weighted).sum())

    def _photometric(self, renderings: Renderings, targets: Views) -> dict[str, Tensor]:
        config, terms = self.config, {}
        if config.mse > 0:
            terms["mse"] = photometric.color_error(renderings.colors, targets.images)
        if self.perceptual is not None:
            terms["perceptual"] = self.perceptual(renderings.colors.flatten(0, 1), targets.images.flatten(0, 1))
        if config.alpha > 0 and targets.masks is not None:
            terms["alpha"] = photometric.alpha_error(renderings.alphas, targets.masks)
        return terms

    def _geometric(self, gaussians: Gaussians, inputs: Views) -> dict[str, Tensor]:
        config, terms = self.config, {}
        if inputs.depths is not None and (config.position > 0 or config.depth > 0):
            z = geometry.own_depths(gaussians.means, inputs.cameras)
            depths, known = geometry.surface(inputs, self.patch_size)
            if config.position > 0:
                terms["position"] = geometry.position_error(z, depths, known, config.position_beta)
            if config.depth > 0:
                terms["depth"] = geometry.relative_disparity_error(z, depths, known)
        if config.opacity > 0:
            terms["opacity"] = regularisers.mean_opacity(gaussians.opacities)
        if config.coverage > 0 and inputs.masks is not None:
            terms["coverage"] = regularisers.stray_opacity(gaussians.opacities, inputs, self.patch_size)
        return terms
