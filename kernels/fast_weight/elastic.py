"""The elastic update (MODEL.md, Schedules): parameters that few chunks used are drawn back to where they were."""

from typing import NamedTuple

import torch
from torch import Tensor

from lrm_ttt.kernels.fast_weight.reference import Gradients, renormalise
from lrm_ttt.kernels.fast_weight.weights import Elastic, FastWeights

IMPORTANCE_EPSILON = 1e-8


class ElasticRates(NamedTuple):
    """How slowly importance (`alpha`) and anchor (`beta`) follow, and how strong the pull is; tttLRM's values."""

    alpha: float = 0.5
    beta: float = 0.8
    strength: float = 0.05


def commit_elastic(weights: FastWeights, steps: Gradients, rates: ElasticRates) -> FastWeights:
    """Add the orthogonalised `steps`, pull unimportant parameters back, and restore the norms of the columns.

    The importance of a parameter is the running mean of its squared steps over the greatest of its memory; the anchor
    is the running mean of what the memory was. Free of training: it changes no slow weight.
    """
    before = weights.elastic or _start(weights)
    importances, anchors, moved = [], [], []
    for name, importance, anchor in zip(("gate", "up", "down"), before.importance, before.anchor, strict=True):
        weight, step = getattr(weights, name), getattr(steps, name).to(anchor.dtype)
        importance = rates.alpha * importance + (1 - rates.alpha) * step.square()
        relative = importance / (importance.amax((-2, -1), keepdim=True) + IMPORTANCE_EPSILON)
        pulled = weight + step
        pulled = pulled - rates.strength * (1 - relative) * (pulled - anchor)
        committed = renormalise(pulled, getattr(weights.norms, name))
        importances.append(importance)
        anchors.append(rates.beta * anchor + (1 - rates.beta) * committed)
        moved.append(committed)
    gate, up, down = moved
    elastic = Elastic(_three(importances), _three(anchors))
    return FastWeights(gate, up, down, weights.norms, elastic)


def _start(weights: FastWeights) -> Elastic:
    parts = [weights.gate, weights.up, weights.down]
    return Elastic(_three([torch.zeros_like(part) for part in parts]), _three(parts))


def _three(parts: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    first, second, third = parts
    return first, second, third
