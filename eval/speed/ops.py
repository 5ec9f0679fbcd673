"""Every operation that a fast path was written for, with what it is compared with."""

import itertools
from collections.abc import Iterator

import torch

from lrm_ttt.eval.speed.block_ops import block_ops
from lrm_ttt.eval.speed.ceilings import Ceilings
from lrm_ttt.eval.speed.config import SpeedConfig
from lrm_ttt.eval.speed.drawing_ops import drawing_ops
from lrm_ttt.eval.speed.op import measure_op
from lrm_ttt.eval.speed.rows import Row
from lrm_ttt.eval.speed.timing import Budget


def measure_ops(
    config: SpeedConfig, dtype: str, ceilings: Ceilings, device: torch.device, budget: Budget
) -> Iterator[Row]:
    """Yield a row for each variant of each operation."""
    parts = [drawing_ops(config, device), block_ops(config, dtype, device)]
    # On a GPU the first drawing compiles gsplat, which can take all the time that there is.
    for op in itertools.chain(*(reversed(parts) if device.type == "cuda" else parts)):
        yield from measure_op(op, ceilings, device, config.op_seconds, budget)
