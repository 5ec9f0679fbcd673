"""Train the runs of a chain one after the other: each begins from the model of the one before."""

import dataclasses
import gc
from collections.abc import Iterator, Sequence

import torch

from lrm_ttt.errors import InvalidConfig
from lrm_ttt.train.checkpointing import list_checkpoints
from lrm_ttt.train.loop import RunOptions, Trainer
from lrm_ttt.train.progress import Progress
from lrm_ttt.train.recipe import PlannedRun


def train_in_turn(runs: Sequence[PlannedRun], options: RunOptions) -> Iterator[tuple[PlannedRun, Progress]]:
    """Yield every run that was trained and how far it came; end early where one was stopped.

    With `options.resume` runs that are finished are left out, and the one under way goes on. `options.init` is what the
    first run begins from. Raises `InvalidConfig` for hours: how much of them each run should have nobody has said.
    """
    if len(runs) > 1 and options.max_hours is not None:
        raise InvalidConfig(
            "--max-hours is for one run, and the runs of a chain take different times a step: scale the steps of all "
            "by --steps-scale or --max-steps, or train the files of the chain one by one, with --init."
        )
    init = options.init
    for run in runs:
        if not (options.resume and len(runs) > 1 and run.is_finished()):
            begins = None if options.resume and list_checkpoints(run.folder) else init
            progress, stopped = _train(run, dataclasses.replace(options, init=begins))
            yield run, progress
            # A signal may come as the last step of a run is taken.
            if stopped or not progress.finished:
                return
        init = str(run.model)


def _train(run: PlannedRun, options: RunOptions) -> tuple[Progress, bool]:
    trainer = Trainer(run.config, run.folder, options)
    progress, stopped = trainer.run(), trainer.stopped
    # The next run reads what the main process has written.
    trainer.ranks.wait()
    del trainer
    # Compiled blocks hold on to the model that they were compiled for.
    torch._dynamo.reset()
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return progress, stopped
