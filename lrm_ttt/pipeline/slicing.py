"""How much memory a run takes at its peak, and how many views at a time a model may work on to stay within a budget."""

import dataclasses

import torch

from lrm_ttt.errors import InvalidConfig
from lrm_ttt.model.config import ModelConfig
from lrm_ttt.pipeline.capture import CapturePlan
from lrm_ttt.pipeline.config import ReconstructConfig, parse_memory
from lrm_ttt.pipeline.memory import available_memory_mb
from lrm_ttt.pipeline.reconstruct import MOST_DRAWN
from lrm_ttt.pipeline.virtual import VirtualPlan
from lrm_ttt.render.sheet import spread

# All numbers were measured with the embedded model in bfloat16 on two AVX-512 cores, at 16 to 1,000 views of 72x128.
# What Python, torch and the model take, whatever the size, and then the libraries of products, or of scores and video.
BASE_MB, WORKING_MB, CHECKING_MB = 800.0, 60.0, 330.0
# While the model works on views, for each of their pixels and planes, and each of their tokens and channels.
BYTES_PER_PLANE_AND_PIXEL, BYTES_PER_TOKEN_AND_CHANNEL = 63, 160
# Planes that a model without matching evidence is worth.
PLANES_WITHOUT_EVIDENCE = 8
# For each pixel of the views that a slice is compared with: copies of images and masks, and the sweep's textures.
BYTES_PER_PIXEL_LOOKED_AT = 50
# For all views: images and masks, the residual stream before and after (a channel), and depth maps.
BYTES_PER_INPUT_PIXEL, BYTES_PER_STREAM_CHANNEL, BYTES_PER_DEPTH_PIXEL = 16, 8, 4
# For each Gaussian with one spherical harmonic: the model's, and once more as the .ply is read again.
BYTES_PER_GAUSSIAN = 56
# For each Gaussian of at most MOST_DRAWN, while a view is drawn; for each pixel of the views, their renderings.
BYTES_PER_DRAWN_GAUSSIAN, BYTES_PER_CHECKED_PIXEL = 220, 24
# Estimates were 10 % too low at worst, and a budget must hold all the same.
MARGIN = 1.1
# Of what is free a run may take this share: others want memory too.
SHARE_OF_FREE_MEMORY = 0.9
# Views that are decoded to see how much of them is covered.
SAMPLED_VIEWS = 8


@dataclasses.dataclass(frozen=True)
class Workload:
    """What a run works on: so many input and virtual views, with so many pixels and tokens each.

    `masked` says that the views have masks, `kept_share` which share of the predicted Gaussians can be seen.
    """

    model: ModelConfig
    num_views: int
    num_virtual: int
    pixels: int
    window: int
    on_gpu: bool = False
    masked: bool = True
    kept_share: float = 1.0

    def peak_mb(self, views_at_once: int | None) -> float:
        """Return the peak to expect, with the model working on so many views at a time (None: all)."""
        held = float(self.num_views * self.pixels * BYTES_PER_INPUT_PIXEL)
        predicted = self._num_gaussians * self._bytes_per_gaussian
        kept = self.kept_share * predicted
        stream = max(self.num_views, self.num_virtual) * self.window * self.model.backbone.width
        working = held + stream * BYTES_PER_STREAM_CHANNEL + self.num_virtual * self.pixels * BYTES_PER_DEPTH_PIXEL
        if views_at_once is None or views_at_once >= self.num_views:
            working += self.num_views * self._bytes_per_view + predicted
        else:
            looked_at = min(self.num_views, views_at_once * (1 + self._others)) * self.pixels
            working += views_at_once * self._bytes_per_view + looked_at * BYTES_PER_PIXEL_LOOKED_AT + kept
        checking = held + self.num_views * self.pixels * BYTES_PER_CHECKED_PIXEL + 2 * kept
        drawn = self.kept_share * self._num_gaussians
        checking += min(drawn, MOST_DRAWN) * BYTES_PER_DRAWN_GAUSSIAN
        if self.on_gpu:
            return (max(working, checking) + self._state) / 1e6
        return BASE_MB + self._state / 1e6 + max(WORKING_MB + working / 1e6, CHECKING_MB + checking / 1e6)

    @property
    def _num_gaussians(self) -> int:
        return self.num_virtual * self.pixels if self.model.representation == "gaussians" else 0

    @property
    def _bytes_per_gaussian(self) -> int:
        return BYTES_PER_GAUSSIAN + 12 * ((self.model.head.sh_degree + 1) ** 2 - 1)

    @property
    def _bytes_per_view(self) -> int:
        evidence = self.model.tokenizer.evidence
        planes = evidence.num_planes if evidence else PLANES_WITHOUT_EVIDENCE
        tokens = self.window * self.model.backbone.width
        return self.pixels * planes * BYTES_PER_PLANE_AND_PIXEL + tokens * BYTES_PER_TOKEN_AND_CHANNEL

    @property
    def _others(self) -> int:
        """Other views that a view is compared with."""
        evidence = self.model.tokenizer.evidence
        if evidence is None:
            return 0
        return evidence.num_neighbours + (evidence.num_silhouettes if self.masked else 0)

    @property
    def _state(self) -> int:
        """Bytes of the memories of all layers, which a softmax keeps for every token."""
        backbone, memory = self.model.backbone, self.model.backbone.memory
        if backbone.mixer == "softmax":
            return 4 * backbone.num_blocks * self.num_views * self.window * backbone.width
        return 4 * 3 * 4 * backbone.num_blocks * backbone.width * memory.head_dim * memory.multiple


