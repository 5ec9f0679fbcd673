"""Which backend an op takes, and why: what was asked for, what can run, and what was measured on this very machine."""

import functools
import importlib.util
import json
import logging
import math
import os
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from lrm_ttt.errors import BackendUnavailable

_log = logging.getLogger(__name__)

BACKENDS = ("auto", "reference", "triton", "cpu")
VARIABLE = "LRM_TTT_KERNELS"

# What has native code, and what has Triton kernels; the rasterizer and the plane sweep choose by themselves.
NATIVE_OPS = ("fast_weight_gradients", "query_fast_weights", "newton_schulz", "feed_forward")
TRITON_OPS = ("fast_weight_gradients", "query_fast_weights", "newton_schulz", "qkv_silu", "gaussian_finish")
TRITON_DTYPES = (torch.bfloat16, torch.float16, torch.float32)
# bfloat16 in hardware, and asynchronous copies.
LEAST_CAPABILITY = (8, 0)


@dataclass(frozen=True)
class Choice:
    """How an op runs, and why: `reference` is torch by the book, `triton` our kernels."""

    backend: str
    reason: str


@dataclass(frozen=True)
class Measurement:
    """What a Triton kernel showed on one GPU: whether its test passed, and how often it is as fast as the reference."""

    passed: bool
    ratio: float


def choose(
    op: str, device: torch.device, dtype: torch.dtype, triton_lacks: str = "", backend: str | None = None
) -> Choice:
    """Return what `op` takes on tensors like these; `triton_lacks` says what keeps its Triton kernel from them, if any.

    `backend` None is what the environment variable LRM_TTT_KERNELS says, or else "auto". That is native code on a CPU
    that has the units for it. On a GPU it is the reference, unless `lrm-ttt benchmark speed` found the Triton kernel
    correct and faster on this very model, with this torch and this Triton. Raises `BackendUnavailable` if what is asked
    for by name cannot run. Under torch.compile it is a constant.
    """
    asked = backend if backend is not None else os.environ.get(VARIABLE) or "auto"
    whose = "was asked for" if backend is not None else f"stands in {VARIABLE}"
    if asked not in BACKENDS:
        raise BackendUnavailable(f"there is no backend {asked!r}, which {whose}; choose among {', '.join(BACKENDS)}")
    if asked == "reference":
        return Choice("reference", f"it {whose}")
    if backend is None and op not in {"cpu": NATIVE_OPS, "triton": TRITON_OPS}.get(asked, (op,)):
        # The variable speaks to all ops, of which few have native code, and few have Triton kernels.
        return Choice("reference", f"it has no {'native code' if asked == 'cpu' else 'Triton kernel'}")
    on_cpu = device.type == "cpu" and not _interpreting()
    if asked == "cpu" or (asked == "auto" and on_cpu):
        lacks = _why_not_native(op, device, dtype)
        kind = "cpu"
    else:
        lacks = _why_not_triton(device, dtype) or triton_lacks
        kind = "triton"
    if asked == kind:
        if lacks:
            raise BackendUnavailable(f"backend {kind!r} {whose}, but {op} cannot run on it: {lacks}; take 'auto'")
        return Choice(kind, f"it {whose}")
    if lacks:
        return Choice("reference", lacks)
    return Choice("cpu", "this processor has matrix units") if kind == "cpu" else _by_measurement(op, device)


# What torch.compiler.assume_constant_result would set, which imports torch._dynamo: too slow for an import.
choose._dynamo_marked_constant = True  # type: ignore[attr-defined]


def _interpreting() -> bool:
    return os.environ.get("TRITON_INTERPRET") == "1"


def _why_not_native(op: str, device: torch.device, dtype: torch.dtype) -> str:
    """Return why native code cannot serve tensors like these; "" where it can."""
    if op not in NATIVE_OPS:
        return "it has no native code"
    if device.type != "cpu":
        return f"tensors are on {device.type}"
    if dtype != torch.bfloat16:
        return f"tensors are {_name(dtype)}, and its native code takes bfloat16"
    from lrm_ttt.kernels.newton_schulz.cpu import HAS_MATRIX_UNITS

    return "" if HAS_MATRIX_UNITS else "this processor has no AMX, or the native library is not built"


