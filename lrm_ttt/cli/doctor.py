"""Report what this installation has, and what it lacks: versions, devices, backends, extras, weights."""

import importlib
import importlib.metadata
import importlib.resources
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lrm_ttt import __version__
from lrm_ttt.pipeline.processor import CPU_FLAGS, cpu_flags, cpu_name, cxx_compiler

DISTRIBUTIONS = [
    "torch",
    "torchvision",
    "triton",
    "numpy",
    "gsplat",
    "accelerate",
    "safetensors",
    "huggingface_hub",
    "tyro",
]
GIB = 1024**3


@dataclass(frozen=True)
class Arguments:
    """Nothing to choose."""


@dataclass(frozen=True)
class Finding:
    """Say one thing about the installation; `lacks` is empty where nothing is missing."""

    name: str
    has: str
    lacks: str = ""

    def __str__(self) -> str:
        detail = "; ".join(filter(None, [self.has, self.lacks and f"lacks {self.lacks}"]))
        return f"  {self.name:24} {detail}"


def run(arguments: Arguments) -> None:
    """Print all findings, section by section. What is missing is no error: the exit status stays 0."""
    sections = {
        "versions": versions(),
        "devices": devices(),
        "backends": backends(),
        "extras": extras(),
        "embedded weights": embedded_weights(),
    }
    # One write: a reader that stops early, such as `head`, then breaks no pipe.
    print("\n\n".join("\n".join([title, *map(str, findings)]) for title, findings in sections.items()))


def versions() -> Iterator[Finding]:
    """Yield what is installed, ourselves first."""
    folder = Path(__file__).resolve().parents[1]
    yield Finding("lrm-ttt", f"{__version__} in {folder}{commit(folder)}")
    yield Finding("python", f"{platform.python_version()} in {sys.prefix}, {platform.platform()}")
    for name in DISTRIBUTIONS:
        version = installed_version(name)
        yield Finding(name, version, "" if version else "the distribution")


