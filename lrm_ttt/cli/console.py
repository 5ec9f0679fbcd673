"""Show how a run gets on: live bars where a person watches, plain lines where a file or a pipe does."""

import logging
import sys
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


class Reporter:
    """Write the stages of a run to standard error; a listener of lrm_ttt/pipeline/stages.py."""

    def __init__(self) -> None:
        from rich.console import Console

        self.console: Console = Console(stderr=True, highlight=False, soft_wrap=True)
        self.progress: Progress | None = None
        self.task: TaskID | None = None
        self.said: set[str] = set()

    def __enter__(self) -> "Reporter":
        if self.console.is_terminal:
            from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

            columns = TextColumn("{task.description:10}"), BarColumn(), TimeElapsedColumn()
            self.progress = Progress(*columns, console=self.console, transient=True)
            self.progress.start()
        # What the library logs (a slower backend, a large crop) is news to the user.
        self.handler = _Notices(self)
        logging.getLogger("lrm_ttt").addHandler(self.handler)
        # Nor does anybody know otherwise which kernel a GPU attends by, and what the others would have taken.
        logging.getLogger("lrm_ttt.kernels.attention").setLevel(logging.INFO)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        logging.getLogger("lrm_ttt").removeHandler(self.handler)
        if self.progress is not None:
            self.progress.stop()

    def started(self, stage: str) -> None:
        """Show a bar that knows no end yet."""
        if self.progress is not None:
            self.task = self.progress.add_task(stage, total=None)

    def advanced(self, done: int, total: int) -> None:
        """Move the bar."""
        if self.progress is not None and self.task is not None:
            self.progress.update(self.task, completed=done, total=total)

    def finished(self, stage: str, seconds: float, detail: str) -> None:
        """Replace the bar by a line that stays."""
        if self.progress is not None and self.task is not None:
            self.progress.remove_task(self.task)
            self.task = None
        self.line(f"{stage:10} {seconds:7.2f} s  {detail}".rstrip())

    def noticed(self, sentence: str) -> None:
        """Write a sentence that stays, once."""
        if sentence not in self.said:
            self.line(f"note: {sentence}")
        self.said.add(sentence)

    def line(self, text: str) -> None:
        """Write one line."""
        self.console.print(text, markup=False)


def say_peak_memory() -> None:
    """Write to standard error what this process has held at most, and on a GPU where it used one."""
    import torch

    from lrm_ttt.pipeline.memory import peak_memory_mb

    said = f"peak memory {peak_memory_mb(torch.device('cpu')) / 1000:.2f} GB"
    if torch.cuda.is_initialized():
        said += f", {peak_memory_mb(torch.device('cuda')) / 1000:.2f} GB on the GPU"
    print(said, file=sys.stderr)


class _Notices(logging.Handler):
    def __init__(self, reporter: Reporter) -> None:
        super().__init__(logging.INFO)
        self.reporter = reporter

    def emit(self, record: logging.LogRecord) -> None:
        self.reporter.noticed(record.getMessage())


def command_line(name: str) -> str:
    """Return the command that was typed, as far as Python knows it."""
    import shlex

    return shlex.join(["lrm-ttt", name, *sys.argv[2:]]) if sys.argv[1:2] == [name] else f"lrm-ttt {name}"
