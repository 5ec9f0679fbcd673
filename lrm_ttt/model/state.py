"""What a model remembers of a scene."""

import dataclasses
from collections.abc import Iterator

import torch
from torch import Tensor

from lrm_ttt.kernels.fast_weight.weights import ColumnNorms, Elastic, FastWeights

MATRICES = ("gate", "up", "down")


@dataclasses.dataclass(frozen=True)
class SceneState:
    """The fast weights of all layers after `num_views` input views. Never mutated: an update returns a new state."""

    fast_weights: tuple[FastWeights, ...]
    num_views: int

    def to(self, device: torch.device | str) -> "SceneState":
        """Move the state to a device."""
        return SceneState.from_tensors(
            {name: tensor.to(device) for name, tensor in self.tensors().items()}, self.num_views
        )

    def tensors(self) -> dict[str, Tensor]:
        """Return all tensors by name."""
        layers = enumerate(self.fast_weights)
        return {f"{layer}.{name}": tensor for layer, weights in layers for name, tensor in _named(weights)}

    @staticmethod
    def from_tensors(tensors: dict[str, Tensor], num_views: int) -> "SceneState":
        """Build a state from what `tensors` gave."""
        num_layers = 1 + max(int(name.split(".")[0]) for name in tensors)
        layers = []
        for layer in range(num_layers):
            gate, up, down = (tensors[f"{layer}.{name}"] for name in MATRICES)
            norms = ColumnNorms(*(tensors[f"{layer}.norms.{name}"] for name in MATRICES))
            elastic = None
            if f"{layer}.importance.gate" in tensors:
                first, second, third = (tensors[f"{layer}.importance.{name}"] for name in MATRICES)
                gate_anchor, up_anchor, down_anchor = (tensors[f"{layer}.anchor.{name}"] for name in MATRICES)
                elastic = Elastic((first, second, third), (gate_anchor, up_anchor, down_anchor))
            layers.append(FastWeights(gate, up, down, norms, elastic))
        return SceneState(tuple(layers), num_views)


def _named(weights: FastWeights) -> Iterator[tuple[str, Tensor]]:
    for index, name in enumerate(MATRICES):
        yield name, getattr(weights, name)
        yield f"norms.{name}", getattr(weights.norms, name)
        if weights.elastic is not None:
            yield f"importance.{name}", weights.elastic.importance[index]
            yield f"anchor.{name}", weights.elastic.anchor[index]
