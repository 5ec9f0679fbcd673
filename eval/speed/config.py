"""What `lrm-ttt benchmark speed` measures on which kind of device. Free of torch."""

import dataclasses
from typing import Literal

from lrm_ttt.layers.config import MemoryConfig
from lrm_ttt.model.config import BackboneConfig

Stage = Literal["ceilings", "ops", "model", "views"]
# How the time of a run is shared among its stages; what one of them leaves over, those that follow may take.
STAGES: dict[Stage, float] = {"ceilings": 0.06, "ops": 0.3, "model": 0.42, "views": 0.22}


@dataclasses.dataclass(frozen=True)
class ModelCase:
    """One scene for the model: so many views of `image_size` (height, width in pixels), forward or a training step.

    `graphed` forward passes are launched as CUDA graphs besides, which pays where scenes are small.
    """

    num_views: int
    image_size: tuple[int, int]
    training: bool = False
    checkpointing: bool = False
    graphed: bool = False


@dataclasses.dataclass(frozen=True)
class SpeedConfig:
    """The model, and the sizes that each stage takes.

    `memory_case` has the tokens of the ops of a block. A rasterizer case is (height, width, Gaussians), the sweep
    (views, pixels a side, planes). `views` are of `views_size`. Without `compiled` there is no torch.compile.
    Enough for a median are `op_seconds` for each variant of an operation, `model_seconds` for a case of the model.
    """

    backbone: BackboneConfig
    cases: tuple[ModelCase, ...]
    memory_case: ModelCase
    patch_size: int = 8
    copy_mb: int = 256
    rasterizer_cases: tuple[tuple[int, int, int], ...] = ((128, 128, 50_000), (256, 256, 200_000))
    sweep_case: tuple[int, int, int] = (8, 64, 32)
    views: tuple[int, ...] = (8, 16, 32, 64, 128, 256)
    views_size: tuple[int, int] = (72, 128)
    compiled: bool = True
    op_seconds: float = 1.5
    model_seconds: float = 25.0

    def window(self, image_size: tuple[int, int]) -> int:
        """Return the tokens of a view."""
        return (image_size[0] // self.patch_size) * (image_size[1] // self.patch_size)


def default_config(device_kind: str) -> SpeedConfig:
    """Return a model of 12 layers for processors, and the base model for a GPU."""
    if device_kind == "cuda":
        large, scene = (536, 960), 16
        return SpeedConfig(
            BackboneConfig(),
            (
                ModelCase(scene, large),
                ModelCase(64, large),
                ModelCase(scene, large, training=True, checkpointing=True),
                ModelCase(8, (256, 256), graphed=True),
                ModelCase(8, (256, 256), training=True),
                ModelCase(8, (512, 512), graphed=True),
                ModelCase(8, (512, 512), training=True),
            ),
            ModelCase(scene, large),
            copy_mb=4096,
            rasterizer_cases=((128, 128, 50_000), (540, 960, 500_000)),
            sweep_case=(16, 256, 48),
        )
    small = (128, 128)
    backbone = BackboneConfig(width=384, num_blocks=12, memory=MemoryConfig(head_dim=384))
    return SpeedConfig(backbone, (ModelCase(8, small), ModelCase(8, small, training=True)), ModelCase(8, small))
