"""The native library equals the reference, whatever the shapes, the instruction set and the number of threads."""

import dataclasses
import logging

import pytest
import torch

from lrm_ttt.kernels.native import INSTRUCTION_SETS
from lrm_ttt.kernels.plane_sweep import cpu, op
from lrm_ttt.kernels.plane_sweep.reference import plane_sweep_reference
from tests.kernels.plane_sweep.rig import around, random_origins, share_beyond

needs_library = pytest.mark.skipif(cpu.library() is None, reason="the native library is not built")
# Views, height, width, planes, neighbours, silhouettes.
SHAPES = {
    "odd": (5, 37, 53, 7, 3, 4),
    "one other": (2, 16, 16, 9, 1, 1),
    "narrow": (4, 23, 5, 33, 2, 3),
    "one pixel": (3, 1, 1, 3, 2, 2),
    "no silhouettes": (4, 12, 20, 5, 3, 0),
    "no neighbours": (4, 12, 20, 5, 0, 3),
    "all": (12, 64, 64, 16, 4, 8),
}


@needs_library
@pytest.mark.parametrize("instructions", INSTRUCTION_SETS)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_equals_the_reference(shape: tuple[int, ...], instructions: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if instructions not in cpu.instruction_sets():
        pytest.skip(f"this processor has no {instructions}")
    sweep = around(random_origins(shape[0]), *shape[1:])
    expected = plane_sweep_reference(*sweep.arguments)
    monkeypatch.setattr(torch, "empty", lambda size: torch.full(size, torch.nan))
    result = cpu.plane_sweep_cpu(*sweep.to(torch.float32).arguments, instruction_set=instructions)
    # Positions are right to 6e-5 of a pixel, over which a mask may change by as much and smooth colours by 1e-5.
    costs_only = (expected._replace(hulls=expected.costs), result._replace(hulls=result.costs))
    assert share_beyond(*costs_only, 1e-5) < 1e-4
    # Points that rounding takes over the edge of an image count; every other one is within the tolerance.
    assert share_beyond(result, expected, 1e-4) < 1e-4
    assert all(value.isfinite().all() for value in result)


@needs_library
@pytest.mark.parametrize("instructions", INSTRUCTION_SETS)
def test_threads_change_no_bit(instructions: str) -> None:
    if instructions not in cpu.instruction_sets():
        pytest.skip(f"this processor has no {instructions}")
    sweep = around(random_origins(5), 37, 53, 19, 3, 4).to(torch.float32)
    one, *more = (
        cpu.plane_sweep_cpu(*sweep.arguments, threads=threads, instruction_set=instructions) for threads in (1, 2, 3)
    )
    assert all(torch.equal(one.costs, other.costs) and torch.equal(one.hulls, other.hulls) for other in more)


@needs_library
def test_repeated_and_strided_arguments() -> None:
    """An index named twice counts once, and tensors need not be contiguous."""
    sweep = around(random_origins(4), 13, 18, 4, 2, 2)
    sweep = dataclasses.replace(sweep, neighbours=sweep.neighbours[:, [0, 1, 0]], silhouettes=sweep.neighbours[:, :1])
    strided = sweep.to(torch.float32)
    images = strided.images.to(memory_format=torch.channels_last)
    strided = dataclasses.replace(strided, images=images, distances=strided.distances.T.contiguous().T)
    result = cpu.plane_sweep_cpu(*strided.arguments)
    assert share_beyond(result, plane_sweep_reference(*sweep.arguments), 1e-4) < 1e-4


@needs_library
def test_refuses_views_that_do_not_exist() -> None:
    sweep = around(random_origins(3), 4, 4, 2, 1, 1).to(torch.float32)
    with pytest.raises(AssertionError, match="counted from 0"):
        cpu.plane_sweep_cpu(*dataclasses.replace(sweep, neighbours=sweep.neighbours + 3).arguments)


def test_says_once_why_the_reference_serves(caplog: pytest.LogCaptureFixture) -> None:
    op._say_once.cache_clear()
    sweep = around(random_origins(3), 8, 8, 3, 2, 2)
    with caplog.at_level(logging.WARNING):
        first, second = op.plane_sweep(*sweep.arguments), op.plane_sweep(*sweep.arguments)
    assert first.costs.dtype == torch.float64 and torch.equal(first.costs, second.costs)
    assert [record.getMessage() for record in caplog.records if "float64" in record.getMessage()] == caplog.messages
    assert len(caplog.messages) == 1


def test_without_a_library_the_reference_serves(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    op._say_once.cache_clear()
    monkeypatch.setattr(op, "library", lambda: None)
    sweep = around(random_origins(3), 8, 8, 3, 2, 2).to(torch.float32)
    assert torch.equal(op.plane_sweep(*sweep.arguments).costs, plane_sweep_reference(*sweep.arguments).costs)
    assert len(caplog.messages) == 1 and "not built" in caplog.messages[0]


@pytest.mark.parametrize("native", [False, True], ids=["reference", "native"])
def test_the_first_of_the_views_are_swept_alone_as_with_all(native: bool) -> None:
    if native and cpu.library() is None:
        pytest.skip("the native library is not built")
    run = cpu.plane_sweep_cpu if native else plane_sweep_reference
    sweep = around(random_origins(6), 13, 18, 4, 3, 4).to(torch.float32)
    few = {
        name: getattr(sweep, name)[:2] for name in ("origins", "directions", "distances", "neighbours", "silhouettes")
    }
    for part, whole in zip(run(*dataclasses.replace(sweep, **few).arguments), run(*sweep.arguments), strict=True):
        assert torch.equal(part, whole[:2])
