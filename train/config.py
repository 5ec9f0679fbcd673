"""How to train: stages, optimiser, schedule, validation. Plain data, checked when made. Free of torch."""

import dataclasses
from typing import Literal

from lrm_ttt.data.config import DataConfig, DatasetConfig, ViewSamplingConfig
from lrm_ttt.errors import InvalidConfig
from lrm_ttt.layers.config import at_least
from lrm_ttt.losses.config import LossConfig
from lrm_ttt.model.config import ModelConfig


@dataclasses.dataclass(frozen=True)
class StageConfig:
    """Some steps of one image size, batch size and objective. Scenes are drawn as they are needed.

    `batch_size` is per view group and accumulation; `lr` is AdamW's and `muon_lr` Muon's (scaled to AdamW's root mean
    square update); both rise linearly over the first `warmup_steps` of the stage. `views` says which views of a capture
    are taken; `num_input_renders` of the inputs are rendered beside the targets. Before rendering the share
    `keep_fraction` of the Gaussians with the highest opacity is kept, and `keep_random` of the rest.
    """

    name: str
    steps: int
    batch_size: int = 1
    image_size: tuple[int, int] = (64, 64)
    num_inputs: tuple[int, int] = (4, 8)
    num_targets: int = 3
    num_input_renders: int = 0
    views: ViewSamplingConfig = dataclasses.field(default_factory=ViewSamplingConfig)
    keep_fraction: float = 1.0
    keep_random: float = 0.0
    # Procedural scenes: share of rooms, share of smooth textures, most parts of an object. Easy scenes first.
    room_fraction: float = 0.0
    texture_smoothness: float = 0.6
    max_primitives: int = 32
    lr: float = 1e-3
    muon_lr: float = 1e-3
    warmup_steps: int = 0
    losses: LossConfig = dataclasses.field(default_factory=LossConfig)

    def __post_init__(self) -> None:
        where = f"stage {self.name}"
        at_least(where, 1, steps=self.steps, batch_size=self.batch_size, num_targets=self.num_targets)
        at_least(where, 0, num_input_renders=self.num_input_renders, warmup_steps=self.warmup_steps)
        check_views(where, self.num_inputs, self.room_fraction)
        if self.lr <= 0 or self.muon_lr <= 0:
            raise InvalidConfig(f"{where}: lr and muon_lr must be positive, not {self.lr} and {self.muon_lr}.")
        if not 0 < self.keep_fraction <= 1 or not 0 <= self.keep_random <= 1:
            raise InvalidConfig(f"{where}: keep_fraction must lie in (0, 1], and keep_random in [0, 1].")


@dataclasses.dataclass(frozen=True)
class ParallelConfig:
    """How ranks work together: `ranks_per_scene` of them form a view group that shares the views of each scene.

    The groups see different scenes. `strategy` `ddp` keeps parameters and optimiser whole on every rank, `fsdp2` shards
    them, and the gradients, over all ranks.
    """

    ranks_per_scene: int = 1
    strategy: Literal["ddp", "fsdp2"] = "ddp"

    def __post_init__(self) -> None:
        at_least("parallel", 1, ranks_per_scene=self.ranks_per_scene)


@dataclasses.dataclass(frozen=True)
class OptimiserConfig:
    """Muon for the matrices of the blocks, AdamW for everything else.

    The gradient is scaled down to the norm `clip_norm`; above `skip_norm`, or where it is not finite, the step is
    skipped and counted, and after `max_skips` in a row the run stops.
    """

    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.05
    muon: bool = True
    muon_momentum: float = 0.95
    clip_norm: float = 1.0
    skip_norm: float = 100.0
    max_skips: int = 50

    def __post_init__(self) -> None:
        if not 0 < self.clip_norm <= self.skip_norm:
            raise InvalidConfig(f"optimiser: 0 < clip_norm <= skip_norm, not {self.clip_norm} and {self.skip_norm}.")
        if not all(0 <= beta < 1 for beta in (*self.betas, self.muon_momentum)):
            raise InvalidConfig("optimiser: betas and muon_momentum must lie in [0, 1).")


