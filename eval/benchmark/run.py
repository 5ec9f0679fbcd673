"""A benchmark from end to end: cell after cell in processes of their own, kept as they come, then table and page."""

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch

from lrm_ttt.eval.benchmark.cell import Job
from lrm_ttt.eval.benchmark.cells import Cell, Estimate, Subset, check_methods, next_cell
from lrm_ttt.eval.benchmark.config import BenchmarkConfig, MethodConfig
from lrm_ttt.eval.benchmark.describe import describe, view_lists
from lrm_ttt.eval.benchmark.folder import DESCRIPTION, TABLE, VIEW_LISTS, ResultFolder, as_json
from lrm_ttt.eval.benchmark.plan import Plan, make_plan
from lrm_ttt.eval.benchmark.table import draw_table
from lrm_ttt.eval.benchmark.workers import Workers
from lrm_ttt.eval.list_file import write_lists
from lrm_ttt.eval.methods import build_method
from lrm_ttt.eval.report.page import write_page
from lrm_ttt.eval.report.results import read_results
from lrm_ttt.eval.task import Method
from lrm_ttt.pipeline.checkpoint import choose_backend, choose_device

# How often a watcher hears that time has passed.
TICK_S = 0.5
ALL = Subset()


@dataclasses.dataclass(frozen=True)
class Options:
    """What a user chooses beside the configuration."""

    output: Path
    device: str = "auto"
    subset: Subset = ALL
    overwrite: bool = False
    allow_missing: bool = False
    command: str = ""


@dataclasses.dataclass(frozen=True)
class State:
    """How far a run is: cells of it that are `done` (or failed) of `total`; what runs, with its steps; the time left.

    `seconds_left` is None as long as nothing is known.
    """

    done: int
    failed: int
    total: int
    running: tuple[tuple[Cell, tuple[int, int]], ...]
    seconds_left: float | None


@runtime_checkable
class Watcher(Protocol):
    """Hears how a run gets on."""

    def changed(self, state: State) -> None:
        """Some time has passed, or something has happened."""

    def finished(self, row: Mapping[str, Any], state: State) -> None:
        """A cell is done, or has failed."""

    def noticed(self, sentence: str) -> None:
        """Something that the user should know."""


def run_benchmark(
    config: BenchmarkConfig,
    options: Options,
    watcher: Watcher,
    build: Callable[[MethodConfig, torch.device], Method] = build_method,
) -> State:
    """Run what is not done yet, and write results, table and page to the folder of `options`.

    Raises `LrmTttError` kinds before anything runs. A method that fails is a row that says so; it is run again the next
    time. Interrupted, it leaves table and page of what is there, and goes on from that the next time. `build` runs in
    the processes of the cells.
    """
    check_methods(config.methods)
    plan = make_plan(config, choose_device(options.device), options.allow_missing)
    options.subset.check(config, list(plan.scenes))
    folder = ResultFolder(options.output, plan.identity, options.overwrite)
    try:
        wanted = [cell for cell in plan.cells if cell in options.subset]
        waiting = [cell for cell in wanted if folder.rows.get(cell, {}).get("status") != "done"]
        about = describe(plan, folder.earlier, options.command, options.subset)
        folder.drop(waiting)
        # A run that has nothing to do leaves everything as it is.
        if waiting or folder.earlier is None:
            folder.write(DESCRIPTION, as_json(about))
            write_lists(folder.path / VIEW_LISTS, view_lists(plan))
        for sentence in plan.left_out:
            watcher.noticed(sentence)
        try:
            return _run_cells(plan, wanted, waiting, folder, watcher, about, build)
        finally:
            _show(folder)
    finally:
        folder.close()


def _run_cells(
    plan: Plan,
    wanted: Sequence[Cell],
    waiting: list[Cell],
    folder: ResultFolder,
    watcher: Watcher,
    about: Mapping[str, Any],
    build: Callable[[MethodConfig, torch.device], Method],
) -> State:
    methods = {method.name: method for method in plan.config.methods}
    estimate = Estimate(plan.config.methods, folder.rows.values())
    hardware = about["hardware"]
    stamp = {
        "commit": about["commit"],
        "hardware": hardware["gpu"]["name"] if hardware["gpu"] else hardware["cpu"],
        "backend": choose_backend("auto", plan.device),
        "threads": plan.threads,
        "workers": plan.config.workers,
    }
    with Workers() as workers:

        def state() -> State:
            rows = [folder.rows[cell] for cell in wanted if cell in folder.rows]
            running = {cell: each.seconds for cell, each in workers.running.items()}
            return State(
                done=len(rows),
                failed=sum(row["status"] == "failed" for row in rows),
                total=len(wanted),
                running=tuple((cell, each.advanced) for cell, each in workers.running.items()),
                seconds_left=estimate.remaining(waiting, running, plan.config.workers) if estimate.known else None,
            )

        while waiting or workers.running:
            while waiting and len(workers.running) < plan.config.workers:
                cell = next_cell(waiting, estimate, plan.config.workers)
                waiting.remove(cell)
                workers.start(_job(plan, cell, methods[cell.method], folder.path, stamp, build))
            for row in workers.listen(TICK_S):
                row["date"] = time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime())
                folder.append(row)
                estimate.learn(row)
                watcher.finished(row, state())
            watcher.changed(state())
        if all(folder.rows.get(cell, {}).get("status") == "done" for cell in plan.cells):
            folder.remove_work()
        return state()


def _job(
    plan: Plan,
    cell: Cell,
    method: MethodConfig,
    folder: Path,
    stamp: Mapping[str, Any],
    build: Callable[[MethodConfig, torch.device], Method],
) -> Job:
    config = plan.config
    return Job(
        cell=cell,
        method=method,
        scene=plan.scenes[cell.scene],
        choice=plan.choices[cell.scene, cell.views],
        folder=folder,
        device=plan.device,
        threads=plan.threads,
        seed=config.seed,
        lpips=config.lpips,
        pictures=config.pictures,
        stamp=dict(stamp),
        build=build,
    )


def _show(folder: ResultFolder) -> None:
    """Write table and page of what is there."""
    folder.write(TABLE, draw_table(read_results(folder.path)))
    write_page(folder.path)
