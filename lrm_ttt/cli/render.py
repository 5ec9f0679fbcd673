"""Render a saved scene to a video or to images, on an orbit or from the cameras of a capture.

SCENE is what `lrm-ttt reconstruct` wrote: scene.ply, triplanes.safetensors or state.safetensors. A state is asked for
images by the model that made it (--checkpoint); the inputs are not seen again.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from lrm_ttt.pipeline.config import Color, RenderConfig


@dataclass(frozen=True)
class Arguments(RenderConfig):
    """Which scene, from where, and where the pictures go."""

    scene: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="SCENE")]
    out: Annotated[Path | None, tyro.conf.arg(aliases=["-o"], metavar="OUT.mp4|OUT_DIR")] = None
    cameras: Annotated[str | None, tyro.conf.arg(metavar="CAPTURE")] = None
    checkpoint: Annotated[str | None, tyro.conf.arg(metavar="PATH_OR_HUB_ID")] = None
    num_frames: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    image_size: Annotated[tuple[int, int] | None, tyro.conf.arg(metavar="H W")] = None
    background: Annotated[Color, tyro.conf.arg(metavar="R G B")] = (1.0, 1.0, 1.0)


def run(arguments: Arguments) -> None:
    """Render, and print what was written."""
    import time

    from lrm_ttt.cli.console import Reporter, say_peak_memory
    from lrm_ttt.pipeline.memory import keep_freed_memory
    from lrm_ttt.pipeline.render_path import render_path

    keep_freed_memory()
    start = time.perf_counter()
    with Reporter() as reporter:
        reporter.started("render")
        written = render_path(arguments, reporter.advanced)
        reporter.finished("render", time.perf_counter() - start, "")
    print(written[0] if len(written) == 1 else f"{written[0].parent}: {len(written)} images")
    say_peak_memory()
