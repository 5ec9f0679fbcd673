"""Softmax attention: among the tokens of one window, and as a memory that keeps every token (GS-LRM)."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from lrm_ttt.layers.norms import Linear, RMSNorm
from lrm_ttt.parallel.collectives import gather, sizes_over
from lrm_ttt.parallel.view_group import ALONE, ViewGroup


class Heads(NamedTuple):
    """Queries, keys and values of tokens, head by head; queries and keys are normalised."""

    q: Float[Tensor, "b heads n c"]
    k: Float[Tensor, "b heads n c"]
    v: Float[Tensor, "b heads n c"]

    def slice(self, start: int, stop: int) -> "Heads":
        """Return the tokens from `start` to `stop`."""
        return Heads(*(part[..., start:stop, :] for part in self))


class Attention(nn.Module):
    """What both kinds share: projections, RMSNorm on queries and keys per head, no bias (LaCT)."""

    def __init__(self, width: int, head_dim: int) -> None:
        super().__init__()
        assert width % head_dim == 0
        self.head_dim = head_dim
        self.qkv = Linear(width, 3 * width, bias=False)
        self.query_norm = RMSNorm(head_dim)
        self.key_norm = RMSNorm(head_dim)
        self.out = Linear(width, width, bias=False)

    def tokens(self, x: Float[Tensor, "b n d"]) -> Heads:
        """Project tokens to queries, keys and values."""
        batch, num_tokens, width = x.shape
        split = self.qkv(x).reshape(batch, num_tokens, 3, width // self.head_dim, self.head_dim)
        q, k, v = split.permute(2, 0, 3, 1, 4).unbind(0)
        return Heads(self.query_norm(q), self.key_norm(k), v)

    def attend(
        self, q: Float[Tensor, "b heads n c"], k: Float[Tensor, "b heads m c"], v: Float[Tensor, "b heads m c"]
    ) -> Float[Tensor, "b n d"]:
        """Let `n` queries attend to `m` tokens, and project back to the width of the block."""
        return self.out(scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(-2))


class WindowAttention(Attention):
    """Multi-head attention inside each window."""

    def forward(self, x: Float[Tensor, "windows n d"]) -> Float[Tensor, "windows n d"]:
        """Attend among the `n` tokens of each window."""
        return self.attend(*self.tokens(x))


class KeyValues(NamedTuple):
    """Keys and values of every token that was written: a memory that grows with the number of views."""

    keys: Float[Tensor, "b heads n c"]
    values: Float[Tensor, "b heads n c"]


class SoftmaxMemory(Attention):
    """The memory mixer of GS-LRM (arXiv 2404.19702): all written tokens are kept, and readers attend to all of them.

    It has the face of `FastWeightMemory`, so that everything else of a model is shared. Reading costs 4 n m d FLOP for
    `n` readers and `m` written tokens, which is quadratic in the number of views. What one rank of `group` writes, all
    keep.
    """

    def __init__(self, width: int, head_dim: int) -> None:
        super().__init__(width, head_dim)
        self.group: ViewGroup = ALONE

    def start(self, batch_size: int) -> KeyValues:
        """Return the memory that holds nothing."""
        empty = self.out.weight.new_zeros(batch_size, self.out.in_features // self.head_dim, 0, self.head_dim)
        return KeyValues(empty, empty)

    def update(self, memory: KeyValues, tokens: Heads, newton_schulz_dtype: torch.dtype | None) -> KeyValues:
        """Append a chunk of tokens; nothing is orthogonalised, and the dtype for that is not used."""
        del newton_schulz_dtype
        return self.append(memory, KeyValues(tokens.k, tokens.v))

    def append(self, memory: KeyValues, written: KeyValues) -> KeyValues:
        """Add the keys and values of a whole chunk, of which every rank of the group has its own tokens."""
        if self.group.is_shared:
            sizes = sizes_over(self.group, written.keys.shape[-2], written.keys.device)
            written = KeyValues(*(gather(self.group, part, sizes, -2) for part in written))
        if not memory.keys.shape[-2]:
            return written
        return KeyValues(torch.cat([memory.keys, written.keys], -2), torch.cat([memory.values, written.values], -2))

    def query(self, memory: KeyValues, tokens: Heads) -> Float[Tensor, "b n d"]:
        """Read with every token."""
        return self.attend(tokens.q, memory.keys.to(tokens.q.dtype), memory.values.to(tokens.q.dtype))
