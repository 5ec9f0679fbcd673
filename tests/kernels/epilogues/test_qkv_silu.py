"""Queries, keys and values of a projection: their layout, their norms, and the kernel without a GPU."""

from pathlib import Path

import pytest
import torch

from lrm_ttt.errors import BackendUnavailable
from lrm_ttt.kernels.epilogues.op import qkv_silu
from tests.helpers.triton import SHARED_MEMORY, compile_for_sm90, run_interpreted, skip_without_triton


def test_every_value_comes_from_its_own_channel() -> None:
    """Of a projection that is zero but for one channel, one value of one head is not zero."""
    for channel in range(3 * 2 * 4):
        projected = torch.zeros(1, 3, 24, dtype=torch.float64)
        projected[0, 1, channel] = 3.0
        parts = torch.stack(qkv_silu(projected, num_heads=2))
        part, head, column = channel // 8, channel % 8 // 4, channel % 4
        value = parts[part, 0, head, 1, column]
        assert parts.abs().sum() == value
        expected = 3 / (1 + torch.exp(torch.tensor(-3.0, dtype=torch.float64)))
        torch.testing.assert_close(value, expected / (expected + 1e-5) if part < 2 else expected)


def test_queries_and_keys_have_norm_one() -> None:
    projected = torch.randn(2, 5, 36, generator=torch.Generator().manual_seed(0))
    q, k, v = qkv_silu(projected, num_heads=3)
    torch.testing.assert_close(torch.cat([q, k]).norm(dim=-1), torch.ones(4, 3, 5), rtol=1e-4, atol=0)
    assert (v >= -0.2785).all()


def test_native_code_for_other_operations_is_no_reason_to_refuse(monkeypatch: pytest.MonkeyPatch) -> None:
    projected = torch.randn(2, 5, 36, generator=torch.Generator().manual_seed(0))
    monkeypatch.setenv("LRM_TTT_KERNELS", "cpu")
    assert torch.equal(qkv_silu(projected, 3).q, qkv_silu(projected, 3, backend="reference").q)
    with pytest.raises(BackendUnavailable, match="no native code"):
        qkv_silu(projected, 3, backend="cpu")


def test_interpreted_the_kernels_do_what_the_reference_does() -> None:
    skip_without_triton()
    run_interpreted(Path(__file__).with_name("interpreted_qkv_silu.py"))


@pytest.mark.parametrize("dtype", ["fp16", "bf16"])
@pytest.mark.parametrize("backward", [False, True])
def test_compiled_for_hopper_the_kernels_spill_nothing(dtype: str, backward: bool) -> None:
    skip_without_triton()
    import triton.language as tl

    from lrm_ttt.kernels.epilogues import triton_qkv_silu

    kernel = triton_qkv_silu.qkv_silu_backward_kernel if backward else triton_qkv_silu.qkv_silu_kernel
    rows = triton_qkv_silu.VALUES // 1024
    constants = {"UNIT": True, "EPSILON": 1e-5, "WIDE": tl.float32, "ROWS": rows, "COLUMNS": 1024}
    integers = {"tokens": "i32_16", "heads": "i32", "channels": "i32_16", "part": "i32"}
    signature = {name: integers.get(name, f"*{dtype}") for name in kernel.arg_names}
    compiled = compile_for_sm90(kernel, signature, constants, triton_qkv_silu.NUM_WARPS, num_stages=3)
    assert not compiled.spills and compiled.shared_memory <= SHARED_MEMORY
