"""The state of a scene as a file: what a model remembers, in which frame, and which model that is."""

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from lrm_ttt.config_io import to_mapping
from lrm_ttt.errors import IncompatibleCheckpoint
from lrm_ttt.model.scene_model import SceneModel
from lrm_ttt.model.state import SceneState
from lrm_ttt.scene.similarity import Similarity
from lrm_ttt.scene.tensor_file import write_tensors

FORMAT = "lrm-ttt scene state 1"
STATE, SIMILARITY, EXTRA = "state.", "world_to_scene.", "extra."


@dataclasses.dataclass(frozen=True)
class SavedState:
    """The state of a scene, and what it takes to read it later.

    `world_to_scene` leads from the capture's frame to the one that the state was made in, `fingerprint` tells the model
    that made it. `record` (plain data) and `extra` (tensors) belong to whoever saves.
    """

    state: SceneState
    world_to_scene: Similarity
    fingerprint: str
    record: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    extra: Mapping[str, Tensor] = dataclasses.field(default_factory=dict)


def save_state(path: Path | str, saved: SavedState) -> None:
    """Write a state as safetensors, by atomic rename."""
    tensors = {STATE + name: tensor for name, tensor in saved.state.tensors().items()}
    tensors |= {SIMILARITY + name: tensor for name, tensor in vars(saved.world_to_scene).items()}
    tensors |= {EXTRA + name: tensor for name, tensor in saved.extra.items()}
    metadata = {
        "format": FORMAT,
        "fingerprint": saved.fingerprint,
        "num_views": str(saved.state.num_views),
        "record": json.dumps(saved.record),
    }
    write_tensors(path, tensors, metadata)


def load_state(path: Path | str, model: SceneModel) -> SavedState:
    """Read a state, bit for bit as it was saved, on the device of `model`.

    Raises `IncompatibleCheckpoint` for a file that is none, or that another model made.
    """
    metadata = _checked(path)
    ours = fingerprint(model)
    if metadata["fingerprint"] != ours:
        raise IncompatibleCheckpoint(
            f"{path}: was made by another model (fingerprint {metadata['fingerprint'][:12]}, this one has {ours[:12]}"
            "). Pass the --checkpoint that made it."
        )
    tensors = _tensors(path, next(model.parameters()).device)
    return SavedState(
        state=SceneState.from_tensors(_part(tensors, STATE), int(metadata["num_views"])),
        world_to_scene=Similarity(**_part(tensors, SIMILARITY)),
        fingerprint=ours,
        record=json.loads(metadata["record"]),
        extra=_part(tensors, EXTRA),
    )


def is_state(path: Path | str) -> bool:
    """Return whether a file is the state of a scene; raises `IncompatibleCheckpoint` where it is no safetensors."""
    return _metadata(path).get("format") == FORMAT


def read_record(path: Path | str) -> dict[str, Any]:
    """Return the plain data that was stored with a state; no tensor is read."""
    record = json.loads(_checked(path)["record"])
    assert isinstance(record, dict)
    return record


def fingerprint(model: SceneModel) -> str:
    """Return a digest of a model's configuration and weights: states fit no other model."""
    digest = hashlib.sha256(json.dumps(to_mapping(model.config), sort_keys=True).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def _checked(path: Path | str) -> dict[str, str]:
    if not is_state(path):
        raise IncompatibleCheckpoint(f"{path}: is no state of a scene (format '{FORMAT}').")
    return _metadata(path)


def _metadata(path: Path | str) -> dict[str, str]:
    with _refusals_explained(path), safe_open(path, "pt") as file:
        return file.metadata() or {}


def _tensors(path: Path | str, device: torch.device) -> dict[str, Tensor]:
    with _refusals_explained(path), safe_open(path, "pt") as file:
        # Copies lie where torch allocates: products may round otherwise at other alignments.
        return {name: file.get_tensor(name).to(device, copy=True) for name in file.keys()}  # noqa: SIM118


@contextlib.contextmanager
def _refusals_explained(path: Path | str) -> Iterator[None]:
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise IncompatibleCheckpoint(f"{path}: cannot be read as the state of a scene ({error}).") from error


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
