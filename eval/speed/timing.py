"""How long things take, and how long they may take."""

import dataclasses
import statistics
import time
from collections.abc import Callable, Sequence

import torch

LEAST_RUNS, MOST_RUNS = 3, 50


@dataclasses.dataclass(frozen=True)
class Budget:
    """The time until a moment of `clock`, which is the same for all processes of a machine."""

    until: float
    clock: Callable[[], float] = time.monotonic

    @classmethod
    def of(cls, seconds: float, clock: Callable[[], float] = time.monotonic) -> "Budget":
        """Begin now."""
        return cls(clock() + seconds, clock)

    @property
    def left(self) -> float:
        """Seconds that are left, negative when it is over."""
        return self.until - self.clock()

    def part(self, share: float) -> "Budget":
        """Return a budget for the next `share` (0..1) of what is left."""
        return Budget.of(share * max(self.left, 0.0), self.clock)


@dataclasses.dataclass(frozen=True)
class Timing:
    """The median of some runs, the fastest and the slowest of them, in seconds, and how many there were."""

    median: float
    least: float
    most: float
    count: int

    @classmethod
    def of(cls, seconds: Sequence[float]) -> "Timing":
        """Summarise runs."""
        return cls(statistics.median(seconds), min(seconds), max(seconds), len(seconds))


class OutOfTime(Exception):
    """A budget was over before there was a result."""


def interleave(runs: Sequence[Callable[[], float]], seconds: float, budget: Budget) -> list[Timing]:
    """Time things that are compared, in turn (A B A B), so that what else the machine does hits all of them alike.

    Each run returns its own seconds. The first round warms up and does not count; then there are at least LEAST_RUNS
    rounds, and more until `seconds` have passed since the first, MOST_RUNS at most. Raises `OutOfTime` where the budget
    does not allow the least.
    """
    start = budget.left
    for run in runs:
        run()
    rounds: list[list[float]] = []
    while len(rounds) < LEAST_RUNS or (len(rounds) < MOST_RUNS and start - budget.left < seconds):
        if budget.left < (sum(rounds[-1]) if rounds else 0.0):
            if len(rounds) < LEAST_RUNS:
                raise OutOfTime
            break
        rounds.append([run() for run in runs])
    return [Timing.of(own) for own in zip(*rounds, strict=True)]


def timed(work: Callable[[], object], device: torch.device) -> Callable[[], float]:
    """Return a function that does the work once and returns how many seconds the device took for it."""
    if device.type != "cuda":

        def on_processor() -> float:
            start = time.perf_counter()
            work()
            return time.perf_counter() - start

        return on_processor

    def on_gpu() -> float:
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        work()
        end.record()
        end.synchronize()
        return begin.elapsed_time(end) / 1e3

    return on_gpu
