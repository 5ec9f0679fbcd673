"""The scenes of a benchmark: captures by the rules of their protocol, and procedural ones that no training meets."""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

from safetensors.torch import load_file

from lrm_ttt.data.images import choose_image_size, load_views
from lrm_ttt.data.procedural import Kind, procedural_capture
from lrm_ttt.data.source import SceneSource
from lrm_ttt.data.view_sampler import ViewChoice
from lrm_ttt.errors import InvalidConfig, UnreadableScene
from lrm_ttt.eval.benchmark.cells import slug
from lrm_ttt.eval.benchmark.config import BenchmarkConfig, Color, ProceduralSetConfig, SceneSetConfig
from lrm_ttt.eval.protocol import Protocol, choose, find_protocol
from lrm_ttt.eval.protocol import open_scenes as open_captures
from lrm_ttt.eval.study import FIRST_SEED
from lrm_ttt.pipeline.capture import DEFAULT_PIXELS, as_source
from lrm_ttt.scene.cameras import Cameras, ImageSize
from lrm_ttt.scene.tensor_file import write_tensors
from lrm_ttt.scene.views import Views

PROCEDURAL_RULES = "hold_out_8"
# Where cameras stand does not depend on the size of their images, and few pixels are soon drawn.
FEW_PIXELS = (8, 8)


@dataclasses.dataclass(frozen=True)
class MadeScene:
    """What decides a scene that is made on the spot."""

    seed: int
    kind: Kind
    num_views: int

    def views(self, image_size: tuple[int, int]) -> Views:
        """Draw all views `[v]`, in a frame of the scene's own."""
        return procedural_capture(self.seed, self.num_views, image_size, self.kind)


@dataclasses.dataclass(frozen=True)
class BenchmarkScene:
    """A scene of which nothing is decoded yet, and how it is to be seen.

    `name` is fit for a folder and unique in a benchmark, `protocol` what tables call the `rules`. `source` has the
    cameras; of a scene that is `made` it names no files.
    """

    name: str
    protocol: str
    rules: Protocol
    source: SceneSource
    image_size: ImageSize
    background: Color
    made: MadeScene | None = None

    def choose(self, num_inputs: int, seed: int) -> ViewChoice:
        """Return inputs and targets; raises `InvalidConfig` where there are fewer views."""
        return choose(self.rules, self.source.name, self.source, num_inputs, seed)

    def load(self, indices: Sequence[int], work: Path) -> Views:
        """Decode views `[v]`, in the capture's frame; scenes that are made are drawn once and kept in `work`."""
        if self.made is None:
            return load_views(self.source, indices, self.image_size, background=self.background, report_crops=False)
        path = work / f"{self.name}.safetensors"
        if not path.is_file():
            _write_views(path, self.made.views(self.image_size))
        return _read_views(path, self.image_size)[list(indices)]


def open_scenes(config: BenchmarkConfig, allow_missing: bool) -> tuple[list[BenchmarkScene], list[str]]:
    """Return the scenes of a benchmark, and a sentence for each that is absent and may be.

    Raises `UnreadableScene` for captures that are not there (unless `allow_missing`) or broken, `InvalidConfig` for
    scenes of the same name.
    """
    scenes: list[BenchmarkScene] = []
    absent = []
    for each in config.scenes:
        root = Path(config.data).expanduser() / each.path
        if root.exists():
            scenes += _captures(each, root)
        elif allow_missing:
            absent.append(f"{each.path}: {root} is not there, and was left out")
        else:
            raise UnreadableScene(
                f"{root}: there is no such scene. Name the folder that '{each.path}' is in with --data, or pass "
                "--allow-missing to leave such scenes out."
            )
    if config.procedural is not None:
        scenes += procedural_scenes(config.procedural)
    names = [scene.name for scene in scenes]
    if doubled := sorted({name for name in names if names.count(name) > 1}):
        raise InvalidConfig(f"scenes: {', '.join(doubled)} would be there twice. Take them from one set alone.")
    if not scenes:
        raise InvalidConfig("scenes: there are none. Name captures in `scenes`, or give `procedural`.")
    return scenes, absent


def choose_all(
    scenes: Sequence[BenchmarkScene], views: Sequence[int], seed: int
) -> tuple[dict[tuple[str, int], ViewChoice], list[str]]:
    """Return inputs and targets by scene and number of views, and a sentence for each that there cannot be."""
    choices, impossible = {}, []
    for count in sorted(set(views)):
        for scene in scenes:
            try:
                choices[scene.name, count] = scene.choose(count, seed)
            except InvalidConfig as error:
                impossible.append(f"{scene.name} with {count} inputs: {error}")
    return choices, impossible


def _captures(config: SceneSetConfig, root: Path) -> Iterator[BenchmarkScene]:
    rules = find_protocol(config.protocol)
    for source in open_captures(rules, root, config.only):
        asked = config.image_size or rules.image_size
        size = choose_image_size(source, max_pixels=DEFAULT_PIXELS) if asked is None else ImageSize(*asked)
        name = slug(source.name if source.name.strip("./") else root.resolve().name)
        yield BenchmarkScene(name, rules.name, rules, source, size, rules.background)


def procedural_scenes(config: ProceduralSetConfig) -> list[BenchmarkScene]:
    """Return the objects, then the rooms."""
    wanted: tuple[tuple[Kind, int], ...] = (("object", config.objects), ("room", config.rooms))
    rules = find_protocol(PROCEDURAL_RULES)
    scenes: list[BenchmarkScene] = []
    for kind, number in ((kind, number) for kind, count in wanted for number in range(count)):
        name = f"{kind}-{number}"
        made = MadeScene(FIRST_SEED + len(scenes), kind, config.num_views)
        source = as_source(made.views(FEW_PIXELS), name)
        size = ImageSize(*config.image_size)
        scenes.append(BenchmarkScene(name, f"procedural, {rules.name}", rules, source, size, rules.background, made))
    return scenes


def _write_views(path: Path, views: Views) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {"images": views.images, "masks": views.masks, "depths": views.depths}
    tensors |= {"cam_to_world": views.cameras.cam_to_world, "intrinsics": views.cameras.intrinsics}
    write_tensors(path, {name: tensor for name, tensor in tensors.items() if tensor is not None}, {})


def _read_views(path: Path, image_size: ImageSize) -> Views:
    found = load_file(path)
    cameras = Cameras(found["cam_to_world"], found["intrinsics"], image_size)
    return Views(found["images"], cameras, found.get("masks"), found.get("depths"))
