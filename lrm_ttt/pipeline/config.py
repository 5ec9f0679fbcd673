"""What a run is asked to do: plain data, checked when made and stored beside the results. Free of torch."""

import dataclasses
import math
from pathlib import Path
from typing import Literal

from lrm_ttt.errors import InvalidConfig

Backend = Literal["auto", "cpu", "gsplat", "reference"]
Schedule = Literal["single", "chunked", "causal"]
Color = tuple[float, float, float]

# The SOURCE that needs no files.
EXAMPLE = "example"
# Input views where nobody says how many.
DEFAULT_VIEWS = 16


@dataclasses.dataclass(frozen=True)
class ReconstructConfig:
    """Which capture, which of its views, which model, and where the result goes."""

    source: str
    """A capture: its folder, or the file that describes it (transforms.json, opencv_cameras.json, a COLMAP model). `example` makes a
    procedural capture on the spot."""
    out: Path
    """Folder for scene.ply, report.html, metrics.json, config.yaml, renders/ and video.mp4. It appears when all is done."""
    views: str | None = None
    """Input views: a number of them, spread by k-means over position and direction; `all`; or a list of indices such as 1,5,9. By
    default 16, or all where there are fewer."""
    hold_out: int = 8
    """Hold out every n-th view: the model never sees it, and the report compares it with its rendering. 0 holds out none."""
    image_size: tuple[int, int] | None = None
    """Height and width in pixels, multiples of the model's patch (8). By default the images' own shape, within 256 x 256 pixels."""
    checkpoint: str | None = None
    """A folder with model.safetensors and config.json, or owner/name on the Hugging Face hub. By default the model that comes with
    the package."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N. auto takes a GPU where there is one."""
    backend: Backend = "auto"
    """What draws the Gaussians: gsplat (CUDA), cpu, reference (slow), or auto, which takes the fastest that is there."""
    schedule: Schedule | None = None
    """Write the views to memory in another way than the checkpoint was trained for (see `backbone.schedule` in its config.json). An
    experiment: the three are different computations."""
    refine: int = 0
    """Steps of optimising all Gaussians on the input views after the model has run; 300 is a good number."""
    keep_fraction: float = 1.0
    """Share of Gaussians to keep, the most opaque first. Those too faint to draw (opacity under 1/255) never stay."""
    background: Color = (1.0, 1.0, 1.0)
    """Red, green and blue (0 to 1) behind transparent images and renderings."""
    seed: int = 0
    """Decides the k-means choice and the order of refinement; the same seed gives the same result."""
    allow_missing: bool = False
    """Go on without listed images that are missing."""
    overwrite: bool = False
    """Replace an earlier result in OUT (and nothing else that may be there)."""
    dry_run: bool = False
    """Print tokens, memory and seconds to expect, and do nothing."""

    def __post_init__(self) -> None:
        if not str(self.source):
            raise InvalidConfig("SOURCE is empty: give the folder of a capture, or `example`.")
        if self.hold_out < 0 or self.hold_out == 1:
            raise InvalidConfig(
                f"--hold-out {self.hold_out}: every n-th view is held out, so n is 2 or more (8 is usual), or 0 for none."
            )
        if self.image_size is not None and min(self.image_size) < 1:
            raise InvalidConfig(
                f"--image-size {self.image_size[0]} {self.image_size[1]} is empty: give height and width."
            )
        if self.refine < 0:
            raise InvalidConfig(f"--refine {self.refine}: a number of steps is 0 or more.")
        if not 0 < self.keep_fraction <= 1:
            raise InvalidConfig(f"--keep-fraction {self.keep_fraction:g}: a share lies above 0 and is at most 1.")
        check_color(self.background)
        parse_views(self.views)


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


def check_color(color: Color) -> None:
    """Refuse channels outside 0..1."""
    if not all(math.isfinite(channel) and 0 <= channel <= 1 for channel in color):
        raise InvalidConfig(f"--background {' '.join(f'{c:g}' for c in color)}: channels lie in 0 to 1, such as 1 1 1.")
