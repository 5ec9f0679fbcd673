"""The order of cells, and how long they are said to take."""

import heapq
import random
from typing import Any

import pytest

from lrm_ttt.errors import InvalidConfig
from lrm_ttt.eval.baselines.config import OptimiseConfig
from lrm_ttt.eval.benchmark.cells import Cell, Estimate, check_methods, in_order, next_cell, slug
from lrm_ttt.eval.benchmark.config import FeedForwardConfig, MethodConfig

QUICK = MethodConfig("quick", feed_forward=FeedForwardConfig())
REFINED = MethodConfig("refined", feed_forward=FeedForwardConfig(refine=100))
LONG = MethodConfig("long", optimise=OptimiseConfig(iterations=7000))
METHODS = (LONG, QUICK, REFINED)


def row(cell: Cell, seconds: float) -> dict[str, Any]:
    return {"scene": cell.scene, "method": cell.method, "views": cell.views, "status": "done", "cell_seconds": seconds}


def test_what_takes_no_steps_comes_first_and_then_scene_by_scene() -> None:
    cells = [Cell(scene, method.name, views) for views in (8, 4) for scene in "ab" for method in METHODS]
    ordered = in_order(cells, METHODS)
    assert sorted(map(str, ordered)) == sorted(map(str, cells))
    assert {cell.method for cell in ordered[:4]} == {"quick"}
    assert [(cell.views, cell.scene) for cell in ordered[4:]] == [
        (views, scene) for views in (4, 8) for scene in "ab" for _ in range(2)
    ]


def test_estimates_follow_what_was_found() -> None:
    estimate = Estimate(METHODS, [])
    cell = Cell("a", "long", 4)
    assert not estimate.known and estimate.seconds(cell) > estimate.seconds(Cell("a", "quick", 4))
    guessed = estimate.seconds(cell)
    # A machine that takes three times the guess of one method takes that of the others.
    estimate.learn(row(Cell("b", "refined", 4), 3 * estimate.seconds(Cell("a", "refined", 4))))
    assert estimate.seconds(cell) == pytest.approx(3 * guessed)
    estimate.learn(row(Cell("b", "long", 8), 50.0))
    assert estimate.seconds(cell) == 50.0
    estimate.learn(row(Cell("b", "long", 4), 40.0))
    assert estimate.seconds(cell) == 40.0
    assert estimate.remaining([cell, cell], {Cell("c", "long", 4): 10.0}, workers=2) == pytest.approx((80 + 30) / 2)
    assert estimate.remaining([], {}, workers=2) == 0.0


def test_workers_end_at_about_the_same_time() -> None:
    """No schedule ends before the work is shared out evenly, nor before its longest cell; this one ends soon after."""
    rng = random.Random(0)
    for workers in (2, 3):
        seconds = {Cell(str(index), "quick", 4): rng.choice([1.0, 1.0, 2.0, 20.0]) for index in range(40)}
        estimate = Estimate((QUICK,), [])
        estimate.seconds = seconds.__getitem__  # type: ignore[method-assign]
        waiting, free = list(seconds), [0.0] * workers
        while waiting:
            cell = next_cell(waiting, estimate, workers)
            waiting.remove(cell)
            heapq.heappush(free, heapq.heappop(free) + seconds[cell])
        assert max(free) <= max(sum(seconds.values()) / workers, 20.0) + 10.0


def test_names_become_folders_that_differ() -> None:
    assert slug("Feed-forward + refine 100") == "feed-forward-refine-100"
    assert slug("../..") == "unnamed"
    with pytest.raises(InvalidConfig, match=r"'A b' and 'a-B'"):
        check_methods([MethodConfig(name, feed_forward=FeedForwardConfig()) for name in ("A b", "a-B")])
