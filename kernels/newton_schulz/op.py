"""The public function: which dtype it runs in is an argument, never ambient."""

import torch
from jaxtyping import Float
from torch import Tensor

from lrm_ttt.kernels.backend import choose
from lrm_ttt.kernels.newton_schulz.coefficients import NUM_STEPS
from lrm_ttt.kernels.newton_schulz.cpu import newton_schulz_cpu
from lrm_ttt.kernels.newton_schulz.recomputed import newton_schulz_recomputed, symmetric_product_reference
from lrm_ttt.kernels.newton_schulz.reference import newton_schulz_reference


def newton_schulz(
    matrix: Float[Tensor, "*b rows cols"],
    num_steps: int = NUM_STEPS,
    dtype: torch.dtype | None = None,
    backend: str | None = None,
) -> Float[Tensor, "*b rows cols"]:
    """Orthogonalise `matrix` approximately, computing in `dtype` (None: that of the matrix) and returning that dtype.

    bfloat16 as the papers do it costs a relative error of 5e-2 on well-conditioned matrices; float32 about 1e-6.
    float16 costs 5e-3 and returns float32; on a GPU, where it is as fast, it takes the place of bfloat16. On a CPU
    with AMX our own kernel runs in bfloat16. `backend` is one of kernels/backend.py. Differentiable.
    """
    dtype = dtype or matrix.dtype
    lacks = "" if dtype in (torch.float16, torch.bfloat16) else "it is for products in half precision"
    chosen = choose("newton_schulz", matrix.device, dtype, lacks, backend).backend
    if chosen == "triton":
        from lrm_ttt.kernels.newton_schulz.triton_product import newton_schulz_triton

        return newton_schulz_triton(matrix, num_steps)
    if dtype == torch.float16 or (dtype == torch.bfloat16 and matrix.device.type == "cuda"):
        return newton_schulz_recomputed(matrix, num_steps, torch.float16, symmetric_product_reference)
    matrix = matrix.to(dtype)
    if chosen == "cpu":
        tall = matrix.shape[-2] > matrix.shape[-1]
        result = newton_schulz_cpu(matrix.mT if tall else matrix, num_steps)
        return result.mT if tall else result
    return newton_schulz_reference(matrix, num_steps)
