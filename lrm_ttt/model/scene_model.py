"""What all models share: views become tokens, and tokens update the state of a scene."""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from lrm_ttt.layers.block import Block
from lrm_ttt.layers.initialisation import fill_normal
from lrm_ttt.model.backbone import Backbone, Precision
from lrm_ttt.model.config import ModelConfig
from lrm_ttt.model.hub import HubModel
from lrm_ttt.model.slices import WHOLE, Slices
from lrm_ttt.model.state import SceneState
from lrm_ttt.model.tokenizer import Tokenizer, ViewTokens
from lrm_ttt.parallel.sharing import Sharing, share_views
from lrm_ttt.parallel.view_group import ALONE, ViewGroup
from lrm_ttt.scene.cameras import Cameras
from lrm_ttt.scene.views import Views


class SceneModel(nn.Module, HubModel):
    """Tokenizer and backbone; a subclass adds what queries the state and what they become.

    Nothing is mutated: the scene state is an argument and a result. Views are `[b v]`, in the scene's normalised frame
    (scene/similarity.py, `config.normalisation`), with height and width multiples of the patch size. `precision` is an
    attribute because every part shares it, and so is `slices`, which says how many views are worked on at a time;
    parameters stay fp32. The ranks of a view group (`share`) are all given all views of a scene: each embeds its own,
    and all come to the same state and the same Gaussians.
    """

    # What features become; each kind of model has its own.
    head: nn.Module

    def __init__(self, config: ModelConfig, precision: Precision | None = None) -> None:
        super().__init__()
        self.config = config
        self.precision = precision or Precision()
        self.slices: Slices = WHOLE
        self.group: ViewGroup = ALONE
        self.tokenizer = Tokenizer(config.backbone.width, config.tokenizer)
        self.backbone = Backbone(config.backbone)
        for embed in (self.tokenizer.embed, getattr(self.tokenizer, "embed_evidence", None)):
            if embed is not None:
                fill_normal(embed.weight)

    def share(self, group: ViewGroup) -> None:
        """Share every scene with the other ranks of `group` from now on; all of them must call the same functions."""
        self.group = group
        for block in self.backbone.blocks:
            cast(Block, block).memory.group = group

    def tokenize(self, views: Views, inputs: Cameras | None = None, own: Sequence[int] | None = None) -> ViewTokens:
        """Embed views, or those at the positions `own`; matching evidence, where configured, is gathered among all.

        The cameras of the `inputs` (None: these views) say how large an object is.
        """
        return self.tokenizer(views, self.precision.compute, self.slices, inputs, own)

    def start(self, batch_size: int) -> SceneState:
        """Return the state before any view."""
        return self.backbone.start(batch_size)

    def update(self, state: SceneState, views: Views) -> SceneState:
        """Return the state after `views` (see `Backbone.update` for which schedules can go on).

        With the schedule `causal`, matching evidence is gathered within each chunk of `views_per_update` views, so
        that a stream of chunks writes what one pass over all of them writes.
        """
        sharing = self.sharing(views.shape[1])
        return self.backbone.update(self._written(views, sharing), state, self.precision, self.slices, sharing)[0]

    def sharing(self, num_views: int) -> Sharing | None:
        """Return how the view group shares the views of an update; None where there is no group."""
        config = self.config.backbone
        step = None if config.schedule == "single" else config.views_per_update
        return share_views(num_views, self.group, step) if self.group.is_shared else None

    def _written(self, views: Views, sharing: Sharing | None) -> Tensor:
        own = None if sharing is None else sharing.own
        if self.config.backbone.schedule != "causal" or self.config.tokenizer.evidence is None:
            return self.tokenize(views, own=own).tokens
        tokens, step = [], self.config.backbone.views_per_update
        for start in range(0, views.shape[1], step):
            part = None if own is None else [view - start for view in own if start <= view < start + step]
            if part != []:
                tokens.append(self.tokenize(views[:, start : start + step], own=part).tokens)
        return torch.cat(tokens, 1)

    @property
    def num_parameters(self) -> int:
        """Trained parameters, the initial fast weights among them."""
        return sum(parameter.numel() for parameter in self.parameters())
