"""The sides compute what they are said to compute, and their arithmetic is counted."""

import pytest
import torch

from lrm_ttt.eval.speed.children import Child, Failed
from lrm_ttt.eval.speed.sides import Measured, Request, Side, backbone_flops, serve
from lrm_ttt.eval.speed.timing import Budget, OutOfTime
from lrm_ttt.layers.config import MemoryConfig
from lrm_ttt.model.config import BackboneConfig

TINY = BackboneConfig(64, 2, 32, memory=MemoryConfig(64, 2))
CPU = torch.device("cpu")
BASE = BackboneConfig()


@pytest.mark.parametrize(("num_views", "published", "ours"), [(16, 448, 269), (64, 1783, 1069)])
def test_flops_are_those_that_were_counted_by_hand(num_views: int, published: float, ours: float) -> None:
    """Of the published arithmetic with tokens and head; those are 0.1 % (16 views: 0.33 of 268.9 TFLOP)."""
    size = (536, 960)
    assert backbone_flops(BASE, num_views, size, "published").forward / 1e12 == pytest.approx(published, rel=0.01)
    assert backbone_flops(BASE, num_views, size, "ours").forward / 1e12 == pytest.approx(ours, rel=0.01)


@pytest.mark.parametrize("kind", ["published", "ours", "softmax"])
def test_each_side_runs_in_a_process_of_its_own(kind: str) -> None:
    with Child(serve, (Side(kind, "fp32", compiled=False),), TINY, CPU) as child:
        for training in (False, True):
            measured = child.ask(Request(0, 2, 16, training), Budget.of(60.0))
            assert isinstance(measured, Measured)
            assert measured.seconds > 0
            assert 0 <= measured.added_mb < measured.peak_mb


def test_a_child_that_fails_or_is_late_begins_anew() -> None:
    with Child(_serve) as child:
        assert child.ask(2.0, Budget.of(60.0)) == 0.5
        with pytest.raises(Failed, match="ZeroDivisionError"):
            child.ask(0.0, Budget.of(60.0))
        with pytest.raises(Failed, match="status 3"):
            child.ask("end", Budget.of(60.0))
        with pytest.raises(OutOfTime):
            child.ask("wait", Budget.of(0.2))
        assert child.ask(4.0, Budget.of(60.0)) == 0.25


def _serve() -> object:
    return _invert


def _invert(request: object) -> float:
    import os
    import time

    if request == "end":
        os._exit(3)
    if request == "wait":
        time.sleep(60)
    assert isinstance(request, float)
    return 1 / request
