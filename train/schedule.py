"""Where a run stands: which stage, which learning rate, when to end. Plain numbers."""

import dataclasses
import math

from lrm_ttt.train.config import StageConfig, TrainConfig

# Steps after which an early decay looks at the clock again.
STEPS_BETWEEN_LOOKS = 50


@dataclasses.dataclass(frozen=True)
class Decay:
    """Lower the learning rates from the factor `level` at step `start` to zero at `end`, the last: linearly, or along
    half a period of a cosine.
    """

    start: int
    end: int
    early: bool = False
    level: float = 1.0
    shape: str = "linear"

    def factor(self, step: int) -> float:
        """Return the factor 0..1 at `step` (counted from 0)."""
        left = min(1.0, (self.end - step) / (self.end - self.start + 1))
        return self.level * (left if self.shape == "linear" else (1 - math.cos(math.pi * left)) / 2)


def planned_decay(config: TrainConfig) -> Decay:
    """Return the decay over the last `decay_fraction` of all steps."""
    total = config.total_steps
    return Decay(total - round(config.decay_fraction * total), total, shape=config.decay)


def timed_decay(config: TrainConfig, decay: Decay, step: int, seconds: float, max_seconds: float, pace: float) -> Decay:
    """Return `decay`, or one that ends with the time: it begins once `decay_fraction` of the time is all that remains.

    `seconds` have passed before `step`, and a step takes `pace` seconds. A decay that has begun is bent towards the new
    estimate of the last step now and then; it never rises.
    """
    left = max_seconds - seconds
    if not decay.early and left > config.decay_fraction * max_seconds:
        return decay
    if decay.early and step - decay.start < STEPS_BETWEEN_LOOKS:
        return decay
    end = step + max(1, int(left / max(pace, 1e-6)))
    if not decay.early and step >= decay.start and (end >= decay.end or step - decay.start < STEPS_BETWEEN_LOOKS):
        # The planned one has begun, and ends in time as far as one can tell.
        return decay
    return Decay(step, min(end, config.total_steps), early=True, level=decay.factor(step), shape=decay.shape)


def stage_at(config: TrainConfig, step: int) -> tuple[int, int]:
    """Return the index of the stage of `step` and the step within it."""
    for index, stage in enumerate(config.stages):
        if step < stage.steps:
            return index, step
        step -= stage.steps
    raise AssertionError("the step lies beyond the last stage")


def learning_rate_factor(stage: StageConfig, step_in_stage: int, decay: Decay, step: int) -> float:
    """Return the factor on the stage's learning rates: warm-up, constant, decay."""
    warm = min(1.0, (step_in_stage + 1) / (stage.warmup_steps + 1))
    return warm * decay.factor(step)
