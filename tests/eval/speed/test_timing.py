"""What is timed, in which order, and for how long, by a clock that only stands where it is put."""

import dataclasses
from collections.abc import Callable

import pytest
import torch

from lrm_ttt.eval.speed.timing import LEAST_RUNS, MOST_RUNS, Budget, OutOfTime, Timing, interleave, timed


@dataclasses.dataclass
class Clock:
    """A clock that work moves on."""

    now: float = 100.0

    def __call__(self) -> float:
        return self.now

    def work(self, name: str, seconds: list[float], done: list[str]) -> Callable[[], float]:
        """Return a run that takes so long, the last of `seconds` again and again."""

        def run() -> float:
            took = seconds.pop(0) if len(seconds) > 1 else seconds[0]
            self.now += took
            done.append(name)
            return took

        return run


def test_a_timing_is_the_median_with_its_extremes() -> None:
    assert Timing.of([3.0, 1.0, 2.0, 10.0]) == Timing(2.5, 1.0, 10.0, 4)


def test_sides_take_turns_and_the_first_round_does_not_count() -> None:
    clock, done = Clock(), list[str]()
    runs = [clock.work("a", [50.0, 1.0], done), clock.work("b", [60.0, 3.0], done)]
    first, second = interleave(runs, 1.0, Budget.of(1000.0, clock))
    assert done == ["a", "b"] * (1 + LEAST_RUNS)
    assert (first, second) == (Timing(1.0, 1.0, 1.0, LEAST_RUNS), Timing(3.0, 3.0, 3.0, LEAST_RUNS))


@pytest.mark.parametrize(("seconds", "rounds"), [(0.0, LEAST_RUNS), (10.0, 9), (1e6, MOST_RUNS)])
def test_there_are_as_many_rounds_as_the_time_allows(seconds: float, rounds: int) -> None:
    clock = Clock()
    (timing,) = interleave([clock.work("a", [1.0], [])], seconds, Budget.of(1e9, clock))
    assert timing.count == rounds


def test_without_time_for_the_least_there_is_no_result() -> None:
    clock, done = Clock(), list[str]()
    with pytest.raises(OutOfTime):
        interleave([clock.work("a", [4.0], done)], 100.0, Budget.of(13.0, clock))
    assert len(done) == 3, "the next run would have ended after the time was up"


def test_a_budget_that_ends_after_the_least_ends_the_rounds() -> None:
    clock = Clock()
    (timing,) = interleave([clock.work("a", [4.0], [])], 100.0, Budget.of(25.0, clock))
    assert timing.count == 5


def test_a_part_of_a_budget_begins_now_and_never_lasts_longer() -> None:
    clock = Clock()
    whole = Budget.of(10.0, clock)
    clock.now += 6
    assert whole.part(0.25).left == pytest.approx(1.0)
    clock.now += 6
    assert whole.left == pytest.approx(-2.0)
    assert whole.part(1.0).left == 0.0


def test_work_on_the_processor_is_done_once_and_timed() -> None:
    done: list[int] = []
    assert 0 < timed(lambda: done.append(1), torch.device("cpu"))() < 1
    assert done == [1]
