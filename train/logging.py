"""What a run tells: metrics.jsonl, pictures and trackers for later, a bar or a line every half minute for now."""

import importlib.util
import json
import logging
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import Accelerator
from PIL import Image
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn

from lrm_ttt.errors import BackendUnavailable
from lrm_ttt.train.run_folder import write_atomically

logger = logging.getLogger("lrm_ttt.train")
SECONDS_BETWEEN_LINES = 30.0
METRICS_FILE, PICTURES_FOLDER = "metrics.jsonl", "pictures"
PROJECT = "lrm-ttt"
# A wait for data above this share of a step's time is told.
TELL_DATA_SHARE = 0.05


def check_trackers(trackers: Sequence[str]) -> None:
    """Raise `BackendUnavailable` for a tracker that is not installed; Accelerate would leave it out without a word."""
    for name in trackers:
        if importlib.util.find_spec(name) is None:
            raise BackendUnavailable(
                f"trackers: {name} is not installed. Run `pip install {name}`, or take it out of trackers: "
                f"{METRICS_FILE} is written in any case."
            )


def start_trackers(
    accelerator: Accelerator, trackers: Sequence[str], folder: Path, config: Mapping[str, Any], step: int = 0
) -> None:
    """Begin to log to the trackers that `accelerator` was made for, after `step` of a run that goes on.

    Weights & Biases takes WANDB_MODE and its other variables from the environment, and the configuration of the run.
    Raises `BackendUnavailable` where it does not start, for example without a key.
    """
    check_trackers(trackers)
    if not trackers:
        return
    # What a run that was killed logged after its last checkpoint comes again.
    options: dict[str, Any] = {"tensorboard": {"purge_step": step + 1}} if step else {}
    failures: tuple[type[Exception], ...] = ()
    if "wandb" in trackers:
        import wandb

        options["wandb"] = {"dir": str(folder), "name": folder.resolve().name, "config": dict(config)}
        failures = (wandb.Error,)
    try:
        accelerator.init_trackers(PROJECT, init_kwargs=options)
    except failures as error:
        raise BackendUnavailable(
            f"trackers: wandb does not start: {' '.join(str(error).split())} "
            "Run `wandb login`, set WANDB_MODE=offline, or take wandb out of trackers."
        ) from error


class Stopwatch:
    """Add up the seconds spent in named parts of a step."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Measure one part. On an accelerator only the time to queue its work is seen."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.add(name, time.perf_counter() - start)

    def add(self, name: str, seconds: float) -> None:
        """Add seconds that were measured elsewhere."""
        self.seconds[name] += seconds

    def collect(self) -> dict[str, float]:
        """Return the seconds since the last call."""
        seconds, self.seconds = dict(self.seconds), defaultdict(float)
        return seconds


def measure_module(module: nn.Module, stopwatch: Stopwatch, name: str) -> None:
    """Add the seconds of a module's forward calls to the stopwatch while it is in training mode."""
    starts: list[float] = []

    def begin(*_: object) -> None:
        starts.append(time.perf_counter())

    def end(*_: object) -> None:
        seconds = time.perf_counter() - starts.pop()
        if module.training:
            stopwatch.add(name, seconds)

    module.register_forward_pre_hook(begin)
    module.register_forward_hook(end)


class RunningMeans:
    """Means of named values since the last collection; tensors are read only then, so no step waits for a device."""

    def __init__(self) -> None:
        self.values: defaultdict[str, list[Tensor | float]] = defaultdict(list)

    def add(self, values: Mapping[str, Tensor | float]) -> None:
        """Take in one step's values."""
        for name, value in values.items():
            self.values[name].append(value.detach() if isinstance(value, Tensor) else value)

    def collect(self) -> dict[str, float]:
        """Return the means, and forget."""
        means = {name: sum(map(float, values)) / len(values) for name, values in self.values.items()}
        self.values.clear()
        return means


def status_line(
    stage: str,
    means: Mapping[str, float],
    rates: Mapping[str, float],
    held_out: Mapping[str, float],
    seconds: Mapping[str, float],
    skipped: int,
) -> str:
    """Return what matters while one watches; everything else is in the metrics.

    `means` are those of the steps, `rates` from `throughput.rates`, `held_out` the last validation, `seconds` the
    stopwatch's for a whole "step" and in it for "data", told where it is much.
    """
    parts = [stage, f"loss {means['loss']:.4g}"]
    parts += [f"psnr {means['psnr']:.2f}"] if "psnr" in means else []
    parts += [f"held out {held_out['psnr']:.2f} dB"] if "psnr" in held_out else []
    parts += [f"{rates['scenes_per_s']:.3g} scenes/s", f"{rates['utilisation']:.0%} of peak"]
    parts += [f"{rates['memory_gb']:.1f} GB"]
    waiting = seconds.get("data", 0.0) / max(seconds["step"], 1e-9)
    parts += [f"{waiting:.0%} waiting for data"] if waiting > TELL_DATA_SHARE else []
    return "  ".join([*parts, f"skipped {skipped}"] if skipped else parts)


