"""The Triton kernel of Newton-Schulz without a GPU: interpreted against the reference, and compiled for one."""

from pathlib import Path

import pytest

from tests.helpers.triton import SHARED_MEMORY, compile_for_sm90, run_interpreted, skip_without_triton

skip_without_triton()


def test_interpreted_it_does_what_the_reference_does() -> None:
    run_interpreted(Path(__file__).with_name("interpreted_triton.py"))


@pytest.mark.parametrize("dtype", ["fp16", "bf16"])
@pytest.mark.parametrize("tiles", ["LARGE", "SMALL"])
def test_compiled_for_hopper_it_uses_tensor_cores_and_spills_nothing(dtype: str, tiles: str) -> None:
    from lrm_ttt.kernels.newton_schulz import triton_product

    tile, depth, num_warps, num_stages = getattr(triton_product, tiles)
    signature = {"rows": "i32_16", "depth": "i32_16", "alpha": "fp32", "beta": "fp32"}
    signature |= dict.fromkeys(("x", "addend", "out"), f"*{dtype}")
    constants = {"HAS_ADDEND": True, "TILE": tile, "DEPTH": depth}
    kernel = triton_product.symmetric_product_kernel
    compiled = compile_for_sm90(kernel, signature, constants, num_warps, num_stages)
    assert compiled.warpgroup_products and not compiled.spills
    assert compiled.shared_memory <= SHARED_MEMORY
