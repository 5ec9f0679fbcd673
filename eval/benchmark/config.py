"""What a benchmark compares: scenes, numbers of input views, methods. Free of torch."""

from dataclasses import dataclass, fields
from typing import Literal

from lrm_ttt.errors import InvalidConfig
from lrm_ttt.eval.baselines.config import OptimiseConfig, ScaffoldConfig

Color = tuple[float, float, float]
WHITE: Color = (1.0, 1.0, 1.0)


@dataclass(frozen=True)
class SceneSetConfig:
    """Captures under one folder, seen by the rules of one protocol (eval/protocol.py)."""

    path: str
    """A capture, or a folder with several, relative to the benchmark's `data`."""
    protocol: str = "hold_out_8"
    """The name of a protocol: which views are inputs and targets, at which size, on which background."""
    image_size: tuple[int, int] | None = None
    """Height and width in pixels in place of the protocol's."""
    only: tuple[str, ...] = ()
    """Names of the scenes to take (empty: all)."""


@dataclass(frozen=True)
class ProceduralSetConfig:
    """Scenes made on the spot, which no training meets: every 8th view is held out."""

    objects: int = 6
    rooms: int = 2
    num_views: int = 40
    image_size: tuple[int, int] = (128, 128)


@dataclass(frozen=True)
class FeedForwardConfig:
    """The forward pass of a trained model, all inputs at once."""

    checkpoint: str | None = None
    """A folder or a name on the hub; None is the embedded model, `softmax` the embedded one with softmax attention."""
    refine: int = 0
    """Steps of optimisation on the inputs afterwards."""
    refine_share: float = 1.0
    """The share of the Gaussians that they begin with; their number grows again."""

    def __post_init__(self) -> None:
        if self.refine < 0 or not 0 < self.refine_share <= 1 or (self.refine_share < 1 and not self.refine):
            raise InvalidConfig(
                f"feed_forward: refine {self.refine}, refine_share {self.refine_share:g}: steps are 0 or more, a "
                "share lies above 0 and is at most 1, and below 1 it needs steps."
            )


@dataclass(frozen=True)
class StreamConfig:
    """The inputs one group after the other, Gaussians predicted anew from the memory at the end."""

    checkpoint: str | None = None
    """A folder or a name on the hub; None is the embedded streaming model."""
    views_per_step: int = 4


@dataclass(frozen=True)
class MethodConfig:
    """One method: a name for the tables, and exactly one of the others."""

    name: str
    feed_forward: FeedForwardConfig | None = None
    stream: StreamConfig | None = None
    optimise: OptimiseConfig | None = None
    scaffold: ScaffoldConfig | None = None

    def __post_init__(self) -> None:
        kinds = [field.name for field in fields(self) if field.name != "name"]
        given = [kind for kind in kinds if getattr(self, kind) is not None]
        if len(given) != 1:
            what = " and ".join(given) or "nothing to run"
            raise InvalidConfig(f"methods: '{self.name}' names {what}: give one of {', '.join(kinds)}.")


@dataclass(frozen=True)
class BenchmarkConfig:
    """Every method on every scene with every number of input views: one cell each."""

    name: str
    methods: tuple[MethodConfig, ...]
    views: tuple[int, ...]
    scenes: tuple[SceneSetConfig, ...] = ()
    procedural: ProceduralSetConfig | None = None
    data: str = "."
    """The folder that the paths of `scenes` begin at, relative to where the command runs."""
    missing: tuple[str, ...] = ()
    """Methods that a reader expects and that are not here, each with the reason, as lines below the tables."""
    remarks: tuple[str, ...] = ()
    """What else a reader of the numbers should know of the methods and scenes, as lines below the tables."""
    lpips: Literal["vgg", "alex"] = "vgg"
    workers: int = 1
    """How many cells run beside each other."""
    threads: int = 0
    """Threads of each cell (0: all of the machine, shared by the workers)."""
    pictures: int = 2
    """How many held-out views of each cell the report shows."""
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.methods or not self.views:
            raise InvalidConfig(f"{self.name}: there is nothing to run. Give `methods` and `views`.")
        least = {"workers": 1, "threads": 0, "pictures": 0}
        for name, number in least.items():
            if getattr(self, name) < number:
                raise InvalidConfig(f"{name} {getattr(self, name)}: at least {number}.")
        if min(self.views) < 1:
            raise InvalidConfig(f"views {', '.join(map(str, self.views))}: numbers of views begin at 1.")
