"""The few sizes of tile that the Triton kernels are made for; none is searched for at run time."""

import os
from typing import NamedTuple

import torch


class Tiles(NamedTuple):
    """What one program computes: rows x columns of a result, `inner` terms of its sums at a time."""

    rows: int
    columns: int
    inner: int
    warps: int
    stages: int


# The interpreter pays by the program, and its tensors are small: ragged tiles, several a tensor.
INTERPRETED = Tiles(32, 32, 16, 1, 1)
FLOAT32 = Tiles(64, 64, 32, 4, 2)


def half_tiles(dtype: torch.dtype, tiles: Tiles) -> Tiles:
    """Return `tiles`, which suit bfloat16 and float16, or those of float32 and of the interpreter."""
    if os.environ.get("TRITON_INTERPRET") == "1":
        return INTERPRETED
    return FLOAT32 if dtype == torch.float32 else tiles
