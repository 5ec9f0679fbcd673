"""Features of learned tokens to three planes, and the network that all scenes share."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lrm_ttt.layers.initialisation import fill_normal
from lrm_ttt.layers.norms import LayerNorm, Linear
from lrm_ttt.layers.patches import unpatchify
from lrm_ttt.model.config import TriplaneConfig
from lrm_ttt.scene.triplanes import FieldNetwork, Triplanes


class TriplaneHead(nn.Module):
    """Layer norm and one linear map to the features of a patch of a plane; the field's network is trained with it."""

    def __init__(self, width: int, config: TriplaneConfig) -> None:
        super().__init__()
        self.config = config
        self.norm = LayerNorm(width)
        self.linear = Linear(width, config.patch_size**2 * config.channels, bias=False)
        hidden, rest, features = config.hidden, config.hidden_layers - 1, 3 * config.channels
        self.enter = nn.Parameter(torch.empty(hidden, features))
        self.enter_bias = nn.Parameter(torch.zeros(hidden))
        self.hidden = nn.Parameter(torch.empty(rest, hidden, hidden))
        self.hidden_bias = nn.Parameter(torch.zeros(rest, hidden))
        self.leave = nn.Parameter(torch.empty(4, hidden))
        self.leave_bias = nn.Parameter(torch.zeros(4))
        # Features of size 1 from the start: with the 0.02 of other heads the first hundred steps are lost.
        fill_normal(self.linear.weight, 1 / math.sqrt(width))
        for weight in (self.enter, self.hidden):
            fill_normal(weight, math.sqrt(2 / weight.shape[-1]))
        fill_normal(self.leave, 1 / math.sqrt(hidden))

    def forward(self, features: Float[Tensor, "b n d"], dtype: torch.dtype) -> Triplanes:
        """Return the planes of tokens in the order plane, patch row, patch column; they keep the features' dtype."""
        config, batch = self.config, features.shape[0]
        patches = self.linear(self.norm(features, dtype)).to(features.dtype)
        rows = config.resolution // config.patch_size
        planes = unpatchify(patches.reshape(batch, 3, rows * rows, -1), config.patch_size, rows, rows)
        return Triplanes(planes.movedim(-1, 2).contiguous(), self.network(batch), config.extent)

    def network(self, batch_size: int) -> FieldNetwork:
        """Return the field's network, the same for each scene."""
        parts = (self.enter, self.enter_bias, self.hidden, self.hidden_bias, self.leave, self.leave_bias)
        return FieldNetwork(*(part.expand(batch_size, *part.shape) for part in parts))
