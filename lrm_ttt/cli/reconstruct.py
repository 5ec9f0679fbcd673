"""Reconstruct a scene from posed images: Gaussian splats, renderings of held-out views, a video and a report.

SOURCE is a capture: a folder with transforms.json (nerfstudio, instant-ngp, DL3DV, Blender), opencv_cameras.json or a
COLMAP model, or that file itself. `example` makes a procedural capture on the spot.

The capture that --virtual names must have the frame and units of SOURCE; it needs no images. A model that takes colours
from its virtual views, as the embedded one does, first renders what the inputs show from those without: one pass more.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from lrm_ttt.pipeline.config import Color, ReconstructConfig


@tyro.conf.configure(tyro.conf.FlagCreatePairsOff)
@dataclass(frozen=True)
class Arguments(ReconstructConfig):
    """Which capture, which of its views, which model, and where the result goes."""

    source: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="SOURCE")]
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"], metavar="OUT")]
    views: Annotated[str | None, tyro.conf.arg(metavar="N|all|LIST")] = None
    virtual: Annotated[str, tyro.conf.arg(metavar="inputs|N|CAPTURE")] = "inputs"
    image_size: Annotated[tuple[int, int] | None, tyro.conf.arg(metavar="H W")] = None
    checkpoint: Annotated[str | None, tyro.conf.arg(metavar="PATH_OR_HUB_ID")] = None
    background: Annotated[Color, tyro.conf.arg(metavar="R G B")] = (1.0, 1.0, 1.0)


def run(arguments: Arguments) -> None:
    """Reconstruct, and print where the result is and how good."""
    from lrm_ttt.cli.console import Reporter, command_line
    from lrm_ttt.eval import metrics
    from lrm_ttt.pipeline.dry_run import estimate
    from lrm_ttt.pipeline.job import prepare
    from lrm_ttt.pipeline.memory import keep_freed_memory
    from lrm_ttt.pipeline.run import run as reconstruct

    keep_freed_memory()
    if arguments.dry_run:
        print(estimate(prepare(arguments)))
        return
    with Reporter() as reporter:
        numbers = reconstruct(arguments, metrics, reporter, command_line("reconstruct"))
    # Of processes that share the views only the first has a result.
    if numbers:
        print(outcome(arguments.out, numbers))


def outcome(out: Path, numbers: dict[str, Any]) -> str:
    """Say in a few lines what was made."""
    seconds, held_out = numbers["seconds"], numbers["psnr_held_out"]
    quality = [f"inputs {numbers['psnr_input']:.2f} dB"]
    if held_out is not None:
        similarity = numbers["ssim_held_out"]
        extra = "" if similarity is None else f" (SSIM {similarity:.3f})"
        quality.insert(0, f"{numbers['num_held_out_views']} held-out views {held_out:.2f} dB{extra}")
    if numbers["representation"] == "gaussians":
        what, took = f"{numbers['num_gaussians']:,} Gaussians", seconds["read_to_ply"]
        quality.append(f"lost in the .ply {numbers['ply_round_trip_db_gap']:.4f} dB")
    else:
        what = "a triplane" if numbers["representation"] == "triplane" else "the state of the scene"
        took = seconds["read_to_result"]
    return "\n".join(
        [
            f"{out / numbers['result']}: {what} from {numbers['num_input_views']} views in {took:.1f} s",
            ", ".join(quality),
            f"peak memory {numbers['peak_memory_mb'] / 1000:.2f} GB, "
            f"expected {numbers['predicted_peak_memory_mb'] / 1000:.2f} GB",
            f"{out / 'report.html'} shows it",
        ]
    )
