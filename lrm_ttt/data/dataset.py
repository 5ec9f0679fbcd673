"""Data sets on disk: scenes by number, whatever the layout."""

import dataclasses
import logging
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

from lrm_ttt.data.benchmark_scenes import is_benchmark_scene
from lrm_ttt.data.config import DatasetConfig
from lrm_ttt.data.realestate10k import chunk_folder, open_chunks
from lrm_ttt.data.scene_tree import SceneTree, find_scenes, read_list
from lrm_ttt.data.shard_manifest import MANIFEST
from lrm_ttt.data.shard_reader import ShardDataset
from lrm_ttt.data.source import SceneSource
from lrm_ttt.errors import InvalidConfig

log = logging.getLogger(__name__)


@runtime_checkable
class SceneDataset(Protocol):
    """Scenes that can be opened by their number, in any process."""

    @property
    def groups(self) -> tuple[int, ...]:
        """Sizes of the runs of scenes that lie together, such as in one shard; their sum is the number of scenes."""
        ...

    def __len__(self) -> int: ...

    def scene_name(self, index: int) -> str:
        """Return the name of a scene; nothing is opened."""
        ...

    def open(self, index: int) -> SceneSource:
        """Return the cameras and images of a scene, none of them decoded; raises `UnreadableScene`."""
        ...


def open_dataset(config: DatasetConfig) -> SceneDataset:
    """List the scenes of a data set in a fixed order, without those that must be left out; no scene is opened.

    Raises `InvalidConfig` for a path that is absent or missing, and for a data set that is nothing but benchmark;
    `UnreadableScene` where no scenes are found, or chunks or shards are missing.
    """
    assert config.layout != "procedural"
    if config.path is None:
        raise InvalidConfig(f"data set {config.name}: no path. Say where it lies: --data {config.name}=PATH.")
    path = Path(config.path).expanduser()
    if not path.exists():
        raise InvalidConfig(
            f"data set {config.name}: there is no folder or file {path}. Check it, or pass --data {config.name}=PATH."
        )
    layout = find_layout(path) if config.layout == "auto" else config.layout
    dataset: SceneDataset
    if layout == "shards":
        dataset = ShardDataset(path)
    elif layout == "realestate10k":
        dataset = open_chunks(path)
    else:
        dataset = dataclasses.replace(_scenes(path, config.image_folder), allow_missing=config.allow_missing)
    return _without_benchmark(dataset, config) if config.exclude_benchmark else dataset


def find_layout(path: Path) -> Literal["shards", "realestate10k", "scenes"]:
    """Return the layout, by its files, of what lies at a path: shards, realestate10k, or else scenes."""
    if (path / MANIFEST).is_file():
        return "shards"
    return "scenes" if chunk_folder(path) is None else "realestate10k"


def _scenes(path: Path, image_folder: str | None) -> SceneTree:
    is_list = path.is_file() and path.suffix.lower() in (".json", ".txt")
    listed = read_list(path, image_folder) if is_list else None
    return find_scenes(path, image_folder) if listed is None else listed


def _without_benchmark(dataset: SceneDataset, config: DatasetConfig) -> SceneDataset:
    kept, groups, start = [], [], 0
    for size in dataset.groups:
        kept_here = [i for i in range(start, start + size) if not is_benchmark_scene(dataset.scene_name(i))]
        kept += kept_here
        if kept_here:
            groups.append(len(kept_here))
        start += size
    if len(kept) == len(dataset):
        return dataset
    if not kept:
        raise InvalidConfig(
            f"data set {config.name}: all its scenes are in the DL3DV benchmark, which is left out of training. "
            "To keep it, to evaluate on, pass --keep-benchmark (lrm-ttt data) or set exclude_benchmark: false for the "
            "data set (in a configuration)."
        )
    left_out = len(dataset) - len(kept)
    log.info("%s: left out %d of %d scenes, which are in the DL3DV benchmark", config.name, left_out, len(dataset))
    return _Selection(dataset, tuple(kept), tuple(groups))


@dataclasses.dataclass(frozen=True)
class _Selection:
    dataset: SceneDataset
    indices: tuple[int, ...]
    groups: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.indices)

    def scene_name(self, index: int) -> str:
        return self.dataset.scene_name(self.indices[index])

    def open(self, index: int) -> SceneSource:
        return self.dataset.open(self.indices[index])
