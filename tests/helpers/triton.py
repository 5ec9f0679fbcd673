"""Test Triton kernels without a GPU: interpret them on small tensors, and compile them for one.

Triton settles whether to interpret when it is imported, and other tests may have imported it by then. So the tests that
interpret are in files `interpreted_*.py`, which pytest does not collect by itself, and `run_interpreted` runs in a
process of its own, without the checks of shapes, which torch.compile cannot see through. Where there is a GPU,
`LRM_TTT_SHAPE_CHECKS=0 pytest FILE` runs the same files on it.
"""

import importlib.util
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor

from tests.helpers.shared import CHECKOUT

# What a program may take of a Hopper processor, in bytes.
SHARED_MEMORY = 232_448


def device() -> torch.device:
    """Return where kernels run: the CPU when interpreted, else the GPU."""
    return torch.device("cpu" if os.environ.get("TRITON_INTERPRET") == "1" else "cuda")


def skip_without_triton() -> None:
    """Skip where Triton is not there; it comes with torch on Linux, so never on our continuous integration."""
    if importlib.util.find_spec("triton") is None:
        pytest.skip("triton is not installed (torch brings it on Linux)", allow_module_level=True)


def run_interpreted(*paths: Path) -> None:
    """Run test files with interpreted kernels, and fail with what they print."""
    environment = {**os.environ, "TRITON_INTERPRET": "1", "LRM_TTT_SHAPE_CHECKS": "0"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--durations=5", *map(str, paths)]
    done = subprocess.run(command, cwd=CHECKOUT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.fail(done.stdout[-6000:] + done.stderr[-2000:], pytrace=False)


def poisoned() -> AbstractContextManager[Any]:
    """Fill what `torch.empty` and its kin return with NaN, so that an element nobody writes is seen."""

    def poison(make: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def made(*args: Any, **kwargs: Any) -> Tensor:
            tensor = make(*args, **kwargs)
            return tensor.fill_(float("nan")) if tensor.is_floating_point() else tensor

        return made

    names = ("empty", "empty_like")
    return mock.patch.multiple(torch, **{name: poison(getattr(torch, name)) for name in names})


def relative_error(actual: Tensor, expected: Tensor) -> float:
    """Return the L2 norm of the difference over that of what was expected; NaN counts as infinite."""
    wanted = expected.detach().double()
    difference = (actual.detach().double() - wanted).norm() / wanted.norm().clamp_min(1e-300)
    return float("inf") if difference.isnan() else float(difference)


@dataclass(frozen=True)
class Compiled:
    """What ptxas made of a kernel for sm_90; wide copies to shared memory are 16 bytes each, and asynchronous."""

    spills: int
    registers: int
    shared_memory: int
    warpgroup_products: bool
    warp_products: bool
    wide_copies: bool


def compile_for_sm90(
    kernel: Any, signature: Mapping[str, str], constexprs: Mapping[str, Any], num_warps: int, num_stages: int
) -> Compiled:
    """Compile without a GPU. `signature` names the type of every other argument, as in {"x": "*bf16", "n": "i32"}.

    Pointers count as aligned, and integers named `..._16` too: "i32_16" is one that 16 divides.
    """
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    assert os.environ.get("TRITON_INTERPRET") != "1"
    types = {name: "constexpr" if name in constexprs else signature[name] for name in kernel.arg_names}
    aligned = [kernel.arg_names.index(name) for name, kind in types.items() if kind[0] == "*" or kind.endswith("_16")]
    source = ASTSource(
        kernel,
        {name: kind.removesuffix("_16") for name, kind in types.items()},
        dict(constexprs),
        {(index,): [["tt.divisibility", 16]] for index in aligned},
    )
    options = {"num_warps": num_warps, "num_stages": num_stages}
    compiled = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)
    sass, usage = _disassemble(compiled.asm["cubin"])
    registers = re.search(r"REG:(\d+)", usage)
    assert registers is not None, usage
    return Compiled(
        spills=len(re.findall(r"\b(?:LDL|STL)\b", sass)),
        registers=int(registers[1]),
        shared_memory=compiled.metadata.shared,
        warpgroup_products="HGMMA" in sass,
        warp_products="HMMA" in sass,
        wide_copies="LDGSTS.E.BYPASS.128" in sass,
    )


def _disassemble(cubin: bytes) -> Sequence[str]:
    """Return the SASS and the resource usage, from the tool in Triton's own wheel."""
    import triton

    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    if not tool.is_file():
        pytest.skip("this build of Triton has no cuobjdump")
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        return [
            subprocess.run([tool, flag, file.name], capture_output=True, text=True, check=True).stdout
            for flag in ("-sass", "-res-usage")
        ]
