"""What a step of training moves and holds, from shapes alone. Free of torch.

Bytes that autograd keeps are counted constants (tests/eval/test_scaling.py counts them again); what a renderer, a
compiler or an allocator takes besides is not included. `scaling_tables.py` prints it for docs/scaling.md.
"""

import dataclasses
import math
from typing import Literal

from lrm_ttt.model.config import ModelConfig

# Parameters, gradients, the average of the weights and what ranks exchange are fp32; products are bf16.
WIDE, NARROW = 4, 2
# Kept for the backward pass of one block, in bytes: for a token and unit of width (of which 4 for each multiple of the
# MLP are its hidden values), and for a token and hidden unit of the memory.
KEPT_BY_TOKEN, KEPT_BY_HIDDEN = 100.9, 38.0
# Kept by Newton-Schulz and the commit, whatever the tokens: for an entry of gate, up or down, and of their Gram matrix.
KEPT_BY_ENTRY, KEPT_BY_GRAM = 29.8, 31.6
# Kept by the head for a pixel: fixed, for a triple of spherical harmonics, and for a unit of width of its share of a
# token; and by the tokenizer for a pixel.
KEPT_BY_GAUSSIAN, KEPT_BY_HARMONIC, KEPT_BY_FEATURE, KEPT_BY_PIXEL = 96.0, 12.0, 6.0, 24.0
# Kept of the features of VGG-19 for a pixel of a rendering: its activations, and how they differ from the target's.
KEPT_BY_PERCEPTUAL = 1532.0 + 488.0


@dataclasses.dataclass(frozen=True)
class Step:
    """One step of a run: `num_inputs` views of each of `batch_size` scenes in every view group, `accumulation` times.

    `kept` is the share of Gaussians that is rendered, and `perceptual` whether targets are compared by VGG-19 too.
    """

    num_inputs: int
    image_size: tuple[int, int]
    num_targets: int = 8
    batch_size: int = 1
    accumulation: int = 1
    ranks_per_scene: int = 1
    world: int = 1
    kept: float = 1.0
    checkpointing: bool = True
    strategy: Literal["ddp", "fsdp2"] = "ddp"
    perceptual: bool = True

    @property
    def num_scenes(self) -> int:
        """Scenes of a step, on all ranks."""
        return self.world // self.ranks_per_scene * self.batch_size * self.accumulation

    @property
    def num_pixels(self) -> int:
        """Pixels of a view."""
        return self.image_size[0] * self.image_size[1]


@dataclasses.dataclass(frozen=True)
class Traffic:
    """Calls of a collective in one step of one rank, and the bytes of the tensors handed to it, all calls together.

    For a gather and a scatter it is the whole tensor that counts, not the rank's part. `ranks` take part.
    """

    operation: Literal["all_reduce", "all_gather", "reduce_scatter"]
    what: str
    calls: int
    payload: int
    ranks: int

    @property
    def sent(self) -> float:
        """Bytes that one rank sends, and receives, when the ranks stand in a ring."""
        rounds = 2 if self.operation == "all_reduce" else 1
        return rounds * (self.ranks - 1) / self.ranks * self.payload


def num_fast_weights(model: ModelConfig) -> int:
    """Return the entries of gate, up and down of one block: 3 d f for one head."""
    memory = model.backbone.memory
    return 3 * model.backbone.width * memory.head_dim * memory.multiple


