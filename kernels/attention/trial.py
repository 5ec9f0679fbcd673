"""A trial of several ways to compute the same: each is checked against what is expected, and timed."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

# Runs a function and returns how many seconds it takes.
Clock = Callable[[Callable[[], object]], float]
# Computes, and returns what `expected` is compared with.
Candidate = Callable[[], Sequence[Tensor]]


@dataclasses.dataclass(frozen=True)
class Verdict:
    """The seconds of every candidate that is right, fastest first, and why the others are not taken."""

    seconds: Mapping[str, float]
    refused: Mapping[str, str]

    def __str__(self) -> str:
        times = [f"{name} {1e3 * second:.3g} ms" for name, second in self.seconds.items()]
        others = [f"{name} {why}" for name, why in self.refused.items()]
        return f"{', '.join(times + others)} -> {next(iter(self.seconds), 'the default')}"


def hold_trial(
    candidates: Mapping[str, Candidate], expected: Sequence[Tensor], tolerance: float, clock: Clock
) -> Verdict:
    """Run every candidate once to compare it with `expected`, relative L2, and time those that are right.

    A candidate that raises RuntimeError (no kernel for these shapes, out of memory) is refused with its first line.
    """
    seconds, refused = {}, {}
    for name, candidate in candidates.items():
        try:
            error = max(_relative_error(one, exact) for one, exact in zip(candidate(), expected, strict=True))
            # Written so that NaN is refused.
            if not error <= tolerance:
                refused[name] = f"is wrong by {error:.1g}"
                continue
            seconds[name] = clock(candidate)
        except RuntimeError as error:
            refused[name] = f"fails ({_first_line(error)})"
    return Verdict(dict(sorted(seconds.items(), key=lambda item: item[1])), refused)


def _relative_error(tensor: Tensor, expected: Tensor) -> float:
    return ((tensor.to(expected.dtype) - expected).norm() / expected.norm()).item()


def _first_line(error: RuntimeError) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:120]


def cuda_clock(function: Callable[[], object], repeats: int = 3) -> float:
    """Return the seconds of the fastest of a few runs on the current CUDA device, after one that warms it up."""
    function()
    fastest = float("inf")
    for _ in range(repeats):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        function()
        end.record()
        end.synchronize()
        fastest = min(fastest, start.elapsed_time(end) / 1e3)
    return fastest
