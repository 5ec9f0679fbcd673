"""Train a model from a YAML file, or go on with a run that was stopped."""

import dataclasses
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro


@dataclass(frozen=True)
class Arguments:
    """What to train, where to write it, and for how long."""

    config: tyro.conf.Positional[Path]
    """A YAML file such as configs/train/tiny_cpu.yaml."""
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """The folder of the run: metrics.jsonl, checkpoints/, model/ (what `reconstruct --checkpoint` takes)."""
    resume: bool = False
    """Go on from the last checkpoint in the output folder."""
    max_hours: float | None = None
    """End the run in this many hours of training, those before a resume included; the learning rate decays in time."""
    seed: int | None = None
    """Take this seed in place of the configuration's."""
    steps_scale: float = 1.0
    """Multiply the steps of every stage."""
    max_steps: int | None = None
    """Scale the steps of every stage so that this many are taken in all."""
    init: str | None = None
    """Begin from the weights of a model folder or hub id, as far as names and shapes agree."""


def run(arguments: Arguments) -> None:
    """Train until the schedule ends, the time is up or a signal comes."""
    import logging

    from lrm_ttt.config_io import load_yaml
    from lrm_ttt.errors import InvalidConfig
    from lrm_ttt.pipeline.memory import keep_freed_memory
    from lrm_ttt.train.config import TrainConfig
    from lrm_ttt.train.loop import RunOptions, Trainer

    keep_freed_memory()
    logging.basicConfig(format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stdout)
    logging.getLogger("lrm_ttt").setLevel(logging.INFO)
    config = load_yaml(arguments.config, TrainConfig)
    scale = arguments.steps_scale
    if arguments.max_steps is not None:
        if arguments.max_steps < 1 or scale != 1:
            raise InvalidConfig("--max-steps must be at least 1, and excludes --steps-scale.")
        scale = arguments.max_steps / config.total_steps
    config = config.scaled(scale) if scale != 1 else config
    if arguments.seed is not None:
        config = dataclasses.replace(config, seed=arguments.seed)
    command = shlex.join(["lrm-ttt", "train", *sys.argv[2:]])
    options = RunOptions(arguments.resume, arguments.max_hours, arguments.init, command)
    progress = Trainer(config, arguments.output, options).run()
    state = "finished" if progress.finished else "stopped (go on with --resume)"
    print(f"{state} after {progress.step} steps, {progress.scenes} scenes, {progress.seconds / 3600:.2f} hours")
    print(f"model: {arguments.output / 'model'}  validation: {progress.validation}")
