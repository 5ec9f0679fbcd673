"""Every operation that a fast path was written for, with what it is compared with."""

from collections.abc import Iterator

import torch

from lrm_ttt.eval.speed.block_ops import block_ops
from lrm_ttt.eval.speed.ceilings import Ceilings
from lrm_ttt.eval.speed.config import SpeedConfig
from lrm_ttt.eval.speed.drawing_ops import drawing_ops
from lrm_ttt.eval.speed.op import measure_op
from lrm_ttt.eval.speed.rows import Row
from lrm_ttt.eval.speed.timing import Budget

# The share of the time that the first kind of operations may take.
FOR_THE_FIRST = 0.6


def measure_ops(
    config: SpeedConfig, dtype: str, ceilings: Ceilings, device: torch.device, budget: Budget
) -> Iterator[Row]:
    """Yield a row for each variant of each operation."""
    drawing, block = drawing_ops(config, device), block_ops(config, dtype, device)
    # On a GPU the first drawing compiles gsplat, which can take all the time that there is.
    first, second = (block, drawing) if device.type == "cuda" else (drawing, block)
    part = budget.part(FOR_THE_FIRST)
    for op in first:
        yield from measure_op(op, ceilings, device, config.op_seconds, part)
    for op in second:
        yield from measure_op(op, ceilings, device, config.op_seconds, budget)
