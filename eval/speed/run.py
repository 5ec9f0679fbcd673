"""The benchmark from end to end: stage after stage within a budget of time, written and said as it comes."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from lrm_ttt.errors import InvalidConfig
from lrm_ttt.eval.speed.ceilings import Ceilings, measure_ceilings
from lrm_ttt.eval.speed.children import Failed, stream
from lrm_ttt.eval.speed.config import STAGES, SpeedConfig, Stage
from lrm_ttt.eval.speed.kernel_records import record_kernels
from lrm_ttt.eval.speed.machine import describe, machine
from lrm_ttt.eval.speed.models import measure_models, measure_views
from lrm_ttt.eval.speed.ops import measure_ops
from lrm_ttt.eval.speed.plot import can_plot, draw_views
from lrm_ttt.eval.speed.report import Report
from lrm_ttt.eval.speed.rows import NO_TIME, Row
from lrm_ttt.eval.speed.summary import notes, summary
from lrm_ttt.eval.speed.timing import Budget, OutOfTime
from lrm_ttt.pipeline.checkpoint import choose_precision
from lrm_ttt.pipeline.processor import cxx_compiler


@dataclasses.dataclass(frozen=True)
class Options:
    """What a user chooses."""

    output: Path
    minutes: float
    only: tuple[Stage, ...] = ()
    views: tuple[int, ...] = ()
    overwrite: bool = False

    def __post_init__(self) -> None:
        if not self.minutes > 0:
            raise InvalidConfig(f"--minutes {self.minutes:g}: there has to be some time. Pass a positive number.")
        if any(count < 1 for count in self.views):
            raise InvalidConfig(f"--views {' '.join(map(str, self.views))}: numbers of views begin at 1.")


def benchmark(
    config: SpeedConfig,
    options: Options,
    device: torch.device,
    say: Callable[[str], None],
    command: str = "",
    budget: Budget | None = None,
) -> dict[str, Any]:
    """Measure, write the folder of `options`, say Markdown line by line, and return all that was found.

    Raises `LrmTttError` kinds. What was measured before an interrupt stays in the folder.
    """
    budget = budget or Budget.of(60 * options.minutes)
    report = Report(options.output, say, options.overwrite)
    try:
        return _fill(report, config, options, device, command, budget)
    finally:
        report.write_table()


def _fill(
    report: Report, config: SpeedConfig, options: Options, device: torch.device, command: str, budget: Budget
) -> dict[str, Any]:
    found: dict[str, Any] = {"machine": machine(device, command), "config": dataclasses.asdict(config), "kernels": {}}
    report.record(found)
    for line in ("# Speed", "", *describe(found["machine"])):
        report.line(line)
    wanted = [stage for stage in STAGES if stage in options.only or not options.only]
    views = tuple(sorted(set(options.views or config.views)))
    for number, stage in enumerate(wanted):
        rest = sum(STAGES[later] for later in wanted[number:])
        report.begin(stage)
        part = budget.part(STAGES[stage] / rest)
        rows = _rows(stage, config, views, device, Ceilings.of(report.rows), part)
        for row in _guarded(rows, stage):
            report.add(row)
        for line in notes(stage, report.rows):
            report.line(line)
        if stage == "ops":
            # The model that is measured next takes the kernels that pay.
            found["kernels"] = record_kernels(report.rows, device)
    found |= {"rows": [dataclasses.asdict(row) for row in report.rows], "summary": summary(report.rows)}
    found["plot"] = _plot(report, found["machine"]["hardware"])
    return found


def _rows(
    stage: Stage,
    config: SpeedConfig,
    views: Sequence[int],
    device: torch.device,
    ceilings: Ceilings,
    budget: Budget,
) -> Iterator[Row]:
    """Return what measures a stage: in a process of its own, or in several."""
    dtype = choose_precision("auto", device)
    if device.type != "cuda" and not cxx_compiler():
        config = dataclasses.replace(config, compiled=False)
    if stage == "ceilings":
        return stream(measure_ceilings, config, device, budget, budget=budget)
    if stage == "ops":
        return stream(measure_ops, config, dtype, ceilings, device, budget, budget=budget)
    if stage == "model":
        return measure_models(config, dtype, ceilings, device, budget)
    return measure_views(config, dtype, views, device, budget)


def _guarded(rows: Iterator[Row], stage: Stage) -> Iterator[Row]:
    """Yield the rows, and a last one in place of those that a process did not live to measure."""
    try:
        yield from rows
    except OutOfTime:
        yield Row(stage, "the rest", note=NO_TIME)
    except Failed as error:
        yield Row(stage, "the rest", note=str(error))


def _plot(report: Report, hardware: dict[str, Any]) -> str | None:
    rows = [row for row in report.rows if row.stage == "views"]
    if not any(row.ms is not None for row in rows):
        return None
    if not can_plot():
        report.line("")
        report.line("There is no plot without matplotlib: pip install 'lrm-ttt[plots]'.")
        return None
    path = report.folder / "plot.png"
    where = hardware["gpu"]["name"] if hardware["gpu"] else f"{hardware['cpu']}, {hardware['threads']} threads"
    draw_views(rows, path, f"forward pass of the blocks: {where}")
    return str(path)
