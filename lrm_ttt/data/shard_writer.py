"""Write a data set as shards: webdataset tars of pre-resized images with cameras, and a manifest.

The same source and settings give the same bytes, whenever and however often the writing was interrupted.
"""

import contextlib
import dataclasses
import errno
import fcntl
import hashlib
import io
import logging
import os
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

from lrm_ttt.data.shard_manifest import (
    MANIFEST,
    Manifest,
    SceneEntry,
    ShardEntry,
    ShardSettings,
    SkippedScene,
    read_manifest,
    sha256_of,
    write_manifest,
)
from lrm_ttt.data.shard_sample import EncodedScene, ImageFormat, encode_scene
from lrm_ttt.data.shard_scenes import Scenes
from lrm_ttt.errors import InvalidConfig, LrmTttError, OutputExists, UnreadableScene

log = logging.getLogger(__name__)

MEGABYTE = 10**6
PARTIAL = ".partial"


@dataclasses.dataclass(frozen=True)
class ShardFormat:
    """How images are stored, and how many scenes lie in one tar.

    `quality` 1..100 is that of WebP and JPEG. A shard ends after `shard_mb` megabytes, or where it is given after
    `scenes_per_shard` scenes.
    """

    image_format: ImageFormat = "jpeg"
    quality: int = 95
    shard_mb: int = 256
    scenes_per_shard: int | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.quality <= 100:
            raise InvalidConfig(f"a quality of {self.quality}: give a number from 1 to 100.")
        if self.shard_mb < 1 or (self.scenes_per_shard is not None and self.scenes_per_shard < 1):
            raise InvalidConfig("a shard holds at least one megabyte, and at least one scene.")


