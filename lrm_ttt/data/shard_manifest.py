"""The manifest of a folder of shards: which scene lies where, how it was made, and the checksum of every file."""

import dataclasses
import hashlib
import json
import os
from pathlib import Path
from typing import Literal

from lrm_ttt.config_io import from_mapping, to_mapping
from lrm_ttt.errors import InvalidConfig, UnreadableScene

MANIFEST = "manifest.json"
FORMAT, VERSION = "lrm-ttt-shards", 1


@dataclasses.dataclass(frozen=True)
class ShardSettings:
    """What decides every byte of the shards of a data set.

    `image_size` (height, width) or `longer_side` is the size of the images; a shard ends after `shard_mb` megabytes, or
    after `scenes_per_shard` scenes. `num_scenes` of the source were asked for; `source_sha256` is the checksum of where
    they lie, how they are opened, and their names.
    """

    image_size: tuple[int, int] | None
    longer_side: int | None
    image_format: Literal["webp", "jpeg", "png"]
    quality: int
    shard_mb: int
    scenes_per_shard: int | None
    num_scenes: int
    source_sha256: str


@dataclasses.dataclass(frozen=True)
class SceneEntry:
    """One scene in a shard: `length` bytes from `offset` on are its members, headers included."""

    key: str
    name: str
    views: int
    offset: int
    length: int


@dataclasses.dataclass(frozen=True)
class ShardEntry:
    """One tar file with its scenes, in the order in which they lie."""

    file: str
    bytes: int
    sha256: str
    scenes: tuple[SceneEntry, ...]


@dataclasses.dataclass(frozen=True)
class SkippedScene:
    """A scene of the source that could not be read, and why."""

    name: str
    reason: str


@dataclasses.dataclass(frozen=True)
class Manifest:
    """What a folder of shards holds.

    `num_seen` scenes of the source were gone through, of which those in `skipped` are in no shard; the shards are
    `complete` when that was all of them.
    """

    settings: ShardSettings
    complete: bool = False
    num_seen: int = 0
    shards: tuple[ShardEntry, ...] = ()
    skipped: tuple[SkippedScene, ...] = ()

    @property
    def num_scenes(self) -> int:
        """Scenes in all shards."""
        return sum(len(shard.scenes) for shard in self.shards)

    @property
    def num_views(self) -> int:
        """Views in all shards."""
        return sum(scene.views for shard in self.shards for scene in shard.scenes)

    @property
    def num_bytes(self) -> int:
        """Size of all shards."""
        return sum(shard.bytes for shard in self.shards)


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write FOLDER/manifest.json at once or not at all; what it replaces is lost only when it is on the disk."""
    counts = {"num_scenes": manifest.num_scenes, "num_views": manifest.num_views, "num_bytes": manifest.num_bytes}
    content = {"format": FORMAT, "version": VERSION, **counts, **to_mapping(manifest)}
    temporary = folder / f".{MANIFEST}.partial"
    with temporary.open("w", encoding="utf-8") as file:
        file.write(json.dumps(content, indent=1) + "\n")
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(folder / MANIFEST)


def read_manifest(folder: Path) -> Manifest:
    """Read FOLDER/manifest.json and look that every shard it names is there, with the size it says.

    Raises `UnreadableScene` for a manifest that is missing, broken or of another format, and for a shard that is
    missing or has another size.
    """
    path = folder / MANIFEST
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UnreadableScene(
            f"{folder}: no {MANIFEST}, so these are no shards. Make them with lrm-ttt data shard, or check the path."
        ) from error
    except (OSError, ValueError) as error:
        raise UnreadableScene(f"{path}: cannot be read ({error}). Copy it again, or make the shards again.") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT or content.get("version") != VERSION:
        found = (content.get("format"), content.get("version")) if isinstance(content, dict) else (None, None)
        raise UnreadableScene(
            f"{path}: its format is {found[0]!r}, version {found[1]!r}, where {FORMAT!r}, version {VERSION} is read. "
            "Make the shards again with this version of lrm-ttt data shard."
        )
    derived = ("format", "version", "num_scenes", "num_views", "num_bytes")
    try:
        manifest = from_mapping({key: value for key, value in content.items() if key not in derived}, Manifest)
    except InvalidConfig as error:
        raise UnreadableScene(f"{path}: {error} Copy it again, or make the shards again.") from error
    for shard in manifest.shards:
        _check_size(folder / shard.file, shard.bytes)
    return manifest


def read_finished(folder: Path) -> Manifest:
    """Read the manifest of shards that can be used.

    Raises `UnreadableScene` as `read_manifest` does, and for shards that are not finished or hold no scene.
    """
    manifest = read_manifest(folder)
    if not manifest.complete:
        raise UnreadableScene(
            f"{folder}: the shards are not finished, {manifest.num_seen} of {manifest.settings.num_scenes} "
            "scenes were gone through. Run the same lrm-ttt data shard command again: it goes on from there."
        )
    if manifest.num_scenes == 0:
        raise UnreadableScene(f"{folder}: these shards hold no scene. Delete the folder, and make them again.")
    return manifest


def verify_shards(folder: Path) -> Manifest:
    """Compare every shard with its checksum; reads all bytes.

    Raises `UnreadableScene` that names the shards which are not what was written, or as `read_finished` does.
    """
    manifest = read_finished(folder)
    wrong = [shard.file for shard in manifest.shards if sha256_of(folder / shard.file) != shard.sha256]
    if wrong:
        raise UnreadableScene(
            f"{folder}: {len(wrong)} of {len(manifest.shards)} shards are not what was written, by their checksums: "
            f"{', '.join(wrong)}. Copy them again, or make the shards again."
        )
    return manifest


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_size(path: Path, expected: int) -> None:
    remedy = "Copy it again, or make the shards again."
    if not path.is_file():
        raise UnreadableScene(f"{path}: this shard is missing. {remedy}")
    if (actual := path.stat().st_size) != expected:
        what = "is truncated" if actual < expected else "is not what was written"
        raise UnreadableScene(
            f"{path}: this shard {what}: {actual} bytes, where the manifest says {expected}. {remedy}"
        )
