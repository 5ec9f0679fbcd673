"""The scenes that shards are made of: those of a data set, or procedural ones, decoded a few views at a time."""

import dataclasses
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch

from lrm_ttt.data.config import DatasetConfig
from lrm_ttt.data.dataset import SceneDataset, open_dataset
from lrm_ttt.data.images import choose_image_size, load_views
from lrm_ttt.data.procedural import procedural_capture
from lrm_ttt.data.source import SceneSource
from lrm_ttt.errors import InvalidConfig
from lrm_ttt.scene.cameras import Cameras, ImageSize
from lrm_ttt.scene.views import Views

# Views that are held as floating-point numbers at a time: 100 MB at 960x540.
VIEWS_AT_ONCE = 16
PATCH = 8
BLACK = (0.0, 0.0, 0.0)


@runtime_checkable
class Scenes(Protocol):
    """Scenes that have names and can be decoded one by one."""

    def __len__(self) -> int: ...
    def scene_name(self, index: int) -> str:
        """Return the name of a scene; nothing is decoded."""
        ...

    def identity(self) -> str:
        """Return a text that differs where the scenes differ."""
        ...

    def load(self, index: int) -> Iterator[Views]:
        """Yield the views of a scene in chunks, composited on black, with float64 cameras in the scene's own frame.

        Raises `UnreadableScene`.
        """
        ...


@dataclasses.dataclass(frozen=True)
class DatasetScenes:
    """The first scenes of a data set (all: `limit` None), decoded at one size or by `longer_side`.

    The data set is opened when it is first asked for, and raises as `open_dataset` does.
    """

    config: DatasetConfig
    image_size: ImageSize | None
    longer_side: int | None
    limit: int | None = None

    def __post_init__(self) -> None:
        if (self.image_size is None) == (self.longer_side is None):
            raise InvalidConfig("give either --image-size H W or --longer-side N.")
        for side in self.image_size or (self.longer_side,):
            _check_side(side)
        if self.limit is not None and self.limit < 1:
            raise InvalidConfig(f"the first {self.limit} scenes: give a limit of 1 or more, or none for all.")

    @functools.cached_property
    def dataset(self) -> SceneDataset:
        """The scenes, limited or not."""
        return open_dataset(self.config)

    def __len__(self) -> int:
        return len(self.dataset) if self.limit is None else min(self.limit, len(self.dataset))

    def scene_name(self, index: int) -> str:
        return self.dataset.scene_name(index)

    def identity(self) -> str:
        # Two data sets may well have scenes of the same names: what tells them apart is where they lie.
        path = None if self.config.path is None else str(Path(self.config.path).expanduser().resolve())
        config = dataclasses.replace(self.config, name="", weight=1.0, path=path)
        return "\n".join([repr(config), *(self.scene_name(index) for index in range(len(self)))])

    def load(self, index: int) -> Iterator[Views]:
        # Under one name for all, what there is to warn of is the same sentence for all, and shown once.
        source = dataclasses.replace(self.dataset.open(index), name=self.config.name)
        size = self.image_size or _size_by_longer_side(source, self.longer_side or PATCH)
        for start in range(0, source.num_views, VIEWS_AT_ONCE):
            indices = range(start, min(start + VIEWS_AT_ONCE, source.num_views))
            # On black, images are multiplied by their alpha and nothing else.
            views = load_views(source, indices, size, patch_size=PATCH, background=BLACK)
            cameras = Cameras(source.cam_to_world[list(indices)], views.cameras.intrinsics.double(), size)
            yield dataclasses.replace(views, cameras=cameras)


def _check_side(side: int | None) -> None:
    if side is not None and (side < PATCH or side % PATCH):
        raise InvalidConfig(
            f"an image side of {side} is not made of patches of {PATCH}. "
            f"Take {max(PATCH, round(side / PATCH) * PATCH)}."
        )


def _size_by_longer_side(source: SceneSource, longer_side: int) -> ImageSize:
    """Return the shape of most images of a capture with this longer side at most, in whole patches."""
    largest = choose_image_size(source, patch_size=PATCH, max_pixels=2**62)
    scale = min(1.0, longer_side / max(largest))
    height, width = (max(PATCH, round(side * scale / PATCH) * PATCH) for side in largest)
    return ImageSize(height, width)


@dataclasses.dataclass(frozen=True)
class ProceduralScenes:
    """As many procedural captures; scene i has the seed `seed` + i, and shows a room where a coin of that seed says so.

    A share `room_fraction` are rooms, the others objects with alpha; all have depths.
    """

    number: int
    num_views: int
    image_size: ImageSize
    room_fraction: float = 0.3
    seed: int = 0

    def __post_init__(self) -> None:
        if self.number < 1 or self.num_views < 2:
            raise InvalidConfig(
                f"{self.number} procedural scenes of {self.num_views} views: give 1 or more of 2 views or more."
            )
        for side in self.image_size:
            _check_side(side)
        if not 0 <= self.room_fraction <= 1:
            raise InvalidConfig(f"a share of rooms of {self.room_fraction}: give a number from 0 to 1.")

    def __len__(self) -> int:
        return self.number

    def scene_name(self, index: int) -> str:
        return f"procedural-{self.seed + index:08d}"

    def identity(self) -> str:
        return repr(self)

    def load(self, index: int) -> Iterator[Views]:
        seed = self.seed + index
        coin = float(torch.rand((), generator=torch.Generator().manual_seed(seed)))
        views = procedural_capture(
            seed, self.num_views, self.image_size, "room" if coin < self.room_fraction else "object"
        )
        on_black = views.images - (1 - views.coverage)
        yield dataclasses.replace(views, images=on_black.clamp(0, 1), cameras=views.cameras.to(torch.float64))
