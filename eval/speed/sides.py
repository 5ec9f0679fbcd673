"""The sides of a comparison of models: ours, ours with softmax memories, and the published layout."""

import collections
import dataclasses
import gc
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from lrm_ttt.eval.speed.ceilings import DTYPES
from lrm_ttt.eval.speed.published_layout import published_features
from lrm_ttt.eval.speed.timing import timed
from lrm_ttt.model.backbone import Precision
from lrm_ttt.model.compilation import compile_blocks
from lrm_ttt.model.config import BackboneConfig, ModelConfig
from lrm_ttt.model.cuda_graphs import GraphedPass
from lrm_ttt.model.flops import Flops, count_flops
from lrm_ttt.model.reconstructor import Reconstructor
from lrm_ttt.pipeline.memory import keep_freed_memory, peak_memory_mb, release_freed_memory

Kind = Literal["published", "ours", "softmax"]


@dataclasses.dataclass(frozen=True)
class Side:
    """How a model runs: `dtype` is that of its products; what is ours can be compiled, and launched as a CUDA graph."""

    kind: Kind
    dtype: str
    compiled: bool
    graphed: bool = False

    @property
    def name(self) -> str:
        """Return what tables call it."""
        how = ("compiled" if self.compiled else "eager") + (", CUDA graph" if self.graphed else "")
        return {"published": "every view twice", "ours": "ours", "softmax": "softmax mixer"}[self.kind] + f", {how}"


@dataclasses.dataclass(frozen=True)
class Request:
    """Run a side once: over `num_views` views of `window` tokens, forward, or backward too."""

    side: int
    num_views: int
    window: int
    training: bool = False
    checkpointing: bool = False


@dataclasses.dataclass(frozen=True)
class Measured:
    """Seconds of a run, the most memory that its process held meanwhile, and what of it was not there before."""

    seconds: float
    peak_mb: float
    added_mb: float


def serve(sides: tuple[Side, ...], backbone: BackboneConfig, device: torch.device) -> Callable[[Request], Measured]:
    """Build a model and return what runs it in the ways of `sides`, which share its weights.

    On a processor the published layout takes memory as the allocator gives it, and ours keeps what it frees
    (`keep_freed_memory`), which holds for a whole process: each side needs one of its own.
    """
    assert device.type == "cuda" or len(sides) == 1, "one process for each"
    if sides[0].kind != "published":
        keep_freed_memory()
    torch.manual_seed(0)
    with_softmax = [side.kind == "softmax" for side in sides]
    assert all(with_softmax) or not any(with_softmax), "one model"
    if any(with_softmax):
        backbone = dataclasses.replace(backbone, mixer="softmax")
    with device:
        model = Reconstructor(ModelConfig(backbone=backbone))
    if any(side.compiled for side in sides):
        compile_blocks(model)
    functions = [_features(side, model) for side in sides]
    asked: collections.Counter[Request] = collections.Counter()

    def answer(request: Request) -> Measured:
        asked[request] += 1
        if asked[request] <= 2:
            # What other sizes, or the compiler, have left behind is not what this one needs.
            gc.collect()
            release_freed_memory()
        model.backbone.checkpointing = request.checkpointing
        return run_once(model, functions[request.side], request, device)

    return answer


_Features = Callable[[Tensor], Tensor]


def _features(side: Side, model: Reconstructor) -> _Features:
    """Return what a side makes of the tokens of input views."""
    backbone, dtype = model.backbone, DTYPES[side.dtype]
    if side.kind == "published":
        # It takes the weights alone, whatever blocks are compiled to.
        return lambda tokens: published_features(backbone, tokens, dtype)
    precision = Precision(dtype, dtype)

    def features(tokens: Tensor) -> Tensor:
        return backbone.update(tokens, backbone.start(1), precision)[1]

    return GraphedPass(features) if side.graphed else features


def run_once(model: Reconstructor, features: _Features, request: Request, device: torch.device) -> Measured:
    """Run forward, and where it is a training step backward to every parameter; there is no optimiser."""
    generator = torch.Generator(device).manual_seed(0)
    shape = (1, request.num_views, request.window, model.config.backbone.width)
    # Tokens come out of a layer norm in fp32.
    tokens = torch.randn(shape, generator=generator, device=device).requires_grad_(request.training)
    slope = torch.randn(shape, generator=generator, device=device) if request.training else None

    def work() -> None:
        with torch.set_grad_enabled(request.training):
            made = features(tokens)
        if slope is not None:
            made.backward(slope.to(made.dtype))

    reset_peak_memory(device)
    before = peak_memory_mb(device)
    seconds = timed(work, device)()
    peak = peak_memory_mb(device)
    model.zero_grad(set_to_none=True)
    return Measured(seconds, peak, peak - before)


def reset_peak_memory(device: torch.device) -> None:
    """Begin anew with the most memory that this process has held; does nothing where the system offers no way."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif (clear := Path("/proc/self/clear_refs")).is_file():
        clear.write_text("5", encoding="ascii")


def backbone_flops(config: BackboneConfig, num_views: int, image_size: tuple[int, int], kind: Kind) -> Flops:
    """Count the blocks alone; the published layout does everything twice but write."""
    flops = count_flops(ModelConfig(backbone=config), num_views, image_size)
    flops = dataclasses.replace(flops, embedding=0, head=0)
    if kind != "published":
        return flops
    twice = {name: 2 * getattr(flops, name) for name in ("linears", "attention", "query", "feed_forward")}
    return dataclasses.replace(flops, **twice)
