"""The loop that changes slow weights: draw scenes, reconstruct, render, compare, step; report, validate, keep."""

import dataclasses
import signal
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import FrameType

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, set_seed

from lrm_ttt.losses.objective import LossTerms, Objective
from lrm_ttt.model.build import build
from lrm_ttt.model.checkpoint import load_matching
from lrm_ttt.model.scene_model import compile_blocks
from lrm_ttt.scene.manipulable import cat
from lrm_ttt.scene.views import SceneBatch, Views
from lrm_ttt.train.config import StageConfig, TrainConfig
from lrm_ttt.train.data import Prefetcher, training_batch, training_generator, validation_batches
from lrm_ttt.train.hardware import choose_precision, has_compiler
from lrm_ttt.train.logging import Reporter, RunningMeans, Stopwatch, measure_module
from lrm_ttt.train.optimiser import Optimiser, WeightAverage
from lrm_ttt.train.progress import Progress
from lrm_ttt.train.run_folder import RunFolder
from lrm_ttt.train.schedule import learning_rate_factor, stage_at, timed_decay
from lrm_ttt.train.tasks import render_targets
from lrm_ttt.train.validation import validate

# Every number of input views is another shape to the compiler.
MAX_RECOMPILATIONS = 64


@dataclasses.dataclass(frozen=True)
class RunOptions:
    """What is said on the command line rather than in the configuration."""

    resume: bool = False
    max_hours: float | None = None
    init: str | None = None
    command: str = ""


