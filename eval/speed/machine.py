"""What a speed was measured on."""

import importlib.metadata
import os
from typing import Any

import torch

from lrm_ttt.pipeline.processor import CPU_FLAGS, cpu_flags, cpu_name, cxx_compiler
from lrm_ttt.pipeline.provenance import provenance


def machine(device: torch.device, command: str) -> dict[str, Any]:
    """Return hardware, versions, commit, time and threads."""
    found = provenance(command)
    if version := _triton():
        found["versions"]["triton"] = version
    found["hardware"] = {
        "device": str(device),
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "flags": [flag for flag in CPU_FLAGS if flag in cpu_flags()],
        "torch_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "compiler": cxx_compiler() or None,
        "gpu": _gpu(device) if device.type == "cuda" else None,
    }
    return found


def describe(found: dict[str, Any]) -> list[str]:
    """Return what `machine` found as lines of Markdown."""
    hardware, versions = found["hardware"], found["versions"]
    lines = [
        f"{hardware['cpu']}, {hardware['cores']} cores, {hardware['threads']} threads, "
        f"{', '.join(hardware['flags']) or 'no vector flags known'}",
        ", ".join(f"{name} {version}" for name, version in versions.items()),
        f"commit {found['commit'] or 'unknown'}, {found['date']}, `{found['command']}`",
    ]
    if hardware["gpu"]:
        gpu = hardware["gpu"]
        lines.insert(0, f"{gpu['name']}, {gpu['memory_gb']:.0f} GB, CUDA {gpu['cuda']}, {gpu['sms']} multiprocessors")
    return [f"* {line}" for line in lines]


def _gpu(device: torch.device) -> dict[str, Any]:
    properties = torch.cuda.get_device_properties(device)
    return {
        "name": properties.name,
        "memory_gb": properties.total_memory / 1e9,
        "capability": [properties.major, properties.minor],
        "sms": properties.multi_processor_count,
        "cuda": torch.version.cuda,
    }


def _triton() -> str:
    try:
        return importlib.metadata.version("triton")
    except importlib.metadata.PackageNotFoundError:
        return ""
