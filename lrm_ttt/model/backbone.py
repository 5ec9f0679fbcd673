"""The stack of blocks: input tokens update the scene state, query tokens read it."""

import dataclasses
from collections.abc import Iterator
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lrm_ttt.errors import InvalidConfig
from lrm_ttt.layers.block import Block
from lrm_ttt.layers.initialisation import initialise
from lrm_ttt.model.config import BackboneConfig
from lrm_ttt.model.sliced_pass import query_in_slices, update_in_slices
from lrm_ttt.model.slices import WHOLE, Slices
from lrm_ttt.model.state import SceneState
from lrm_ttt.parallel.sharing import Sharing


@dataclasses.dataclass(frozen=True)
class Precision:
    """Dtypes of the work.

    `compute` for products, `newton_schulz` for the orthogonalisation. Parameters and fast weights stay fp32.
    """

    compute: torch.dtype = torch.float32
    newton_schulz: torch.dtype = torch.float32


class Backbone(nn.Module):
    """Blocks of window attention, memory and MLP. It knows tokens and windows, not cameras or images."""

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.config = config
        memory = config.memory if config.mixer == "fast_weight" else None
        sizes = (config.width, config.attention_head_dim, memory, config.feed_forward_multiple)
        self.blocks = nn.ModuleList(Block(*sizes) for _ in range(config.num_blocks))
        self.checkpointing = False
        initialise(self, config.num_blocks, config.scale_outputs)

    def start(self, batch_size: int) -> SceneState:
        """Return the learned state before any view."""
        return SceneState(tuple(block.memory.start(batch_size) for block in self._blocks()), num_views=0)

    def update(
        self,
        tokens: Float[Tensor, "b v n d"],
        state: SceneState,
        precision: Precision,
        slices: Slices = WHOLE,
        sharing: Sharing | None = None,
    ) -> tuple[SceneState, Float[Tensor, "b v n d"]]:
        """Write the tokens of `v` views and return the new state with the features that these tokens read.

        `single` and `chunked` write once, from an empty state; only `causal` may go on from a state that has seen
        views. Raises `InvalidConfig` otherwise. In a view group the tokens are those of this rank's views, of which
        `sharing` says what they belong to, and the state is the same on all ranks.
        """
        schedule = self.config.schedule
        if state.num_views and schedule != "causal":
            raise InvalidConfig(
                f"This model was trained with the schedule '{schedule}', which sees all views at once, and the state "
                f"already holds {state.num_views}. Give it all views in one update, or use a model with the schedule "
                "'causal'."
            )
        batch, num_views, window, width = tokens.shape
        chunks = None if schedule == "single" else self._chunks(num_views) if sharing is None else sharing.chunks
        seen = state.num_views + (num_views if sharing is None else sharing.num_views)
        rest = (schedule == "causal", precision.newton_schulz, precision.compute)
        if slices.cut(num_views):
            memories, features = update_in_slices(self._blocks(), tokens, state.memories, slices, chunks, *rest)
            return SceneState(memories, seen), features
        arguments = (window, None if chunks is None else tuple(size * window for size in chunks), *rest)
        x = tokens.reshape(batch, num_views * window, width)
        updated = []
        for block, memory in zip(self._blocks(), state.memories, strict=True):
            if self.checkpointing and torch.is_grad_enabled():
                x, memory = checkpoint(block, x, memory, *arguments, use_reentrant=False)
            else:
                x, memory = block(x, memory, *arguments)
            updated.append(memory)
        return SceneState(tuple(updated), seen), x.reshape(batch, num_views, window, width)

    def query(
        self, tokens: Float[Tensor, "b v n d"], state: SceneState, precision: Precision, slices: Slices = WHOLE
    ) -> Float[Tensor, "b v n d"]:
        """Read the state with the tokens of `v` query views; they attend only among themselves, view by view."""
        batch, num_views, window, width = tokens.shape
        if slices.cut(num_views):
            return query_in_slices(self._blocks(), tokens, state.memories, slices, precision.compute)
        x = tokens.reshape(batch, num_views * window, width)
        for block, memory in zip(self._blocks(), state.memories, strict=True):
            if self.checkpointing and torch.is_grad_enabled():
                x = checkpoint(block.query, x, memory, window, precision.compute, use_reentrant=False)
            else:
                x = block.query(x, memory, window, precision.compute)
        return x.reshape(batch, num_views, window, width)

    def _chunks(self, num_views: int) -> tuple[int, ...]:
        step = self.config.views_per_update
        return tuple(min(step, num_views - start) for start in range(0, num_views, step))

    def _blocks(self) -> Iterator[Block]:
        return (cast(Block, block) for block in self.blocks)