def num_parameters(model: ModelConfig) -> int:
    """Return the trained parameters of a model with fast weights, without evidence, that makes Gaussians or images."""
    assert model.backbone.mixer == "fast_weight" and model.tokenizer.evidence is None
    assert model.representation in ("gaussians", "images")
    backbone, patch = model.backbone, model.tokenizer.patch_size
    d, memory = backbone.width, backbone.memory
    attention = 4 * d * d + 2 * backbone.attention_head_dim
    rates = 3 * (d // memory.head_dim) * (d + 1)
    read = 4 * d * d + rates + (d if memory.output_norm == "merged" else memory.head_dim)
    block = attention + read + num_fast_weights(model) + 2 * backbone.feed_forward_multiple * d * d + 3 * d
    return backbone.num_blocks * block + 12 * patch**2 * d + d + d + d * patch**2 * channels(model)


def channels(model: ModelConfig) -> int:
    """Return what the head says of a pixel: a Gaussian, or a colour."""
    return 3 if model.representation == "images" else 11 + 3 * (model.head.sh_degree + 1) ** 2


def tokens_of_a_view(model: ModelConfig, step: Step) -> int:
    """Return the patches of a view."""
    return step.num_pixels // model.tokenizer.patch_size**2


def num_updates(model: ModelConfig, step: Step) -> int:
    """Return how often each memory is written in one pass over the inputs."""
    whole = model.backbone.schedule == "single"
    return 1 if whole else math.ceil(step.num_inputs / model.backbone.views_per_update)


def num_readers(model: ModelConfig, step: Step) -> int:
    """Return the views that read the memory in a pass of their own: with `causal`, the inputs once more as virtual
    views, which otherwise read what they are as inputs (MODEL.md, A fact worth 1.67x).
    """
    if model.representation == "images":
        return step.num_targets
    return step.num_inputs if model.backbone.schedule == "causal" else 0


def traffic(model: ModelConfig, step: Step) -> list[Traffic]:
    """Return the collectives of one step, as one rank sees them.

    In the view group every layer sums the fast-weight gradients of every chunk: forward, again where the forward pass
    is repeated, and backward. Gaussians are gathered, and their gradients scattered. Parameters are averaged over all
    ranks.
    """
    passes, num_ranks = step.accumulation, step.ranks_per_scene
    found = []
    if num_ranks > 1:
        calls = (3 if step.checkpointing else 2) * model.backbone.num_blocks * num_updates(model, step) * passes
        payload = calls * step.batch_size * num_fast_weights(model) * WIDE
        found.append(Traffic("all_reduce", "fast-weight gradients", calls, payload, num_ranks))
        if model.representation == "gaussians":
            numbers = step.batch_size * step.num_inputs * step.num_pixels * num_floats(model)
            payload = passes * numbers * WIDE
            found.append(Traffic("all_gather", "Gaussians", passes, payload, num_ranks))
            found.append(Traffic("reduce_scatter", "gradients of Gaussians", passes, payload, num_ranks))
    if step.world > 1:
        size = num_parameters(model) * WIDE
        if step.strategy == "ddp":
            found.append(Traffic("all_reduce", "gradients", 1, size, step.world))
        else:
            # The whole model is one unit, gathered for every pass; gradients wait for the last accumulation.
            found.append(Traffic("all_gather", "parameters", passes, size * passes, step.world))
            found.append(Traffic("reduce_scatter", "gradients", 1, size, step.world))
    return found


def num_floats(model: ModelConfig) -> int:
    """Return the numbers of an activated Gaussian: 3 + 3 + 4 + 1 and the spherical harmonics."""
    return 11 + 3 * (model.head.sh_degree + 1) ** 2


def memory(model: ModelConfig, step: Step) -> dict[str, float]:
    """Return the bytes of one rank at the end of a forward pass, by what they are for; AdamW for all parameters.

    With `ddp` gradients live in the buckets that are sent, so those take nothing more.
    """
    backbone, patch = model.backbone, model.tokenizer.patch_size
    d = backbone.width
    whole = float(num_parameters(model) * WIDE)
    # Sharded, parameters and gradients are whole besides for as long as a pass takes.
    sharded = step.strategy == "fsdp2" and step.world > 1
    owned = whole / step.world if sharded else whole
    # The rank with the most views.
    views = step.batch_size * -(-step.num_inputs // step.ranks_per_scene)
    targets = step.batch_size * -(-step.num_targets // step.ranks_per_scene)
    readers = step.batch_size * -(-num_readers(model, step) // step.ranks_per_scene)
    tokens = views * tokens_of_a_view(model, step)
    block = kept_by_block(model, tokens, step.batch_size * num_updates(model, step))
    stream = (views + readers) * tokens_of_a_view(model, step) * d * WIDE
    blocks = backbone.num_blocks
    found = {
        "parameters": owned + (whole if sharded else 0),
        "gradients": owned + (whole if sharded else 0),
        "optimiser": 2 * owned,
        "average": owned,
        "images and rays": (views + targets) * step.num_pixels * 3 * WIDE + views * step.num_pixels * KEPT_BY_PIXEL,
        "fast weights": float(step.batch_size * blocks * num_fast_weights(model) * WIDE),
        # With checkpointing the inputs of all blocks stay, and one block at a time is whole.
        "blocks": blocks * stream + block if step.checkpointing else blocks * block,
        "perceptual loss": targets * step.num_pixels * KEPT_BY_PERCEPTUAL if step.perceptual else 0.0,
    }
    if model.representation == "gaussians":
        share = d / patch**2
        harmonics = (model.head.sh_degree + 1) ** 2
        by_pixel = KEPT_BY_GAUSSIAN + KEPT_BY_HARMONIC * harmonics + KEPT_BY_FEATURE * share
        found["head"] = views * step.num_pixels * by_pixel
        # Of all ranks, and their gradient; those of this rank alone are the head's already.
        gathered = step.batch_size * step.num_inputs * step.num_pixels * num_floats(model) * WIDE
        found["gathered Gaussians"] = (2.0 if step.ranks_per_scene > 1 else 1.0) * gathered
        found["kept Gaussians"] = 2 * step.kept * gathered if step.kept < 1 else 0.0
    return found


def kept_by_block(model: ModelConfig, tokens: int, updates: int) -> float:
    """Return the bytes that the backward pass of one block needs of its forward pass, uncompiled and in bf16.

    The steps of Newton-Schulz are taken again, as on a GPU.
    """
    backbone = model.backbone
    d, c = backbone.width, backbone.memory.head_dim
    by_unit = KEPT_BY_TOKEN + 2 * NARROW * (backbone.feed_forward_multiple - 4)
    by_token = d * (by_unit + KEPT_BY_HIDDEN * backbone.memory.multiple)
    return tokens * by_token + updates * (KEPT_BY_ENTRY * num_fast_weights(model) / 3 + KEPT_BY_GRAM * d * c)


def view_rate(step: Step, seconds: float) -> float:
    """Return how many views a second all ranks together have to read."""
    return step.num_scenes * (step.num_inputs + step.num_targets) / seconds
