"""What a model remembers of a scene."""

import dataclasses

import torch
from torch import Tensor

from lrm_ttt.kernels.fast_weight.weights import ColumnNorms, FastWeights


@dataclasses.dataclass(frozen=True)
class SceneState:
    """The fast weights of all layers after `num_views` input views. Never mutated: an update returns a new state."""

    fast_weights: tuple[FastWeights, ...]
    num_views: int

    def to(self, device: torch.device | str) -> "SceneState":
        """Move the state to a device."""

        def move(weights: FastWeights) -> FastWeights:
            gate, up, down = (weight.to(device) for weight in weights[:3])
            return FastWeights(gate, up, down, ColumnNorms(*(norm.to(device) for norm in weights.norms)))

        return dataclasses.replace(self, fast_weights=tuple(move(weights) for weights in self.fast_weights))

    def tensors(self) -> dict[str, Tensor]:
        """Return all tensors by name."""
        named: dict[str, Tensor] = {}
        for layer, weights in enumerate(self.fast_weights):
            named |= {f"{layer}.{name}": getattr(weights, name) for name in ("gate", "up", "down")}
            named |= {f"{layer}.norms.{name}": norm for name, norm in weights.norms._asdict().items()}
        return named
