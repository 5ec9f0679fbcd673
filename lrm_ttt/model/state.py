"""What a model remembers of a scene, in memory and as a file."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from lrm_ttt.errors import IncompatibleCheckpoint
from lrm_ttt.kernels.fast_weight.weights import ColumnNorms, Elastic, FastWeights
from lrm_ttt.layers.attention import KeyValues
from lrm_ttt.layers.block import Memory
from lrm_ttt.scene.tensor_file import write_tensors

MATRICES = ("gate", "up", "down")
FORMAT = "lrm-ttt state 1"


@dataclasses.dataclass(frozen=True)
class SceneState:
    """The memories of all layers after `num_views` input views. Never mutated: an update returns a new state."""

    memories: tuple[Memory, ...]
    num_views: int

    def to(self, device: torch.device | str) -> "SceneState":
        """Move the state to a device."""
        return SceneState.from_tensors(
            {name: tensor.to(device) for name, tensor in self.tensors().items()}, self.num_views
        )

    def tensors(self) -> dict[str, Tensor]:
        """Return all tensors by name."""
        layers = enumerate(self.memories)
        return {f"{layer}.{name}": tensor for layer, memory in layers for name, tensor in _named(memory)}

    @staticmethod
    def from_tensors(tensors: dict[str, Tensor], num_views: int) -> "SceneState":
        """Build a state from what `tensors` gave."""
        num_layers = 1 + max(int(name.split(".")[0]) for name in tensors)
        return SceneState(tuple(_memory(tensors, layer) for layer in range(num_layers)), num_views)

    def save(self, path: Path | str) -> None:
        """Write the state as safetensors, by atomic rename; `load` gives it back bit for bit."""
        write_tensors(path, self.tensors(), {"format": FORMAT, "num_views": str(self.num_views)})

    @staticmethod
    def load(path: Path | str, device: torch.device | str = "cpu") -> "SceneState":
        """Read a state; raises `IncompatibleCheckpoint` for a file that is none."""
        try:
            with safe_open(path, "pt", device=str(device)) as file:
                metadata = file.metadata() or {}
                if metadata.get("format") != FORMAT:
                    raise IncompatibleCheckpoint(f"{path} is no state of a scene (format '{FORMAT}').")
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (OSError, SafetensorError) as error:
            raise IncompatibleCheckpoint(f"{path} cannot be read as the state of a scene: {error}.") from error
        return SceneState.from_tensors(tensors, int(metadata["num_views"]))


def _memory(tensors: dict[str, Tensor], layer: int) -> Memory:
    if f"{layer}.keys" in tensors:
        return KeyValues(tensors[f"{layer}.keys"], tensors[f"{layer}.values"])
    gate, up, down = (tensors[f"{layer}.{name}"] for name in MATRICES)
    norms = ColumnNorms(*(tensors[f"{layer}.norms.{name}"] for name in MATRICES))
    elastic = None
    if f"{layer}.importance.gate" in tensors:
        first, second, third = (tensors[f"{layer}.importance.{name}"] for name in MATRICES)
        gate_anchor, up_anchor, down_anchor = (tensors[f"{layer}.anchor.{name}"] for name in MATRICES)
        elastic = Elastic((first, second, third), (gate_anchor, up_anchor, down_anchor))
    return FastWeights(gate, up, down, norms, elastic)


def _named(memory: Memory) -> Iterator[tuple[str, Tensor]]:
    if isinstance(memory, KeyValues):
        yield "keys", memory.keys
        yield "values", memory.values
        return
    for index, name in enumerate(MATRICES):
        yield name, getattr(memory, name)
        yield f"norms.{name}", getattr(memory.norms, name)
        if memory.elastic is not None:
            yield f"importance.{name}", memory.elastic.importance[index]
            yield f"anchor.{name}", memory.elastic.anchor[index]
