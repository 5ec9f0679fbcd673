"""Posed views in, Gaussians out: tokenizer, backbone and head as one model."""

import dataclasses
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from lrm_ttt.errors import InvalidConfig
from lrm_ttt.model.backbone import Precision
from lrm_ttt.model.config import ModelConfig
from lrm_ttt.model.cuda_graphs import GraphedPass
from lrm_ttt.model.evidence import distance_range
from lrm_ttt.model.heads.evidence import EvidenceGaussianHead
from lrm_ttt.model.heads.gaussian import GaussianHead
from lrm_ttt.model.scene_model import SceneModel
from lrm_ttt.model.state import SceneState
from lrm_ttt.model.tokenizer import ViewTokens
from lrm_ttt.parallel.gaussians import gather_gaussians
from lrm_ttt.parallel.sharing import Sharing, share_views
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
        self._graphed: GraphedPass | None = None

    def query(self, state: SceneState, queries: Views, inputs: Cameras | None = None) -> Gaussians:
        """Return the Gaussians `[b, v * h * w]` of virtual views; matching evidence is gathered among these views.

        Where they are not the inputs, the cameras of the `inputs` say how large an object is.
        """
        sharing = self._sharing_of_queries(queries.shape[1])
        return self._decode(state, self.tokenize(queries, inputs, None if sharing is None else sharing.own), sharing)

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
        sharing, ranges = self._sharing_of_queries(cameras.shape[1]), distance_range(cameras, is_object, inputs)
        if sharing is not None:
            cameras, ranges = cameras[:, list(sharing.own)], ranges[:, list(sharing.own)]
        tokens = self.tokenizer.embed_rays(cameras, self.precision.compute)
        blank = torch.full((*cameras.shape, 3, *cameras.image_size), 0.5, device=tokens.device)
        return self._decode(state, ViewTokens(tokens, Views(blank, cameras), ranges, None), sharing)

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
        num_inputs = inputs.shape[1]
        chosen = list(range(num_inputs)) if virtual is None else list(virtual)
        if self.config.backbone.schedule == "causal":
            state = self.update(self.start(inputs.shape[0]), inputs)
            queries = self._sharing_of_queries(len(chosen))
            own = virtual if queries is None else [chosen[position] for position in queries.own]
            return self._decode(state, self.tokenize(inputs, own=own), queries)
        sharing = self.sharing(num_inputs)
        tokens = self.tokenize(inputs, own=None if sharing is None else sharing.own)
        if self._graphed is not None and sharing is None and not self.slices.cut(num_inputs):
            features = self._graphed(tokens.tokens)
        else:
            features = self._features(tokens.tokens, sharing)
        # The tokens themselves have had their day, and need not be held beside the features.
        tokens = dataclasses.replace(tokens, tokens=features)
        if virtual is not None:
            here = chosen if sharing is None else [sharing.own.index(view) for view in sharing.own if view in chosen]
            tokens, sharing = tokens[:, here], None if sharing is None else sharing.among(chosen)
        return self._shown(tokens.tokens, tokens, sharing)

    def use_cuda_graphs(self) -> None:
        """Launch the pass over the tokens of inputs as one CUDA graph for each shape, when no gradients are taken.

        For many small scenes of one size, on which launching kernels takes longer than they do. A recorded pass keeps
        its memory, the precision and the place of the weights: call this anew after changing these.
        """
        self._graphed = GraphedPass(self._features)

    def _features(self, tokens: Float[Tensor, "b v n d"], sharing: Sharing | None = None) -> Float[Tensor, "b v n d"]:
        return self.backbone.update(tokens, self.start(tokens.shape[0]), self.precision, self.slices, sharing)[1]

    def _decode(self, state: SceneState, tokens: ViewTokens, sharing: Sharing | None) -> Gaussians:
        features = self.backbone.query(tokens.tokens, state, self.precision, self.slices)
        return self._shown(features, tokens, sharing)

    def _shown(self, features: Tensor, tokens: ViewTokens, sharing: Sharing | None) -> Gaussians:
        """Decode this rank's queries, and gather those of its group."""
        tokens = dataclasses.replace(tokens, sharing=sharing)
        gaussians = self.head(features, tokens, self.precision.compute, self.slices)
        if sharing is None:
            return gaussians
        height, width = tokens.views.image_size
        return gather_gaussians(gaussians, sharing, height * width if self.slices.keep is None else None)

    def _sharing_of_queries(self, num_queries: int) -> Sharing | None:
        return share_views(num_queries, self.group) if self.group.is_shared else None
