"""How far a run has come: the part of a checkpoint that is no tensor."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from lrm_ttt.train.config import TrainConfig
from lrm_ttt.train.schedule import Decay, planned_decay


@dataclasses.dataclass
class Progress:
    """Count what was done, and hold the decay in force.

    `position` is how many batches all view groups together have drawn in the present stage; with the seed it says
    which scenes come next. `scenes` counts those of all groups, `broken` those that could not be read, `skipped` the
    steps that were not taken and `skips_in_a_row` the last of them.
    """

    decay: Decay
    step: int = 0
    scenes: int = 0
    seconds: float = 0.0
    position: int = 0
    broken: int = 0
    skipped: int = 0
    skips_in_a_row: int = 0
    finished: bool = False
    # The step at which the rate first began to fall.
    before_decay: int = -1
    # The step of the best validation so far, and its PSNR.
    best_step: int = -1
    best_psnr: float = 0.0
    validation: dict[str, float] = dataclasses.field(default_factory=dict)

    @staticmethod
    def begin(config: TrainConfig) -> "Progress":
        """Return the state before the first step."""
        return Progress(planned_decay(config))

    @staticmethod
    def from_mapping(data: Mapping[str, Any], config: TrainConfig) -> "Progress":
        """Restore what `dataclasses.asdict` gave; an early decay goes on, a planned one follows the configuration."""
        fields = {field.name: data[field.name] for field in dataclasses.fields(Progress) if field.name in data}
        decay = Decay(**data["decay"])
        return Progress(**{**fields, "decay": decay if decay.early else planned_decay(config)})