@dataclasses.dataclass(frozen=True)
class ValidationConfig:
    """A fixed set of scenes that training never sees; the same through all stages, so that numbers can be compared.

    They are procedural, or the first `num_scenes` of the data set `source`, where every 8th view is held out and the
    inputs are spread by k-means among the others (the protocol of DL3DV-140).
    """

    num_scenes: int = 8
    image_size: tuple[int, int] = (64, 64)
    num_inputs: int = 6
    num_targets: int = 4
    room_fraction: float = 0.0
    source: DatasetConfig | None = None

    def __post_init__(self) -> None:
        at_least("validation", 1, num_scenes=self.num_scenes, num_targets=self.num_targets)
        check_views("validation", (self.num_inputs, self.num_inputs), self.room_fraction)


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """A whole run.

    The learning rate warms up, stays, and falls to zero over the last `decay_fraction` of all steps: linearly, or as a
    cosine does. The papers' schedule is a cosine over all of them.
    """

    stages: tuple[StageConfig, ...]
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    optimiser: OptimiserConfig = dataclasses.field(default_factory=OptimiserConfig)
    validation: ValidationConfig = dataclasses.field(default_factory=ValidationConfig)
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    parallel: ParallelConfig = dataclasses.field(default_factory=ParallelConfig)
    seed: int = 0
    # bf16 where the hardware multiplies it (CUDA, AVX512_BF16, AMX) under `auto`; parameters and optimiser stay fp32.
    # With `fp64` everything is, which is slow: to compare runs to the last digits.
    precision: Literal["auto", "fp32", "bf16", "fp64"] = "auto"
    compile: bool = True
    # Recompute the blocks in the backward pass, which saves memory and costs a third more time.
    activation_checkpointing: bool = False
    # Draw the next batch in a thread while this step runs.
    prefetch: bool = True
    accumulation: int = 1
    decay_fraction: float = 0.2
    decay: Literal["linear", "cosine"] = "linear"
    ema_decay: float = 0.999
    checkpoint_every_minutes: float = 10.0
    keep_checkpoints: int = 2
    log_every: int = 10
    validate_every: int = 500
    # Besides metrics.jsonl, which is always written.
    trackers: tuple[Literal["tensorboard", "wandb"], ...] = ("tensorboard",)

    def __post_init__(self) -> None:
        if not self.stages:
            raise InvalidConfig("stages: at least one stage is needed.")
        at_least("train", 1, accumulation=self.accumulation, log_every=self.log_every)
        at_least("optimiser", 1, max_skips=self.optimiser.max_skips)
        at_least("train", 1, validate_every=self.validate_every, keep_checkpoints=self.keep_checkpoints)
        if not 0 <= self.decay_fraction <= 1 or not 0 <= self.ema_decay < 1 or self.checkpoint_every_minutes <= 0:
            raise InvalidConfig(
                "decay_fraction must lie in [0, 1], ema_decay in [0, 1), and checkpoint_every_minutes be positive."
            )
        for stage in self.stages:
            check_losses(stage, self.model.representation)
        patch_size = self.model.tokenizer.patch_size
        for size in (*(stage.image_size for stage in self.stages), self.validation.image_size):
            if any(side < patch_size or side % patch_size for side in size):
                raise InvalidConfig(f"image_size {list(size)} must be multiples of the patch size {patch_size}.")

    @property
    def total_steps(self) -> int:
        """Steps of all stages."""
        return sum(stage.steps for stage in self.stages)

    def scaled(self, scale: float) -> "TrainConfig":
        """Return the same run with every stage's steps and warm-up multiplied by `scale`."""
        if scale <= 0:
            raise InvalidConfig(f"The scale of the steps must be positive, not {scale}.")
        stages = tuple(
            dataclasses.replace(
                stage,
                steps=max(1, round(stage.steps * scale)),
                warmup_steps=round(stage.warmup_steps * min(1.0, scale)),
            )
            for stage in self.stages
        )
        return dataclasses.replace(self, stages=stages)


def check_views(where: str, num_inputs: tuple[int, int], room_fraction: float) -> None:
    """Refuse a range of inputs that is empty, and a share of rooms outside 0..1."""
    if not 2 <= num_inputs[0] <= num_inputs[1]:
        raise InvalidConfig(f"{where}: num_inputs must be a range from at least 2 upwards, not {list(num_inputs)}.")
    if not 0 <= room_fraction <= 1:
        raise InvalidConfig(f"{where}: room_fraction must lie in [0, 1], not {room_fraction}.")


def check_losses(stage: StageConfig, representation: str) -> None:
    """Refuse terms that the representation has nothing for: only Gaussians have positions and opacities."""
    lacking = {"gaussians": (), "triplane": ("depth", "opacity", "position", "coverage")}
    lacking["images"] = (*lacking["triplane"], "alpha")
    wanted = [name for name in lacking[representation] if getattr(stage.losses, name) > 0]
    if wanted:
        raise InvalidConfig(
            f"stage {stage.name}: losses.{wanted[0]} needs what the representation '{representation}' does not have; "
            "set it to 0."
        )
