"""What an op takes, and what it says about that."""

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lrm_ttt.errors import BackendUnavailable
from lrm_ttt.kernels import backend
from lrm_ttt.kernels.backend import Choice, Measurement, choose, record, recorded
from lrm_ttt.kernels.newton_schulz import cpu as newton_schulz_cpu
from tests.helpers.shared import CHECKOUT

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)
NAME = "NVIDIA H200"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LRM_TTT_CACHE", str(tmp_path))
    monkeypatch.delenv("LRM_TTT_KERNELS", raising=False)
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    backend._parse_table.cache_clear()


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let torch tell of a GPU that is not there; nothing is run on it."""
    pytest.importorskip("triton")
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: NAME)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))


def _auto(dtype: torch.dtype = torch.bfloat16, lacks: str = "") -> Choice:
    return choose("qkv_silu", GPU, dtype, lacks)


def test_a_cpu_takes_native_code_where_it_can_and_says_why_not(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose("qkv_silu", CPU, torch.float32) == Choice("reference", "it has no native code")
    reason = choose("newton_schulz", CPU, torch.float32).reason
    assert reason == "tensors are float32, and its native code takes bfloat16"
    monkeypatch.setattr(newton_schulz_cpu, "HAS_MATRIX_UNITS", True)
    assert choose("newton_schulz", CPU, torch.bfloat16) == Choice("cpu", "this processor has matrix units")
    assert choose("newton_schulz", CPU, torch.bfloat16, backend="cpu").backend == "cpu"
    monkeypatch.setattr(newton_schulz_cpu, "HAS_MATRIX_UNITS", False)
    assert choose("newton_schulz", CPU, torch.bfloat16).backend == "reference"
    with pytest.raises(BackendUnavailable, match="no AMX"):
        choose("newton_schulz", CPU, torch.bfloat16, backend="cpu")


@pytest.mark.usefixtures("gpu")
def test_auto_follows_what_was_measured_on_this_gpu_alone() -> None:
    assert _auto() == Choice("reference", "not measured on this GPU; run lrm-ttt benchmark speed")
    record("qkv_silu", "NVIDIA A100", True, 2.0)
    record("weight_grads", NAME, True, 2.0)
    assert _auto().backend == "reference"
    record("qkv_silu", NAME, True, 1.25)
    assert _auto() == Choice("triton", "measured on this GPU: 1.25x as fast as the reference")
    record("qkv_silu", NAME, True, 0.8)
    assert _auto().backend == "reference" and "0.80x" in _auto().reason
    record("qkv_silu", NAME, False, 3.0)
    assert _auto().backend == "reference" and "failed its test" in _auto().reason
    record("qkv_silu", NAME, True, float("nan"))
    assert "failed its test" in _auto().reason
    assert recorded("weight_grads", NAME) == Measurement(True, 2.0)


@pytest.mark.usefixtures("gpu")
def test_another_version_of_triton_is_measured_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    import triton

    record("qkv_silu", NAME, True, 1.25)
    monkeypatch.setattr(triton, "__version__", "0.0.1")
    assert _auto().backend == "reference" and recorded("qkv_silu", NAME) is None


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize(
    ("dtype", "lacks", "what"), [(torch.float64, "", "float64"), (torch.bfloat16, "width 72", "width 72")]
)
def test_what_kernels_cannot_do_is_named(dtype: torch.dtype, lacks: str, what: str) -> None:
    record("qkv_silu", NAME, True, 2.0)
    assert _auto(dtype, lacks).backend == "reference" and what in _auto(dtype, lacks).reason
    with pytest.raises(BackendUnavailable, match=what):
        choose("qkv_silu", GPU, dtype, lacks, "triton")


@pytest.mark.usefixtures("gpu")
def test_an_old_gpu_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    with pytest.raises(BackendUnavailable, match=r"older than compute capability 8\.0"):
        choose("qkv_silu", GPU, torch.float16, "", "triton")


@pytest.mark.usefixtures("gpu")
def test_the_argument_goes_before_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose("qkv_silu", GPU, torch.bfloat16, "", "triton") == Choice("triton", "it was asked for")
    monkeypatch.setenv("LRM_TTT_KERNELS", "triton")
    assert _auto() == Choice("triton", "it stands in LRM_TTT_KERNELS")
    assert choose("qkv_silu", GPU, torch.bfloat16, "", "reference").reason == "it was asked for"
    with pytest.raises(BackendUnavailable, match="stands in LRM_TTT_KERNELS"):
        choose("qkv_silu", CPU, torch.bfloat16)


@pytest.mark.usefixtures("gpu")
def test_the_variable_leaves_alone_what_has_no_such_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LRM_TTT_KERNELS", "triton")
    assert choose("feed_forward", GPU, torch.bfloat16) == Choice("reference", "it has no Triton kernel")
    monkeypatch.setenv("LRM_TTT_KERNELS", "cpu")
    assert choose("qkv_silu", CPU, torch.bfloat16) == Choice("reference", "it has no native code")


def test_what_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BackendUnavailable, match="no native code"):
        choose("qkv_silu", CPU, torch.float32, "", "cpu")
    with pytest.raises(BackendUnavailable, match=r"'cuda'.*auto, reference, triton, cpu"):
        choose("qkv_silu", CPU, torch.float32, "", "cuda")
    monkeypatch.setattr(backend.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BackendUnavailable, match="triton is not installed"):
        choose("qkv_silu", CPU, torch.float32, "", "triton")


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize("text", ["", "[]", "{", '{"x": {"y": {"passed": 1, "ratio": 2}}}', '{"x": {"y": 3}}'])
def test_a_broken_file_is_ignored_with_one_warning(text: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "kernels.json"
    path.write_text(text)
    with caplog.at_level(logging.WARNING):
        assert _auto().backend == "reference" and _auto().backend == "reference"
    assert len(caplog.records) == 1 and "kernels.json is ignored" in caplog.text
    record("qkv_silu", NAME, True, 1.5)
    assert _auto().backend == "triton"
    assert list(tmp_path.iterdir()) == [path] and len(json.loads(path.read_text())) == 1


def test_the_cache_is_where_users_keep_theirs(monkeypatch: pytest.MonkeyPatch) -> None:
    assert backend.cache_folder() == Path(os.environ["LRM_TTT_CACHE"])
    monkeypatch.delenv("LRM_TTT_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert backend.cache_folder() == Path("/somewhere/lrm_ttt")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert backend.cache_folder() == Path.home() / ".cache" / "lrm_ttt"


def test_choosing_imports_neither_triton_nor_the_compiler() -> None:
    code = """
import sys, torch
from lrm_ttt.kernels.fast_weight import op
from lrm_ttt.kernels.backend import choose
assert choose("query_fast_weights", torch.device("cpu"), torch.float32).backend == "reference"
assert not {"triton", "torch._dynamo"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=CHECKOUT)