class Trainer:
    """One run in one folder. `run` returns when the steps are done, the time is up, or a signal came."""

    def __init__(self, config: TrainConfig, folder: Path, options: RunOptions | None = None) -> None:
        self.config = config
        self.options = options or RunOptions()
        trackers = list(config.trackers)
        self.accelerator = Accelerator(mixed_precision="no", log_with=trackers or None, project_dir=str(folder))
        self.device = self.accelerator.device
        self.folder = RunFolder(folder, config, self.options.resume, self.accelerator.is_main_process)
        if trackers:
            self.accelerator.init_trackers("lrm-ttt")
        self.reporter = Reporter(folder, self.accelerator, config.total_steps, bool(trackers))
        set_seed(config.seed)
        self.model = build(config.model, choose_precision(config.precision, self.device))
        if self.options.init is not None:
            self._initialise(self.options.init)
        self.model.backbone.checkpointing = config.activation_checkpointing
        self.model.to(self.device).train()
        dtype = self.model.precision.newton_schulz
        self.optimiser = Optimiser(self.model.named_parameters(), config.optimiser, dtype)
        self.average = WeightAverage(self.model, config.ema_decay)
        self.progress = Progress.begin(config)
        if self.options.resume:
            self.progress = self.folder.restore(self.model, self.average, self.optimiser)
        self._compile()
        self.wrapped = self.accelerator.prepare_model(self.model)
        self.validation = validation_batches(config.validation, self.device)
        self.objectives: dict[int, Objective] = {}
        self.stopwatch, self.means = Stopwatch(), RunningMeans()
        measure_module(self.model.tokenizer, self.stopwatch, "forward: evidence and tokens")
        measure_module(self.model.head, self.stopwatch, "forward: head")
        # Seconds of the last steps with all that belongs to them; compilation drops out of the mean in time.
        self.paces: deque[float] = deque(maxlen=100)
        self.last_saved = time.monotonic()
        self.stop_signal: int | None = None

    def run(self) -> Progress:
        """Train until the schedule ends, the time is up or a signal comes, and leave a checkpoint in each case."""
        progress = self.progress
        prefetcher = Prefetcher(self._draw, self.config.prefetch)
        try:
            with self._signals():
                if progress.step == 0:
                    # What the network knows before it has learnt anything.
                    self._validate()
                while progress.step < progress.decay.end and self.stop_signal is None:
                    start = time.perf_counter()
                    self._step(prefetcher)
                    self._after_step()
                    self.paces.append(time.perf_counter() - start)
                    progress.seconds += self.paces[-1]
            progress.finished = progress.step >= progress.decay.end
            if self.stop_signal is not None:
                name = signal.Signals(self.stop_signal).name
                self.reporter.say(f"{name}: stopped after step {progress.step}, with a checkpoint")
            self._save()
        finally:
            prefetcher.close()
            self.reporter.close()
        return progress

    def _step(self, prefetcher: Prefetcher) -> None:
        progress, parts = self.progress, self.config.accumulation
        stage_index, step_in_stage = stage_at(self.config, progress.step)
        stage = self.config.stages[stage_index]
        for part in range(parts):
            with self.stopwatch("data"):
                batch = prefetcher.get((progress.step, part), self._following(progress.step, part))
            last = part == parts - 1
            with nullcontext() if last else self.accelerator.no_sync(self.wrapped):
                self._learn(batch, stage_index, stage)
            progress.scenes += stage.batch_size * self.accelerator.num_processes
        factor = learning_rate_factor(stage, step_in_stage, progress.decay, progress.step)
        with self.stopwatch("optimiser"):
            norm, stepped = self.optimiser.step(factor * stage.lr, factor * stage.muon_lr)
            progress.step += 1
            if stepped:
                self.average.update(progress.step)
            else:
                progress.skipped += 1
        self.means.add({"gradient_norm": norm, "lr": factor * stage.lr})

    def _after_step(self) -> None:
        """Report, validate, look at the clock and keep a checkpoint, each when it is due."""
        progress, config = self.progress, self.config
        if progress.step % config.log_every == 0:
            self._report()
        if progress.step % config.validate_every == 0 or progress.step == progress.decay.end:
            self._validate()
        due = time.monotonic() - self.last_saved > 60 * config.checkpoint_every_minutes
        if self._decay_begins() or due:
            self._save()

    def _learn(self, batch: SceneBatch, stage_index: int, stage: StageConfig) -> None:
        """Add the gradients of one batch."""
        targets = rendered_views(batch, stage.num_input_renders)
        # No batch is part -1: where rays are sampled must not repeat the draws that made the scenes.
        generator = training_generator(self.config.seed, self.progress.step, -1, self.accelerator.process_index)
        what = self.wrapped, self.config.model, batch, targets, self.stopwatch, generator
        renderings, gaussians = render_targets(*what)
        with self.stopwatch("losses"):
            losses: LossTerms = self._objective(stage_index)(renderings, targets, gaussians, batch.inputs)
        with self.stopwatch("backward"):
            self.accelerator.backward(losses.total / self.config.accumulation)
        self.means.add({"loss": losses.total, **losses.terms})

    def _draw(self, step: int, part: int) -> SceneBatch:
        stage = self.config.stages[stage_at(self.config, step)[0]]
        generator = training_generator(self.config.seed, step, part, self.accelerator.process_index)
        return training_batch(stage, generator, self.device)

    def _following(self, step: int, part: int) -> tuple[int, int] | None:
        following = (step, part + 1) if part + 1 < self.config.accumulation else (step + 1, 0)
        return following if following[0] < self.progress.decay.end else None

    def _objective(self, stage_index: int) -> Objective:
        if stage_index not in self.objectives:
            losses = self.config.stages[stage_index].losses
            self.objectives[stage_index] = Objective(losses, self.config.model.tokenizer.patch_size).to(self.device)
        return self.objectives[stage_index]

    def _report(self) -> None:
        """Write the means and the seconds per step since the last report."""
        progress, steps = self.progress, self.config.log_every
        means = self.means.collect()
        seconds = {name: round(value / steps, 4) for name, value in self.stopwatch.collect().items()}
        counts = {"scenes": progress.scenes, "skipped": progress.skipped, "hours": progress.seconds / 3600}
        stage = self.config.stages[stage_at(self.config, progress.step - 1)[0]].name
        self.reporter.record("train", progress.step, {**means, **counts, "stage": stage, "seconds": seconds})
        shares = ", ".join(f"{name} {value:.3f}" for name, value in seconds.items())
        terms = ", ".join(f"{name} {value:.4g}" for name, value in means.items())
        held_out = ", ".join(f"{name} {value:.3f}" for name, value in progress.validation.items())
        pace = sum(self.paces) / max(1, len(self.paces))
        text = f"{stage}  {terms}  {held_out}  {pace:.3f} s/step ({shares}), skipped {progress.skipped}"
        self.reporter.show(progress.step, text)

    def _validate(self) -> None:
        """Measure the average and the live weights on the held-out scenes."""
        if not self.accelerator.is_main_process:
            return
        live = validate(self.model, self.validation)
        self.average.swap()
        averaged = validate(self.model, self.validation)
        self.average.swap()
        self.progress.validation = averaged | {f"raw_{name}": value for name, value in live.items()}
        self.reporter.record("validation", self.progress.step, self.progress.validation)

    def _save(self) -> None:
        self.last_saved = time.monotonic()
        self.folder.save(self.model, self.average, self.optimiser, self.progress, self.options.command)

    def _decay_begins(self) -> bool:
        """Return whether the rate begins to fall now, which it does early when the time is nearly over."""
        progress, hours, before = self.progress, self.options.max_hours, self.progress.decay
        if hours is not None and self.paces:
            pace = sum(self.paces) / len(self.paces)
            decay = timed_decay(self.config, before, progress.step, progress.seconds, 3600 * hours, pace)
            if self.accelerator.num_processes > 1:
                decay = broadcast_object_list([decay])[0]
            progress.decay = decay
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

    def _initialise(self, source: str) -> None:
        differences = load_matching(self.model, source)
        self.reporter.say(f"began from {source}" + "".join(f"; {difference}" for difference in differences))

    def _compile(self) -> None:
        """Compile the blocks where that is wanted and can be done."""
        if self.config.compile and self.device.type == "cpu" and not has_compiler():
            self.reporter.say("no C++ compiler was found, so the blocks run uncompiled, and slower")
        elif self.config.compile:
            torch._dynamo.config.recompile_limit = MAX_RECOMPILATIONS
            compile_blocks(self.model)

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Let SIGINT and SIGTERM end the run after the step that is under way; a second one ends it at once."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def on_signal(number: int, frame: FrameType | None) -> None:
            if self.stop_signal is not None:
                raise KeyboardInterrupt
            self.stop_signal = number

        previous = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)


def rendered_views(batch: SceneBatch, num_input_renders: int) -> Views:
    """Return the targets, and behind them the first of the inputs (whose order is random)."""
    assert batch.targets is not None
    if num_input_renders == 0:
        return batch.targets
    return cat([batch.targets, batch.inputs[:, :num_input_renders]], 1)
