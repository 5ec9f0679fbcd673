"""One block: window attention, memory, MLP, each behind a layer norm and added to the residual stream."""

from contextlib import AbstractContextManager
from typing import Any, Protocol, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lrm_ttt.kernels.attention.choice import prefer_attention
from lrm_ttt.kernels.fast_weight.weights import FastWeights
from lrm_ttt.layers.attention import KeyValues, SoftmaxMemory, WindowAttention
from lrm_ttt.layers.config import MemoryConfig
from lrm_ttt.layers.fast_weight import FastWeightMemory
from lrm_ttt.layers.feed_forward import FeedForward
from lrm_ttt.layers.norms import LayerNorm
from lrm_ttt.parallel.view_group import ViewGroup

# What one block remembers of a scene.
Memory: TypeAlias = FastWeights | KeyValues


class MemoryMixer(Protocol):
    """The face that both mixers have; each understands the memory and the tokens that it makes itself.

    `group` are the ranks that write one memory together.
    """

    group: ViewGroup

    def start(self, batch_size: int) -> Memory:
        """Return the memory before any view."""

    def tokens(self, x: Float[Tensor, "b n d"]) -> Any:
        """Project normalised tokens to what they write and what they read with."""

    def update(self, memory: Any, tokens: Any, newton_schulz_dtype: torch.dtype | None) -> Memory:
        """Write one chunk of tokens."""

    def query(self, memory: Any, tokens: Any) -> Float[Tensor, "b n d"]:
        """Read with every token."""


class Block(nn.Module):
    """x = x + f(norm(x)) for f in (window attention, memory, MLP).

    The residual stream keeps its dtype; the work is done in `dtype`. The passes are put together from the pieces
    `enter`, `say`, the memory's own, and `leave`, whose shapes differ only in the number of tokens.
    """

    def __init__(
        self, width: int, attention_head_dim: int, memory: MemoryConfig | None, feed_forward_multiple: int
    ) -> None:
        super().__init__()
        self.attention_norm = LayerNorm(width)
        self.attention = WindowAttention(width, attention_head_dim)
        self.memory_norm = LayerNorm(width)
        # Without a configuration of fast weights the memory is softmax attention.
        self.memory: MemoryMixer = (
            SoftmaxMemory(width, attention_head_dim) if memory is None else FastWeightMemory(width, memory)
        )
        self.feed_forward_norm = LayerNorm(width)
        self.feed_forward = FeedForward(width, feed_forward_multiple)

    def preference(self, x: Float[Tensor, "b n d"], window: int, dtype: torch.dtype) -> AbstractContextManager[None]:
        """Return the context to `enter` in: windows attend by the kernel that was measured to be the fastest.

        It is no part of what is compiled, and as part of the passes it holds for recomputed ones too.
        """
        batch, num_tokens, width = x.shape
        head_dim = self.attention.head_dim
        shape = batch * (num_tokens // window), width // head_dim, window, head_dim
        return prefer_attention(shape, dtype, x.device, torch.is_grad_enabled())

    def enter(self, x: Float[Tensor, "b n d"], window: int, dtype: torch.dtype) -> tuple[Float[Tensor, "b n d"], Any]:
        """Mix the tokens of each window of `window` consecutive tokens, and say what they tell the memory."""
        batch, num_tokens, width = x.shape
        normed = self.attention_norm(x, dtype).reshape(batch * (num_tokens // window), window, width)
        x = x + self.attention(normed).reshape(batch, num_tokens, width)
        return x, self.say(x, dtype)

    def say(self, x: Float[Tensor, "b n d"], dtype: torch.dtype) -> Any:
        """Return what tokens that have attended tell the memory."""
        return self.memory.tokens(self.memory_norm(x, dtype))

    def leave(
        self, x: Float[Tensor, "b n d"], tokens: Any, memory: Memory, dtype: torch.dtype
    ) -> Float[Tensor, "b n d"]:
        """Let tokens that have attended read the memory, and apply the MLP to each."""
        x = x + self.memory.query(memory, tokens)
        return x + self.feed_forward(self.feed_forward_norm(x, dtype))

    def forward(
        self,
        x: Float[Tensor, "b n d"],
        memory: Memory,
        window: int,
        chunks: tuple[int, ...] | None,
        causal: bool,
        newton_schulz_dtype: torch.dtype | None,
        dtype: torch.dtype,
    ) -> tuple[Float[Tensor, "b n d"], Memory]:
        """Run input tokens: they attend in windows, write the memory and read it.

        They write in chunks of so many (None: all at once); each reads at once (`causal`) or all at the end.
        """
        with self.preference(x, window, dtype):
            x, tokens = self.enter(x, window, dtype)
        if chunks is None:
            memory = self.memory.update(memory, tokens, newton_schulz_dtype)
            return self.leave(x, tokens, memory, dtype), memory
        left, start = [], 0
        for size in chunks:
            part = tokens.slice(start, start + size)
            memory = self.memory.update(memory, part, newton_schulz_dtype)
            if causal:
                left.append(self.leave(x[:, start : start + size], part, memory, dtype))
            start += size
        return torch.cat(left, 1) if causal else self.leave(x, tokens, memory, dtype), memory

    def query(
        self, x: Float[Tensor, "b n d"], memory: Memory, window: int, dtype: torch.dtype
    ) -> Float[Tensor, "b n d"]:
        """Run query tokens: they attend in windows and read the memory, and leave no trace."""
        with self.preference(x, window, dtype):
            x, tokens = self.enter(x, window, dtype)
        return self.leave(x, tokens, memory, dtype)
