"""How far a run has come: the part of a checkpoint that is no tensor."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from lrm_ttt.train.config import TrainConfig
from lrm_ttt.train.schedule import Decay, planned_decay


@dataclasses.dataclass
class Progress:
    """Count steps taken, scenes seen by all ranks, seconds passed and steps skipped; and hold the decay in force."""

    decay: Decay
    step: int = 0
    scenes: int = 0
    seconds: float = 0.0
    skipped: int = 0
    finished: bool = False
    # The step at which the rate first began to fall.
    before_decay: int = -1
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
