"""The state of a scene as a file: what a model remembers, in which frame, and which model that is."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lrm_ttt.config_io import to_mapping
from lrm_ttt.errors import IncompatibleCheckpoint
from lrm_ttt.model.scene_model import SceneModel
from lrm_ttt.model.state import SceneState, open_state, read_part, read_state
from lrm_ttt.scene.similarity import Similarity

SIMILARITY, EXTRA = "world_to_scene.", "extra."


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
    """Write a state as `SceneState.save` does, and beside it what belongs to it."""
    tensors = {SIMILARITY + name: tensor for name, tensor in vars(saved.world_to_scene).items()}
    tensors |= {EXTRA + name: tensor for name, tensor in saved.extra.items()}
    saved.state.save(path, tensors, {"fingerprint": saved.fingerprint, "record": json.dumps(saved.record)})


def load_state(path: Path | str, model: SceneModel) -> SavedState:
    """Read a state, bit for bit as it was saved, on the device of `model`.

    Raises `IncompatibleCheckpoint` for a file that is none, or that another model made.
    """
    device, ours = next(model.parameters()).device, fingerprint(model)
    with open_state(path) as (file, metadata):
        record = _record(path, metadata)
        if metadata["fingerprint"] != ours:
            raise IncompatibleCheckpoint(
                f"{path}: was made by another model (fingerprint {metadata['fingerprint'][:12]}, this one has "
                f"{ours[:12]}). Pass the --checkpoint that made it."
            )
        similarity = read_part(file, SIMILARITY, device)
        saved = SavedState(
            state=read_state(file, metadata, device),
            world_to_scene=Similarity(*(similarity[name] for name in ("rotation", "translation", "scale"))),
            fingerprint=ours,
            record=record,
            extra=read_part(file, EXTRA, device),
        )
        if len(saved.state.memories) != model.config.backbone.num_blocks:
            raise ValueError("layers are missing")
    return saved


def read_record(path: Path | str) -> dict[str, Any]:
    """Return the plain data that was stored with a state; no tensor is read."""
    with open_state(path) as (_, metadata):
        return _record(path, metadata)


def fingerprint(model: SceneModel) -> str:
    """Return a digest of a model's configuration and weights: states fit no other model."""
    digest = hashlib.sha256(json.dumps(to_mapping(model.config), sort_keys=True).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def _record(path: Path | str, metadata: Mapping[str, str]) -> dict[str, Any]:
    if not {"fingerprint", "record"} <= metadata.keys():
        raise IncompatibleCheckpoint(
            f"{path}: is no state of a scene that says in which frame it is, and which model made it. The library's "
            "`SceneState.load` may read it."
        )
    record = json.loads(metadata["record"])
    if not isinstance(record, dict):
        raise ValueError(f"its record is {record!r}")
    return record
