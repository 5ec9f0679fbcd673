"""What ptxas makes of every kernel for sm_90: products on tensor cores, nothing spilled, shared memory that fits."""

import importlib
from typing import Any

import pytest

from lrm_ttt.kernels.fast_weight.tiles import FLOAT32
from tests.helpers.triton import SHARED_MEMORY, Compiled, compile_for_sm90, skip_without_triton

skip_without_triton()

# A width that the tiles divide is the usual one; the others take masks along it. Sums are split over tokens, or not.
CASES = [
    ("swiglu_up", {"EVEN": True}, "bf16"),
    ("swiglu_up", {"EVEN": False}, "bf16"),
    ("hidden_grads", {"EVEN": True, "RATES": True}, "bf16"),
    ("hidden_grads", {"EVEN": False, "RATES": False}, "bf16"),
    ("hidden_grads_backward", {"EVEN": True}, "bf16"),
    ("hidden_grads_backward", {"EVEN": False}, "bf16"),
    ("weight_grads", {}, "bf16"),
    ("weight_grads", {}, "fp32"),
]


def _compiled(name: str, constants: dict[str, Any], dtype: str, out: str) -> Compiled:
    module: Any = importlib.import_module(f"lrm_ttt.kernels.fast_weight.triton_{name}")
    kernel = getattr(module, f"{name}_kernel")
    tiles = FLOAT32 if dtype == "fp32" else module.TILES
    sizes = {"d": "i32_16", "f": "i32_16", "share": "i32_16", "n": "i32", "batch_n": "i32"}
    known = {**sizes, "rates": "*fp32", "sums": "*fp32", "out": f"*{out}"}
    signature = {argument: known.get(argument, f"*{dtype}") for argument in kernel.arg_names}
    constants = {"ROWS": tiles.rows, "COLUMNS": tiles.columns, "INNER": tiles.inner, **constants}
    return compile_for_sm90(kernel, signature, constants, tiles.warps, tiles.stages)


@pytest.mark.parametrize(("name", "constants", "out"), CASES)
def test_bfloat16_for_hopper(name: str, constants: dict[str, bool], out: str) -> None:
    made = _compiled(name, constants, "bf16", out)
    assert made.spills == 0 and made.shared_memory <= SHARED_MEMORY
    assert made.warpgroup_products and made.wide_copies


@pytest.mark.parametrize(("name", "constants"), [CASES[0][:2], CASES[4][:2], CASES[6][:2]])
def test_float32_for_hopper(name: str, constants: dict[str, bool]) -> None:
    """Products in single precision proper do not run on tensor cores."""
    made = _compiled(name, constants, "fp32", "fp32")
    assert made.spills == 0 and not made.warpgroup_products and made.shared_memory <= SHARED_MEMORY
