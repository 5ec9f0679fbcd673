"""An operation is held against float64 before it is timed, and each variant fails alone."""

import dataclasses
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from lrm_ttt.eval.speed.ceilings import Ceilings
from lrm_ttt.eval.speed.op import Op, Variant, greatest_error, measure_op
from lrm_ttt.eval.speed.rows import NO_TIME, Row, table_line
from lrm_ttt.eval.speed.timing import Budget

CPU = torch.device("cpu")


def product(a: Tensor, b: Tensor) -> tuple[Tensor, ...]:
    return (a @ b,)


def slightly_wrong(a: Tensor, b: Tensor) -> tuple[Tensor, ...]:
    return (1.01 * (a @ b),)


class _WrongSlope(torch.autograd.Function):
    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, a: Tensor, b: Tensor) -> Tensor:
        ctx.save_for_backward(a, b)
        return a @ b

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, slope: Tensor) -> tuple[Tensor, ...]:
        a, b = ctx.saved_tensors
        return slope @ b.mT, 2 * (a.mT @ slope)


def wrong_slope(a: Tensor, b: Tensor) -> tuple[Tensor, ...]:
    return (_WrongSlope.apply(a, b),)


def broken(a: Tensor, b: Tensor) -> tuple[Tensor, ...]:
    raise RuntimeError("no | such kernel\nand much more")


def inputs() -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(8, 16, generator=generator), torch.randn(16, 4, generator=generator)


OP = Op("product", "8 x 16 x 4", "fp32", inputs, (Variant("reference", product),), 2.0 * 8 * 16 * 4, tolerance=1e-5)


def measure(*others: Variant, backward: bool = False, seconds: float = 60.0) -> Sequence[Row]:
    op = dataclasses.replace(OP, variants=(*OP.variants, *others), backward=backward)
    return list(measure_op(op, Ceilings(None, {"fp32": 1e-3}), CPU, 0.0, Budget.of(seconds)))


@pytest.mark.parametrize("backward", [False, True])
def test_what_is_right_has_a_speed_and_a_share(backward: bool) -> None:
    first, second = measure(Variant("ours", product), backward=backward)
    for row in (first, second):
        assert row.check == "pass" and row.error is not None and row.error < 1e-6
        assert row.ms is not None and row.rate == pytest.approx(OP.work / row.ms / 1e9)
        assert row.share == pytest.approx(row.rate / 1e-3)
    assert (first.speedup, second.speedup) == (1, pytest.approx(first.ms / second.ms))


@pytest.mark.parametrize(("function", "backward"), [(slightly_wrong, False), (wrong_slope, True)])
def test_what_is_wrong_has_no_speed(function: object, backward: bool) -> None:
    first, second = measure(Variant("ours", function), backward=backward)
    assert first.ms is not None
    assert second.check == "fail" and second.error is not None and second.error > 5e-3
    assert (second.ms, second.rate, second.share, second.speedup) == (None, None, None, None)
    assert "wrong: no speed" in table_line(second) and "fail" in table_line(second)


def test_a_wrong_slope_is_no_matter_of_the_forward_pass() -> None:
    assert measure(Variant("ours", wrong_slope))[1].check == "pass"


def test_what_breaks_is_a_row_and_the_others_go_on() -> None:
    rows = measure(Variant("broken", broken), Variant("absent", None, "no device"))
    assert [row.note for row in rows] == ["", "failed: RuntimeError: no / such kernel", "no device"]
    assert rows[0].ms is not None and rows[1].ms is rows[2].ms is None


def test_without_time_nothing_is_done() -> None:
    assert [row.note for row in measure(Variant("ours", broken), seconds=0.0)] == [NO_TIME, NO_TIME]


def test_errors_are_relative_and_nan_is_the_greatest() -> None:
    one = torch.ones(4)
    assert greatest_error((one, 1.5 * one), (one.double(), one.double())) == pytest.approx(0.5)
    worst = greatest_error((one, one * torch.nan), (one, one))
    assert worst != worst and Row("ops", "x").checked(worst, 1.0).check == "fail"
