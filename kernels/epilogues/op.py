"""The public function, and how it runs."""

from jaxtyping import Float
from torch import Tensor

from lrm_ttt.kernels.backend import choose
from lrm_ttt.kernels.epilogues.reference import QueryKeyValue, qkv_silu_reference

__all__ = ["QueryKeyValue", "qkv_silu"]


def qkv_silu(projected: Float[Tensor, "b n w"], num_heads: int, backend: str | None = None) -> QueryKeyValue:
    """Make queries, keys and values of a projection `[b n 3 * heads * c]`, each `[b heads n c]` in the same dtype.

    Silu is applied to all; queries and keys then have norm one in each head.
    """
    if choose("qkv_silu", projected.device, projected.dtype, backend=backend).backend == "triton":
        from lrm_ttt.kernels.epilogues.triton_qkv_silu import qkv_silu_triton

        return qkv_silu_triton(projected, num_heads)
    return qkv_silu_reference(projected, num_heads)
