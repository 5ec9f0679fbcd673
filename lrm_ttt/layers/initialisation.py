"""Initial values of the slow weights (MODEL.md, Initial values)."""

import math

from torch import nn

from lrm_ttt.layers.attention import WindowAttention
from lrm_ttt.layers.fast_weight import FastWeightMemory
from lrm_ttt.layers.feed_forward import FeedForward

LINEAR_DEVIATION = 0.02


def initialise(module: nn.Module, num_blocks: int, scale_outputs: bool) -> None:
    """Fill linears with normal 0.02 and biases with 0, and memories with normal sqrt(2 / fan_in).

    `scale_outputs` divides the output projection of every branch by sqrt(3 * num_blocks), as LaCT does.
    """
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.normal_(part.weight, std=LINEAR_DEVIATION)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
    for part in module.modules():
        if isinstance(part, FastWeightMemory):
            for weight in (part.gate, part.up, part.down):
                nn.init.normal_(weight, std=math.sqrt(2 / weight.shape[-2]))
        if scale_outputs and isinstance(part, WindowAttention | FastWeightMemory | FeedForward):
            last = part.contract if isinstance(part, FeedForward) else part.out
            nn.init.normal_(last.weight, std=LINEAR_DEVIATION / math.sqrt(3 * num_blocks))
