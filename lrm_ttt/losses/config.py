"""Weights of the terms of the objective. Free of torch."""

import dataclasses
from typing import Literal

from lrm_ttt.errors import InvalidConfig


@dataclasses.dataclass(frozen=True)
class LossConfig:
    """How much each term counts; a term of weight 0 is not computed.

    `mse`, `perceptual`, `depth` and `opacity` are the papers' (MODEL.md, Losses); `position`, `coverage` and `alpha`
    are ours, and need the exact depths and masks of procedural scenes.
    """

    mse: float = 1.0
    perceptual: float = 0.0
    depth: float = 0.0
    opacity: float = 0.0
    position: float = 0.0
    coverage: float = 0.0
    alpha: float = 0.0
    # Where the smooth L1 of the position term turns from squared to absolute, in log depth.
    position_beta: float = 0.05
    perceptual_network: Literal["vgg19", "lpips"] = "lpips"
    # A file with the weights of the network as torchvision names them, .pth or .safetensors; without one the file that
    # torchvision itself would have put into its cache. Nothing is downloaded.
    perceptual_weights: str | None = None
    # What the depth term follows where the data has no depths: the name or folder of a model for the depth-estimation
    # pipeline of transformers.
    depth_teacher: str | None = None
    # What that model predicts: disparity (MiDaS, most DPT and Depth Anything) or depth; without it the model must tell.
    depth_teacher_predicts: Literal["disparity", "depth"] | None = None

    def __post_init__(self) -> None:
        for name in ("mse", "perceptual", "depth", "opacity", "position", "coverage", "alpha"):
            if not getattr(self, name) >= 0:
                raise InvalidConfig(f"losses.{name} must not be negative, but is {getattr(self, name)}.")
        if self.position_beta <= 0:
            raise InvalidConfig(f"losses.position_beta must be positive, not {self.position_beta}.")
        if self.depth_teacher_predicts is not None and self.depth_teacher is None:
            raise InvalidConfig("losses.depth_teacher_predicts is set, but losses.depth_teacher names no model.")
