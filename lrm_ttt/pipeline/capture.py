"""From the name of a capture to its input and held-out views: look first, decode what was chosen."""

import dataclasses
from pathlib import Path

from lrm_ttt.data.images import choose_image_size, load_views
from lrm_ttt.data.open_scene import open_scene
from lrm_ttt.data.procedural import procedural_capture
from lrm_ttt.data.source import SceneSource
from lrm_ttt.data.view_sampler import ViewChoice, choose_views
from lrm_ttt.errors import InvalidConfig
from lrm_ttt.pipeline.config import DEFAULT_VIEWS, EXAMPLE, Color, ReconstructConfig, parse_views
from lrm_ttt.scene.cameras import ImageSize
from lrm_ttt.scene.views import Views

# The procedural capture behind `example`: a striped digger, with an arm that views must agree on.
EXAMPLE_SEED, EXAMPLE_VIEWS, EXAMPLE_SIZE = 9, 28, ImageSize(128, 128)
# Pixels of an image where nobody gives a size: twice what the embedded model was trained with, each side.
DEFAULT_PIXELS = 256 * 256


@dataclasses.dataclass(frozen=True)
class CapturePlan:
    """A capture of which nothing is decoded yet: its views, those that were chosen, and at which size.

    `example` are the views of a capture that was made on the spot.
    """

    source: SceneSource
    choice: ViewChoice
    image_size: ImageSize
    example: Views | None = None

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences about what was noticed."""
        return self.source.notes

    def load(self, indices: tuple[int, ...], patch_size: int, background: Color) -> Views:
        """Decode the views `indices` `[v]`, with cameras in the capture's own frame."""
        if self.example is not None:
            return self.example[list(indices)]
        return load_views(self.source, indices, self.image_size, patch_size=patch_size, background=background)


def plan_capture(config: ReconstructConfig, patch_size: int) -> CapturePlan:
    """Open a capture and choose its views and their size.

    Raises `UnreadableScene` for what is wrong with the capture, `InvalidConfig` for what it cannot give.
    """
    asked = None if config.image_size is None else ImageSize(*config.image_size)
    if asked is not None:
        check_size(asked, patch_size)
    if config.source == EXAMPLE:
        example = procedural_capture(EXAMPLE_SEED, EXAMPLE_VIEWS, asked or EXAMPLE_SIZE, "object")
        source = as_source(example, EXAMPLE)
        return CapturePlan(source, _choose(config, source), example.image_size, example)
    source = open_scene(config.source, allow_missing=config.allow_missing)
    size = asked or choose_image_size(source, patch_size=patch_size, max_pixels=DEFAULT_PIXELS)
    return CapturePlan(source, _choose(config, source), size)


def check_size(size: ImageSize, patch_size: int) -> None:
    """Refuse a size that is not made of patches."""
    if size.height % patch_size or size.width % patch_size or min(size) < patch_size:
        near = [max(patch_size, round(side / patch_size) * patch_size) for side in size]
        raise InvalidConfig(
            f"--image-size {size.height} {size.width} (height, width) is not made of the model's patches of "
            f"{patch_size}x{patch_size}. Take {near[0]} {near[1]}."
        )


def _choose(config: ReconstructConfig, source: SceneSource) -> ViewChoice:
    wanted = parse_views(config.views)
    hold_out = config.hold_out or None
    available = source.num_views - (len(range(0, source.num_views, hold_out)) if hold_out else 0)
    if available < 2:
        raise InvalidConfig(
            f"{source.name} has {source.num_views} views, of which --hold-out {config.hold_out} leaves {available}; "
            "at least two are needed. Pass --hold-out 0, or add photographs."
        )
    if config.views is None:
        wanted = min(DEFAULT_VIEWS, available)
    if isinstance(wanted, tuple):
        return choose_views(source, num_inputs=None, hold_out=hold_out, inputs=wanted, seed=config.seed)
    return choose_views(source, num_inputs=wanted, hold_out=hold_out, seed=config.seed)


def as_source(example: Views, name: str) -> SceneSource:
    """Describe views that were made rather than read, so that they are chosen like any others."""
    num_views = example.shape[0]
    return SceneSource(
        name=name,
        image_paths=tuple(Path(f"view {index}") for index in range(num_views)),
        cam_to_world=example.cameras.cam_to_world.double(),
        intrinsics=example.cameras.intrinsics.double(),
        image_sizes=(example.image_size,) * num_views,
        distortion=(None,) * num_views,
    )
