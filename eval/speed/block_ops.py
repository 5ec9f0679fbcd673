"""The operations of a block: what writes the memory, what reads it, window attention and MLP."""

import dataclasses
import functools
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.func import functional_call

from lrm_ttt.eval.speed.ceilings import DTYPES
from lrm_ttt.eval.speed.config import SpeedConfig
from lrm_ttt.eval.speed.op import Function, Op, Tensors
from lrm_ttt.eval.speed.variants import OPS, Named, variants
from lrm_ttt.layers.attention import WindowAttention
from lrm_ttt.layers.feed_forward import FeedForward

# Checks in float64 take no more tokens than this.
MOST_CHECKED = 16_384
# The backward pass of a product is two of its size, that of attention five where the forward pass is two.
WITH_BACKWARD, ATTENTION_WITH_BACKWARD = 3.0, 3.5


def block_ops(config: SpeedConfig, dtype: str, device: torch.device) -> Iterator[Op]:
    """Yield the operations at the size of the configuration, each with one that is small enough to be checked."""
    window, views = config.window(config.memory_case.image_size), config.memory_case.num_views
    fewer = max(1, min(views, MOST_CHECKED // window))
    for op, small in zip(
        _ops(config, views, window, dtype, device), _ops(config, fewer, window, dtype, device), strict=True
    ):
        for backward in (False, True) if op.backward else (False,):
            passes = " + backward" if backward else ""
            factor = WITH_BACKWARD if backward else 1.0
            checked = dataclasses.replace(small, backward=backward)
            yield dataclasses.replace(
                op, name=op.name + passes, backward=backward, work=factor * op.work, checked=checked
            )


def _ops(config: SpeedConfig, views: int, window: int, dtype: str, device: torch.device) -> Iterator[Op]:
    maker = _Maker(config, views * window, DTYPES[dtype], device)
    tokens, width, side, hidden = maker.tokens, maker.width, maker.side, maker.hidden
    products, heads = 2.0 * tokens * width * hidden, width // side
    shorter, longer = min(side, hidden), max(side, hidden)
    iteration = 3.0 * heads * (4 * shorter**2 * longer + 2 * shorter**3)
    moved = 3.0 * heads * side * hidden * (4 + maker.dtype.itemsize + 4)
    memory, matrices = f"{tokens} x {width}, {hidden} hidden", f"3 x {side} x {hidden}"
    for name, size, inputs, work, tolerance in (
        ("memory gradients", memory, maker.written, 6 * products, 2e-2),
        ("memory query", memory, maker.read, 3 * products, 2e-2),
        ("Newton-Schulz", matrices, maker.steps, config.backbone.memory.newton_schulz_steps * iteration, 0.1),
    ):
        ways = variants(OPS[name], maker.dtype, device, config.compiled)
        yield Op(name, size, dtype, inputs, ways, work, tolerance=tolerance, backward=True)
    ways = variants(OPS["memory commit"], maker.dtype, device, config.compiled)
    yield Op("memory commit", matrices, dtype, maker.committed, ways, moved, "GB/s", tolerance=1e-5)
    attention = WindowAttention(width, config.backbone.attention_head_dim)
    feed_forward = FeedForward(width, config.backbone.feed_forward_multiple)
    for name, module, scores in (("window attention", attention, 4.0 * window * width), ("MLP", feed_forward, 0.0)):
        weights = sum(weight.numel() for weight in module.parameters() if weight.ndim == 2)
        inputs = functools.partial(maker.of_module, module, views, window)
        ways, work = (
            variants(Named(_calling(module)), maker.dtype, device, config.compiled),
            tokens * (2.0 * weights + scores),
        )
        yield Op(name, f"{views} x {window} x {width}", dtype, inputs, ways, work, tolerance=2e-2, backward=True)


@dataclasses.dataclass(frozen=True)
class _Maker:
    """Makes the tensors of each operation, the same on every machine of a kind."""

    config: SpeedConfig
    tokens: int
    dtype: torch.dtype
    device: torch.device

    @property
    def width(self) -> int:
        return self.config.backbone.width

    @property
    def side(self) -> int:
        return self.config.backbone.memory.head_dim

    @property
    def hidden(self) -> int:
        return self.config.backbone.memory.multiple * self.side

    def normal(self, *shape: int, seed: int = 0, deviation: float = 1.0) -> Tensor:
        """Return noise in fp32 that `dtype` can hold, so that it is the same in every dtype."""
        generator = torch.Generator(self.device).manual_seed(seed)
        noise = deviation * torch.randn(shape, generator=generator, device=self.device)
        return noise.to(self.dtype).float()

    def weights(self) -> Tensors:
        """Return gate, up and down in fp32, as a memory starts."""
        heads, side, hidden = self.width // self.side, self.side, self.hidden
        into, out = (1, heads, side, hidden), (1, heads, hidden, side)
        gate, up = (self.normal(*into, seed=seed, deviation=(2 / side) ** 0.5) for seed in (1, 2))
        return gate, up, self.normal(*out, seed=3, deviation=(2 / hidden) ** 0.5)

    def said(self, seed: int) -> Tensor:
        """Return rows of unit length."""
        rows = self.normal(1, self.width // self.side, self.tokens, self.side, seed=seed)
        return (rows / rows.norm(dim=-1, keepdim=True)).to(self.dtype)

    def written(self) -> Tensors:
        """Return keys, values, inner learning rates and the memory."""
        rates = (0.01 * self.normal(1, self.width // self.side, self.tokens, 1, seed=seed).exp() for seed in (6, 7, 8))
        values = self.normal(1, self.width // self.side, self.tokens, self.side, seed=5).to(self.dtype)
        return self.said(4), values, *(rate.to(self.dtype).float() for rate in rates), *self.weights()

    def read(self) -> Tensors:
        """Return queries and the memory."""
        return self.said(9), *self.weights()

    def steps(self) -> Tensors:
        """Return three matrices of one shape."""
        return (self.normal(3, 1, self.width // self.side, self.side, self.hidden, seed=10).to(self.dtype),)

    def committed(self) -> Tensors:
        """Return the memory and a step for each of its matrices."""
        return *self.weights(), *(0.1 * weight.to(self.dtype) for weight in self.weights())

    def of_module(self, module: nn.Module, views: int, window: int) -> Tensors:
        """Return tokens and the parameters of a module, in the order of `parameters`."""
        shapes = [parameter.shape for parameter in module.parameters()]
        made = [
            self.normal(*shape, seed=20 + index, deviation=shape[-1] ** -0.5)
            if len(shape) == 2
            else torch.ones(shape, device=self.device)
            for index, shape in enumerate(shapes)
        ]
        return self.normal(views, window, self.width, seed=19).to(self.dtype), *made


def _calling(module: nn.Module) -> Function:
    names = [name for name, _ in module.named_parameters()]
    return lambda x, *parameters: (functional_call(module, dict(zip(names, parameters, strict=True)), (x,)),)
