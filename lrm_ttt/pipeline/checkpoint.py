"""Find the model that a user names, or the one that comes with the package, and the device and backend it works on."""

import dataclasses
import importlib.resources
from pathlib import Path
from typing import TypeVar

import torch

from lrm_ttt.errors import BackendUnavailable, IncompatibleCheckpoint
from lrm_ttt.kernels.rasterizer.op import available_backends
from lrm_ttt.model.backbone import Precision
from lrm_ttt.model.checkpoint import CONFIG_FILE, WEIGHTS_FILE, find_pretrained, read_config
from lrm_ttt.model.compilation import compile_blocks
from lrm_ttt.model.config import ModelConfig, Schedule
from lrm_ttt.model.reconstructor import Reconstructor
from lrm_ttt.model.scene_model import SceneModel
from lrm_ttt.parallel.launched import own_device
from lrm_ttt.pipeline.processor import cpu_flags, cxx_compiler

M = TypeVar("M", bound=SceneModel)
EMBEDDED = "embedded"
# Processors that multiply bf16 faster than fp32, in the words of /proc/cpuinfo.
BF16_FLAGS = {"avx512_bf16", "amx_bf16"}


def locate(checkpoint: str | None, embedded: str = "") -> Path:
    """Return the folder of a checkpoint; None is the one that comes with the package, in the folder `embedded` there.

    Raises `IncompatibleCheckpoint` where there is none.
    """
    if checkpoint is not None:
        return find_pretrained(Path(checkpoint).expanduser() if checkpoint.startswith("~") else checkpoint)
    weights = importlib.resources.files("lrm_ttt.weights")
    assert isinstance(weights, Path), "lrm-ttt is installed as files"
    folder = weights / embedded
    if (folder / WEIGHTS_FILE).is_file() and (folder / CONFIG_FILE).is_file():
        return folder
    raise IncompatibleCheckpoint(
        f"This installation lacks an embedded model ({folder} has no {WEIGHTS_FILE} with its {CONFIG_FILE}). Pass "
        "--checkpoint, or install lrm-ttt again."
    )


def with_schedule(config: ModelConfig, schedule: Schedule | None) -> ModelConfig:
    """Return the configuration with another way of writing views to memory; None keeps the checkpoint's."""
    if schedule is None:
        return config
    return dataclasses.replace(config, backbone=dataclasses.replace(config.backbone, schedule=schedule))


def load(
    folder: Path,
    device: torch.device,
    *,
    precision: str = "auto",
    schedule: Schedule | None = None,
    compiled: bool = False,
) -> Reconstructor:
    """Return the model of a folder, ready to reconstruct on `device`."""
    return load_as(Reconstructor, folder, device, precision=precision, schedule=schedule, compiled=compiled)


def load_as(
    cls: type[M],
    folder: Path,
    device: torch.device,
    *,
    precision: str = "auto",
    schedule: Schedule | None = None,
    compiled: bool = False,
) -> M:
    """Return the model of a folder, ready to work on `device`; raises `IncompatibleCheckpoint` for another class."""
    dtype = torch.bfloat16 if choose_precision(precision, device) == "bf16" else torch.float32
    model = cls.from_pretrained(folder, device=device, precision=Precision(compute=dtype, newton_schulz=dtype))
    model.config = with_schedule(model.config, schedule)
    model.backbone.config = model.config.backbone
    if compiled:
        compile_blocks(model)
    return model


def model_config(folder: Path, schedule: Schedule | None = None) -> ModelConfig:
    """Return the configuration alone."""
    return with_schedule(read_config(folder), schedule)


def choose_precision(name: str, device: torch.device) -> str:
    """Return `fp32` or `bf16`; `auto` is bf16 where the hardware multiplies it.

    On two cores with AVX512_BF16 the model takes 46 ms of processor time a view of 72x128 instead of 65, for the same
    PSNR.
    """
    if name != "auto":
        return name
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    return "bf16" if BF16_FLAGS & cpu_flags() else "fp32"


def choose_device(name: str) -> torch.device:
    """Return the device that a user names; `auto` is a GPU where torch can use one. Of several processes each has its
    own GPU.

    Raises `BackendUnavailable` for a device that is not there.
    """
    if name == "auto":
        return own_device(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    kind, _, index = name.partition(":")
    if kind not in ("cpu", "cuda") or (index and not index.isdecimal()):
        raise BackendUnavailable(f"--device {name}: there are auto, cpu, cuda and cuda:N.")
    if kind == "cpu":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        why = "torch finds no GPU" if torch.version.cuda else "this torch is built without CUDA"
        raise BackendUnavailable(f"--device {name}: {why}. Pass --device cpu; `lrm-ttt doctor` says more.")
    if index and int(index) >= torch.cuda.device_count():
        raise BackendUnavailable(f"--device {name}: there are {torch.cuda.device_count()} GPUs, counted from 0.")
    return own_device(torch.device(name))


def check_compiler(wanted: bool, device: torch.device) -> None:
    """Raise `BackendUnavailable` where code cannot be compiled that is to be."""
    if wanted and device.type == "cpu" and not cxx_compiler():
        raise BackendUnavailable(
            "--compile: no C++ compiler was found. Install one (g++ or clang++), or leave --compile out: the result is "
            "the same."
        )


def choose_backend(name: str, device: torch.device) -> str:
    """Return the rasterizer that draws on a device; `auto` is the fast one where it is there, else the reference.

    Raises `BackendUnavailable` for one that cannot draw there.
    """
    lacks = available_backends(device)
    if name == "auto":
        best = "gsplat" if device.type == "cuda" else "cpu"
        return "reference" if lacks[best] else best
    if lacks[name]:
        raise BackendUnavailable(f"--backend {name}: {lacks[name]}. Pass --backend auto; `lrm-ttt doctor` says more.")
    return name
