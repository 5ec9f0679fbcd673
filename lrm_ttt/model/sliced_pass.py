"""The pass of tokens through the blocks in slices of views: equal to `Block.forward` and `Block.query` in turn.

Keys, values and hidden activations exist for one slice at a time; the residual stream alone is held for all views. For
inference: nothing here is differentiable.
"""

from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from lrm_ttt.kernels.fast_weight.reference import Gradients
from lrm_ttt.kernels.fast_weight.weights import FastWeights
from lrm_ttt.layers.attention import KeyValues, SoftmaxMemory
from lrm_ttt.layers.block import Block, Memory
from lrm_ttt.layers.fast_weight import FastWeightMemory
from lrm_ttt.model.slices import Slices


def update_in_slices(
    blocks: Iterable[Block],
    tokens: Float[Tensor, "b v n d"],
    memories: Sequence[Memory],
    slices: Slices,
    chunks: Sequence[int] | None,
    causal: bool,
    newton_schulz_dtype: torch.dtype | None,
    dtype: torch.dtype,
) -> tuple[tuple[Memory, ...], Float[Tensor, "b v n d"]]:
    """Let the tokens of input views write the memories and read them; return the memories and what was read.

    `chunks` are the views of each update (None: all at once); `causal` reads after each, otherwise all read at the end.
    """
    assert not torch.is_grad_enabled(), "slices are for inference"
    x, num_views = tokens.clone(), tokens.shape[1]
    updated = []
    for block, memory in zip(blocks, memories, strict=True):
        start = 0
        for size in chunks or (num_views,):
            # A rank of a view group that has nothing of a chunk takes part in its sum all the same.
            written = slices.of(start + size, start) or [slice(start, start)]
            start += size
            memory = _write(block, x, memory, written, newton_schulz_dtype, dtype)
            for part in written if causal else ():
                x[:, part] = _rows(_read(block, _tokens(x[:, part]), memory, dtype), x)
        for part in () if causal else slices.of(num_views):
            x[:, part] = _rows(_read(block, _tokens(x[:, part]), memory, dtype), x)
        updated.append(memory)
    return tuple(updated), x


def query_in_slices(
    blocks: Iterable[Block],
    tokens: Float[Tensor, "b v n d"],
    memories: Sequence[Memory],
    slices: Slices,
    dtype: torch.dtype,
) -> Float[Tensor, "b v n d"]:
    """Let the tokens of query views read the memories, and return what they read."""
    assert not torch.is_grad_enabled(), "slices are for inference"
    x = tokens.clone()
    for block, memory in zip(blocks, memories, strict=True):
        for part in slices.of(x.shape[1]):
            x[:, part] = _rows(block.query(_tokens(x[:, part]), memory, x.shape[2], dtype), x)
    return x


def _write(
    block: Block,
    x: Float[Tensor, "b v n d"],
    memory: Memory,
    parts: Sequence[slice],
    newton_schulz_dtype: torch.dtype | None,
    dtype: torch.dtype,
) -> Memory:
    """Let the tokens of one chunk, given in slices, attend and write; `x` then holds what has attended."""
    mixer, kept, total = block.memory, [], None
    for part in parts:
        rows = _tokens(x[:, part])
        with block.preference(rows, x.shape[2], dtype):
            attended, tokens = block.enter(rows, x.shape[2], dtype)
        x[:, part] = _rows(attended, x)
        if isinstance(mixer, SoftmaxMemory):
            # Copies, so that the queries that they lie among need not be kept.
            kept.append(KeyValues(tokens.k.clone(), tokens.v.clone()))
            continue
        assert isinstance(mixer, FastWeightMemory) and isinstance(memory, FastWeights)
        gradients = mixer.gradients(memory, tokens)
        wide = Gradients(*(one.to(torch.promote_types(one.dtype, torch.float32)) for one in gradients))
        total = wide if total is None else Gradients(*(one + more for one, more in zip(total, wide, strict=True)))
    if isinstance(mixer, SoftmaxMemory):
        assert isinstance(memory, KeyValues)
        keys, values = zip(*kept, strict=True)
        return mixer.append(memory, KeyValues(torch.cat(keys, -2), torch.cat(values, -2)))
    assert isinstance(mixer, FastWeightMemory) and isinstance(memory, FastWeights) and total is not None
    return mixer.commit(memory, total, newton_schulz_dtype or dtype)


def _read(block: Block, x: Float[Tensor, "b m d"], memory: Memory, dtype: torch.dtype) -> Float[Tensor, "b m d"]:
    return block.leave(x, block.say(x, dtype), memory, dtype)


def _tokens(x: Float[Tensor, "b s n d"]) -> Float[Tensor, "b m d"]:
    return x.flatten(1, 2)


def _rows(tokens: Float[Tensor, "b m d"], x: Float[Tensor, "b v n d"]) -> Float[Tensor, "b s n d"]:
    return tokens.unflatten(1, (-1, x.shape[2]))
