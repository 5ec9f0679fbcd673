"""What a run is asked to do: plain data, checked when made and stored beside the results. Free of torch."""

import dataclasses
import math
import re
from pathlib import Path
from typing import Literal

from lrm_ttt.errors import InvalidConfig

Backend = Literal["auto", "cpu", "gsplat", "reference"]
Schedule = Literal["single", "chunked", "causal"]
Precision = Literal["auto", "fp32", "bf16"]
Representation = Literal["gaussians", "images", "triplane"]
Color = tuple[float, float, float]

# The SOURCE that needs no files.
EXAMPLE = "example"
# More than any screen has, and less than exhausts memory.
MOST_PIXELS_A_SIDE = 16384
# Input views where nobody says how many.
DEFAULT_VIEWS = 16


@dataclasses.dataclass(frozen=True)
class ReconstructConfig:
    """Which capture, which of its views, which model, and where the result goes."""

    source: str
    """A capture: its folder, or the file in it that describes it; `example` makes a procedural one."""
    out: Path
    """Folder for scene.ply (or see --representation), report.html, metrics.json, config.yaml, renders/, video.mp4."""
    views: str | None = None
    """How many input views (k-means over position and direction), `all`, or indices: 1,5,9. Default: at most 16."""
    virtual: str = "inputs"
    """Which views query the memory, one Gaussian a pixel: the inputs, N of them (k-means), or a capture's cameras."""
    hold_out: int = 8
    """Hold out every n-th view: the model never sees it, the report compares it with its rendering. 0: none."""
    image_size: tuple[int, int] | None = None
    """Height and width, multiples of the model's patch (8). Default: the images' shape, at most 256x256 pixels."""
    checkpoint: str | None = None
    """A folder with model.safetensors and config.json, or owner/name on the hub. Default: the embedded model."""
    representation: Representation | None = None
    """What to make: scene.ply, state.safetensors or triplanes.safetensors. The checkpoint's own, and no other."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N; auto takes a GPU where there is one."""
    backend: Backend = "auto"
    """What draws the Gaussians: gsplat (CUDA), cpu, reference (slow); auto takes the fastest that is there."""
    precision: Precision = "auto"
    """Of the model's products; auto is bf16 where the hardware multiplies it."""
    compile: bool = False
    """Compile the blocks first: a minute at first, seconds later. Pays for large models, not the embedded one."""
    schedule: Schedule | None = None
    """Write views to memory otherwise than the checkpoint was trained to: an experiment, usually for the worse."""
    memory_budget: str | None = None
    """Most memory to take, such as 4GB: the model works on as many views at a time as fit. Default: what is free."""
    refine: int = 0
    """Steps of optimising all Gaussians on the input views after the model has run; 300 is a good number."""
    refine_share: float = 1.0
    """Share of the Gaussians that optimisation begins with; their number grows again. From few views 0.08 is better."""
    keep_fraction: float = 1.0
    """Share of Gaussians to keep, the most opaque first; those under opacity 1/255, which never draw, always go."""
    background: Color = (1.0, 1.0, 1.0)
    """Red, green and blue (0 to 1) behind transparent images and behind renderings."""
    seed: int = 0
    """Decides the k-means choice and the order of refinement; the same seed gives the same result."""
    allow_missing: bool = False
    """Go on without listed images that are missing or unreadable."""
    overwrite: bool = False
    """Replace an earlier result in OUT, and nothing else that may be there."""
    dry_run: bool = False
    """Print tokens, memory and seconds to expect, and do nothing."""

    def __post_init__(self) -> None:
        if not str(self.source):
            raise InvalidConfig("SOURCE is empty: give the folder of a capture, or `example`.")
        if self.hold_out < 0 or self.hold_out == 1:
            raise InvalidConfig(
                f"--hold-out {self.hold_out}: every n-th view is held out; n is 2 or more (8 is usual), or 0 for none."
            )
        if self.image_size is not None and min(self.image_size) < 1:
            raise InvalidConfig(
                f"--image-size {self.image_size[0]} {self.image_size[1]} is empty: give height and width."
            )
        if self.refine < 0:
            raise InvalidConfig(f"--refine {self.refine}: a number of steps is 0 or more.")
        if not 0 < self.refine_share <= 1:
            raise InvalidConfig(f"--refine-share {self.refine_share:g}: a share lies above 0 and is at most 1.")
        if self.refine_share < 1 and not self.refine:
            raise InvalidConfig("--refine-share: says how --refine begins. Pass the steps with --refine 300, too.")
        if not 0 < self.keep_fraction <= 1:
            raise InvalidConfig(f"--keep-fraction {self.keep_fraction:g}: a share lies above 0 and is at most 1.")
        check_color(self.background)
        parse_views(self.views)
        parse_memory(self.memory_budget)
        parse_virtual(self.virtual)


