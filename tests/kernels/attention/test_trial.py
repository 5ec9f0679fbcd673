"""The choice between ways to compute the same, told with candidates that are wrong, broken or slow."""

import torch
from torch import Tensor

from lrm_ttt.kernels.attention.trial import Verdict, hold_trial

EXPECTED = [torch.tensor([3.0, 4.0]), torch.tensor([1.0])]


def wrong() -> list[Tensor]:
    return [EXPECTED[0], torch.tensor([1.1])]


def not_a_number() -> list[Tensor]:
    return [torch.full((2,), float("nan")), EXPECTED[1]]


def raising() -> list[Tensor]:
    raise RuntimeError("No available kernel. Aborting execution.\nat some line")


def right() -> list[Tensor]:
    return [tensor.clone() for tensor in EXPECTED]


def nearly_right() -> list[Tensor]:
    return [tensor * 1.0005 for tensor in EXPECTED]


def test_the_fastest_that_is_right_comes_first() -> None:
    seconds = {right: 2e-3, nearly_right: 1.5e-3, wrong: 1e-4, not_a_number: 1e-4}
    candidates = {"slow": right, "wrong": wrong, "nan": not_a_number, "broken": raising, "fast": nearly_right}
    verdict = hold_trial(candidates, EXPECTED, 1e-3, seconds.__getitem__)
    assert verdict.seconds == {"fast": 1.5e-3, "slow": 2e-3}
    assert list(verdict.seconds) == ["fast", "slow"]
    assert verdict.refused == {
        "wrong": "is wrong by 0.1",
        "nan": "is wrong by nan",
        "broken": "fails (No available kernel. Aborting execution.)",
    }


def test_no_time_is_spent_on_what_is_wrong() -> None:
    timed = []

    def clock(candidate: object) -> float:
        timed.append(candidate)
        return 1.0

    hold_trial({"wrong": wrong, "right": right}, EXPECTED, 1e-3, clock)
    assert timed == [right]


def test_a_candidate_that_fails_while_it_is_timed_is_refused() -> None:
    def clock(candidate: object) -> float:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    assert hold_trial({"right": right}, EXPECTED, 1e-3, clock) == Verdict({}, {"right": "fails (CUDA out of memory.)"})


def test_the_line_says_everything() -> None:
    verdict = Verdict({"cudnn": 1.2e-3, "flash": 1.5e-3}, {"math": "would write too many scores"})
    assert str(verdict) == "cudnn 1.2 ms, flash 1.5 ms, math would write too many scores -> cudnn"
    assert str(Verdict({}, {"flash": "fails (no kernel)"})) == "flash fails (no kernel) -> the default"
