"""Posed views in, a radiance field on three planes out, rendered by volume rendering."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lrm_ttt.layers.initialisation import fill_normal
from lrm_ttt.model.backbone import Precision
from lrm_ttt.model.config import ModelConfig
from lrm_ttt.model.heads.triplane import TriplaneHead
from lrm_ttt.model.scene_model import SceneModel
from lrm_ttt.model.state import SceneState
from lrm_ttt.render.volume import render_volume
from lrm_ttt.scene.cameras import Cameras
from lrm_ttt.scene.triplanes import Triplanes
from lrm_ttt.scene.views import Renderings, Views


class TriplaneModel(SceneModel):
    """The triplane model of tttLRM (arXiv 2602.20160): learned tokens, one for each patch of the three planes, query
    the memory in place of virtual views; they attend jointly, and write nothing.
    """

    def __init__(self, config: ModelConfig, precision: Precision | None = None) -> None:
        super().__init__(config, precision)
        triplane = config.triplane
        num_tokens = 3 * (triplane.resolution // triplane.patch_size) ** 2
        # As large as the tokens of views, which leave a layer norm.
        self.queries = nn.Parameter(torch.empty(num_tokens, config.backbone.width))
        fill_normal(self.queries, 1.0)
        self.head = TriplaneHead(config.backbone.width, triplane)

    def query(self, state: SceneState) -> Triplanes:
        """Return the field of each scene that the state holds."""
        batch = next(iter(state.tensors().values())).shape[0]
        window = self.queries.expand(batch, 1, *self.queries.shape)
        features = self.backbone.query(window, state, self.precision)
        return self.head(features[:, 0], self.precision.compute)

    def render(
        self,
        triplanes: Triplanes,
        cameras: Cameras,
        backgrounds: Float[Tensor, "b 3"] | None = None,
        generator: torch.Generator | None = None,
    ) -> Renderings:
        """Render cameras `[b v]` with the samples that the configuration names (`render_volume`)."""
        config = self.config.triplane
        samples = config.num_stratified, config.num_importance, config.rays_per_chunk
        return render_volume(triplanes, cameras, backgrounds, *samples, generator)

    def forward(
        self,
        inputs: Views,
        targets: Cameras,
        backgrounds: Float[Tensor, "b 3"] | None = None,
        generator: torch.Generator | None = None,
    ) -> Renderings:
        """Reconstruct from `inputs` and render the targets."""
        return self.render(self.reconstruct(inputs), targets, backgrounds, generator)

    def reconstruct(self, inputs: Views) -> Triplanes:
        """Return the fields of `inputs` alone."""
        return self.query(self.update(self.start(inputs.shape[0]), inputs))