@dataclasses.dataclass(frozen=True)
class RenderConfig:
    """Which scene, from where, and where the pictures go."""

    scene: Path
    """A .ply of Gaussians, a triplanes.safetensors, or the state.safetensors of a model that predicts images."""
    out: Path | None = None
    """A video (.mp4), or a folder for PNG images. Default: SCENE_render.mp4 beside the scene."""
    cameras: str | None = None
    """A capture whose cameras to render from; it needs no images. Default: an orbit around the scene (not a state)."""
    checkpoint: str | None = None
    """The model that made a state; of triplanes it says with how many samples to render them."""
    num_frames: int | None = None
    """How many frames of an orbit (72), or how many of the cameras, evenly taken (all)."""
    image_size: tuple[int, int] | None = None
    """Height and width in pixels. Default: that of the cameras (a state: at most the inputs' pixels), or 512 512."""
    up: Literal["x", "y", "z", "-x", "-y", "-z"] = "-y"
    """The axis that points up in an orbit: -y as in COLMAP's frames, z as in Blender's."""
    background: Color = (1.0, 1.0, 1.0)
    """Red, green and blue (0 to 1) behind the scene; a state has the background that its inputs had."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N; auto takes a GPU where there is one."""
    backend: Backend = "auto"
    """What draws the Gaussians: gsplat (CUDA), cpu, reference (slow); auto takes the fastest that is there."""

    def __post_init__(self) -> None:
        if self.num_frames is not None and self.num_frames < 1:
            raise InvalidConfig(f"--num-frames {self.num_frames}: at least one.")
        if self.image_size is not None and not 1 <= min(self.image_size) <= max(self.image_size) <= MOST_PIXELS_A_SIDE:
            raise InvalidConfig(
                f"--image-size {self.image_size[0]} {self.image_size[1]}: each is 1 to {MOST_PIXELS_A_SIDE} pixels."
            )
        check_color(self.background)


def parse_views(views: str | None) -> int | tuple[int, ...] | None:
    """Return a number of input views, a list of indices, or None for all views; "" and None give the default number.

    Raises `InvalidConfig` for anything else, and for fewer than two views.
    """
    text = (views or str(DEFAULT_VIEWS)).strip().lower()
    if text == "all":
        return None
    try:
        numbers = tuple(int(word) for word in text.strip(",").split(","))
    except ValueError as error:
        raise InvalidConfig(
            f"--views {views}: give a number of views, `all`, or indices separated by commas such as 1,5,9."
        ) from error
    is_list = "," in text
    if (len(numbers) if is_list else numbers[0]) < 2:
        raise InvalidConfig(f"--views {views}: one view shows no depth. Give at least two.")
    return numbers if is_list else numbers[0]


def parse_virtual(virtual: str) -> int | str | None:
    """Return a number of virtual views among the inputs, the name of a capture, or None for all inputs.

    Raises `InvalidConfig` for less than one view.
    """
    text = virtual.strip()
    if text in ("", "inputs"):
        return None
    try:
        number = int(text)
    except ValueError:
        return text
    if number < 1:
        raise InvalidConfig(f"--virtual {virtual}: at least one. A folder of that name is ./{text}.")
    return number


def parse_memory(budget: str | None) -> float | None:
    """Return the bytes that `4GB`, `800 MB` or `1.5GiB` mean, and None for None. Raises `InvalidConfig`."""
    if budget is None:
        return None
    found = re.fullmatch(r"(\d+\.?\d*)\s*([kmgt]i?)b?", budget.strip().lower())
    if found is None or not float(found[1]):
        raise InvalidConfig(f"--memory-budget {budget}: give a size with its unit, such as 4GB or 800MB.")
    unit = 1024.0 if found[2].endswith("i") else 1000.0
    return float(found[1]) * unit ** ("kmgt".index(found[2][0]) + 1)


def check_color(color: Color) -> None:
    """Refuse channels outside 0..1."""
    if not all(math.isfinite(channel) and 0 <= channel <= 1 for channel in color):
        raise InvalidConfig(f"--background {' '.join(f'{c:g}' for c in color)}: channels lie in 0 to 1, such as 1 1 1.")
