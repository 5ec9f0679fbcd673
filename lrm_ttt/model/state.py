"""What a model remembers of a scene, in memory and as a file."""

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from lrm_ttt.errors import IncompatibleCheckpoint
from lrm_ttt.kernels.fast_weight.weights import ColumnNorms, Elastic, FastWeights
from lrm_ttt.layers.attention import KeyValues
from lrm_ttt.layers.block import Memory
from lrm_ttt.scene.tensor_file import write_tensors

MATRICES = ("gate", "up", "down")
FORMAT = "lrm-ttt scene state 1"
PREFIX = "state."


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

    def save(
        self,
        path: Path | str,
        beside: Mapping[str, Tensor] | None = None,
        described: Mapping[str, str] | None = None,
    ) -> None:
        """Write the state as safetensors, by atomic rename; `load` gives it back bit for bit.

        Tensors `beside` it and metadata that describe it further (pipeline/state_file.py) do not change what it reads.
        """
        tensors = {PREFIX + name: tensor for name, tensor in self.tensors().items()}
        metadata = {"format": FORMAT, "num_views": str(self.num_views)}
        write_tensors(path, tensors | dict(beside or {}), metadata | dict(described or {}))

    @staticmethod
    def load(path: Path | str, device: torch.device | str = "cpu") -> "SceneState":
        """Read a state; raises `IncompatibleCheckpoint` for a file that is none."""
        with open_state(path) as (file, metadata):
            return read_state(file, metadata, device)


@contextlib.contextmanager
def open_state(path: Path | str) -> Iterator[tuple[Any, dict[str, str]]]:
    """Open the file of a state and give its metadata; reading what is not in it raises `IncompatibleCheckpoint`."""
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise IncompatibleCheckpoint(f"{path}: is no state of a scene (format '{FORMAT}').")
            yield file, metadata
    except (OSError, SafetensorError) as error:
        raise IncompatibleCheckpoint(f"{path}: cannot be read as the state of a scene ({error}).") from error
    except (KeyError, ValueError) as error:
        if isinstance(error, IncompatibleCheckpoint):
            raise
        what = f"it has no {error}" if isinstance(error, KeyError) else error
        raise IncompatibleCheckpoint(f"{path}: is a broken state of a scene ({what}). Write it again.") from error


def read_state(file: Any, metadata: Mapping[str, str], device: torch.device | str) -> SceneState:
    """Return the state in a file of `open_state`."""
    tensors = read_part(file, PREFIX, device)
    if not tensors:
        raise KeyError(PREFIX)
    state = SceneState.from_tensors(tensors, int(metadata["num_views"]))
    surplus = tensors.keys() - state.tensors().keys()
    if surplus:
        raise ValueError(f"part of what belongs to {min(surplus)} is missing")
    return state


def read_part(file: Any, prefix: str, device: torch.device | str) -> dict[str, Tensor]:
    """Return the tensors whose names begin with `prefix`, without it."""
    names = [name for name in file.keys() if name.startswith(prefix)]  # noqa: SIM118
    # Copies lie where torch allocates: products may round otherwise at other alignments.
    return {name.removeprefix(prefix): file.get_tensor(name).to(device, copy=True) for name in names}


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
