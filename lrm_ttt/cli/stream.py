"""Reconstruct a scene while it is being captured: after every few views the Gaussians so far.

SOURCE is a capture as `lrm-ttt reconstruct` reads it (but `example` is not streamed), complete or still being written:
frames that are added at the end of its transforms.json are taken in their order, as soon as their images are whole;
--timeout says how long to wait.

Update and query cost the same in every step. What --strategy merge writes and draws grows with all its Gaussians.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from lrm_ttt.pipeline.config import Color
from lrm_ttt.pipeline.stream_config import StreamConfig


@tyro.conf.configure(tyro.conf.FlagCreatePairsOff)
@dataclass(frozen=True)
class Arguments(StreamConfig):
    """Which capture to follow, in which steps, with which model, and where the result goes."""

    source: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="SOURCE")]
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"], metavar="OUT")]
    virtual: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    elastic: Annotated[float | None, tyro.conf.arg(metavar="STRENGTH")] = None
    max_views: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    timeout: Annotated[float, tyro.conf.arg(metavar="SECONDS")] = 0.0
    image_size: Annotated[tuple[int, int] | None, tyro.conf.arg(metavar="H W")] = None
    checkpoint: Annotated[str | None, tyro.conf.arg(metavar="PATH_OR_HUB_ID")] = None
    background: Annotated[Color, tyro.conf.arg(metavar="R G B")] = (1.0, 1.0, 1.0)


def run(arguments: Arguments) -> None:
    """Stream, and print where the result is and how good."""
    from lrm_ttt.cli.console import Reporter, command_line, say_peak_memory
    from lrm_ttt.eval import metrics
    from lrm_ttt.pipeline.memory import keep_freed_memory
    from lrm_ttt.pipeline.stream_run import run as stream

    keep_freed_memory()
    with Reporter() as reporter:
        numbers = stream(arguments, metrics, reporter, command_line("stream"))
    print(outcome(arguments.out, numbers))
    say_peak_memory()


def outcome(out: Path, numbers: dict[str, Any]) -> str:
    """Say in a few lines what was made."""
    held_out = numbers["psnr_held_out"]
    quality = f"first views {numbers['psnr_first']:.2f} dB (at best {numbers['psnr_first_best']:.2f})"
    if held_out is not None:
        quality = f"held-out views {held_out:.2f} dB, {quality}"
    return "\n".join(
        [
            f"{out / 'scene.ply'}: {numbers['num_gaussians']:,} Gaussians from {numbers['num_input_views']} views in "
            f"{numbers['num_steps']} steps of {numbers['seconds_per_step']:.2f} s",
            quality,
            f"{out / 'report.html'} shows it; --resume goes on from {out / 'state.safetensors'}",
        ]
    )