def commit(folder: Path) -> str:
    """Return the commit of a checkout, or nothing."""
    git = shutil.which("git")
    if git is None or not (folder.parent / ".lrm-ttt-checkout").is_file():
        return ""
    command = [git, "-C", str(folder), "describe", "--always", "--dirty"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return f", commit {done.stdout.strip()}" if done.returncode == 0 else ""


def installed_version(distribution: str) -> str:
    """Return the installed version, or an empty string."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return ""


def devices() -> Iterator[Finding]:
    """Yield the processor and every accelerator that torch can use."""
    import torch

    yield Finding("cpu", f"{cpu_name()}, {os.cpu_count()} cores{memory()}, {torch.get_num_threads()} torch threads")
    flags = cpu_flags()
    has_bf16 = bool({"avx512_bf16", "amx_bf16", "bf16"} & flags)
    has = ", ".join(
        [f"torch uses {torch.backends.cpu.get_cpu_capability()}", *(flag for flag in CPU_FLAGS if flag in flags)]
    )
    yield Finding("cpu capabilities", has, "" if has_bf16 else "bf16 (float32 is faster here)")
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        bf16 = "bf16" if properties.major >= 8 else "no bf16"
        capability = f"compute capability {properties.major}.{properties.minor}"
        yield Finding(
            f"cuda:{index}", f"{properties.name}, {properties.total_memory / GIB:.0f} GiB, {capability}, {bf16}"
        )
    if not torch.cuda.is_available():
        built = f"torch is built for CUDA {torch.version.cuda}" if torch.version.cuda else "torch is built without CUDA"
        yield Finding("cuda", built, "a device")
    if torch.backends.mps.is_available():
        yield Finding("mps", "an Apple GPU; models run on it, the rasterizer on the processor")


def memory() -> str:
    """Return the machine's memory where the system tells it."""
    if "SC_PHYS_PAGES" not in os.sysconf_names:
        return ""
    return f", {os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / GIB:.0f} GiB"


def backends() -> Iterator[Finding]:
    """Yield every fast path and what keeps it from running here; the references need torch alone."""
    import torch

    from lrm_ttt.kernels.plane_sweep.cpu import instruction_sets
    from lrm_ttt.kernels.rasterizer.cpu import instruction_set
    from lrm_ttt.kernels.ssim.cpu import instruction_sets as ssim_instruction_sets

    not_built = "the native library: install a C++ compiler, then lrm-ttt again"
    chosen = instruction_set()
    yield Finding("rasterizer cpu", chosen, "" if chosen else f"{not_built} (rendering is 8-200 times slower without)")
    chosen = instruction_sets()[-1] if instruction_sets() else ""
    yield Finding("plane_sweep cpu", chosen, "" if chosen else f"{not_built} (100 times slower without)")
    chosen = ssim_instruction_sets()[-1] if ssim_instruction_sets() else ""
    yield Finding("ssim cpu", chosen, "" if chosen else f"{not_built} (the loss of optimisations is slower without)")
    yield from memory_kernels()
    yield Finding("rasterizer gsplat", installed_version("gsplat"), ", ".join(gsplat_lacks()))
    compiler = cxx_compiler()
    yield Finding("torch.compile cpu", compiler, "" if compiler else "a C++ compiler (training is slower without)")
    triton = installed_version("triton")
    lacks = ([] if triton else ["triton"]) + ([] if torch.cuda.is_available() else ["a CUDA device"])
    yield Finding("torch.compile cuda", f"triton {triton}" if triton else "", ", ".join(lacks))


def memory_kernels() -> Iterator[Finding]:
    """Yield by what the memory and its neighbours run in bf16 here, and why."""
    import torch

    from lrm_ttt.errors import BackendUnavailable
    from lrm_ttt.kernels.backend import NATIVE_OPS, TRITON_OPS, choose

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    for op in TRITON_OPS if device.type == "cuda" else NATIVE_OPS:
        try:
            choice = choose(op, device, torch.bfloat16)
        except BackendUnavailable as error:
            yield Finding(op, "", str(error))
        else:
            yield Finding(op, f"{choice.backend}: {choice.reason}")


def gsplat_lacks() -> Iterator[str]:
    """Yield what gsplat needs and does not find. It compiles its CUDA code once, on first use, in minutes."""
    import torch

    if not installed_version("gsplat"):
        yield "the distribution gsplat"
    if not torch.cuda.is_available():
        yield "a CUDA device"
    toolkit = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH") or "/usr/local/cuda"
    if shutil.which("nvcc") is None and not Path(toolkit, "bin", "nvcc").is_file():
        yield "nvcc (the CUDA toolkit)"
    if shutil.which("ninja") is None:
        here = Path(sys.executable).parent
        yield f"ninja on PATH (it is in {here})" if (here / "ninja").is_file() else "ninja"


def extras() -> Iterator[Finding]:
    """Yield the optional readers and writers."""
    problem = import_problem("pycolmap")
    lacks = problem and f"a reader of COLMAP files: {problem} (pip install 'lrm-ttt[colmap]')"
    yield Finding("pycolmap", installed_version("pycolmap"), lacks)
    yield ffmpeg()


def import_problem(module: str) -> str:
    """Import the module, and return what hinders it."""
    try:
        importlib.import_module(module)
    except (ImportError, OSError) as error:
        return str(error)
    return ""


def ffmpeg() -> Finding:
    """Return the ffmpeg that writes videos."""
    try:
        import imageio_ffmpeg

        return Finding("ffmpeg", f"{imageio_ffmpeg.get_ffmpeg_version()} in {imageio_ffmpeg.get_ffmpeg_exe()}")
    except (ImportError, RuntimeError) as error:
        return Finding("ffmpeg", "", str(error))


def embedded_weights() -> Iterator[Finding]:
    """Yield the models that came with the package."""
    folder = importlib.resources.files("lrm_ttt.weights")
    assert isinstance(folder, Path), "lrm-ttt is installed as files"
    files = sorted(folder.rglob("*.safetensors"))
    for path in files:
        yield Finding(str(path.relative_to(folder)), f"{path.stat().st_size / 1e6:.1f} MB")
    if not files:
        yield Finding("none", "", "a model: pass --checkpoint")
