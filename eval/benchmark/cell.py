"""One cell: what a process of its own does with one method, one scene and one number of views."""

import contextlib
import dataclasses
import math
import os
import pickle
import signal
import threading
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lrm_ttt.data.view_sampler import ViewChoice
from lrm_ttt.errors import LrmTttError
from lrm_ttt.eval.benchmark.cells import Cell, slug, steps
from lrm_ttt.eval.benchmark.config import MethodConfig
from lrm_ttt.eval.benchmark.scenes import BenchmarkScene
from lrm_ttt.eval.metrics import Lpips, Network, score, why_no_lpips
from lrm_ttt.eval.task import Advance, Method, Outcome, Task
from lrm_ttt.pipeline.checkpoint import choose_backend
from lrm_ttt.pipeline.memory import keep_freed_memory, peak_memory_mb
from lrm_ttt.render.sheet import spread
from lrm_ttt.render.video import write_png
from lrm_ttt.scene.gaussians import Gaussians

# The parent is not told of progress more often than this.
TELL_EVERY_S = 0.2
# Methods of fewer steps run once before the clock starts on a GPU; of longer ones that is a small part.
WARM_UP_BELOW = 1000


@dataclasses.dataclass(frozen=True)
class Job:
    """All that a cell needs to know; `folder` holds the results, `stamp` is what every row says of its making."""

    cell: Cell
    method: MethodConfig
    scene: BenchmarkScene
    choice: ViewChoice
    folder: Path
    device: torch.device
    threads: int
    seed: int
    lpips: Network
    pictures: int
    stamp: dict[str, Any]
    build: Callable[[MethodConfig, torch.device], Method]

    def row(self, **found: Any) -> dict[str, Any]:
        """Return a row of results.jsonl; what was not found is null."""
        empty = ("error", "traceback", "seconds", "processor_seconds", "peak_memory_bytes", "num_gaussians", "metrics")
        return {
            **dataclasses.asdict(self.cell),
            "status": "done",
            **dict.fromkeys(empty),
            "psnr_each": [],
            "inputs": list(self.choice.inputs),
            "targets": list(self.choice.targets),
            "pictures": {},
            **self.stamp,
            **found,
        }


def run_job(connection: Connection, pickled: bytes) -> None:
    """Run a job, and tell ("advanced", done, total) and at last ("row", row); ends when the parent does."""
    # Plain bytes: tensors would otherwise be shared by descriptors, which the parent would have to keep open.
    job: Job = pickle.loads(pickled)
    # A terminal interrupts all processes; it is the parent's business, which then ends this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_leave_with_the_parent, args=(connection,), daemon=True).start()
    start = time.perf_counter()
    told = 0.0

    def advance(done: int, total: int) -> None:
        nonlocal told
        if (now := time.perf_counter()) - told > TELL_EVERY_S:
            told = now
            connection.send(("advanced", done, total))

    try:
        row = measure(job, advance)
    # Whatever goes wrong with a method is a row of the table.
    except Exception as error:  # noqa: BLE001
        row = job.row(status="failed", error=_reason(error), traceback=traceback.format_exc())
    connection.send(("row", row | {"cell_seconds": round(time.perf_counter() - start, 3)}))


def measure(job: Job, advance: Advance) -> dict[str, Any]:
    """Reconstruct, draw what was held out, score it, write pictures, and return the row."""
    torch.set_num_threads(job.threads)
    keep_freed_memory()
    work = job.folder / "work"
    inputs = dataclasses.replace(job.scene.load(job.choice.inputs, work), depths=None)
    background = torch.tensor(job.scene.background)
    points = None if job.scene.source.points is None else job.scene.source.points.float()
    method = job.build(job.method, job.device)
    task = Task(inputs, background, points, job.seed, choose_backend("auto", job.device))
    if job.device.type == "cuda":
        warm_up(job, method, task)
    outcome, found = timed(method, task, advance, job.device)
    outcome = dataclasses.replace(outcome, gaussians=outcome.gaussians.to(job.device))
    targets = job.scene.load(job.choice.targets, work)
    cameras = targets.cameras.to(job.device)
    images = outcome.draw(cameras, background.to(job.device), task.backend)
    depths = None if targets.depths is None else outcome.draw_depths(cameras, task.backend)
    lpips = Lpips(job.lpips, job.device) if why_no_lpips(job.lpips) is None else None
    scores = score(images, targets.images, lpips, depths, targets.depths)
    if not all(map(math.isfinite, scores.psnr)):
        raise LrmTttError("the held-out views that it draws hold NaN or infinity")
    return job.row(
        **found,
        num_gaussians=outcome.gaussians.num_gaussians,
        metrics={name: None if value is None else _finite(value) for name, value in scores.means.items()},
        psnr_each=[_finite(value) for value in scores.psnr],
        pictures=write_pictures(job, images, targets.images),
    )


def warm_up(job: Job, method: Method, task: Task) -> None:
    """Let a GPU's kernels be compiled and loaded, which happens when they are first called."""
    one = torch.ones(1, 3, device=job.device)
    gaussian = Gaussians(one, one, torch.ones(1, 4, device=job.device), one[0, :1], one[:, None])
    camera = task.inputs.cameras[:1].to(job.device)
    Outcome(gaussian, 0.01).draw(camera, task.background.to(job.device), task.backend)
    if steps(job.method) < WARM_UP_BELOW:
        method(task, lambda done, total: None)


def timed(method: Method, task: Task, advance: Advance, device: torch.device) -> tuple[Outcome, dict[str, Any]]:
    """Run a method, and return its seconds, its processor's and the most memory that the process then held.

    On a GPU the memory is the GPU's, without what the driver keeps.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
    # What loading held for a moment is not the method's. Not every container may write there, nor every system.
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    start, processor = time.perf_counter(), time.process_time()
    outcome = method(task, advance)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    found = {
        "seconds": round(time.perf_counter() - start, 4),
        "processor_seconds": round(time.process_time() - processor, 4),
        "peak_memory_bytes": round(peak_memory_mb(device) * 1e6),
    }
    return outcome, found


def write_pictures(job: Job, images: Tensor, truths: Tensor) -> dict[str, str]:
    """Write some of the held-out views and their truths, and return the paths by the index of the view."""
    cell = job.cell
    renders = Path("renders", cell.scene, str(cell.views), slug(cell.method))
    written = {}
    for position in spread(len(job.choice.targets), job.pictures):
        index = job.choice.targets[position]
        path, truth = renders / f"{index}.png", Path("truths", cell.scene, f"{index}.png")
        _write_whole(job.folder / path, images[position])
        if not (job.folder / truth).is_file():
            _write_whole(job.folder / truth, truths[position])
        written[str(index)] = path.as_posix()
    return written


def _write_whole(path: Path, image: Tensor) -> None:
    """Write a PNG by atomic rename; several cells may write the same truth at a time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    write_png(partial, image)
    partial.replace(path)


def _finite(value: float) -> float | None:
    """Return a number that JSON has, or None."""
    return round(value, 6) if math.isfinite(value) else None


def _reason(error: Exception) -> str:
    """Return in one line what went wrong; the messages that are meant for users need no name of a class."""
    said = " ".join(str(error).split())[:300]
    return said if isinstance(error, LrmTttError) else f"{type(error).__name__}: {said}"


def _leave_with_the_parent(connection: Connection) -> None:
    """Wait for the parent to close the connection, which it also does when it is killed, and end this process."""
    with contextlib.suppress(EOFError, OSError):
        connection.recv()
    os._exit(1)
