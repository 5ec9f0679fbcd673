"""Depths from a monocular network that the user names, for the depth term where the data has none."""

import importlib.util
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import interpolate

from lrm_ttt.errors import BackendUnavailable, InvalidConfig

# Views that the network sees at a time, which bounds memory.
VIEWS_PER_PASS = 8
# Kinds of models that predict depth whatever their weights; a DPT may do either.
PREDICTS_DEPTH = {"depth_pro", "glpn", "zoedepth"}
# Disparities are mapped to this range: the depth term heeds neither their scale nor their offset.
LEAST_DISPARITY = 0.1


class DepthTeacher(nn.Module):
    """Look at images with a model for the depth-estimation pipeline of transformers, without gradients.

    `name` is a local folder or a hub id; `predicts` is "disparity", "depth", or None where the model's own
    configuration tells. Raises `BackendUnavailable` without transformers, and `InvalidConfig` for a model that cannot
    be loaded or does not tell.
    """

    def __init__(self, name: str, predicts: str | None = None) -> None:
        super().__init__()
        pipeline = _load(name)
        self.model: nn.Module = pipeline.model
        self.processor = pipeline.image_processor
        self.predicts = predicts or _prediction(name, pipeline.model.config)
        self.requires_grad_(False).eval()

    @torch.no_grad()
    def forward(self, images: Float[Tensor, "b v 3 h w"]) -> Float[Tensor, "b v 1 h w"]:
        """Return camera z of images 0..1, in a unit of its own; of a disparity also without a meaningful offset.

        0 where it is unknown.
        """
        flat = images.flatten(0, 1)
        maps = torch.cat([self._predict(part) for part in flat.split(VIEWS_PER_PASS)])
        maps = maps if self.predicts == "depth" else _depth_of(maps)
        known = maps.isfinite() & (maps > 0)
        return torch.where(known, maps, 0.0).reshape(*images.shape[:2], 1, *images.shape[-2:])

    def _predict(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 1 h w"]:
        # Processors of all kinds take 8-bit pictures.
        pixels = (images.clamp(0, 1) * 255).round().to(torch.uint8).movedim(1, -1).cpu().numpy()
        pictures = [Image.fromarray(np.ascontiguousarray(picture)) for picture in pixels]
        weight = next(self.model.parameters())
        inputs = self.processor(images=pictures, return_tensors="pt").to(weight.device, weight.dtype)
        size = (images.shape[-2], images.shape[-1])
        found = self.processor.post_process_depth_estimation(self.model(**inputs), [size] * len(pictures))
        # ZoeDepth's keeps the size of the network.
        maps = [one["predicted_depth"].float().to(images.device)[None, None] for one in found]
        return torch.cat([interpolate(one, size, mode="bilinear", align_corners=False) for one in maps])


def _depth_of(disparity: Float[Tensor, "n 1 h w"]) -> Float[Tensor, "n 1 h w"]:
    """Map each view's disparities linearly to LEAST_DISPARITY..1, where they can be inverted, and invert them."""
    least, most = disparity.amin((-2, -1), keepdim=True), disparity.amax((-2, -1), keepdim=True)
    share = (disparity - least) / (most - least).clamp(min=torch.finfo(disparity.dtype).tiny)
    return 1 / (LEAST_DISPARITY + (1 - LEAST_DISPARITY) * share)


def _load(name: str) -> Any:
    if importlib.util.find_spec("transformers") is None:
        raise BackendUnavailable(
            f"losses.depth_teacher is {name}, but transformers is not installed. Run `pip install 'lrm-ttt[depth]'`, "
            "or set losses.depth to 0 or losses.depth_teacher to null."
        )
    from transformers import pipeline

    try:
        return pipeline("depth-estimation", model=name, device="cpu")
    except (OSError, ValueError, ImportError, KeyError) as error:
        reason = " ".join(str(error).split())
        raise InvalidConfig(
            f"losses.depth_teacher: {name} cannot be loaded as a model for depth estimation: {reason} "
            "Give a local folder or a hub id that transformers' depth-estimation pipeline takes, or set "
            "losses.depth_teacher to null."
        ) from error


def _prediction(name: str, config: Any) -> str:
    """Return what a model says that it predicts."""
    stated = getattr(config, "depth_estimation_type", None)
    if config.model_type in PREDICTS_DEPTH or stated == "metric":
        return "depth"
    if stated == "relative":
        return "disparity"
    raise InvalidConfig(
        f"losses.depth_teacher: {name} is of the kind {config.model_type}, which may predict either; set "
        "losses.depth_teacher_predicts to disparity (MiDaS, most DPT) or to depth (metric models)."
    )
