"""The blocks of a model, forward and a training step, against the published layout in the same run."""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence

import torch

from lrm_ttt.eval.speed.ceilings import Ceilings
from lrm_ttt.eval.speed.children import Child, Failed
from lrm_ttt.eval.speed.config import ModelCase, SpeedConfig
from lrm_ttt.eval.speed.rows import NO_TIME, Row
from lrm_ttt.eval.speed.sides import Measured, Request, Side, backbone_flops, serve
from lrm_ttt.eval.speed.timing import LEAST_RUNS, Budget, OutOfTime, interleave


def measure_models(
    config: SpeedConfig, dtype: str, ceilings: Ceilings, device: torch.device, budget: Budget
) -> Iterator[Row]:
    """Yield the rows of each case: the published layout, and ours."""
    on_gpu = device.type == "cuda"
    sides = [Side("published", dtype if on_gpu else "fp32", False), Side("ours", dtype, config.compiled)]
    if on_gpu:
        sides.append(Side("ours", dtype, config.compiled, graphed=True))
    with Team(tuple(sides), config, device) as team:
        for number, case in enumerate(config.cases):
            yield from _measure(team, case, ceilings, budget.part(1 / (len(config.cases) - number)))


class Team(contextlib.AbstractContextManager["Team"]):
    """The processes that sides run in: one for all on a GPU, where they share the weights, and one each otherwise."""

    def __init__(self, sides: tuple[Side, ...], config: SpeedConfig, device: torch.device) -> None:
        self.sides, self.config = sides, config
        together = device.type == "cuda"
        groups: list[tuple[Side, ...]] = [sides] if together else [(side,) for side in sides]
        children = [Child(serve, group, config.backbone, device) for group in groups]
        self._homes = [
            (child, place) for child, group in zip(children, groups, strict=True) for place in range(len(group))
        ]

    def __exit__(self, *exception: object) -> None:
        for child, _ in self._homes:
            child.end()

    def run(self, side: int, case: ModelCase, budget: Budget) -> Measured:
        """Run a side once; raises `OutOfTime` or `Failed`."""
        child, place = self._homes[side]
        window = self.config.window(case.image_size)
        return child.ask(Request(place, case.num_views, window, case.training, case.checkpointing), budget)


def _measure(team: Team, case: ModelCase, ceilings: Ceilings, budget: Budget) -> Iterator[Row]:
    found: dict[int, list[Measured]] = {}

    def run(side: int) -> float:
        measured = team.run(side, case, budget)
        found.setdefault(side, []).append(measured)
        return measured.seconds

    chosen = [side for side in team.sides if case.graphed or not side.graphed]
    rows = [_row(team, side, case) for side in chosen]
    try:
        timings = interleave(
            [functools.partial(run, index) for index in range(len(rows))], team.config.model_seconds, budget
        )
    except (OutOfTime, Failed) as error:
        note = NO_TIME if isinstance(error, OutOfTime) else str(error)
        yield from (dataclasses.replace(row, note=note) for row in rows)
        return
    for index, (side, timing) in enumerate(zip(chosen, timings, strict=True)):
        flops = backbone_flops(team.config.backbone, case.num_views, case.image_size, side.kind)
        work = flops.training if case.training else float(flops.forward)
        row = rows[index].timed(timing, work, ceilings.products.get(side.dtype))
        # The first run may have compiled; after the second the process keeps what a run needs.
        second = found[index][1]
        rows[index] = dataclasses.replace(row, peak_mb=second.peak_mb, added_mb=second.added_mb)
    yield from (row.compared(rows[0]) for row in rows)


def _row(team: Team, side: Side, case: ModelCase) -> Row:
    backbone = team.config.backbone
    name = "training step" if case.training else "forward"
    name += ", checkpointing" if case.checkpointing else ""
    height, width = case.image_size
    size = f"{backbone.num_blocks} x {backbone.width}, {case.num_views} views of {height}x{width}"
    return Row("model", name, size, side.name, side.dtype)


def measure_views(
    config: SpeedConfig, dtype: str, views: Sequence[int], device: torch.device, budget: Budget
) -> Iterator[Row]:
    """Yield the forward pass at several numbers of views: ours in turn, then softmax memories as far as time allows."""
    cases = [ModelCase(count, config.views_size) for count in views]
    with Team((Side("ours", dtype, config.compiled),), config, device) as team:
        yield from _in_turn(team, cases, config.model_seconds, budget.part(0.6))
    with Team((Side("softmax", dtype, config.compiled),), config, device) as team:
        before: Row | None = None
        for case in cases:
            row = _view_row(team, case)
            if before is not None:
                # At least as much a view as before, and four runs.
                least = 4e-3 * (before.ms or float("inf")) * case.num_views / float(before.name)
                if least > budget.left:
                    yield dataclasses.replace(row, note=NO_TIME)
                    continue
            (before,) = _in_turn(team, [case], config.model_seconds / len(cases), budget)
            yield before


def _in_turn(team: Team, cases: Sequence[ModelCase], seconds: float, budget: Budget) -> list[Row]:
    """Measure several numbers of views, so that what else the machine does meanwhile hits all of them alike.

    The greatest numbers for which there is no time are left out.
    """
    rows = [_view_row(team, case) for case in cases]
    found: dict[ModelCase, list[Measured]] = {}

    def run(case: ModelCase) -> float:
        measured = [team.run(0, case, budget) for _ in range(_repeats(case))]
        found.setdefault(case, []).extend(measured)
        return sum(one.seconds for one in measured) / len(measured)

    try:
        fitting = list(cases)
        if len(cases) > 1:
            # The first run may compile.
            a_view = [team.run(0, cases[0], budget).seconds / cases[0].num_views for _ in range(2)][1]
            while len(fitting) > 1 and _least_views(fitting) * a_view > budget.left:
                fitting.pop()
        runs: list[Callable[[], float]] = [functools.partial(run, case) for case in fitting]
        timings = interleave(runs, seconds, budget)
    except (OutOfTime, Failed) as error:
        note = NO_TIME if isinstance(error, OutOfTime) else str(error)
        return [dataclasses.replace(row, note=note) for row in rows]
    for index, (timing, case) in enumerate(zip(timings, fitting, strict=True)):
        row = rows[index].timed(timing, float(case.num_views))
        second = found[case][1]
        rows[index] = dataclasses.replace(row, peak_mb=second.peak_mb, added_mb=second.added_mb)
    return [row if row.ms is not None else dataclasses.replace(row, note=NO_TIME) for row in rows]


def _repeats(case: ModelCase) -> int:
    """Return how many runs make one: few views are over so fast that one run says little."""
    return max(1, 32 // case.num_views)


def _least_views(cases: Sequence[ModelCase]) -> int:
    """Return the views that there have to be run for a median of each case, the warm-up included."""
    return (1 + LEAST_RUNS) * sum(_repeats(case) * case.num_views for case in cases)


def _view_row(team: Team, case: ModelCase) -> Row:
    height, width = case.image_size
    return Row(
        "views", str(case.num_views), f"{height}x{width}", team.sides[0].name, team.sides[0].dtype, unit="views/s"
    )
