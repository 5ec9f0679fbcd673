"""Queries, keys and values of the memory by the book (MODEL.md, Block): pure, out of place, float64-capable."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import silu

# Beside the norm that queries and keys are divided by.
NORM_EPSILON = 1e-5


class QueryKeyValue(NamedTuple):
    """Of each token and head; queries and keys have norm one."""

    q: Float[Tensor, "b heads n c"]
    k: Float[Tensor, "b heads n c"]
    v: Float[Tensor, "b heads n c"]


def qkv_silu_reference(projected: Float[Tensor, "b n w"], num_heads: int) -> QueryKeyValue:
    """Split a projection, laid out (qkv, head, channel), after silu; give queries and keys norm one, taken in fp32."""
    batch, num_tokens, width = projected.shape
    # Not -1, which nothing says of no tokens.
    split = projected.reshape(batch, num_tokens, 3, num_heads, width // (3 * num_heads))
    # Each by itself: what comes out then lies together, which products want.
    q, k, v = (silu(part) for part in split.permute(2, 0, 3, 1, 4).unbind(0))
    return QueryKeyValue(_unit(q), _unit(k), v)


def _unit(x: Float[Tensor, "*b c"]) -> Float[Tensor, "*b c"]:
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    return (wide / (wide.square().sum(-1, keepdim=True).sqrt() + NORM_EPSILON)).to(x.dtype)
