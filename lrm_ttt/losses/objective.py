"""The objective: named terms and their weighted sum."""

import dataclasses
import logging
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lrm_ttt.losses import geometry, photometric, regularisers
from lrm_ttt.losses.config import LossConfig
from lrm_ttt.losses.depth_teacher import DepthTeacher
from lrm_ttt.losses.perceptual import PerceptualError
from lrm_ttt.scene.gaussians import Gaussians
from lrm_ttt.scene.views import Renderings, Views

logger = logging.getLogger("lrm_ttt.losses")


@dataclasses.dataclass(frozen=True)
class LossTerms:
    """Terms before weighting, by name, and their weighted sum `total`."""

    terms: dict[str, Float[Tensor, ""]]
    total: Float[Tensor, ""]


class Objective(nn.Module):
    """Weigh the terms of `LossConfig`; only those of positive weight are computed.

    `perceptual` and `teacher` are the networks that the configuration asks for: `build_objectives` gives them.
    """

    def __init__(
        self,
        config: LossConfig,
        patch_size: int,
        perceptual: PerceptualError | None = None,
        teacher: DepthTeacher | None = None,
    ) -> None:
        super().__init__()
        assert (perceptual is not None) == (config.perceptual > 0)
        self.config = config
        self.patch_size = patch_size
        self.perceptual = perceptual
        self.teacher = teacher
        self.said = False

    def forward(
        self,
        renderings: Renderings,
        targets: Views,
        gaussians: Gaussians | None,
        inputs: Views,
        depths: Float[Tensor, "b v 1 h w"] | None = None,
    ) -> LossTerms:
        """Compare renderings `[b v]` with targets, and Gaussians, if any, with the depths and masks of their inputs.

        There is one Gaussian per pixel of the inputs. Terms that need depths or masks are left out where the views have
        none (rooms have no mask). `depths` are what `teach` gave for these inputs where ranks share them; None asks it
        here.
        """
        terms = self._photometric(renderings, targets)
        if gaussians is not None:
            terms |= self._geometric(gaussians, inputs, self.teach(inputs) if depths is None else depths)
        weighted = [getattr(self.config, name) * term for name, term in terms.items()]
        assert weighted, "every loss weight is 0"
        return LossTerms(terms, torch.stack(weighted).sum())

    def teach(self, inputs: Views) -> Float[Tensor, "b v 1 h w"] | None:
        """Return what the depth term follows: the depths of the inputs, and the teacher's for views that have none.

        None where nothing is known or asked for. Each view is looked at alone, so the ranks of a view group may share
        them out and gather the result. The teacher's depths have a unit and offset of their own; 0 is unknown.
        """
        if self.config.depth == 0:
            return None
        if inputs.depths is None and self.teacher is None and not self.said:
            logger.warning("losses.depth counts for nothing in scenes without depths: name a losses.depth_teacher")
            self.said = True
        if self.teacher is None or inputs.depths is None:
            return inputs.depths if self.teacher is None else self.teacher(inputs.images)
        lacking = ~(inputs.depths > 0).flatten(2).any(-1)
        if not lacking.any():
            return inputs.depths
        depths = inputs.depths.clone()
        depths[lacking] = self.teacher(inputs.images[lacking][None])[0].to(depths.dtype)
        return depths

    def _photometric(self, renderings: Renderings, targets: Views) -> dict[str, Tensor]:
        config, terms = self.config, {}
        if config.mse > 0:
            terms["mse"] = photometric.color_error(renderings.colors, targets.images)
        if self.perceptual is not None:
            terms["perceptual"] = self.perceptual(renderings.colors.flatten(0, 1), targets.images.flatten(0, 1))
        if config.alpha > 0 and targets.masks is not None:
            terms["alpha"] = photometric.alpha_error(renderings.alphas, targets.masks)
        return terms

    def _geometric(self, gaussians: Gaussians, inputs: Views, taught: Tensor | None) -> dict[str, Tensor]:
        config, terms = self.config, {}
        if config.position > 0 and inputs.depths is not None:
            z = geometry.own_depths(gaussians.means, inputs.cameras)
            depths, known = geometry.surface(inputs, self.patch_size)
            terms["position"] = geometry.position_error(z, depths, known, config.position_beta)
        if config.depth > 0 and taught is not None:
            z = geometry.own_depths(gaussians.means, inputs.cameras)
            depths, known = geometry.surface(dataclasses.replace(inputs, depths=taught), self.patch_size)
            terms["depth"] = geometry.relative_disparity_error(z, depths, known)
        if config.opacity > 0:
            terms["opacity"] = regularisers.mean_opacity(gaussians.opacities)
        if config.coverage > 0 and inputs.masks is not None:
            terms["coverage"] = regularisers.stray_opacity(gaussians.opacities, inputs, self.patch_size)
        return terms


def build_objectives(configs: Sequence[LossConfig], patch_size: int) -> list[Objective]:
    """Return the objective of each stage; stages that ask for the same network share it.

    Reads all weights, so that what is missing shows before a run begins: raises `InvalidConfig` for weights that are
    not there, and `BackendUnavailable` where a depth teacher is named and transformers is not installed.
    """
    networks: dict[tuple[str, str | None], PerceptualError] = {}
    teachers: dict[tuple[str, str | None], DepthTeacher] = {}
    objectives = []
    for config in configs:
        perceptual, teacher = None, None
        if config.perceptual > 0:
            wanted = config.perceptual_network, config.perceptual_weights
            perceptual = networks[wanted] = networks.get(wanted) or PerceptualError(*wanted)
        if config.depth > 0 and config.depth_teacher is not None:
            name = config.depth_teacher, config.depth_teacher_predicts
            teacher = teachers[name] = teachers.get(name) or DepthTeacher(*name)
        objectives.append(Objective(config, patch_size, perceptual, teacher))
    return objectives
