"""What a run tells: metrics.jsonl and TensorBoard for programs, a bar or a line every half minute for people."""

import json
import logging
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn

logger = logging.getLogger("lrm_ttt.train")
SECONDS_BETWEEN_LINES = 30.0
METRICS_FILE = "metrics.jsonl"


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
    """Add the seconds of a module's forward calls to the stopwatch."""
    starts: list[float] = []
    module.register_forward_pre_hook(lambda *_: starts.append(time.perf_counter()))
    module.register_forward_hook(lambda *_: stopwatch.add(name, time.perf_counter() - starts.pop()))


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


class Reporter:
    """Write a run's metrics, on the main rank alone."""

    def __init__(self, folder: Path, accelerator: Accelerator, total_steps: int, tensorboard: bool) -> None:
        self.accelerator = accelerator
        self.total_steps = total_steps
        self.trackers = tensorboard
        self.is_main = accelerator.is_main_process
        self.file = (folder / METRICS_FILE).open("a", encoding="utf-8") if self.is_main else None
        self.progress: Progress | None = None
        self.last_line = 0.0
        if self.is_main and sys.stderr.isatty():
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self.progress = Progress(*columns)
            self.progress.start()
            self.task = self.progress.add_task("training", total=total_steps)

    def record(self, kind: str, step: int, values: Mapping[str, Any]) -> None:
        """Append one line to metrics.jsonl, and its numbers to the trackers."""
        if self.file is None:
            return
        self.file.write(json.dumps({"kind": kind, "step": step, **values}) + "\n")
        self.file.flush()
        if self.trackers:
            numbers = {f"{kind}/{name}": value for name, value in values.items() if isinstance(value, float | int)}
            self.accelerator.log(numbers, step=step)

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
            self.file.close()
        if self.trackers:
            self.accelerator.end_training()
