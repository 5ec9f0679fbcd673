"""Read scenes out of shards: only the cameras of a scene and the images that are looked at leave the disk."""

import json
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from lrm_ttt.data.files import DepthFile, EncodedImage
from lrm_ttt.data.shard_manifest import Manifest, SceneEntry, read_finished
from lrm_ttt.data.shard_sample import file_sizes
from lrm_ttt.data.source import SceneSource
from lrm_ttt.errors import UnreadableScene
from lrm_ttt.scene.cameras import ImageSize

BLOCK = tarfile.BLOCKSIZE


class ShardImage(EncodedImage):
    """An image file in a shard, read when its `data` are asked for. No file stays open, so it can go to any process."""

    shard: Path
    offset: int
    length: int

    def __init__(self, name: str, shard: Path, offset: int, length: int) -> None:
        for key, value in {"name": name, "shard": shard, "offset": offset, "length": length}.items():
            object.__setattr__(self, key, value)

    @property
    def data(self) -> bytes:
        """The bytes of the file; raises `UnreadableScene` where the shard has become shorter."""
        return _read(self.shard, self.offset, self.length)


class ShardDataset:
    """The scenes of a folder that `lrm-ttt data shard` wrote, shard after shard; each shard is a group.

    Views have straight alpha where the source had, and are as large as they were stored. Raises `UnreadableScene` for a
    folder that holds no shards, not all of them, or none with a scene.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder).expanduser()
        manifest = read_finished(self.folder)
        self.manifest: Manifest = manifest
        self.groups: tuple[int, ...] = tuple(len(shard.scenes) for shard in manifest.shards)
        self._scenes: tuple[tuple[Path, SceneEntry], ...] = tuple(
            (self.folder / shard.file, scene) for shard in manifest.shards for scene in shard.scenes
        )

    def __len__(self) -> int:
        return len(self._scenes)

    def scene_name(self, index: int) -> str:
        """Return the name that the scene had where the shards were made from."""
        return self._scenes[index][1].name

    def open(self, index: int) -> SceneSource:
        """Return a scene whose images are read when they are decoded; raises `UnreadableScene` for a damaged shard."""
        shard, entry = self._scenes[index]
        name = f"{entry.key}.json"
        length = _size_in_header(shard, entry.offset, name)
        text = _read(shard, entry.offset + BLOCK, length)
        try:
            return _source(json.loads(text), shard, entry.offset + _space(length))
        except (ValueError, KeyError, TypeError) as error:
            raise _damaged(shard, f"{name} is not what was written ({type(error).__name__}: {error})") from error


def _source(description: Mapping[str, Any], shard: Path, offset: int) -> SceneSource:
    """Return a scene from its JSON file; its images lie from `offset` on."""
    images = {}
    for name, length in file_sizes(description):
        images[name] = ShardImage(f"{shard}/{name}", shard, offset + BLOCK, length)
        offset += _space(length)
    views = description["views"]
    depths = [DepthFile(images[view["depth"]], view["depth_unit"]) if "depth" in view else None for view in views]
    return SceneSource(
        name=description["name"],
        image_paths=tuple(images[view["image"]] for view in views),
        cam_to_world=torch.tensor([view["cam_to_world"] for view in views], dtype=torch.float64),
        intrinsics=torch.tensor([view["intrinsics"] for view in views], dtype=torch.float64),
        image_sizes=(ImageSize(*description["image_size"]),) * len(views),
        distortion=(None,) * len(views),
        depths=tuple(depths) if any(depths) else None,
    )


def _space(length: int) -> int:
    """Return what a file of a length takes in a tar: a header, and whole blocks."""
    return BLOCK + (length + BLOCK - 1) // BLOCK * BLOCK


def _size_in_header(shard: Path, offset: int, name: str) -> int:
    try:
        header = tarfile.TarInfo.frombuf(_read(shard, offset, BLOCK), "utf-8", "strict")
    except (tarfile.HeaderError, UnicodeDecodeError) as error:
        raise _damaged(shard, f"no header of {name} at byte {offset}") from error
    if header.name != name:
        raise _damaged(shard, f"{header.name!r} at byte {offset}, where {name} belongs")
    return header.size


def _read(shard: Path, offset: int, length: int) -> bytes:
    try:
        with shard.open("rb") as file:
            file.seek(offset)
            data = file.read(length)
    except OSError as error:
        raise UnreadableScene(f"{shard}: cannot be read ({error.strerror or error}). Check the shards.") from error
    if len(data) < length:
        raise _damaged(shard, f"it ends at byte {offset + len(data)}, in the middle of a file")
    return data


def _damaged(shard: Path, what: str) -> UnreadableScene:
    return UnreadableScene(
        f"{shard}: this shard is damaged: {what}. lrm-ttt data verify {shard.parent} finds all such; copy it again."
    )
