"""Ratios and linearity are computed from the rows, and speeds are told of what passed alone."""

import dataclasses
import re

import pytest
import torch

from lrm_ttt.eval.speed import kernel_records
from lrm_ttt.eval.speed.rows import NO_TIME, Row, table_line
from lrm_ttt.eval.speed.summary import notes, summary
from lrm_ttt.eval.speed.timing import Timing
from lrm_ttt.eval.speed.variants import named_ops
from tests.helpers.shared import CHECKOUT

GPU = torch.device("cuda", 0)
CHOICE = re.compile(r'choose\("(\w+)"')


def test_every_op_with_a_choice_of_backends_is_measured() -> None:
    """What is not measured would never be chosen."""
    sources = [path.read_text() for path in (CHECKOUT / "kernels").rglob("*.py")]
    chosen = {name for source in sources for name in CHOICE.findall(source)}
    assert chosen == {named.backend_name for named in named_ops(1, "triton").values()} - {""}


def timed(row: Row, seconds: float) -> Row:
    return row.timed(Timing.of([seconds]))


def of_views(count: int, seconds: float, variant: str = "ours") -> Row:
    return Row("views", str(count), "72x128", variant, unit="views/s").timed(Timing.of([seconds]), float(count))


def test_a_rate_is_work_over_the_median() -> None:
    row = Row("model", "forward").timed(Timing.of([1.0, 2.0, 6.0]), 3e12, 2.0)
    assert (row.ms, row.least_ms, row.most_ms, row.runs) == (2000, 1000, 6000, 3)
    assert (row.rate, row.share) == (1.5, 0.75)
    assert of_views(8, 0.5).rate == 16


def test_linear_is_one_and_the_rest_is_told() -> None:
    rows = [of_views(8, 0.5), of_views(64, 4.4), of_views(256, 16.0), of_views(8, 1.0, "softmax")]
    rows += [of_views(64, 16.0, "softmax"), Row("views", "256", variant="softmax", note=NO_TIME)]
    assert summary(rows)["linearity"] == {"ours": pytest.approx(1.0), "softmax": pytest.approx(2.0)}
    assert summary(rows)["no_time"] == ["256; softmax"]
    assert "* softmax: a view among 64 takes 2.00 times as long as a view among 8." in list(notes("views", rows))


def test_a_fixed_time_and_one_for_each_view_are_a_line() -> None:
    rows = [of_views(count, 0.3 + 0.02 * count) for count in (8, 32, 256)]
    line = summary(rows)["line"]["ours"]
    assert line == pytest.approx({"fixed_ms": 300.0, "ms_per_view": 20.0, "worst_deviation": 0.0}, abs=1e-6)
    bent = [*rows[:2], of_views(256, 2 * (0.3 + 0.02 * 256))]
    assert summary(bent)["line"]["ours"]["worst_deviation"] > 0.1


def test_ratios_are_to_the_first_of_the_same_run() -> None:
    first = dataclasses.replace(timed(Row("model", "forward", variant="every view twice"), 6.0), peak_mb=100.0)
    rows = [first.compared(first), timed(dataclasses.replace(first, variant="ours", peak_mb=40.0), 1.5).compared(first)]
    assert [row.speedup for row in rows] == [1.0, 4.0]
    assert summary(rows)["times_as_fast"] == {"forward; ours": 4.0}
    assert summary(rows)["memory_of_the_first"] == {"forward; ours": 0.4}
    assert "| 4x |" in table_line(rows[1])
    assert dataclasses.replace(first, ms=None).compared(first).speedup is None


def kernel(name: str, variant: str, seconds: float | None, check: str = "pass") -> Row:
    row = Row("ops", name, variant=variant, check=check)
    return row if seconds is None else timed(row, seconds)


@pytest.mark.parametrize(
    ("ours", "check", "recorded"),
    [(2.0, "pass", (True, 1.5)), (4.0, "pass", (True, 0.75)), (None, "fail", (False, 0.0))],
)
def test_kernels_are_recorded_against_the_best_other(
    ours: float | None, check: str, recorded: tuple[bool, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    told: dict[str, tuple] = {}
    monkeypatch.setattr(kernel_records, "record", lambda name, gpu, *rest: told.update({name: rest}))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "a GPU")
    rows = [kernel("memory query", "ours, triton", 1.0)]
    for variant, seconds in (("reference", 5.0), ("compiled", 3.0)):
        rows.append(kernel("memory query + backward", variant, seconds))
    rows.append(kernel("memory query + backward", "ours, triton", ours, check))
    found = kernel_records.record_kernels(rows, GPU)
    (name,) = found
    assert (told[name], found[name]) == (recorded, recorded[1])
    assert kernel_records.record_kernels(rows, torch.device("cpu")) == {}
