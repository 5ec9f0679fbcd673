"""The Triton kernels of the end of a head without a GPU: interpreted against the reference, and compiled for one."""

from pathlib import Path

import pytest

from tests.helpers.triton import SHARED_MEMORY, compile_for_sm90, run_interpreted, skip_without_triton

skip_without_triton()


def test_interpreted_they_do_what_the_reference_does() -> None:
    run_interpreted(Path(__file__).with_name("interpreted_triton.py"))


@pytest.mark.parametrize("dtype", ["fp16", "bf16"])
@pytest.mark.parametrize("backward", [False, True])
def test_compiled_for_hopper_they_spill_nothing(dtype: str, backward: bool) -> None:
    import triton.language as tl

    from lrm_ttt.kernels.gaussian_finish import triton_finish

    kernel = triton_finish.finish_backward_kernel if backward else triton_finish.finish_kernel
    constants = {"NUM_SH": 48, "KEEPS": True, "WIDE": tl.float32, "LEAST": triton_finish.LEAST_NORM}
    constants |= {"ROWS": triton_finish.ROWS, "COLUMNS": 64}
    constants |= {"scale_shift": -4.0, "max_log_scale": -1.2, "opacity_shift": -2.0}
    scalars = {"number": "i32", "pixels": "i32_16", "keep": "*i64", "raw": f"*{dtype}", "by_raw": f"*{dtype}"}
    signature = {name: scalars.get(name, "*fp32") for name in kernel.arg_names}
    compiled = compile_for_sm90(kernel, signature, constants, triton_finish.NUM_WARPS, num_stages=3)
    assert not compiled.spills and compiled.shared_memory <= SHARED_MEMORY
