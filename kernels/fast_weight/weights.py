"""The state of one memory."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

NORM_EPSILON = 1e-5


class ColumnNorms(NamedTuple):
    """Norms over the input dimension that each column had at the very start; constants of the backward pass."""

    gate: Float[Tensor, "*b 1 f"]
    up: Float[Tensor, "*b 1 f"]
    down: Float[Tensor, "*b 1 d"]


class Elastic(NamedTuple):
    """What the elastic update remembers of each matrix: how much it has been used, and where it tends back to."""

    importance: tuple[Tensor, Tensor, Tensor]
    anchor: tuple[Tensor, Tensor, Tensor]


class FastWeights(NamedTuple):
    """f(x) = (silu(x gate) * (x up)) down, one per scene and head, and the column norms that it keeps.

    `elastic` is there from the first elastic update on.
    """

    gate: Float[Tensor, "*b d f"]
    up: Float[Tensor, "*b d f"]
    down: Float[Tensor, "*b f d"]
    norms: ColumnNorms
    elastic: Elastic | None = None

    @classmethod
    def start(
        cls, gate: Float[Tensor, "*b d f"], up: Float[Tensor, "*b d f"], down: Float[Tensor, "*b f d"]
    ) -> "FastWeights":
        """Start a memory from its learned initial values."""
        with torch.no_grad():
            norms = ColumnNorms(*(column_norms(weight) for weight in (gate, up, down)))
        return cls(gate, up, down, norms)


def column_norms(weight: Float[Tensor, "*b rows cols"]) -> Float[Tensor, "*b 1 cols"]:
    """Return the norm of each column over the input dimension."""
    return weight.square().sum(-2, keepdim=True).sqrt()
