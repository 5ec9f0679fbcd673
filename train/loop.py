"""The loop that changes slow weights: draw scenes, learn, step; report, validate, keep."""

import dataclasses
import statistics
import time
from collections import deque
from pathlib import Path
from typing import NoReturn

import torch
from safetensors import SafetensorError

from lrm_ttt.config_io import to_mapping
from lrm_ttt.errors import RunFailed, UnreadableScene
from lrm_ttt.train.config import TrainConfig
from lrm_ttt.train.data import BatchSource, Drawn, training_generator, validation_batches
from lrm_ttt.train.hardware import describe
from lrm_ttt.train.learner import Learner, check_shares
from lrm_ttt.train.logging import Reporter, RunningMeans, Stopwatch, check_trackers, start_trackers, status_line
from lrm_ttt.train.measures import step_measures
from lrm_ttt.train.pictures import Album
from lrm_ttt.train.progress import Progress
from lrm_ttt.train.ranks import Ranks
from lrm_ttt.train.run_folder import RunFolder
from lrm_ttt.train.schedule import learning_rate_factor, stage_at, timed_decay
from lrm_ttt.train.stopping import StopSignals
from lrm_ttt.train.throughput import Work, batch_work, find_peak, rates
from lrm_ttt.train.validation import validate

# The share of broken scenes means nothing before so many were drawn.
FEWEST_SCENES = 1000


@dataclasses.dataclass(frozen=True)
class RunOptions:
    """What is said on the command line rather than in the configuration."""

    resume: bool = False
    max_hours: float | None = None
    init: str | None = None
    command: str = ""


