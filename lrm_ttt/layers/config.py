"""Configuration of the layers, and the two checks that all configuration uses. Free of torch."""

import dataclasses
from typing import Literal

from lrm_ttt.errors import InvalidConfig


@dataclasses.dataclass(frozen=True)
class MemoryConfig:
    """The fast-weight memory of every block: heads of `head_dim` channels, hidden width `multiple * head_dim`."""

    head_dim: int = 768
    multiple: int = 4
    inner_lr: float = 0.01
    # Orthogonalisation of each step (Muon); 0 takes the plain gradient step, to compare with.
    newton_schulz_steps: int = 5
    # tttLRM normalises what is read over the merged width, LaCT per head; the same for one head.
    output_norm: Literal["merged", "per_head"] = "merged"
    # Strength of the elastic update (tttLRM: 0.05, alpha 0.5, beta 0.8); 0 leaves it out. It needs no training.
    elastic: float = 0.0
    elastic_alpha: float = 0.5
    elastic_beta: float = 0.8

    def __post_init__(self) -> None:
        at_least("memory", 1, head_dim=self.head_dim, multiple=self.multiple)
        at_least("memory", 0, newton_schulz_steps=self.newton_schulz_steps)
        if not 0 < self.inner_lr < 1:
            raise InvalidConfig(f"memory.inner_lr must lie in (0, 1), not {self.inner_lr}.")
        for name in ("elastic", "elastic_alpha", "elastic_beta"):
            if not 0 <= getattr(self, name) < 1:
                raise InvalidConfig(f"memory.{name} must lie in [0, 1), not {getattr(self, name)}.")
        one_of("memory.output_norm", self.output_norm, ("merged", "per_head"))


def at_least(where: str, least: int, **values: int) -> None:
    """Refuse values below `least`."""
    for name, value in values.items():
        if value < least:
            raise InvalidConfig(f"{where}.{name} must be at least {least}, not {value}.")


def one_of(where: str, value: str, choices: tuple[str, ...]) -> None:
    """Refuse a value that is not among the choices."""
    if value not in choices:
        raise InvalidConfig(f"{where} is one of {', '.join(choices)}, not {value!r}.")
