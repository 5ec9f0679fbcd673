"""The operations of a model at the size of a configuration: what is limited by products, and what by memory."""

import dataclasses
import functools
from collections.abc import Iterator

import torch
from torch import nn
from torch.func import functional_call

from lrm_ttt.eval.speed.ceilings import DTYPES
from lrm_ttt.eval.speed.config import SpeedConfig
from lrm_ttt.eval.speed.op import Function, Op, Tensors
from lrm_ttt.eval.speed.op_tensors import Maker
from lrm_ttt.eval.speed.variants import Named, backend_of, feed_by_the_book, named_ops, preferring, variants
from lrm_ttt.kernels.fast_weight import cpu
from lrm_ttt.layers.attention import WindowAttention
from lrm_ttt.layers.feed_forward import FeedForward

# Checks in float64 take no more tokens than this.
MOST_CHECKED = 16_384
# Relative L2 against float64, of products and of Newton-Schulz, which amplifies what is rounded. Measured in bf16, with
# the backward pass: 6e-3 and 2e-2.
TOLERANCES = {"bf16": (1e-2, 5e-2), "fp16": (2e-3, 5e-3), "fp32": (1e-5, 1e-4)}
# The backward pass of a product is two of its size, that of attention five where the forward pass is two.
WITH_BACKWARD, ATTENTION_WITH_BACKWARD = 3.0, 3.5


def block_ops(config: SpeedConfig, dtype: str, device: torch.device) -> Iterator[Op]:
    """Yield the operations, each with one that is small enough to be checked; all but the commit backward too."""
    window, views = config.window(config.memory_case.image_size), config.memory_case.num_views
    fewer = max(1, min(views, MOST_CHECKED // window))
    whole, small = (_all(config, count, window, dtype, device) for count in (views, fewer))
    for op, checked in zip(whole, small, strict=True):
        yield dataclasses.replace(op, checked=checked)
        if op.backward_work:
            yield dataclasses.replace(op.with_backward(), checked=checked.with_backward())


def _all(config: SpeedConfig, views: int, window: int, dtype: str, device: torch.device) -> Iterator[Op]:
    maker = Maker(config, views * window, DTYPES[dtype], device)
    yield from _memory(maker, dtype)
    yield from _layers(maker, views, window, dtype)
    yield from _pointwise(maker, views, dtype)


def _memory(maker: Maker, dtype: str) -> Iterator[Op]:
    """Yield what writes the memory and what reads it."""
    tokens, width, side, hidden = maker.tokens, maker.width, maker.side, maker.hidden
    products, heads, num_steps = (
        2.0 * tokens * width * hidden,
        width // side,
        maker.config.backbone.memory.newton_schulz_steps,
    )
    shorter, longer = min(side, hidden), max(side, hidden)
    iterations = 3.0 * heads * (4 * shorter**2 * longer + 2 * shorter**3) * num_steps
    products_within, steps_within = TOLERANCES[dtype]
    size = f"{tokens} x {width}, {hidden} hidden"
    for name, sizes, inputs, work, tolerance in (
        ("memory gradients", size, maker.written, 6 * products, products_within),
        ("memory query", size, maker.read, 3 * products, products_within),
        ("Newton-Schulz", f"3 x {side} x {hidden}", maker.steps, iterations, steps_within),
    ):
        ways = _ways(named_ops(heads, backend_of(maker.device))[name], maker)
        yield Op(name, sizes, dtype, inputs, ways, work, tolerance=tolerance, backward_work=(WITH_BACKWARD - 1) * work)


def _layers(maker: Maker, views: int, window: int, dtype: str) -> Iterator[Op]:
    """Yield window attention and the MLP."""
    width, backbone = maker.width, maker.config.backbone
    attention = WindowAttention(width, backbone.attention_head_dim)
    feed_forward = FeedForward(width, backbone.feed_forward_multiple)
    heads = (views, width // backbone.attention_head_dim, window, backbone.attention_head_dim)
    attend, feed = _calling(attention), _calling(feed_forward)
    scores = 4.0 * maker.tokens * window * width
    native = feed if cpu.AVAILABLE and maker.device.type == "cpu" else None
    for name, module, named, extra in (
        ("window attention", attention, Named(attend, preferring(attend, heads, maker.device)), scores),
        ("MLP", feed_forward, Named(feed_by_the_book, native, native=("forward",)), 0.0),
    ):
        products = 2.0 * maker.tokens * sum(weight.numel() for weight in module.parameters() if weight.ndim == 2)
        backward = (WITH_BACKWARD - 1) * products + (ATTENTION_WITH_BACKWARD - 1) * extra
        inputs, size = functools.partial(maker.of_module, module, views, window), f"{views} x {window} x {width}"
        work = products + extra
        yield Op(
            name, size, dtype, inputs, _ways(named, maker), work, tolerance=TOLERANCES[dtype][0], backward_work=backward
        )


def _pointwise(maker: Maker, views: int, dtype: str) -> Iterator[Op]:
    """Yield what does little with each number, and is limited by how fast memory is."""
    narrow, wide, heads = maker.dtype.itemsize, 4, maker.width // maker.side
    weights, said = 3 * heads * maker.side * maker.hidden, 3 * maker.tokens * maker.width
    gaussians = functools.partial(maker.raw, views)
    # A Gaussian has 14 raw channels, 14 numbers and a ray.
    for name, size, inputs, moved, backward, num_leaves in (
        ("memory commit", f"{weights} weights", maker.committed, weights * (2 * wide + narrow), 0, None),
        ("memory projections", f"{said} numbers", maker.projected, said * 2 * narrow, said * 3 * narrow, None),
        (
            "Gaussian finish",
            f"{maker.pixels} Gaussians",
            gaussians,
            maker.pixels * (14 * narrow + 17 * wide),
            maker.pixels * (28 * narrow + 17 * wide),
            1,
        ),
    ):
        yield Op(
            name,
            size,
            dtype,
            inputs,
            _ways(named_ops(heads, backend_of(maker.device))[name], maker),
            float(moved),
            "GB/s",
            # The commit is done in fp32 throughout.
            tolerance=TOLERANCES["fp32" if name == "memory commit" else dtype][0],
            backward_work=float(backward),
            num_leaves=num_leaves,
        )


def _ways(named: Named, maker: Maker) -> tuple:
    return variants(named, maker.dtype, maker.device, maker.config.compiled)


def _calling(module: nn.Module) -> Function:
    names = [name for name, _ in module.named_parameters()]

    def call(x: torch.Tensor, *parameters: torch.Tensor) -> Tensors:
        return (functional_call(module, dict(zip(names, parameters, strict=True)), (x,)),)

    return call
