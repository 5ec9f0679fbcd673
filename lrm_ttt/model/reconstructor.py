"""Posed views in, Gaussians out: tokenizer, backbone and head as one model."""

from collections.abc import Sequence

import torch
from torch import nn

from lrm_ttt.errors import InvalidConfig
from lrm_ttt.layers.initialisation import fill_normal
from lrm_ttt.model.backbone import Backbone, Precision
from lrm_ttt.model.config import ModelConfig
from lrm_ttt.model.heads.evidence import EvidenceGaussianHead
from lrm_ttt.model.heads.gaussian import GaussianHead
from lrm_ttt.model.state import SceneState
from lrm_ttt.model.tokenizer import Tokenizer, ViewTokens
from lrm_ttt.scene.gaussians import Gaussians
from lrm_ttt.scene.views import Views


class Reconstructor(nn.Module):
    """A feed-forward reconstructor (tttLRM, arXiv 2602.20160). Nothing is mutated: the scene state is an argument and
    a result.

    Views are `[b v]`, in the scene's normalised frame (scene/similarity.py, `config.normalisation`), with height and
    width multiples of the patch size. `precision` is an attribute because every part shares it; parameters stay fp32.
    """

    def __init__(self, config: ModelConfig, precision: Precision | None = None) -> None:
        super().__init__()
        self.config = config
        self.precision = precision or Precision()
        width, patch_size = config.backbone.width, config.tokenizer.patch_size
        self.tokenizer = Tokenizer(width, config.tokenizer)
        self.backbone = Backbone(config.backbone)
        self.head: nn.Module
        if config.head.distance == "evidence":
            assert config.tokenizer.evidence is not None
            self.head = EvidenceGaussianHead(width, patch_size, config.head, config.tokenizer.evidence)
        else:
            self.head = GaussianHead(width, patch_size, config.head)
        for embed in (self.tokenizer.embed, getattr(self.tokenizer, "embed_evidence", None)):
            if embed is not None:
                fill_normal(embed.weight)

    def tokenize(self, views: Views) -> ViewTokens:
        """Embed views; matching evidence, where configured, is gathered among these views."""
        return self.tokenizer(views, self.precision.compute)

    def start(self, batch_size: int) -> SceneState:
        """Return the state before any view."""
        return self.backbone.start(batch_size)

    def update(self, state: SceneState, views: Views) -> SceneState:
        """Return the state after `views` (see `Backbone.update` for which schedules can go on)."""
        return self.backbone.update(self.tokenize(views).tokens, state, self.precision)[0]

    def query(self, state: SceneState, queries: Views) -> Gaussians:
        """Return the Gaussians `[b, v * h * w]` of virtual views."""
        tokens = self.tokenize(queries)
        return self.head(self.backbone.query(tokens.tokens, state, self.precision), tokens, self.precision.compute)

    def forward(self, inputs: Views, virtual: Sequence[int] | None = None) -> Gaussians:
        """Reconstruct from `inputs`, with all of them as virtual views, or those at the positions `virtual`.

        With the schedules `single` and `chunked` the features that the inputs read are those that the virtual views
        would read, so the second pass is not computed (MODEL.md, A fact worth 1.67x).
        """
        tokens = self.tokenize(inputs)
        state, features = self.backbone.update(tokens.tokens, self.start(inputs.shape[0]), self.precision)
        if virtual is not None:
            if not virtual or not all(0 <= index < inputs.shape[1] for index in virtual):
                raise InvalidConfig(
                    f"Virtual views must be positions among the {inputs.shape[1]} inputs, not {list(virtual)}."
                )
            tokens, features = tokens[:, list(virtual)], features[:, list(virtual)]
        if self.config.backbone.schedule == "causal":
            features = self.backbone.query(tokens.tokens, state, self.precision)
        return self.head(features, tokens, self.precision.compute)

    @property
    def num_parameters(self) -> int:
        """Trained parameters, the initial fast weights among them."""
        return sum(parameter.numel() for parameter in self.parameters())


def compile_blocks(model: Reconstructor) -> None:
    """Compile each block's forward in place (regional compilation); the first call per shape takes a while."""
    for block in model.backbone.blocks:
        block.forward = torch.compile(block.forward, dynamic=True)
