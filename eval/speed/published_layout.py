"""The model as it is published: every view twice in one sequence, plainly and without compilation, to compare with.

The inputs and their virtual copies all attend, say queries, keys and values, read, and pass the MLP; the memory is
written from the inputs. tttLRM (arXiv 2602.20160) over LaCT (arXiv 2505.23884), by MODEL.md; weights are ours.
"""

import math
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import gelu, layer_norm, linear, scaled_dot_product_attention, silu, softplus
from torch.utils.checkpoint import checkpoint

from lrm_ttt.layers.attention import WindowAttention
from lrm_ttt.layers.block import Block
from lrm_ttt.layers.fast_weight import FastWeightMemory
from lrm_ttt.layers.norms import LayerNorm, RMSNorm
from lrm_ttt.model.backbone import Backbone

A, B, C = 3.4445, -4.7750, 2.0315


def published_features(
    backbone: Backbone, tokens: Float[Tensor, "b v n d"], dtype: torch.dtype
) -> Float[Tensor, "b v n d"]:
    """Return what the virtual copies of the views become: the features of `Backbone.update` with the schedule `single`.

    Products and Newton-Schulz are done in `dtype`; the residual stream keeps its own, and fast weights the parameters'.
    Follows `backbone.checkpointing`.
    """
    config = backbone.config
    assert config.schedule == "single" and config.mixer == "fast_weight" and not config.memory.elastic
    x = torch.cat([tokens, tokens], 1)
    for module in backbone.blocks:
        block = cast(Block, module)
        if backbone.checkpointing and torch.is_grad_enabled():
            x = checkpoint(_block, block, x, dtype, use_reentrant=False)
        else:
            x = _block(block, x, dtype)
    return x[:, tokens.shape[1] :]


def _block(block: Block, x: Tensor, dtype: torch.dtype) -> Tensor:
    """Run one block over inputs and copies `[b 2v n d]`."""
    assert isinstance(block.memory, FastWeightMemory)
    x = x + _attention(block.attention, _normed(block.attention_norm, x, dtype))
    x = x + _memory(block.memory, _normed(block.memory_norm, x, dtype))
    hidden = gelu(_project(_normed(block.feed_forward_norm, x, dtype), block.feed_forward.expand.weight))
    return x + _project(hidden, block.feed_forward.contract.weight)


def _attention(attention: WindowAttention, x: Tensor) -> Tensor:
    """Attend among the tokens of each view."""
    batch, views, window, width = x.shape
    heads = width // attention.head_dim
    qkv = _project(x, attention.qkv.weight).reshape(batch * views, window, 3, heads, attention.head_dim)
    q, k, v = qkv.transpose(1, 3).unbind(2)
    q, k = _rms(attention.query_norm, q), _rms(attention.key_norm, k)
    mixed = scaled_dot_product_attention(q, k, v).transpose(1, 2)
    return _project(mixed.reshape(batch, views, window, width), attention.out.weight)


def _memory(memory: FastWeightMemory, x: Tensor) -> Tensor:
    """Write the first half of the views, and let all of them read."""
    batch, views, window, width = x.shape
    heads, dtype = memory.num_heads, x.dtype
    x = x.reshape(batch, views * window, width)
    written = views * window // 2
    qkv = silu(_project(x, memory.qkv.weight)).reshape(batch, views * window, 3, heads, width // heads)
    q, k, v = qkv.permute(2, 0, 3, 1, 4)
    q, k = (part / (part.norm(dim=-1, keepdim=True) + 1e-5) for part in (q, k))
    wide = memory.inner_lr.weight.dtype
    offset = math.log(math.expm1(memory.config.inner_lr))
    rates = softplus(linear(x.to(wide), memory.inner_lr.weight, memory.inner_lr.bias) + offset)
    rates = rates.reshape(batch, -1, 3, heads, 1).permute(2, 0, 3, 1, 4).to(dtype)
    start = (memory.gate, memory.up, memory.down)
    gate, up, down = _written(start, k[:, :, :written], v[:, :, :written], rates[:, :, :, :written], memory)
    read = ((silu(q @ gate.to(dtype)) * (q @ up.to(dtype))) @ down.to(dtype)).transpose(1, 2)
    merged = memory.config.output_norm == "merged"
    read = _rms(memory.out_norm, read.flatten(-2)) if merged else _rms(memory.out_norm, read).flatten(-2)
    return _project(read, memory.out.weight).reshape(batch, views, window, width)


def _written(
    start: tuple[Tensor, Tensor, Tensor], k: Tensor, v: Tensor, rates: Tensor, memory: FastWeightMemory
) -> list[Tensor]:
    """Return gate, up and down after one step from the keys and values."""
    gate, up, down = (weight.to(k.dtype) for weight in start)
    rate_gate, rate_down, rate_up = rates
    before, values = k @ gate, k @ up
    activated, slope = silu(before), torch.sigmoid(before) * (1 + before * (1 - torch.sigmoid(before)))
    to_hidden = v @ down.transpose(-1, -2)
    steps = (
        (k * rate_gate).transpose(-1, -2) @ (to_hidden * values * slope),
        (k * rate_up).transpose(-1, -2) @ (to_hidden * activated),
        (activated * values * rate_down).transpose(-1, -2) @ v,
    )
    updated = []
    for weight, step in zip(start, steps, strict=True):
        moved = weight + _orthogonal(step, memory.config.newton_schulz_steps).to(weight.dtype)
        norm = weight.detach().norm(dim=-2, keepdim=True)
        updated.append(moved * (norm / (moved.norm(dim=-2, keepdim=True) + 1e-5)))
    return updated


def _orthogonal(step: Tensor, num_steps: int) -> Tensor:
    if not num_steps:
        return step
    tall = step.shape[-2] > step.shape[-1]
    x = step.transpose(-1, -2) if tall else step
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(num_steps):
        gram = x @ x.transpose(-1, -2)
        x = A * x + (B * gram + C * gram @ gram) @ x
    return x.transpose(-1, -2) if tall else x


def _project(x: Tensor, weight: Tensor) -> Tensor:
    return linear(x, weight.to(x.dtype))


def _normed(norm: LayerNorm, x: Tensor, dtype: torch.dtype) -> Tensor:
    return layer_norm(x, x.shape[-1:], norm.weight, eps=norm.eps).to(dtype)


def _rms(norm: RMSNorm, x: Tensor) -> Tensor:
    wide = x.to(norm.weight.dtype)
    return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + norm.eps) * norm.weight).to(x.dtype)
