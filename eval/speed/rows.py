"""One measurement, and the Markdown tables that measurements are told in."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Literal

from lrm_ttt.eval.speed.config import Stage
from lrm_ttt.eval.speed.timing import Timing

NO_TIME = "not run: time"


@dataclasses.dataclass(frozen=True)
class Row:
    """What was measured of one variant of one thing; None is what was not measured or does not apply.

    `rate` is in `unit`, `share` its part (0..1) of what the machine reached in the ceilings. `speedup` is how many
    times as fast it is as the first variant of the same run. `error` is relative to float64 and passes below
    `tolerance`; what does not pass has no time. `note` says why there is none. `peak_mb` is
    the most memory that the process held, `added_mb` what of it was not there before the run.
    """

    stage: Stage
    name: str
    size: str = ""
    variant: str = ""
    dtype: str = ""
    ms: float | None = None
    least_ms: float | None = None
    most_ms: float | None = None
    runs: int = 0
    rate: float | None = None
    unit: str = "TFLOP/s"
    share: float | None = None
    speedup: float | None = None
    peak_mb: float | None = None
    added_mb: float | None = None
    error: float | None = None
    tolerance: float | None = None
    check: Literal["", "pass", "fail"] = ""
    note: str = ""

    def timed(self, timing: Timing, work: float = 0.0, ceiling: float | None = None) -> "Row":
        """Add a time, and the rate at which it does `work`: FLOP, bytes or views, as the unit says."""
        scale = {"TFLOP/s": 1e12, "GB/s": 1e9}.get(self.unit, 1.0)
        rate = work / timing.median / scale if work else None
        return dataclasses.replace(
            self,
            ms=1e3 * timing.median,
            least_ms=1e3 * timing.least,
            most_ms=1e3 * timing.most,
            runs=timing.count,
            rate=rate,
            share=rate / ceiling if rate is not None and ceiling else None,
        )

    def compared(self, first: "Row") -> "Row":
        """Add how many times as fast this is as the first."""
        if self.ms is None or first.ms is None:
            return self
        return dataclasses.replace(self, speedup=first.ms / self.ms)

    def checked(self, error: float, tolerance: float) -> "Row":
        """Add the outcome of the check against float64; an error that is no number fails, and is not kept."""
        known = error if math.isfinite(error) else None
        return dataclasses.replace(
            self, error=known, tolerance=tolerance, check="pass" if error <= tolerance else "fail"
        )


def _number(value: float | None, digits: int = 3) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 10 ** (digits - 1) else f"{value:.{digits}g}"


def _check(row: Row) -> str:
    if row.error is None:
        return f"{row.check}: no number" if row.check else "-"
    return f"{row.check}: {row.error:.1e} of {row.tolerance:.0e}"


_Cell = Callable[[Row], str]
CELLS: dict[str, _Cell] = {
    "what": lambda row: row.name,
    "size": lambda row: row.size or "-",
    "variant": lambda row: row.variant or "-",
    "dtype": lambda row: row.dtype or "-",
    "ms": lambda row: row.note if row.ms is None and row.note else _number(row.ms),
    "rate": lambda row: "-" if row.rate is None else f"{_number(row.rate)} {row.unit}",
    "of ceiling": lambda row: "-" if row.share is None else f"{100 * row.share:.0f} %",
    "times as fast": lambda row: "-" if row.speedup is None else f"{_number(row.speedup)}x",
    "peak MB": lambda row: _number(row.peak_mb, 4),
    "of the run": lambda row: _number(row.added_mb, 4),
    "check": _check,
}
TABLES: dict[Stage, tuple[str, tuple[str, ...]]] = {
    "ceilings": ("Ceilings of the machine", ("what", "size", "dtype", "ms", "rate")),
    "ops": (
        "Operations",
        ("what", "size", "variant", "dtype", "ms", "rate", "of ceiling", "times as fast", "check"),
    ),
    "model": (
        "Model",
        ("what", "size", "variant", "dtype", "ms", "rate", "of ceiling", "times as fast", "peak MB", "of the run"),
    ),
    "views": ("Number of views", ("what", "size", "variant", "dtype", "ms", "rate", "peak MB", "of the run")),
}


def table_head(stage: Stage) -> list[str]:
    """Return the title of a stage and the head of its table."""
    title, columns = TABLES[stage]
    return ["", f"## {title}", "", _line(columns), _line(["---"] * len(columns))]


def table_line(row: Row) -> str:
    """Return the row as a line of the table of its stage."""
    return _line([CELLS[column](row) for column in TABLES[row.stage][1]])


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
