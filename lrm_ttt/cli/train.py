"""Train a model from a YAML file, or a chain of runs one after the other; or go on with what was stopped."""

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
    """A YAML file: a run such as configs/train/tiny_cpu.yaml, or a chain such as configs/train/tiny/chain.yaml."""
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """The folder of the run: metrics.jsonl, checkpoints/, model/ (what `reconstruct --checkpoint` takes). Those of a
    chain are in folders of it, 1-NAME, 2-NAME, ..."""
    resume: bool = False
    """Go on from the last checkpoint in the output folder; runs of a chain that are finished are left out."""
    data: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Where a data set of the configuration lies, as NAME=PATH; once for each of them."""
    max_hours: float | None = None
    """End the run in this many hours of training, those before a resume included; the learning rate decays in time.
    Not for chains."""
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

    from lrm_ttt.pipeline.memory import keep_freed_memory
    from lrm_ttt.train.recipe import Changes, plan_runs, read_paths

    changes = Changes(arguments.seed, arguments.steps_scale, arguments.max_steps, read_paths(arguments.data))
    runs = plan_runs(arguments.config, arguments.output, changes)

    from accelerate import PartialState

    from lrm_ttt.cli.console import say_peak_memory
    from lrm_ttt.train.chain import train_in_turn
    from lrm_ttt.train.loop import RunOptions

    keep_freed_memory()
    logging.basicConfig(format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stdout)
    logging.getLogger("lrm_ttt").setLevel(logging.INFO)
    command = shlex.join(["lrm-ttt", "train", *sys.argv[2:]])
    options = RunOptions(arguments.resume, arguments.max_hours, arguments.init, command)
    finished = True
    for planned, progress in train_in_turn(runs, options):
        finished = progress.finished
        if PartialState().is_main_process:
            state = "finished" if finished else "stopped (go on with --resume)"
            print(f"{state} after {progress.step} steps, {progress.scenes} scenes, {progress.seconds / 3600:.2f} hours")
            print(f"model: {planned.model}  validation: {progress.validation}")
    if PartialState().is_main_process:
        if finished and len(runs) > 1:
            print(f"the chain is finished; its model: {runs[-1].model}")
        say_peak_memory()
    PartialState().destroy_process_group()