@dataclasses.dataclass(frozen=True)
class SlicePlan:
    """How many views at a time (None: all), the peak to expect, and why, where nobody asked for it."""

    views: int | None
    peak_mb: float
    note: str | None = None


def slices_of(
    config: ReconstructConfig, model: ModelConfig, plan: CapturePlan, virtual: VirtualPlan, device: torch.device
) -> SlicePlan:
    """Choose slices for a run; where they are needed, SAMPLED_VIEWS are decoded to see how much of them is covered."""
    size, patch = plan.image_size, model.tokenizer.patch_size
    pixels = size.height * size.width
    num_virtual = -(-virtual.num_views * virtual.image_size.height * virtual.image_size.width // pixels)
    inputs = plan.choice.inputs
    work = Workload(model, len(inputs), num_virtual, pixels, pixels // patch**2, on_gpu=device.type == "cuda")
    budget = parse_memory(config.memory_budget)
    if work.peak_mb(None) <= memory_limit_mb(budget, device):
        return plan_slices(work, budget, device)
    some = plan.load(tuple(inputs[index] for index in spread(len(inputs), SAMPLED_VIEWS)), patch, config.background)
    if some.masks is None:
        return plan_slices(dataclasses.replace(work, masked=False), budget, device)
    return plan_slices(dataclasses.replace(work, kept_share=float((some.masks > 0).float().mean())), budget, device)


def memory_limit_mb(budget: float | None, device: torch.device) -> float:
    """Return the highest estimate that will do: for a budget in bytes, or for what is free."""
    if budget is not None:
        return budget / 1e6 / MARGIN
    free = available_memory_mb(device)
    return float("inf") if free is None else SHARE_OF_FREE_MEMORY * free / MARGIN


def plan_slices(work: Workload, budget: float | None, device: torch.device) -> SlicePlan:
    """Choose the largest slices that `budget` bytes hold, or without a budget what is free.

    Raises `InvalidConfig` for a budget that does not hold one view at a time. Without a budget the run is tried anyway.
    """
    whole = work.peak_mb(None)
    limit = memory_limit_mb(budget, device)
    if whole <= limit:
        return SlicePlan(None, whole)
    least = work.peak_mb(1)
    if least > limit and budget is not None:
        raise InvalidConfig(
            f"--memory-budget {budget / 1e9:.2f}GB: {work.num_views} views of {work.pixels:,} pixels take up to "
            f"{MARGIN * least / 1000:.2f} GB even one view at a time. Give that much, or take fewer --views or a "
            "smaller --image-size."
        )
    views = max((n for n in range(1, work.num_views) if work.peak_mb(n) <= limit), default=1)
    plan = SlicePlan(views, work.peak_mb(views))
    if budget is not None:
        return plan
    note = (
        f"all views at once would take about {whole / 1000:.1f} GB, of {limit / 1000:.1f} GB to spare: the model works "
        f"on {views} view{'s' if views > 1 else ''} at a time and takes about {plan.peak_mb / 1000:.1f} GB, with the "
        "same result"
    )
    return dataclasses.replace(plan, note=note)
