"""What the measurements come to: ratios, linearity, utilisation, and what the tables need explained."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from lrm_ttt.eval.speed.config import Stage
from lrm_ttt.eval.speed.rows import NO_TIME, Row


def summary(rows: Sequence[Row]) -> dict[str, Any]:
    """Return ratios within one run by what they compare, and which rows there was no time for, or failed."""
    views = {stage_variant: _linearity(own) for stage_variant, own in _by_variant(rows).items()}
    return {
        "times_as_fast": {_name(row): row.speedup for row in rows if row.speedup is not None and row.speedup != 1},
        "utilisation": {_name(row): row.share for row in rows if row.stage == "model" and row.share is not None},
        "memory_of_the_first": {
            _name(row): row.peak_mb / first.peak_mb for first, row in _pairs(rows) if row.peak_mb and first.peak_mb
        },
        "linearity": {variant: value for variant, value in views.items() if value is not None},
        "line": {variant: _fit(own) for variant, own in _by_variant(rows).items() if len(own) > 2},
        "checks": {
            "passed": sum(row.check == "pass" for row in rows),
            "failed": [_name(row) for row in rows if row.check == "fail"],
        },
        "no_time": [_name(row) for row in rows if row.note == NO_TIME],
        "failed": [f"{_name(row)}: {row.note}" for row in rows if row.note.startswith("failed")],
    }


def notes(stage: Stage, rows: Sequence[Row]) -> Iterator[str]:
    """Yield what stands below the table of a stage."""
    texts = list(_texts(stage, [row for row in rows if row.stage == stage]))
    if texts:
        yield ""
    yield from texts


def _texts(stage: Stage, rows: Sequence[Row]) -> Iterator[str]:
    if stage == "ceilings":
        yield "A copy counts what is read and what is written. fp32 is not TF32."
    elif stage == "ops":
        yield (
            "The check is the greatest relative L2 error of outputs (and gradients, with backward) against float64; "
            "what does not pass has no speed. On a processor blocks consist of the compiled reference, and of ours "
            "where it is native."
        )
    elif stage == "model":
        yield (
            "Blocks alone, without tokenizer, head and optimiser; a training step is forward, backward and the "
            "gradients of all parameters. Both sides take turns. Published: inputs and virtual copies in one sequence, "
            "eager, with the allocator as it comes; ours: each view once, and on a processor freed memory is kept. "
            "The rate counts the FLOP of each layout, nothing twice that checkpointing repeats. "
            "Peak memory is that of the process with its weights (on a GPU that of its tensors), and then what of it "
            "the run itself took."
        )
    elif stage == "views":
        yield "Forward pass of the blocks. Numbers of views take turns."
        for variant, own in _by_variant(rows).items():
            value = _linearity(own)
            if value is not None:
                first, last = (row.name for row in (own[0], own[-1]))
                yield f"* {variant}: a view among {last} takes {value:.2f} times as long as a view among {first}."
            if len(own) > 2:
                line = _fit(own)
                yield (
                    f"* {variant}: the nearest line is {line['fixed_ms']:.0f} ms and {line['ms_per_view']:.2f} ms a "
                    f"view; no time is further from it than {100 * line['worst_deviation']:.0f} %."
                )


def _pairs(rows: Sequence[Row]) -> Iterator[tuple[Row, Row]]:
    """Yield each row of the stage `model` with the first of its case."""
    first: dict[tuple[str, str], Row] = {}
    for row in rows:
        if row.stage == "model" and first.setdefault((row.name, row.size), row) is not row:
            yield first[row.name, row.size], row


def _by_variant(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Return the rows of the stage `views` that have a time, by variant."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        if row.stage == "views" and row.ms is not None:
            found.setdefault(row.variant, []).append(row)
    return found


def _linearity(rows: Sequence[Row]) -> float | None:
    """Return the time of a view among the most views over that among the fewest; 1 is linear."""
    first, last = rows[0], rows[-1]
    if first.ms is None or last.ms is None or len(rows) < 2:
        return None
    return (last.ms / int(last.name)) / (first.ms / int(first.name))


def _fit(rows: Sequence[Row]) -> dict[str, float]:
    """Return the straight line through the times, as a fixed time and one for each view, and how far off they are."""
    views = np.array([float(row.name) for row in rows])
    times = np.array([row.ms for row in rows], dtype=float)
    # Relative errors count: a long time is no better known than a short one.
    each, fixed = np.polyfit(views, times, 1, w=1 / times)
    worst = np.abs((fixed + each * views) / times - 1).max()
    return {"fixed_ms": float(fixed), "ms_per_view": float(each), "worst_deviation": float(worst)}


def _name(row: Row) -> str:
    return "; ".join(filter(None, [row.name, row.size, row.variant, row.dtype]))
