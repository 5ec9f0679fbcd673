"""Show how a benchmark gets on: one live line where a person watches, and a line for each cell that has finished."""

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.progress import Progress

    from lrm_ttt.eval.benchmark.run import State


class ProgressLines:
    """A watcher of lrm_ttt/eval/benchmark/run.py that writes to standard error; `output` is where results go."""

    def __init__(self, output: Path) -> None:
        from rich.console import Console

        self.output = output
        self.console = Console(stderr=True, highlight=False, soft_wrap=True)
        self.progress: Progress | None = None

    def __enter__(self) -> "ProgressLines":
        if self.console.is_terminal:
            from rich.progress import BarColumn, Progress, TextColumn

            columns = TextColumn("{task.completed}/{task.total} cells"), BarColumn(20), TextColumn("{task.description}")
            self.progress = Progress(*columns, console=self.console, transient=True)
            self.progress.add_task("", total=None)
            self.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.progress is not None:
            self.progress.stop()
        if isinstance(error, KeyboardInterrupt):
            self.noticed(f"{self.output} holds the cells that are finished; the same command goes on with the others.")

    def changed(self, state: "State") -> None:
        """Say what runs now, and the time left."""
        if self.progress is None:
            return
        running = [f"{cell}{_share(*advanced)}" for cell, advanced in state.running]
        description = "  ".join([time_left(state), *running])
        self.progress.update(
            self.progress.task_ids[0], completed=state.done, total=state.total, description=description
        )

    def finished(self, row: Mapping[str, Any], state: "State") -> None:
        """Say what came out of a cell."""
        psnr = (row["metrics"] or {}).get("psnr")
        came_out = f"{psnr:.2f} dB in {row['seconds']:.2f} s" if psnr is not None else row["error"] or row["status"]
        width = len(str(state.total))
        left = "" if self.progress is not None else f"  ({time_left(state)})"
        name = f"{row['method']} on {row['scene']}, {row['views']} views"
        self.noticed(f"{state.done:{width}}/{state.total}  {name}: {came_out}{left}")

    def noticed(self, sentence: str) -> None:
        """Write a line that stays."""
        self.console.print(sentence, markup=False)


def time_left(state: "State") -> str:
    """Return the time left in words, rounded as an estimate should be."""
    if state.seconds_left is None:
        return "time left unknown"
    minutes = state.seconds_left / 60
    if minutes < 1:
        return f"{state.seconds_left:.0f} s left"
    return f"{minutes:.0f} min left" if minutes < 90 else f"{minutes / 60:.1f} hours left"


def _share(done: int, total: int) -> str:
    return f" {100 * done // total} %" if total else ""