def write_shards(
    scenes: Scenes,
    folder: Path,
    layout: ShardFormat,
    *,
    image_size: tuple[int, int] | None,
    longer_side: int | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Manifest:
    """Write all scenes to FOLDER/shard-000000.tar and so on, and FOLDER/manifest.json, which is returned.

    A folder in which the same command was interrupted is finished from the last whole shard on. Scenes that cannot be
    read are left out and named in the manifest. `progress` is told the scenes gone through, and all. Raises
    `OutputExists` for a folder with other shards or other files, one that was finished without some scenes, and one
    that another process writes to; `LrmTttError` where the disk is full, and `UnreadableScene` where no scene at all
    could be read.
    """
    settings = ShardSettings(
        image_size=image_size,
        longer_side=longer_side,
        **dataclasses.asdict(layout),
        num_scenes=len(scenes),
        source_sha256=hashlib.sha256(scenes.identity().encode()).hexdigest(),
    )
    with _full_disk_explained(folder), _alone(folder):
        manifest = _begin(folder, settings)
        while not manifest.complete:
            manifest = _write_shard(scenes, folder, manifest, progress)
            if not manifest.shards:
                # Nothing is kept of this, so that the same command tries again once the scenes are mended.
                first = manifest.skipped[0].reason if manifest.skipped else "The source is empty."
                raise UnreadableScene(f"{folder}: none of {len(scenes)} scenes could be read. {first}")
            write_manifest(folder, manifest)
    return manifest


def _begin(folder: Path, settings: ShardSettings) -> Manifest:
    """Return what an interrupted run has left, or an empty manifest."""
    for abandoned in folder.glob(f".*{PARTIAL}"):
        abandoned.unlink()
    if (folder / MANIFEST).exists():
        manifest = read_manifest(folder)
        if manifest.settings != settings:
            raise OutputExists(
                f"{folder} holds shards made otherwise: {_differences(manifest.settings, settings)}. "
                "Give another folder, or the same source and flags to go on."
            )
        if manifest.complete and manifest.skipped:
            names = ", ".join(scene.name for scene in manifest.skipped[:3])
            raise OutputExists(
                f"{folder} is finished, without {len(manifest.skipped)} scenes that could not be read ({names}"
                f"{', ...' if len(manifest.skipped) > 3 else ''}; the reasons are in {MANIFEST}). It can be used as it "
                "is; to try these scenes again, delete it first."
            )
        return manifest
    # Without a manifest there is no whole shard, or one that a run was killed just before it could list.
    others = sorted(path.name for path in folder.iterdir() if path.name != _shard_name(0))
    if others:
        raise OutputExists(f"{folder} holds other files ({', '.join(others[:3])}). Give a new or empty folder.")
    return Manifest(settings)


def _differences(old: ShardSettings, new: ShardSettings) -> str:
    before, after = dataclasses.asdict(old), dataclasses.asdict(new)
    changed = [key for key in before if before[key] != after[key] and key != "source_sha256"]
    return (
        ", ".join(f"{key} was {before[key]} and is {after[key]}" for key in changed)
        or "of another source, or with other flags that choose its scenes and images"
    )


def _shard_name(number: int) -> str:
    return f"shard-{number:06d}.tar"


def _write_shard(scenes: Scenes, folder: Path, manifest: Manifest, progress: Callable[[int, int], None]) -> Manifest:
    """Write one shard, of the scenes that follow those seen, and return the manifest with it."""
    settings = manifest.settings
    name = _shard_name(len(manifest.shards))
    temporary = folder / f".{name}{PARTIAL}"
    entries: list[SceneEntry] = []
    skipped: list[SkippedScene] = []
    seen = manifest.num_seen
    try:
        with temporary.open("wb") as file:
            # Entries that a reader of tars skips over fill the last record, to whole 10 kB: the size is not the offset.
            with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
                while seen < len(scenes) and not _is_full(tar.offset, len(entries), settings):
                    key, scene_name = f"{seen:08d}", scenes.scene_name(seen)
                    try:
                        scene = encode_scene(
                            key, scene_name, scenes.load(seen), settings.image_format, settings.quality
                        )
                    except UnreadableScene as error:
                        skipped.append(SkippedScene(scene_name, str(error)))
                        log.warning("%s is left out: %s", scene_name, error)
                    else:
                        entries.append(_append(tar, key, scene_name, scene))
                    seen += 1
                    progress(seen, len(scenes))
            file.flush()
            os.fsync(file.fileno())
        shards = manifest.shards
        if entries:
            size, digest = temporary.stat().st_size, sha256_of(temporary)
            temporary.replace(folder / name)
            shards = (*shards, ShardEntry(name, size, digest, tuple(entries)))
    finally:
        temporary.unlink(missing_ok=True)
    return Manifest(settings, seen == len(scenes), seen, shards, (*manifest.skipped, *skipped))


def _is_full(num_bytes: int, num_scenes: int, settings: ShardSettings) -> bool:
    if settings.scenes_per_shard is not None:
        return num_scenes >= settings.scenes_per_shard
    return num_bytes >= settings.shard_mb * MEGABYTE


def _append(tar: tarfile.TarFile, key: str, name: str, scene: EncodedScene) -> SceneEntry:
    start = tar.offset
    for member in scene.members:
        # A new TarInfo has no time, no owner and the rights 644.
        header = tarfile.TarInfo(member.name)
        header.size = len(member.data)
        tar.addfile(header, io.BytesIO(member.data))
    return SceneEntry(key, name, scene.num_views, start, tar.offset - start)


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Make the folder and lock it, for as long as this process lives at most."""
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        # Some network file systems know no locks: there nobody is refused.
        with contextlib.suppress(OSError):
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise OutputExists(
                    f"{folder}: another process writes shards there. Wait for it, or give another folder."
                ) from error
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _full_disk_explained(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            message = (
                "the disk is full. All shards that the manifest lists are whole: free space and run the command again"
            )
        else:
            message = f"the shards cannot be written ({error.strerror or error}). Check the path and its permissions"
        raise LrmTttError(f"{folder}: {message}.") from error