def _why_not_triton(device: torch.device, dtype: torch.dtype) -> str:
    """Return why Triton cannot serve tensors like these; "" where it can."""
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed"
    if dtype not in TRITON_DTYPES:
        return f"tensors are {_name(dtype)}, and the kernels take bfloat16, float16 and float32"
    if _interpreting():
        return "Triton's interpreter gets bfloat16 wrong" if dtype == torch.bfloat16 else ""
    if device.type != "cuda":
        return f"tensors are on {device.type}, and Triton needs a CUDA GPU"
    if torch.cuda.get_device_capability(device) < LEAST_CAPABILITY:
        return f"{torch.cuda.get_device_name(device)} is older than compute capability 8.0"
    return ""


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _by_measurement(op: str, device: torch.device) -> Choice:
    if device.type != "cuda":
        return Choice("reference", "Triton only interprets here")
    found = recorded(op, torch.cuda.get_device_name(device))
    if found is None:
        return Choice("reference", "not measured on this GPU; run lrm-ttt benchmark speed")
    if not found.passed:
        return Choice("reference", "the Triton kernel failed its test on this GPU")
    if not found.ratio > 1:
        return Choice("reference", f"measured on this GPU: the Triton kernel runs at {found.ratio:.2f}x the speed")
    return Choice("triton", f"measured on this GPU: {found.ratio:.2f}x as fast as the reference")


def record(op: str, device_name: str, passed: bool, ratio: float) -> None:
    """Keep what was measured of a Triton kernel: `ratio` is the time of the reference over its time.

    Count forward and backward, for both take the same backend. A ratio that is no positive number counts as failed.
    """
    path = cache_folder() / "kernels.json"
    sound = math.isfinite(ratio) and ratio > 0
    measurement = Measurement(passed and sound, float(ratio) if sound else 0.0)
    machine = _machine(device_name)
    table = {name: dict(ops) for name, ops in _read_table(path).items()}
    table.setdefault(machine, {})[op] = asdict(measurement)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Beside the old one, and by a name of its own, so that whoever reads or writes at the same time sees whole files.
    partial = path.with_suffix(f".{os.getpid()}.partial")
    partial.write_text(json.dumps(table, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    partial.replace(path)


def recorded(op: str, device_name: str) -> Measurement | None:
    """Return what `record` has kept for this GPU model with the torch and Triton at hand, or None."""
    table = _read_table(cache_folder() / "kernels.json")
    found = table.get(_machine(device_name), {}).get(op)
    return None if found is None else Measurement(**found)


def cache_folder() -> Path:
    """Return the folder for what can be measured or built again: $LRM_TTT_CACHE, or lrm_ttt in the user's cache."""
    own = os.environ.get("LRM_TTT_CACHE")
    if own:
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lrm_ttt"


def _machine(device_name: str) -> str:
    import triton

    return f"{device_name}, torch {torch.__version__}, triton {triton.__version__}"


def _read_table(path: Path) -> dict[str, dict[str, dict]]:
    try:
        changed = path.stat().st_mtime_ns
    except OSError:
        return {}
    return _parse_table(path, changed)


@functools.lru_cache(maxsize=8)
def _parse_table(path: Path, changed: int) -> dict[str, dict[str, dict]]:
    """Read the table as it was at the time `changed`; a broken one is ignored, with one line in the log."""
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
        for ops in table.values():
            for found in ops.values():
                if not isinstance(found["passed"], bool) or found["ratio"] < 0 or len(found) > 2:
                    raise ValueError(found)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        _log.warning("%s is ignored: it is not what lrm-ttt benchmark speed writes (%s)", path, error)
        return {}
    return table