class Reporter:
    """Write a run's metrics, on the main rank alone; what was written after `step` is forgotten, for it comes again."""

    def __init__(
        self, folder: Path, accelerator: Accelerator, total_steps: int, has_trackers: bool, step: int = 0
    ) -> None:
        self.accelerator = accelerator
        self.folder = folder
        self.total_steps = total_steps
        self.has_trackers = has_trackers
        self.is_main = accelerator.is_main_process
        if self.is_main:
            forget_after(folder / METRICS_FILE, step)
        self.file = (folder / METRICS_FILE).open("a", encoding="utf-8") if self.is_main else None
        self.progress: Progress | None = None
        self.last_line = 0.0
        self.has_complained = False
        if self.is_main and sys.stderr.isatty():
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self.progress = Progress(*columns)
            self.progress.start()
            self.task = self.progress.add_task("training", total=total_steps)

    def record(self, kind: str, step: int, values: Mapping[str, Any]) -> None:
        """Append one line to metrics.jsonl, and its numbers to the trackers."""
        if self.file is None:
            return
        with self._excused(METRICS_FILE):
            self.file.write(json.dumps({"kind": kind, "step": step, **values}) + "\n")
            self.file.flush()
        if self.has_trackers:
            numbers = {name: value for name, value in _flat(kind, values) if isinstance(value, float | int)}
            with self._excused("what trackers keep"):
                self.accelerator.log(numbers, step=step)

    def picture(self, name: str, step: int, picture: Image.Image) -> None:
        """Keep a picture as pictures/step-N.png, and show it in the trackers as `name`."""
        if not self.is_main:
            return
        path = self.folder / PICTURES_FOLDER / f"step-{step}.png"
        with self._excused(str(path)):
            path.parent.mkdir(exist_ok=True)
            picture.save(path)
        for tracker in self.accelerator.trackers if self.has_trackers else ():
            pixels = np.asarray(picture)[None]
            # TensorBoard would look for the channels in front.
            layout = {"dataformats": "NHWC"} if tracker.name == "tensorboard" else {}
            with self._excused("what trackers keep"):
                tracker.log_images({name: pixels}, step=step, **layout)

    @contextmanager
    def _excused(self, what: str) -> Iterator[None]:
        """Let a run go on when what it tells cannot be written, and say so the first time: only checkpoints matter."""
        try:
            yield
        except OSError as error:
            if not self.has_complained:
                self.has_complained = True
                self.say(f"{what} could not be written ({error.strerror or error}); the run goes on")

    def show(self, step: int, text: str) -> None:
        """Move the progress bar; without a terminal print a line, at most every half minute."""
        if not self.is_main:
            return
        if self.progress is not None:
            self.progress.update(self.task, completed=step, total=self.total_steps, description=text)
        elif time.monotonic() - self.last_line > SECONDS_BETWEEN_LINES:
            self.last_line = time.monotonic()
            logger.info("step %d/%d  %s", step, self.total_steps, text)

    def say(self, text: str) -> None:
        """Print one line that must not be missed."""
        if self.is_main and self.progress is not None:
            self.progress.console.print(text)
        elif self.is_main:
            logger.info(text)

    def close(self) -> None:
        """Finish the bar and the files."""
        if self.progress is not None:
            self.progress.stop()
        if self.file is not None:
            with self._excused(METRICS_FILE):
                self.file.close()
        # The accelerator's own end would take the process group along, which the next run of a chain needs.
        for tracker in self.accelerator.trackers if self.has_trackers else ():
            with self._excused("what trackers keep"):
                tracker.finish()


def forget_after(path: Path, step: int) -> None:
    """Leave the lines of metrics up to `step`; none for 0, where a run begins. A line that was torn off goes too."""
    if not path.is_file():
        return
    kept = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True) if step else []:
        try:
            known = line.endswith("\n") and json.loads(line)["step"] <= step
        except (json.JSONDecodeError, KeyError, TypeError):
            known = False
        kept += [line] if known else []
    write_atomically(path, "".join(kept))


def _flat(prefix: str, values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the entries of nested mappings, their names joined by strokes."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(f"{prefix}/{name}", value)
        else:
            yield f"{prefix}/{name}", value
