"""Posed views in, Gaussians out: tokenizer, backbone and head as one model."""

import dataclasses
from collections.abc import Sequence

import torch

from lrm_ttt.errors import InvalidConfig
from lrm_ttt.model.backbone import Precision
from lrm_ttt.model.config import ModelConfig
from lrm_ttt.model.evidence import distance_range
from lrm_ttt.model.heads.evidence import EvidenceGaussianHead
from lrm_ttt.model.heads.gaussian import GaussianHead
from lrm_ttt.model.scene_model import SceneModel
from lrm_ttt.model.state import SceneState
from lrm_ttt.model.tokenizer import ViewTokens
from lrm_ttt.scene.cameras import Cameras
from lrm_ttt.scene.gaussians import Gaussians
from lrm_ttt.scene.views import Views


class Reconstructor(SceneModel):
    """The feed-forward reconstructor of tttLRM (arXiv 2602.20160): virtual views query the state for Gaussians."""

    def __init__(self, config: ModelConfig, precision: Precision | None = None) -> None:
        super().__init__(config, precision)
        width, patch_size = config.backbone.width, config.tokenizer.patch_size
        if config.head.distance == "evidence":
            assert config.tokenizer.evidence is not None
            self.head = EvidenceGaussianHead(width, patch_size, config.head, config.tokenizer.evidence)
        else:
            self.head = GaussianHead(width, patch_size, config.head)

    def query(self, state: SceneState, queries: Views, inputs: Cameras | None = None) -> Gaussians:
        """Return the Gaussians `[b, v * h * w]` of virtual views; matching evidence is gathered among these views.

        Where they are not the inputs, the cameras of the `inputs` say how large an object is.
        """
        return self._decode(state, self.tokenize(queries, inputs))

    def query_cameras(
        self, state: SceneState, cameras: Cameras, is_object: bool = False, inputs: Cameras | None = None
    ) -> Gaussians:
        """Return the Gaussians of virtual views `[b v]` without images, whose tokens carry rays alone.

        `is_object` says that the inputs had masks, on which the range of the distances depends; `inputs` as in `query`.
        Raises `InvalidConfig` for a model that takes colours from the images of its virtual views.
        """
        if self.config.tokenizer.evidence is not None:
            raise InvalidConfig(
                "This model matches the images of its virtual views, and cameras alone have none: give them images, or "
                "use a model without tokenizer.evidence."
            )
        tokens = self.tokenizer.embed_rays(cameras, self.precision.compute)
        blank = torch.full((*cameras.shape, 3, *cameras.image_size), 0.5, device=tokens.device)
        ranges = distance_range(cameras, is_object, inputs)
        return self._decode(state, ViewTokens(tokens, Views(blank, cameras), ranges, None))

    def forward(self, inputs: Views, virtual: Sequence[int] | None = None) -> Gaussians:
        """Reconstruct from `inputs`, with all of them as virtual views, or those at the positions `virtual`.

        Matching evidence is gathered among all inputs, whichever of them are virtual views. With the schedules `single`
        and `chunked` the features that the inputs read are those that the virtual views would read, so the second pass
        is not computed (MODEL.md, A fact worth 1.67x).
        """
        if virtual is not None and (not virtual or not all(0 <= index < inputs.shape[1] for index in virtual)):
            raise InvalidConfig(
                f"Virtual views must be positions among the {inputs.shape[1]} inputs, not {list(virtual)}."
            )
        chosen = slice(None) if virtual is None else list(virtual)
        if self.config.backbone.schedule == "causal":
            state = self.update(self.start(inputs.shape[0]), inputs)
            return self._decode(state, self.tokenize(inputs)[:, chosen])
        tokens = self.tokenize(inputs)
        _, features = self.backbone.update(tokens.tokens, self.start(inputs.shape[0]), self.precision, self.slices)
        # The tokens themselves have had their day, and need not be held beside the features.
        tokens = dataclasses.replace(tokens, tokens=features)[:, chosen]
        return self.head(tokens.tokens, tokens, self.precision.compute, self.slices)

    def _decode(self, state: SceneState, tokens: ViewTokens) -> Gaussians:
        features = self.backbone.query(tokens.tokens, state, self.precision, self.slices)
        return self.head(features, tokens, self.precision.compute, self.slices)
