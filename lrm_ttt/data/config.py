"""Which data sets to train from, and which views of a scene to take. Plain data, checked when made. Free of torch."""

import dataclasses
from typing import Literal

from lrm_ttt.errors import InvalidConfig

LAYOUTS = ("auto", "scenes", "realestate10k", "shards", "procedural")


@dataclasses.dataclass(frozen=True)
class DatasetConfig:
    """One data set and how often it is drawn from.

    `path` is a folder or file; where it is absent the command line must give it (`--data NAME=PATH`). `layout` says how
    scenes lie there: `scenes` is a tree of captures of any layout that `open_scene` reads (DL3DV, Objaverse renders,
    COLMAP, transforms.json) or a list of such, `realestate10k` chunks of `.torch` files, `shards` what
    `lrm-ttt data shard` writes, `procedural` scenes drawn on the fly without a path; `auto` looks. In the layout
    `scenes` alone, `image_folder` names the copy of the images to take where there are several (images_4), and with
    `allow_missing` a scene of which images are missing is not broken, but has the others. The DL3DV benchmark's scenes
    are left out with `exclude_benchmark`, whatever the layout.
    """

    name: str
    path: str | None = None
    layout: Literal["auto", "scenes", "realestate10k", "shards", "procedural"] = "auto"
    weight: float = 1.0
    image_folder: str | None = None
    exclude_benchmark: bool = True
    allow_missing: bool = False

    def __post_init__(self) -> None:
        if not self.weight > 0:
            raise InvalidConfig(f"data set {self.name}: weight must be positive, not {self.weight}.")
        if self.layout == "procedural" and self.path is not None:
            raise InvalidConfig(f"data set {self.name}: procedural scenes have no path.")


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """The mixture that training draws from; without `sources` procedural scenes alone.

    `num_workers` processes a rank decode ahead (0: a thread of the rank's own). A scene that cannot be read is skipped,
    counted and named; when more than the share `max_broken` of those drawn are, the run stops.
    """

    sources: tuple[DatasetConfig, ...] = ()
    num_workers: int = 2
    max_broken: float = 0.01

    def __post_init__(self) -> None:
        names = [source.name for source in self.sources]
        if len(set(names)) < len(names):
            raise InvalidConfig(f"data.sources: names must differ, but are {', '.join(names)}.")
        if self.num_workers < 0 or not 0 <= self.max_broken < 1:
            raise InvalidConfig("data: num_workers must not be negative, and max_broken must lie in [0, 1).")


@dataclasses.dataclass(frozen=True)
class ViewSamplingConfig:
    """Which views of a capture are inputs and which targets (MODEL.md, Training recipe).

    `span` draws a number in that range, and takes as many consecutive frames (None: the whole capture); `pool` draws
    that many views of the span (None: all), from which inputs and targets come. `num_inputs` lists numbers of inputs,
    one of which is drawn for each batch (empty: the stage's range). With `order` "prefix" inputs and targets are the
    first views of the pool, in the order of the capture, as a stream would bring them, the first and the last of them
    inputs; "random" shuffles. `targets` are "held_out" from the inputs, or "any" of these views, inputs among them.
    Procedural scenes heed `num_inputs` alone.
    """

    span: tuple[int, int] | None = None
    pool: int | None = None
    num_inputs: tuple[int, ...] = ()
    order: Literal["random", "prefix"] = "random"
    targets: Literal["held_out", "any"] = "held_out"

    def __post_init__(self) -> None:
        if self.span is not None and not 2 <= self.span[0] <= self.span[1]:
            raise InvalidConfig(f"views.span must be a range from at least 2 upwards, not {list(self.span)}.")
        if self.pool is not None and self.pool < 2:
            raise InvalidConfig(f"views.pool must be at least 2, not {self.pool}.")
        if any(number < 1 for number in self.num_inputs):
            raise InvalidConfig(f"views.num_inputs must be positive, not {list(self.num_inputs)}.")