class Trainer:
    """One run in one folder. `run` returns when the steps are done, the time is up, or a signal came.

    Every rank runs the same steps: those of a view group on the same scenes, the groups on different ones. Raises
    `RunFailed` where the run cannot go on, and what `Learner` and `BatchSource` raise before it begins.
    """

    def __init__(self, config: TrainConfig, folder: Path, options: RunOptions | None = None) -> None:
        self.config = config
        self.options = options or RunOptions()
        check_shares(config)
        check_trackers(config.trackers)
        self.ranks = Ranks(config.parallel, folder, config.trackers)
        self.folder = RunFolder(folder, config, self.options.resume, self.ranks.is_main)
        last = self.folder.read_last() if self.options.resume else None
        self.stopwatch, self.means = Stopwatch(), RunningMeans()
        self.learner = Learner(config, self.ranks, self.stopwatch, self.options.init, last)
        self.progress = Progress.begin(config) if last is None else last.progress(config)
        if len(set(self.ranks.gather(self.progress.step))) > 1:
            raise RunFailed(
                f"{folder}: the processes do not see the same checkpoints. Give a folder that all of them share."
            )
        self.batches = BatchSource(config, self.ranks.place, self.ranks.device)
        held_out = validation_batches(config.validation, torch.device("cpu"), config.model)
        self.validation = [batch.to(self.learner.dtype) for batch in held_out]
        # Nothing was written so far, and what cannot be had was said.
        self.folder.begin()
        accelerator, step = self.ranks.accelerator, self.progress.step
        start_trackers(accelerator, config.trackers, folder, to_mapping(config), step)
        self.reporter = Reporter(folder, accelerator, config.total_steps, bool(config.trackers), step)
        for note in (*self.folder.notes, *self.learner.notes):
            self.reporter.say(note)
        compute, width = self.learner.model.precision.compute, config.model.backbone.width
        self.work, self.peak = Work(), find_peak(self.ranks.device, compute, width)
        machine = {"device": describe(self.ranks.device), "ranks": self.ranks.count, "peak": self.peak.describe()}
        self.reporter.record("machine", step, machine)
        # Seconds of the last steps with all that belongs to them; their median tells the pace.
        self.paces: deque[float] = deque(maxlen=100)
        self.last_saved = time.monotonic()
        self.signals, self.stopped = StopSignals(), False
        self.steps_measured = 0

    def run(self) -> Progress:
        """Train until the schedule ends, the time is up or a signal comes, and leave a checkpoint in each case."""
        progress = self.progress
        self.batches.start(progress.step, progress.position)
        try:
            with self.signals.noted():
                if progress.step == 0:
                    # What the network knows before it has learnt anything.
                    self._validate()
                while progress.step < progress.decay.end and not self.stopped:
                    start = time.perf_counter()
                    self._step()
                    self.paces.append(time.perf_counter() - start)
                    progress.seconds += self.paces[-1]
                progress.finished = progress.step >= progress.decay.end
                if self.stopped:
                    self.reporter.say(f"{self.signals.name}: stopped after step {progress.step}, with a checkpoint")
                self._save(must=True)
                # What came while the last checkpoint was written.
                self.stopped |= self.ranks.add_up({"stop": float(self.signals.received is not None)})["stop"] > 0
        finally:
            self.batches.close()
            self.reporter.close()
        return progress

    def _step(self) -> None:
        """Take one step with all that belongs to it, and note whether a signal has come to any rank."""
        progress, config = self.progress, self.config
        stage_index, step_in_stage = stage_at(config, progress.step)
        stage = config.stages[stage_index]
        factor = learning_rate_factor(stage, step_in_stage, progress.decay, progress.step)
        with self.stopwatch("step"):
            broken = self.gather_gradients(stage_index)
            with self.stopwatch("optimiser"):
                norm, stepped = self.learner.optimiser.step(factor * stage.lr, factor * stage.muon_lr)
        progress.step += 1
        progress.scenes += stage.batch_size * self.ranks.group.num_groups * config.accumulation
        progress.position = self.batches.position
        progress.skipped += not stepped
        progress.skips_in_a_row = 0 if stepped else progress.skips_in_a_row + 1
        if stepped:
            self.learner.average.update(progress.step)
        self.means.add({"gradient_norm": norm, "lr": factor * stage.lr})
        due = self.ranks.is_main and time.monotonic() - self.last_saved > 60 * config.checkpoint_every_minutes
        self.steps_measured += 1
        said = {"stop": float(self.signals.received is not None), "due": float(due), "broken": float(len(broken))}
        said = self.ranks.add_up(said)
        self.stopped = said["stop"] > 0
        if said["broken"]:
            self._tell_broken([name for names in self.ranks.gather(broken) for name in names])
        self._after_step(due=said["due"] > 0)

    def gather_gradients(self, stage_index: int) -> list[str]:
        """Add up the gradients of a step's batches; return the broken scenes that no other rank tells of."""
        parts, stage = self.config.accumulation, self.config.stages[stage_index]
        broken: list[str] = []
        keep = stage.keep_fraction, stage.keep_random
        for part in range(parts):
            with self.stopwatch("data"):
                drawn = self._draw()
            broken += drawn.broken if self.ranks.group.rank == 0 else ()
            # No batch has a negative part: what is random in a step must not repeat the draws that made the scenes.
            generator = training_generator(self.config.seed, self.progress.step, -1 - part, self.ranks.group.index)
            with self.ranks.without_sync(self.learner.wrapped, last=part == parts - 1):
                losses, renderings, targets, gaussians = self.learner.learn(drawn.batch, stage_index, generator)
            measures = step_measures(renderings, targets, gaussians, keep)
            self.means.add({"loss": losses.total, **losses.terms, **measures})
            if self.ranks.group.rank == 0:
                self.work += batch_work(self.config.model, drawn.batch)
        return broken

    def _after_step(self, due: bool) -> None:
        """Report, validate and keep a checkpoint, each when it is due; end a run that leads nowhere."""
        progress, config = self.progress, self.config
        if progress.step % config.log_every == 0:
            self._report()
        best = False
        if progress.step % config.validate_every == 0 or progress.step == progress.decay.end:
            best = self._validate()
        if self._decay_begins() or due or best:
            self._save()
        if progress.skips_in_a_row >= config.optimiser.max_skips:
            self._fail(
                f"{progress.skips_in_a_row} steps in a row had a gradient that is not finite or beyond "
                f"optimiser.skip_norm ({config.optimiser.skip_norm}): the run has diverged. Go on from an earlier "
                "checkpoint with a lower learning rate or a longer warm-up."
            )
        drawn = progress.scenes + progress.broken
        if progress.broken > config.data.max_broken * max(drawn, FEWEST_SCENES):
            # The weights are sound: nothing need be learnt again.
            self._save()
            self._fail(
                f"{progress.broken} of the first {drawn} scenes drawn could not be read, more than "
                f"data.max_broken ({config.data.max_broken:.2%}) allows. Their names are above and in metrics.jsonl: "
                "mend or remove them (lrm-ttt data check finds more), then go on with --resume."
            )

    def _draw(self) -> Drawn:
        try:
            return self.batches.next()
        except UnreadableScene as error:
            self._fail(str(error))

    def _tell_broken(self, scenes: list[str]) -> None:
        """Name the scenes of all ranks that could not be read in this step."""
        self.progress.broken += len(scenes)
        for scene in scenes:
            self.reporter.say(f"a broken scene was skipped: {scene}")
        self.reporter.record("broken", self.progress.step, {"scenes": scenes})

    def _report(self) -> None:
        """Write the means over steps and ranks, and the seconds per step since the last report."""
        progress, steps, self.steps_measured = self.progress, self.steps_measured, 0
        means, spent = self.ranks.mean(self.means.collect()), self.stopwatch.collect()
        work, self.work = Work(**self.ranks.add_up(dataclasses.asdict(self.work))), Work()
        speed = rates(work, spent["step"], self.ranks.count, self.peak, self.ranks.device)
        seconds = {name: round(value / steps, 4) for name, value in spent.items()}
        counts = {"scenes": progress.scenes, "skipped": progress.skipped, "broken": progress.broken}
        stage = self.config.stages[stage_at(self.config, progress.step - 1)[0]].name
        told = {**means, **counts, **speed, "hours": progress.seconds / 3600, "stage": stage, "seconds": seconds}
        self.reporter.record("train", progress.step, told)
        held_out = progress.validation
        self.reporter.show(progress.step, status_line(stage, means, speed, held_out, seconds, progress.skipped))

    def _validate(self) -> bool:
        """Measure the average and the live weights on the held-out scenes; return whether the first is the best."""
        live = validate(self.learner.model, self.validation, self.ranks)
        album = Album(len(self.validation))
        with self.learner.averaged():
            averaged = validate(self.learner.model, self.validation, self.ranks, album)
        progress = self.progress
        progress.validation = averaged | {f"raw_{name}": value for name, value in live.items()}
        self.reporter.record("validation", progress.step, progress.validation)
        title = f"step {progress.step}, held-out scenes: {averaged['psnr']:.2f} dB"
        self.reporter.picture("held out", progress.step, album.draw(title))
        # Written so that what is not a number is never the best.
        if progress.step == 0 or not (progress.best_step < 0 or averaged["psnr"] > progress.best_psnr):
            return False
        progress.best_step, progress.best_psnr = progress.step, averaged["psnr"]
        return True

    def _save(self, must: bool = False) -> None:
        """Write a checkpoint; where that fails, the run goes on with the one before, unless it `must` be written."""
        parts, state = self.learner.state()
        failure = ""
        if self.ranks.is_main:
            try:
                self.folder.save(self.learner.model, parts, state, self.progress, self.options.command)
            except (OSError, SafetensorError) as error:
                failure = f"{getattr(error, 'strerror', None) or error}"
        failure = self.ranks.from_main(failure)
        self.last_saved = time.monotonic()
        if failure and must:
            self._fail(f"the checkpoint could not be written ({failure}). Make room, then go on with --resume.")
        if failure:
            self.reporter.say(
                f"step {self.progress.step}: the checkpoint could not be written ({failure}); the one before is kept, "
                f"and the next attempt is in {self.config.checkpoint_every_minutes:g} minutes"
            )

    def _fail(self, why: str) -> NoReturn:
        last = self.folder.last_step()
        where = (
            f"the last whole checkpoint is that of step {last}" if last is not None else "no checkpoint is there yet"
        )
        raise RunFailed(f"{self.folder.path}: stopped after step {self.progress.step}; {where}. What happened: {why}")

    def _decay_begins(self) -> bool:
        """Return whether the rate begins to fall now, which it does early when the time is nearly over."""
        progress, hours, before = self.progress, self.options.max_hours, self.progress.decay
        if hours is not None and self.paces:
            # The median: a step that compiles takes a hundred times as long as the others.
            pace = statistics.median(self.paces)
            decay = timed_decay(self.config, before, progress.step, progress.seconds, 3600 * hours, pace)
            progress.decay = self.ranks.from_main(decay)
        if progress.decay.early and progress.decay != before:
            self.reporter.total_steps = progress.decay.end
            self.reporter.record("decay", progress.step, dataclasses.asdict(progress.decay))
        if progress.before_decay >= 0 or progress.step < progress.decay.start:
            return False
        progress.before_decay = progress.step
        self.reporter.say(
            f"step {progress.step}: the learning rate falls from here to step {progress.decay.end}, the last"
        )
        return True
