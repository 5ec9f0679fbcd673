"""One operation in several variants: each is checked against float64, and timed where it is right."""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from lrm_ttt.eval.children import explain
from lrm_ttt.eval.speed.ceilings import Ceilings
from lrm_ttt.eval.speed.rows import NO_TIME, Row
from lrm_ttt.eval.speed.timing import Budget, OutOfTime, Timing, interleave, timed

Tensors = tuple[Tensor, ...]
Function = Callable[..., Tensors]


@dataclasses.dataclass(frozen=True)
class Variant:
    """A way to compute an operation; None: this machine has none, and `lacks` says why."""

    name: str
    function: Function | None
    lacks: str = ""
    differentiable: bool = True


@dataclasses.dataclass(frozen=True)
class Op:
    """An operation on `inputs`, of which the first `num_leaves` (None: all) are differentiated where `backward` is.

    `work` is in FLOP, or bytes if the `unit` is GB/s; `dtype` says which ceiling it is held to. The first variant is
    the reference, which is computed in float64 too. `checked` is the same operation at a size for that.
    """

    name: str
    size: str
    dtype: str
    inputs: Callable[[], Tensors]
    variants: tuple[Variant, ...]
    work: float = 0.0
    unit: str = "TFLOP/s"
    tolerance: float = 0.0
    backward: bool = False
    backward_work: float = 0.0
    num_leaves: int | None = None
    checked: "Op | None" = None

    def with_backward(self) -> "Op":
        """Return the forward and the backward pass together."""
        return dataclasses.replace(
            self,
            name=f"{self.name} + backward",
            work=self.work + self.backward_work,
            backward=True,
            variants=tuple(variant for variant in self.variants if variant.differentiable),
        )

    @property
    def row(self) -> Row:
        """Return the row that measurements are added to."""
        return Row("ops", self.name, self.size, dtype=self.dtype, unit=self.unit)


def measure_op(op: Op, ceilings: Ceilings, device: torch.device, seconds: float, budget: Budget) -> Iterator[Row]:
    """Yield a row for each variant: checked, and timed in turn, `seconds` for each, if it passes."""
    rows = [dataclasses.replace(op.row, variant=variant.name) for variant in op.variants]
    if budget.left <= 0:
        yield from (dataclasses.replace(row, note=NO_TIME) for row in rows)
        return
    exact = functools.cache(functools.partial(_expected, op.checked or op))
    rows = [_check(op, index, row, exact) for index, row in enumerate(rows)]
    sound = [index for index, row in enumerate(rows) if row.check == "pass"]
    try:
        timings = _time(op, [op.variants[index] for index in sound], device, seconds, budget)
    except Exception as error:  # noqa: BLE001
        note = NO_TIME if isinstance(error, OutOfTime) else explain(error)
        yield from (dataclasses.replace(row, note=row.note or note) for row in rows)
        return
    ceiling = ceilings.copy if op.unit == "GB/s" else ceilings.products.get(op.dtype)
    for index, timing in zip(sound, timings, strict=True):
        rows[index] = rows[index].timed(timing, op.work, ceiling)
    yield from (row.compared(rows[0]) for row in rows)


def _check(op: Op, index: int, row: Row, exact: Callable[[], Tensors]) -> Row:
    """Return the row with the outcome of the check of a variant, or with the reason why it has none."""
    if op.variants[index].function is None:
        return dataclasses.replace(row, note=op.variants[index].lacks or "-")
    small = op.checked or op
    function = small.variants[index].function
    assert function is not None, "what can be measured can be checked"
    # Whatever a kernel or its compiler raises is a row of the table, and the others go on.
    try:
        checked = row.checked(greatest_error(_results(function, small), exact()), op.tolerance)
    except Exception as error:  # noqa: BLE001
        return dataclasses.replace(row, note=explain(error))
    return checked if checked.check == "pass" else dataclasses.replace(checked, note="wrong: no speed")


def _time(op: Op, variants: Sequence[Variant], device: torch.device, seconds: float, budget: Budget) -> list[Timing]:
    functions = [variant.function for variant in variants if variant.function is not None]
    if not functions:
        return []
    inputs = _leaves(op)
    slopes: Tensors = ()
    if op.backward:
        # The last one is the fastest, and all have outputs of one shape.
        with torch.no_grad():
            slopes = _slopes(functions[-1](*inputs))
    runs = [timed(functools.partial(_once, function, inputs, slopes), device) for function in functions]
    return interleave(runs, seconds * len(runs), budget)


def _once(function: Function, inputs: Tensors, slopes: Tensors) -> Tensors:
    """Compute outputs, and with slopes the gradients."""
    with torch.set_grad_enabled(bool(slopes)):
        outputs = function(*inputs)
        if not slopes:
            return outputs
        fitting = [slope.to(output.dtype) for slope, output in zip(slopes, outputs, strict=True)]
        return torch.autograd.grad(outputs, _differentiable(inputs), fitting)


def _results(function: Function, op: Op) -> Tensors:
    """Return the outputs, and where `backward` is measured the gradients."""
    inputs = _leaves(op)
    with torch.set_grad_enabled(op.backward):
        outputs = function(*inputs)
    if not op.backward:
        return outputs
    gradients = torch.autograd.grad(outputs, _differentiable(inputs), _slopes(outputs))
    return (*(output.detach() for output in outputs), *gradients)


def _expected(op: Op) -> Tensors:
    wide = dataclasses.replace(op, inputs=lambda: tuple(_wide(tensor) for tensor in op.inputs()))
    function = op.variants[0].function
    assert function is not None
    return _results(function, wide)


def _wide(tensor: Tensor) -> Tensor:
    return tensor.double() if tensor.is_floating_point() else tensor


def _leaves(op: Op) -> Tensors:
    inputs = op.inputs()
    count = 0 if not op.backward else len(inputs) if op.num_leaves is None else op.num_leaves
    return tuple(tensor.detach().requires_grad_(index < count) for index, tensor in enumerate(inputs))


def _differentiable(inputs: Tensors) -> Tensors:
    return tuple(tensor for tensor in inputs if tensor.requires_grad)


def _slopes(outputs: Tensors) -> Tensors:
    """Return gradients of a loss, the same for every variant and dtype."""
    generator = torch.Generator(outputs[0].device).manual_seed(1)
    return tuple(
        torch.randn(output.shape, generator=generator, device=output.device).bfloat16().to(output.dtype)
        for output in outputs
    )


def greatest_error(found: Tensors, exact: Tensors) -> float:
    """Return the greatest relative L2 error among tensors; NaN if any is."""
    errors = [
        float((one.double() - other.double()).norm() / other.double().norm().clamp(min=1e-300))
        for one, other in zip(found, exact, strict=True)
    ]
    return float("nan") if any(error != error for error in errors) else max(errors)
