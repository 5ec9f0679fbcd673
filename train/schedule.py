"""Where a run stands: which stage, which learning rate, when to end. Plain numbers."""

import dataclasses

from lrm_ttt.train.config import StageConfig, TrainConfig


@dataclasses.dataclass(frozen=True)
class Decay:
    """The learning rate falls linearly to zero from step `start` to step `end`, where the run ends."""

    start: int
    end: int
    early: bool = False

    def factor(self, step: int) -> float:
        """Return the factor 0..1 at `step` (counted from 0)."""
        if step < self.start:
            return 1.0
        return (self.end - step) / (self.end - self.start + 1)


def planned_decay(config: TrainConfig) -> Decay:
    """Return the decay over the last `decay_fraction` of all steps."""
    total = config.total_steps
    return Decay(total - round(config.decay_fraction * total), total)


def early_decay(config: TrainConfig, step: int, seconds: float, max_seconds: float, step_seconds: float) -> Decay | None:
    """Return a decay that starts now and ends when the time is up, once `decay_fraction` of the time is all that remains.

    `seconds` have passed, and a step takes `step_seconds`. None while there is time.
    """
    left = max_seconds - seconds
    if left > config.decay_fraction * max_seconds:
        return None
    steps = max(1, int(left / max(step_seconds, 1e-6)))
    return Decay(step, min(step + steps, config.total_steps), early=True)


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
