"""A stream as a file: the state of the scene, its frame, what was gathered, and which model it belongs to."""

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from lrm_ttt.errors import IncompatibleCheckpoint
from lrm_ttt.model.reconstructor import Reconstructor
from lrm_ttt.model.state import SceneState
from lrm_ttt.pipeline.stream import Stream, fingerprint
from lrm_ttt.scene.gaussians import Gaussians
from lrm_ttt.scene.manipulable import cat
from lrm_ttt.scene.similarity import Similarity

FORMAT = "lrm-ttt stream 1"
STATE, SIMILARITY, MERGED = "state.", "world_to_scene.", "merged."


def save_stream(path: Path | str, stream: Stream, record: Mapping[str, Any]) -> None:
    """Write a stream as safetensors, by atomic rename, with a `record` of plain data that `read_record` gives back.

    Its size is that of the state; `merge` adds all its Gaussians.
    """
    path = Path(path)
    tensors = {STATE + name: tensor for name, tensor in stream.state.tensors().items()}
    tensors |= {SIMILARITY + name: tensor for name, tensor in vars(stream.world_to_scene).items()}
    if stream.merged:
        tensors |= {MERGED + name: tensor for name, tensor in vars(cat(stream.merged)).items()}
    tensors["poses"] = stream.poses
    described = {
        "fingerprint": stream.fingerprint,
        "strategy": stream.strategy,
        "num_virtual": stream.num_virtual,
        "num_views": stream.num_views,
        "masked": stream.masked,
    }
    metadata = {"format": FORMAT, "stream": json.dumps(described), "record": json.dumps(record)}
    # Expanded and sliced tensors would share their memory, which the format refuses.
    stored = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".writing-") as temporary:
        partial = Path(temporary, path.name)
        save_file(stored, partial, metadata=metadata)
        partial.replace(path)


def load_stream(path: Path | str, model: Reconstructor) -> Stream:
    """Read a stream to go on with, bit for bit as it was, on the device of `model`.

    Raises `IncompatibleCheckpoint` for a file that is none, or that another model made.
    """
    path, device = Path(path), next(model.parameters()).device
    metadata, tensors = _read(path, with_tensors=True)
    described = json.loads(metadata["stream"])
    ours = fingerprint(model)
    if described["fingerprint"] != ours:
        raise IncompatibleCheckpoint(
            f"{path}: was made by another model (fingerprint {described['fingerprint'][:12]}, this one has {ours[:12]}"
            "). Go on with the same --checkpoint, or start again with --overwrite."
        )
    state = SceneState.from_tensors(_part(tensors, STATE), described["num_views"])
    merged = _part(tensors, MERGED)
    return Stream(
        model=model,
        fingerprint=ours,
        strategy=described["strategy"],
        num_virtual=described["num_virtual"],
        world_to_scene=Similarity(**_part(tensors, SIMILARITY)).to(device),
        state=state.to(device),
        poses=tensors["poses"],
        masked=described["masked"],
        merged=(Gaussians(**merged).to(device),) if merged else (),
    )


def read_record(path: Path | str) -> dict[str, Any]:
    """Return the plain data that was stored with a stream; no tensor is read."""
    record = json.loads(_read(Path(path), with_tensors=False)[0]["record"])
    assert isinstance(record, dict)
    return record


def _read(path: Path, with_tensors: bool) -> tuple[dict[str, str], dict[str, Tensor]]:
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise IncompatibleCheckpoint(
                    f"{path}: is no state of a stream (format '{FORMAT}'). Start again with --overwrite."
                )
            names = list(file.keys()) if with_tensors else []
            # Copies lie where torch allocates: products may round otherwise at other alignments.
            return metadata, {name: file.get_tensor(name).clone() for name in names}
    except (OSError, SafetensorError) as error:
        raise IncompatibleCheckpoint(
            f"{path}: cannot be read as the state of a stream ({error}). Start again with --overwrite."
        ) from error


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
