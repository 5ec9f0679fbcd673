"""Initial values of the slow weights (MODEL.md, Initial values)."""

import math

from torch import Tensor, nn

from lrm_ttt.layers.attention import Attention
from lrm_ttt.layers.fast_weight import FastWeightMemory
from lrm_ttt.layers.feed_forward import FeedForward

LINEAR_DEVIATION = 0.02


def fill_normal(weight: Tensor, deviation: float = LINEAR_DEVIATION) -> None:
    """Fill a parameter with normal noise.

    One on the meta device has nothing to fill, and asking would import the compiler, which takes a second.
    """
    if not weight.is_meta:
        nn.init.normal_(weight, std=deviation)


def initialise(module: nn.Module, num_blocks: int, scale_outputs: bool) -> None:
    """Fill linears with normal 0.02 and biases with 0, and memories with normal sqrt(2 / fan_in).

    `scale_outputs` divides the output projection of every branch by sqrt(3 * num_blocks), as LaCT does.
    """
    for part in module.modules():
        if isinstance(part, nn.Linear):
            fill_normal(part.weight)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
    for part in module.modules():
        if isinstance(part, FastWeightMemory):
            for weight in (part.gate, part.up, part.down):
                fill_normal(weight, math.sqrt(2 / weight.shape[-2]))
        if scale_outputs and isinstance(part, Attention | FastWeightMemory | FeedForward):
            last = part.contract if isinstance(part, FeedForward) else part.out
            fill_normal(last.weight, LINEAR_DEVIATION / math.sqrt(3 * num_blocks))
