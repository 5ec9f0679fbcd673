"""What a stream is asked to do: plain data, checked when made. Free of torch."""

import dataclasses
import math
from pathlib import Path
from typing import Literal

from lrm_ttt.errors import InvalidConfig
from lrm_ttt.pipeline.config import Backend, Color, Precision, Schedule, check_color

Strategy = Literal["re-predict", "merge"]
DEFAULT_VIRTUAL = 16


@dataclasses.dataclass(frozen=True)
class StreamConfig:
    """Which capture to follow, in which steps, with which model, and where the result goes."""

    source: str
    """A capture, its folder or the file in it that describes it, complete or still being written; not `example`."""
    out: Path
    """Folder for scene.ply, state.safetensors, metrics.json and report.html, all replaced after every step."""
    views_per_step: int = 4
    """Views that are written to the memory at once, in the order of the file; the last step may have fewer, and
    --resume takes them again, with those that came since."""
    strategy: Strategy = "re-predict"
    """Predict the Gaussians of the virtual views anew after every step, or those of the new views alone (merge).
    Update and query cost the same in every step; what merge writes and draws grows."""
    virtual: int | None = None
    """At most so many of the views seen, far from each other, are virtual views (re-predict alone). Default: 16."""
    elastic: float | None = None
    """Strength of the elastic update, which draws little-used memory back; 0: off. Default: the checkpoint's."""
    hold_out: int = 8
    """Never show every n-th view; after each step at most 8 of those passed are compared. 0: none."""
    max_views: int | None = None
    """Stop after so many input views."""
    timeout: float = 0.0
    """Seconds to wait for the next view before the stream ends. 0: take what is there now."""
    image_size: tuple[int, int] | None = None
    """Height and width, multiples of the model's patch (8). Default: the images' shape, at most 256x256 pixels."""
    checkpoint: str | None = None
    """A folder with model.safetensors and config.json, or owner/name on the hub. Default: the one for streams."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N; auto takes a GPU where there is one."""
    backend: Backend = "auto"
    """What draws the Gaussians: gsplat (CUDA), cpu, reference (slow); auto takes the fastest that is there."""
    precision: Precision = "auto"
    """Of the model's products; auto is bf16 where the hardware multiplies it."""
    compile: bool = False
    """Compile the blocks first: a minute at first, seconds later. Pays for large models, not the embedded one."""
    schedule: Schedule | None = None
    """`causal` streams a model that was trained otherwise: an experiment, usually for the worse."""
    background: Color = (1.0, 1.0, 1.0)
    """Red, green and blue (0 to 1) behind transparent images and behind renderings."""
    resume: bool = False
    """Go on from OUT/state.safetensors, with the same flags."""
    overwrite: bool = False
    """Replace an earlier result in OUT, and nothing else that may be there."""

    def __post_init__(self) -> None:
        if not str(self.source):
            raise InvalidConfig("SOURCE is empty: give the folder of a capture.")
        for flag, value in (("views-per-step", self.views_per_step), ("virtual", self.virtual)):
            if value is not None and value < 1:
                raise InvalidConfig(f"--{flag} {value}: at least one.")
        if self.strategy == "merge" and self.virtual is not None:
            raise InvalidConfig(
                f"--virtual {self.virtual}: merge queries the new views of each step and no others. Leave it out, or "
                "pass --strategy re-predict."
            )
        if self.max_views is not None and self.max_views < 2:
            raise InvalidConfig(f"--max-views {self.max_views}: one view shows no depth. Give at least two.")
        if self.elastic is not None and not 0 <= self.elastic < 1:
            raise InvalidConfig(f"--elastic {self.elastic:g}: the strength lies in 0 (off) to 1; 0.05 is usual.")
        if self.hold_out < 0 or self.hold_out == 1:
            raise InvalidConfig(
                f"--hold-out {self.hold_out}: every n-th view is held out; n is 2 or more (8 is usual), or 0 for none."
            )
        if not (math.isfinite(self.timeout) and self.timeout >= 0):
            raise InvalidConfig(f"--timeout {self.timeout:g}: a number of seconds, 0 or more.")
        if self.image_size is not None and min(self.image_size) < 1:
            raise InvalidConfig(
                f"--image-size {self.image_size[0]} {self.image_size[1]} is empty: give height and width."
            )
        if self.resume and self.overwrite:
            raise InvalidConfig("--resume goes on from OUT and --overwrite replaces it. Pass one of them.")
        check_color(self.background)

    @property
    def num_virtual(self) -> int | None:
        """At most so many virtual views; None for `merge`, which has none."""
        return None if self.strategy == "merge" else self.virtual or DEFAULT_VIRTUAL
