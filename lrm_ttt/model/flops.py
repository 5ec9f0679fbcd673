"""The arithmetic of a model, counted from its configuration: matrix products and convolutions.

A multiplication with its addition are two FLOP. As is usual when the utilisation of a machine is told, nothing else is
counted: neither activations and norms nor matching evidence, rendering or the losses.
"""

import dataclasses
import itertools

from lrm_ttt.model.config import BackboneConfig, ModelConfig
from lrm_ttt.model.consistency import NUM_VERDICTS
from lrm_ttt.model.heads.evidence import FEATURES_PER_PIXEL
from lrm_ttt.model.tokenizer import EVIDENCE_POOL, RAY_CHANNELS

# The backward pass of a product is two of its size; that of attention is five products where the forward pass is two.
LINEAR_TRAINING, ATTENTION_TRAINING = 3.0, 3.5


@dataclasses.dataclass(frozen=True)
class Flops:
    """FLOP of a forward pass by what they are for; `recomputed` of them belong to blocks that can be recomputed.

    `attention` is what softmax attention does beside its linear maps, `update` and `orthogonalisation` write the
    memory and `query` reads it.
    """

    embedding: int = 0
    linears: int = 0
    attention: int = 0
    update: int = 0
    orthogonalisation: int = 0
    query: int = 0
    feed_forward: int = 0
    head: int = 0
    recomputed: int = 0

    def __add__(self, other: "Flops") -> "Flops":
        return Flops(*(ours + theirs for ours, theirs in zip(_values(self), _values(other), strict=True)))

    @property
    def forward(self) -> int:
        """All of a forward pass."""
        return sum(_values(self)) - self.recomputed

    @property
    def training(self) -> float:
        """A forward and a backward pass: the model's own FLOP, whatever is computed twice to save memory.

        Where the inputs' own features are not used (images, triplanes, `causal`) the last block needs a little less.
        """
        return LINEAR_TRAINING * (self.forward - self.attention) + ATTENTION_TRAINING * self.attention

    @property
    def training_recomputed(self) -> float:
        """What the machine does in a training step with activation checkpointing."""
        return self.training + self.recomputed


def _values(flops: Flops) -> tuple[int, ...]:
    return dataclasses.astuple(flops)


def count_flops(config: ModelConfig, num_inputs: int, image_size: tuple[int, int], num_targets: int = 0) -> Flops:
    """Count what a model does for one scene; `num_targets` matter to a novel-view model alone.

    Gaussians are those of the inputs (each view once but under the schedule `causal`, as `Reconstructor.forward` does).
    """
    backbone, patch_size = config.backbone, config.tokenizer.patch_size
    window = (image_size[0] // patch_size) * (image_size[1] // patch_size)
    tokens = num_inputs * window
    total = _embedding(config, tokens, with_images=True) + _update(backbone, num_inputs, window)
    if config.representation == "images":
        readers = num_targets * window
        total += _embedding(config, readers, with_images=False) + _query(backbone, readers, window, readers * tokens)
        return total + Flops(head=2 * readers * backbone.width * 3 * patch_size**2)
    if config.representation == "triplane":
        triplane = config.triplane
        readers = 3 * (triplane.resolution // triplane.patch_size) ** 2
        outputs = triplane.channels * triplane.patch_size**2
        total += _query(backbone, readers, readers, readers * tokens)
        return total + Flops(head=2 * readers * backbone.width * outputs)
    if backbone.schedule == "causal":
        total += _embedding(config, tokens, with_images=True) + _query(backbone, tokens, window, tokens**2)
    return total + _gaussian_head(config, tokens)


def _gaussian_head(config: ModelConfig, tokens: int) -> Flops:
    head, evidence, pixels = config.head, config.tokenizer.evidence, config.tokenizer.patch_size**2
    num_sh = 3 * (head.sh_degree + 1) ** 2
    if head.distance != "evidence":
        return Flops(head=2 * tokens * config.backbone.width * pixels * (11 + num_sh))
    assert evidence is not None
    inputs = FEATURES_PER_PIXEL + 2 * evidence.num_planes + 4
    # Three convolutions of 3 x 3 pixels, one of which sees the verdicts too; the others are linear maps of a pixel.
    weights = 9 * head.hidden * (3 * head.hidden + NUM_VERDICTS)
    weights += head.hidden * (inputs + evidence.num_planes + num_sh + 9)
    return Flops(head=2 * tokens * pixels * (config.backbone.width * FEATURES_PER_PIXEL + weights))


def _embedding(config: ModelConfig, tokens: int, with_images: bool) -> Flops:
    patch_size, evidence = config.tokenizer.patch_size, config.tokenizer.evidence
    channels = RAY_CHANNELS * patch_size**2
    if evidence is not None and with_images:
        channels += (2 * evidence.num_planes + 1) * (patch_size // EVIDENCE_POOL) ** 2
    return Flops(embedding=2 * tokens * channels * config.backbone.width)


def _update(config: BackboneConfig, num_views: int, window: int) -> Flops:
    """Count the blocks over the tokens of the inputs, which write the memory and read it."""
    tokens, memory, blocks = num_views * window, config.memory, config.num_blocks
    # Under `causal` the chunks of a softmax memory attend to what has been written so far.
    sizes = [num_views] if config.schedule == "single" else _chunks(num_views, config.views_per_update)
    so_far = itertools.accumulate(sizes)
    pairs = window**2 * sum(size * written for size, written in zip(sizes, so_far, strict=True))
    reads = _query(config, tokens, window, pairs if config.schedule == "causal" else tokens**2)
    if config.mixer == "fast_weight":
        side, hidden = memory.head_dim, memory.multiple * memory.head_dim
        steps = memory.newton_schulz_steps * (config.width // side) * len(sizes)
        short, long = min(side, hidden), max(side, hidden)
        reads += Flops(
            update=12 * tokens * config.width * hidden * blocks,
            orthogonalisation=3 * steps * (4 * short**2 * long + 2 * short**3) * blocks,
        )
    # Recomputing ends with the last tensor that the backward pass needs, which the last product of a block is not.
    last = reads.feed_forward // 2
    return dataclasses.replace(reads, recomputed=reads.forward - last)


def _query(config: BackboneConfig, tokens: int, window: int, pairs: int) -> Flops:
    """Count the blocks over tokens that attend in windows and read a memory.

    Where that is softmax attention, `pairs` are the readers times the tokens that each of them finds written.
    """
    width, blocks = config.width, config.num_blocks
    # Queries, keys, values and output, of window attention and of the memory.
    linears = 16 * tokens * width**2
    attention, query = 4 * tokens * window * width, 0
    if config.mixer == "fast_weight":
        linears += 6 * tokens * width * (width // config.memory.head_dim)
        query = 6 * tokens * width * config.memory.multiple * config.memory.head_dim
    else:
        attention += 4 * pairs * width
    feed_forward = 4 * tokens * config.feed_forward_multiple * width**2
    return Flops(
        linears=linears * blocks,
        attention=attention * blocks,
        query=query * blocks,
        feed_forward=feed_forward * blocks,
    )


def _chunks(count: int, size: int) -> list[int]:
    return [min(size, count - start) for start in range(0, count, size)]
