"""What a run will take, from configuration and counts: no weight is read, and hardly an image (slicing.py)."""

import dataclasses
import time

import torch

from lrm_ttt.model.config import ModelConfig
from lrm_ttt.pipeline.job import Job

# Share of the speed of one large product that a whole model reaches.
MODEL_EFFICIENCY = 0.5
# Seconds of two cores for each sample of the sweep, decoded pixel, drawn Gaussian and drawn pixel; a GPU takes less.
SWEEP_S, DECODE_S, DRAW_GAUSSIAN_S, DRAW_PIXEL_S = 0.9e-9, 3e-8, 5e-8, 2e-7
# A step of refinement draws, goes back and updates.
REFINE_DRAWS = 4.0
# Imports, the video's frames and the like, whatever the size.
FIXED_S = 4.0
VIDEO_FRAMES = 72


@dataclasses.dataclass(frozen=True)
class Estimate:
    """What to expect of a run; `seconds` by stage."""

    num_views: int
    rows: int
    columns: int
    most_gaussians: int
    memory_mb: float
    views_at_once: int | None
    seconds: dict[str, float]
    where: str

    @property
    def num_tokens(self) -> int:
        """Number of input tokens."""
        return self.num_views * self.rows * self.columns

    def __str__(self) -> str:
        stages = ", ".join(f"{name} {seconds:.1f}" for name, seconds in self.seconds.items())
        at_once = "all views" if self.views_at_once is None else f"{self.views_at_once} of the views"
        rows = [
            f"tokens     {self.num_tokens:,} ({self.num_views} views of {self.rows} x {self.columns} patches)",
            f"Gaussians  {self.most_gaussians:,} at most, one for each pixel of the virtual views",
            f"memory     about {self.memory_mb / 1000:.2f} GB, the model working on {at_once} at once",
            f"seconds    about {sum(self.seconds.values()):.0f} on {self.where} ({stages})",
        ]
        return "\n".join(row for row in rows if self.most_gaussians or not row.startswith("Gaussians"))


def estimate(job: Job) -> Estimate:
    """Return what `run` would take: memory within 15 % (for Gaussians), seconds within a factor of two.

    Takes a moment to see how fast this machine multiplies.
    """
    size, patch = job.plan.image_size, job.model.tokenizer.patch_size
    num_held_out = len(job.plan.choice.targets)
    image_pixels = size.height * size.width
    pixels = job.num_inputs * image_pixels
    virtual_pixels = job.virtual.num_views * job.virtual.image_size.height * job.virtual.image_size.width
    decoded = sum(s.height * s.width for s in job.plan.source.image_sizes) / len(job.plan.source.image_sizes)
    one_drawing = pixels * DRAW_GAUSSIAN_S + image_pixels * DRAW_PIXEL_S
    flops = job.num_tokens * backbone_flops(job.model, (size.height // patch) * (size.width // patch))
    # In slices the head looks at every view twice, and the evidence is gathered for each look.
    looks, sweeps = (1, 1) if job.slices.views is None else (2, 3)
    flops += looks * pixels * head_flops(job.model)
    seconds = {
        "read": (job.num_inputs + num_held_out) * decoded * DECODE_S,
        "model": flops / (MODEL_EFFICIENCY * multiplication_speed(job))
        + sweeps * pixels * sweep_samples(job.model) * SWEEP_S,
        "refine": job.config.refine * REFINE_DRAWS * one_drawing,
        "check and video": (job.num_inputs + 2 * num_held_out + VIDEO_FRAMES) * one_drawing,
        "the rest": FIXED_S,
    }
    return Estimate(
        num_views=job.num_inputs,
        rows=size.height // patch,
        columns=size.width // patch,
        most_gaussians=virtual_pixels if job.model.representation == "gaussians" else 0,
        memory_mb=job.slices.peak_mb,
        views_at_once=job.slices.views,
        seconds={name: value for name, value in seconds.items() if value > 0},
        where=str(job.device),
    )


def backbone_flops(model: ModelConfig, window: int) -> float:
    """Return the operations of one token: attention, memory (update and query) and MLP of every block."""
    config = model.backbone
    width, memory = config.width, config.memory
    projections = 2 * width * width * (4 + 4 + 2 * config.feed_forward_multiple)
    # Nine products: three to read, and six for the gradient of the inner loss.
    fast = 2 * 9 * width * memory.head_dim * memory.multiple
    return float(config.num_blocks * (projections + fast + 4 * window * width))


def head_flops(model: ModelConfig) -> float:
    """Return the operations of one pixel in the head."""
    evidence, hidden = model.tokenizer.evidence, model.head.hidden
    if evidence is None:
        return 2.0 * model.backbone.width * (11 + 3 * (model.head.sh_degree + 1) ** 2)
    inputs = 2 * evidence.num_planes + 20
    return 2.0 * (9 * hidden * (inputs + 3 * hidden) + hidden * evidence.num_planes + 16 * model.backbone.width)


def sweep_samples(model: ModelConfig) -> int:
    """Return how many samples the plane sweep takes for one pixel."""
    evidence = model.tokenizer.evidence
    return evidence.num_planes * (evidence.num_neighbours + evidence.num_silhouettes) if evidence else 0


def multiplication_speed(job: Job) -> float:
    """Return how many operations a second this machine does in a large product, at the run's precision."""
    dtype = torch.bfloat16 if job.precision == "bf16" else torch.float32
    left = torch.zeros(1024, 512, device=job.device, dtype=dtype)
    right = torch.zeros(512, 512, device=job.device, dtype=dtype)
    best = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        float((left @ right)[0, 0])
        best = min(best, time.perf_counter() - start)
    return 2 * 1024 * 512 * 512 / best
