"""Several jobs beside each other, each in a process of its own, and what they tell while they run."""

import dataclasses
import pickle
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from lrm_ttt.eval.benchmark.cell import Job, run_job
from lrm_ttt.eval.benchmark.cells import Cell
from lrm_ttt.eval.children import start_child

# What the processes are forked from has imported this already, so that no method's seconds count an import.
PRELOAD = (
    *("lrm_ttt.eval.methods", "lrm_ttt.eval.benchmark.cell", "torchmetrics.functional.image"),
    # The first optimiser of a process imports torch's compiler.
    *("torch._dynamo", "sklearn.cluster", "sklearn.neighbors"),
)
LEAVING_S = 5.0


@dataclasses.dataclass(frozen=True)
class Running:
    """A job that has begun; `advanced` is how many steps of how many are done, as far as it has told."""

    job: Job
    process: BaseProcess
    connection: Connection
    since: float
    advanced: tuple[int, int] = (0, 0)

    @property
    def seconds(self) -> float:
        """How long it has been running."""
        return time.monotonic() - self.since


class Workers:
    """Processes that end with this block, whatever they are doing."""

    def __init__(self) -> None:
        self.running: dict[Cell, Running] = {}

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *_: object) -> None:
        for running in self.running.values():
            running.process.kill()
        for running in self.running.values():
            running.process.join()
            running.connection.close()
        self.running.clear()

    def start(self, job: Job) -> None:
        """Begin a job."""
        process, connection = start_child(run_job, pickle.dumps(job), preload=PRELOAD)
        self.running[job.cell] = Running(job, process, connection, time.monotonic())

    def listen(self, seconds: float) -> Iterator[dict[str, Any]]:
        """Wait so long at most for something to be told, and yield the rows of those that have finished."""
        ready = wait([running.connection for running in self.running.values()], seconds)
        for cell, running in list(self.running.items()):
            if running.connection not in ready:
                continue
            try:
                kind, *told = running.connection.recv()
            except (EOFError, OSError):
                yield self._end(running, None)
                continue
            if kind == "row":
                yield self._end(running, told[0])
            else:
                self.running[cell] = dataclasses.replace(running, advanced=(told[0], told[1]))

    def _end(self, running: Running, row: dict[str, Any] | None) -> dict[str, Any]:
        """Return the row of a job that has ended: its own, or what is known where it did not live to tell."""
        del self.running[running.job.cell]
        running.connection.close()
        running.process.join(LEAVING_S)
        running.process.kill()
        running.process.join()
        if row is not None:
            return row
        status = running.process.exitcode or 0
        killed = f"was killed by signal {-status}" + (" (was there too little memory?)" if status == -9 else "")
        error = f"the process {killed if status < 0 else f'ended with status {status}'}"
        return running.job.row(status="failed", error=error, cell_seconds=round(running.seconds, 3))
