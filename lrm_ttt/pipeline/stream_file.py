"""A stream as a file: the state of a scene (pipeline/state_file.py), what was gathered, and how to go on."""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lrm_ttt.errors import IncompatibleCheckpoint
from lrm_ttt.model.reconstructor import Reconstructor
from lrm_ttt.pipeline import state_file
from lrm_ttt.pipeline.state_file import SavedState, load_state, save_state
from lrm_ttt.pipeline.stream import Stream
from lrm_ttt.scene.gaussians import Gaussians
from lrm_ttt.scene.manipulable import cat

MERGED = "merged."


def save_stream(path: Path | str, stream: Stream, record: Mapping[str, Any]) -> None:
    """Write a stream as safetensors, by atomic rename, with a `record` of plain data that `read_record` gives back.

    Its size is that of the state; `merge` adds all its Gaussians.
    """
    gathered = vars(cat(stream.merged)) if stream.merged else {}
    cameras = {"poses": stream.poses, "intrinsics": stream.intrinsics}
    extra = cameras | {MERGED + name: tensor for name, tensor in gathered.items()}
    described = {"strategy": stream.strategy, "num_virtual": stream.num_virtual, "masked": stream.masked}
    plain = {"stream": described, "record": dict(record)}
    save_state(path, SavedState(stream.state, stream.world_to_scene, stream.fingerprint, plain, extra))


def load_stream(path: Path | str, model: Reconstructor) -> Stream:
    """Read a stream to go on with, bit for bit as it was, on the device of `model`.

    Raises `IncompatibleCheckpoint` for a file that is none, or that another model made.
    """
    with _remedy_named():
        saved = load_state(path, model)
        described = _stream_part(path, saved.record, "stream")
    extra = saved.extra
    merged = {name.removeprefix(MERGED): extra[name] for name in extra if name.startswith(MERGED)}
    return Stream(
        model=model,
        fingerprint=saved.fingerprint,
        strategy=described["strategy"],
        num_virtual=described["num_virtual"],
        world_to_scene=saved.world_to_scene,
        state=saved.state,
        poses=extra["poses"].cpu(),
        intrinsics=extra["intrinsics"].cpu(),
        masked=described["masked"],
        merged=(Gaussians(**merged),) if merged else (),
    )


def read_record(path: Path | str) -> dict[str, Any]:
    """Return the plain data that was stored with a stream; no tensor is read."""
    with _remedy_named():
        return _stream_part(path, state_file.read_record(path), "record")


def _stream_part(path: Path | str, record: Mapping[str, Any], key: str) -> dict[str, Any]:
    if "stream" not in record:
        raise IncompatibleCheckpoint(f"{path}: is the state of a scene, but of no stream.")
    part = record[key]
    assert isinstance(part, dict)
    return part


@contextlib.contextmanager
def _remedy_named() -> Iterator[None]:
    try:
        yield
    except IncompatibleCheckpoint as error:
        raise IncompatibleCheckpoint(f"{error} Or start again with --overwrite.") from error
