"""The fast-weight memory as a layer: projections, inner learning rates, update, query."""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import linear, softplus

from lrm_ttt.kernels.epilogues.op import qkv_silu
from lrm_ttt.kernels.fast_weight.elastic import ElasticRates
from lrm_ttt.kernels.fast_weight.op import commit_fast_weights, fast_weight_gradients, query_fast_weights
from lrm_ttt.kernels.fast_weight.reference import Gradients, InnerRates
from lrm_ttt.kernels.fast_weight.weights import FastWeights
from lrm_ttt.layers.config import MemoryConfig
from lrm_ttt.layers.norms import Linear, RMSNorm
from lrm_ttt.parallel.collectives import sum_over
from lrm_ttt.parallel.view_group import ALONE, ViewGroup


class MemoryTokens(NamedTuple):
    """What tokens say to a memory: keys and values to write, queries to read with, and how fast to learn."""

    q: Float[Tensor, "b heads n c"]
    k: Float[Tensor, "b heads n c"]
    v: Float[Tensor, "b heads n c"]
    rates: InnerRates

    def slice(self, start: int, stop: int) -> "MemoryTokens":
        """Return the tokens from `start` to `stop`."""
        q, k, v = (part[..., start:stop, :] for part in (self.q, self.k, self.v))
        return MemoryTokens(q, k, v, InnerRates(*(rate[..., start:stop, :] for rate in self.rates)))


class FastWeightMemory(nn.Module):
    """The memory mixer of tttLRM and LaCT (MODEL.md, Block). It knows tokens, not views or cameras.

    The ranks of `group` write one memory: each has some of the tokens, and all have the same fast weights.
    """

    def __init__(self, width: int, config: MemoryConfig) -> None:
        super().__init__()
        assert width % config.head_dim == 0
        self.config = config
        self.group: ViewGroup = ALONE
        self.num_heads = width // config.head_dim
        hidden = config.multiple * config.head_dim
        self.qkv = Linear(width, 3 * width, bias=False)
        self.inner_lr = nn.Linear(width, 3 * self.num_heads)
        self.gate = nn.Parameter(torch.empty(self.num_heads, config.head_dim, hidden))
        self.up = nn.Parameter(torch.empty(self.num_heads, config.head_dim, hidden))
        self.down = nn.Parameter(torch.empty(self.num_heads, hidden, config.head_dim))
        self.out_norm = RMSNorm(width if config.output_norm == "merged" else config.head_dim)
        self.out = Linear(width, width, bias=False)
        # softplus of this offset is the configured rate.
        self.rate_offset = math.log(math.expm1(config.inner_lr))

    def start(self, batch_size: int) -> FastWeights:
        """Return the learned initial memory for `batch_size` scenes, `[b heads ...]`."""
        gate, up, down = (weight.expand(batch_size, *weight.shape) for weight in (self.gate, self.up, self.down))
        return FastWeights.start(gate, up, down)

    def tokens(self, x: Float[Tensor, "b n d"]) -> MemoryTokens:
        """Project normalised tokens to queries, keys, values and inner learning rates (the latter in fp32)."""
        batch, num_tokens, _ = x.shape
        q, k, v = qkv_silu(self.qkv(x), self.num_heads)
        raw = linear(x.to(self.inner_lr.weight.dtype), self.inner_lr.weight, self.inner_lr.bias)
        rates = softplus(raw + self.rate_offset).reshape(batch, num_tokens, 3, self.num_heads)
        return MemoryTokens(q, k, v, InnerRates(*rates.permute(2, 0, 3, 1)[..., None].unbind(0)))

    def update(self, memory: FastWeights, tokens: MemoryTokens, newton_schulz_dtype: torch.dtype | None) -> FastWeights:
        """Write one chunk of tokens."""
        return self.commit(memory, self.gradients(memory, tokens), newton_schulz_dtype)

    def gradients(self, weights: FastWeights, tokens: MemoryTokens) -> Gradients:
        """Return what tokens add to the step of their chunk; the sum over slices of a chunk is that of the chunk."""
        return fast_weight_gradients(weights, tokens.k, tokens.v, tokens.rates)

    def commit(
        self, weights: FastWeights, gradients: Gradients, newton_schulz_dtype: torch.dtype | None
    ) -> FastWeights:
        """Take the step of a whole chunk, of which every rank of the group has summed up its own tokens."""
        config = self.config
        if self.group.is_shared:
            # In the dtype of the fast weights: the ranks' rounding must not add up.
            wide = [one.to(torch.promote_types(one.dtype, torch.float32)) for one in gradients]
            gradients = Gradients(*sum_over(self.group, wide))
        elastic = ElasticRates(config.elastic_alpha, config.elastic_beta, config.elastic) if config.elastic else None
        return commit_fast_weights(weights, gradients, config.newton_schulz_steps, newton_schulz_dtype, elastic)

    def query(self, memory: FastWeights, tokens: MemoryTokens) -> Float[Tensor, "b n d"]:
        """Read with every token and project back to the width of the block."""
        read = query_fast_weights(memory, tokens.q).transpose(1, 2)
        per_head = self.config.output_norm == "per_head"
        normed = self.out_norm(read).flatten(-2) if per_head else self.out_norm(read.flatten(-2))
        return self.out(normed)
