"""A run so small that twenty steps take seconds."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from lrm_ttt.layers.config import MemoryConfig
from lrm_ttt.losses.config import LossConfig
from lrm_ttt.model.config import BackboneConfig, EvidenceConfig, GaussianHeadConfig, ModelConfig, TokenizerConfig
from lrm_ttt.train.config import OptimiserConfig, StageConfig, TrainConfig, ValidationConfig
from lrm_ttt.train.loop import RunOptions, Trainer

MODEL = ModelConfig(
    TokenizerConfig(8, EvidenceConfig(4, 1, 2)),
    BackboneConfig(32, 1, 16, 2, MemoryConfig(16, 1)),
    GaussianHeadConfig(distance="evidence", hidden=8),
    "focus",
)
LOSSES = LossConfig(position=0.1, coverage=0.01, alpha=0.1)


def micro(first: int = 2, second: int = 2, **changes: Any) -> TrainConfig:
    """Return a run of two stages of `first` and `second` steps; the second has rooms, two scenes and input renders."""
    stages = (
        StageConfig("small", first, 1, (16, 16), (2, 3), 1, lr=1e-3, muon_lr=1e-3, warmup_steps=1, losses=LOSSES),
        StageConfig(
            "large", second, 2, (16, 24), (2, 3), 1, 1, room_fraction=0.5, lr=1e-3, muon_lr=1e-3, losses=LOSSES
        ),
    )
    config = TrainConfig(
        stages,
        MODEL,
        OptimiserConfig(),
        ValidationConfig(2, (16, 16), 2, 1),
        precision="fp32",
        compile=False,
        prefetch=False,
        log_every=1,
        validate_every=100,
        trackers=(),
    )
    return dataclasses.replace(config, **changes)


def train(config: TrainConfig, folder: Path, **options: Any) -> Trainer:
    """Run to the end and return the trainer."""
    trainer = Trainer(config, folder, RunOptions(**options))
    trainer.run()
    return trainer


def curve(folder: Path) -> list[float]:
    """Return the losses in metrics.jsonl."""
    lines = (json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines())
    return [line["loss"] for line in lines if line["kind"] == "train"]
