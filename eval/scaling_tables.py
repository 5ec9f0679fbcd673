"""Print the tables of docs/scaling.md: memory, traffic and time of one step of training.

    python -m lrm_ttt.eval.scaling_tables configs/model/base.yaml

What a GPU and a network sustain are assumptions, and flags.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from lrm_ttt.config_io import load_yaml
from lrm_ttt.errors import LrmTttError
from lrm_ttt.eval.scaling import Step, memory, num_parameters, traffic, view_rate
from lrm_ttt.model.config import ModelConfig
from lrm_ttt.model.flops import count_flops

GIGA, TERA = 1e9, 1e12


@dataclasses.dataclass(frozen=True)
class Assumptions:
    """What to tabulate, and what machines are taken to sustain."""

    model: tyro.conf.Positional[Path]
    """A model configuration."""
    views: tuple[int, ...] = (16, 32, 64)
    """Numbers of input views."""
    image_size: Annotated[tuple[int, int], tyro.conf.arg(metavar="H W")] = (536, 960)
    """Height and width of each."""
    scenes: int = 64
    """Scenes of one step, over all ranks and accumulations."""
    kept: float = 0.46
    """Share of the Gaussians that is rendered: 0.4 and a tenth of the rest."""
    tflops: float = 125.0
    """What one GPU computes, 10^12 operations a second: 40 % of an A100's peak, as the paper reaches."""
    link_gb: float = 25.0
    """What one GPU sends and receives, 10^9 bytes a second."""
    memory_gb: float = 64.0
    """What one GPU has for what is counted here: 80 GB, less what is not."""
    bytes_per_pixel: float = 0.35
    """Of images in shards: JPEG of quality 95 at 536x960; 0.6 at 144x256."""


def memory_table(model: ModelConfig, wanted: Assumptions) -> str:
    """Return bytes of one rank, by number of views and ranks that share a scene."""
    rows = []
    for views in wanted.views:
        for ranks in (1, 2, 4, 8):
            step = Step(views, wanted.image_size, ranks_per_scene=ranks, world=ranks, kept=wanted.kept)
            parts = memory(model, step)
            whole = memory(model, dataclasses.replace(step, checkpointing=False))
            weights = sum(parts[name] for name in ("parameters", "gradients", "optimiser", "average"))
            gaussians = sum(parts.get(name, 0.0) for name in ("head", "gathered Gaussians", "kept Gaussians"))
            middle = (parts["blocks"], gaussians, parts["perceptual loss"])
            shown = (weights, *middle, sum(parts.values()), sum(whole.values()))
            rows.append([str(views), str(ranks), *(f"{number / GIGA:.1f}" for number in shown)])
    names = ["views", "ranks a scene", "weights and optimiser", "blocks", "Gaussians", "perceptual loss", "in all"]
    return table([*names, "not checkpointed"], rows)


def traffic_table(model: ModelConfig, wanted: Assumptions) -> str:
    """Return the collectives of one step of one scene a view group, one line for each."""
    rows = []
    for views in wanted.views:
        for ranks in (2, 4, 8):
            for one in traffic(model, Step(views, wanted.image_size, ranks_per_scene=ranks, world=ranks)):
                if one.ranks == ranks and one.what != "gradients":
                    numbers = f"{one.payload / GIGA:.2f}", f"{one.sent / GIGA:.2f}"
                    rows.append([str(views), str(ranks), one.operation, one.what, str(one.calls), *numbers])
    for strategy in ("ddp", "fsdp2"):
        for one in traffic(model, Step(wanted.views[0], wanted.image_size, world=64, strategy=strategy)):
            numbers = f"{one.payload / GIGA:.2f}", f"{one.sent / GIGA:.2f}"
            rows.append(["any", f"1 of 64, {strategy}", one.operation, one.what, str(one.calls), *numbers])
    return table(["views", "ranks a scene", "collective", "of what", "calls", "GB", "GB sent by a rank"], rows)


def worlds_table(model: ModelConfig, wanted: Assumptions) -> str:
    """Return how worlds of several sizes take a step of the same number of scenes."""
    rows = []
    for views in wanted.views:
        for world in (1, 8, 64, 512):
            step = arrange(model, wanted, views, world)
            flops = count_flops(model, views, wanted.image_size, step.num_targets).training_recomputed
            seconds = step.num_scenes * flops / world / wanted.tflops / TERA
            sent = [
                sum(one.sent for one in traffic(model, dataclasses.replace(step, strategy=strategy)))
                for strategy in ("ddp", "fsdp2")
            ]
            rate = view_rate(step, seconds)
            stored = rate * step.num_pixels * wanted.bytes_per_pixel / 1e6
            rows.append(
                [
                    *(str(views), str(world), str(step.ranks_per_scene), str(step.accumulation)),
                    *(f"{sum(memory(model, step).values()) / GIGA:.0f}", f"{seconds:.1f}"),
                    *(f"{each / GIGA / wanted.link_gb:.1f}" for each in sent),
                    *(f"{rate:.0f}", f"{stored:.0f}"),
                ]
            )
    names = ["views", "GPUs", "ranks a scene", "accumulation", "GB a rank", "s computing", "s sending, ddp"]
    return table([*names, "s sending, fsdp2", "views/s", "MB/s of shards"], rows)


def arrange(model: ModelConfig, wanted: Assumptions, views: int, world: int) -> Step:
    """Return the step with the fewest ranks a scene that fit the memory, and no more groups than scenes."""
    ranks = 1
    while True:
        groups = world // ranks
        accumulation = -(-wanted.scenes // groups)
        step = Step(
            views, wanted.image_size, accumulation=accumulation, ranks_per_scene=ranks, world=world, kept=wanted.kept
        )
        fits = sum(memory(model, step).values()) <= wanted.memory_gb * GIGA
        if (fits and groups <= wanted.scenes) or 2 * ranks > min(world, views):
            return step
        ranks *= 2


def table(names: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [names, ["---"] * len(names), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def report(model: ModelConfig, wanted: Assumptions) -> str:
    """Return all tables, with a heading for each."""
    size = "x".join(map(str, wanted.image_size))
    flops = ", ".join(f"{count_flops(model, views, wanted.image_size).forward / TERA:.0f}" for views in wanted.views)
    return "\n\n".join(
        [
            f"{num_parameters(model):,} parameters; TFLOP of a forward pass at {wanted.views} views of {size}: {flops}",
            f"Memory of one rank in GB, one scene of {size} in a view group, checkpointed:",
            memory_table(model, wanted),
            "Collectives of one step, one scene in a view group:",
            traffic_table(model, wanted),
            f"{wanted.scenes} scenes a step, at {wanted.tflops:g} TFLOP/s and {wanted.link_gb:g} GB/s a GPU:",
            worlds_table(model, wanted),
        ]
    )


def main() -> None:
    """Print the tables."""
    wanted = tyro.cli(Assumptions, description=__doc__)
    try:
        print(report(load_yaml(wanted.model, ModelConfig), wanted))
    except LrmTttError as error:
        raise SystemExit(f"scaling: {error}") from error


if __name__ == "__main__":
    main()
