"""What the machine can do: which dtype to multiply in, and how to name it in a report."""

import torch

from lrm_ttt.model.backbone import Precision
from lrm_ttt.pipeline.checkpoint import choose_precision as name_precision
from lrm_ttt.pipeline.processor import cpu_name


def choose_precision(wanted: str, device: torch.device) -> Precision:
    """Return the dtypes for `auto`, `fp32`, `bf16` or `fp64`; `auto` is bf16 where the hardware multiplies it."""
    if wanted == "fp64":
        return Precision(torch.float64, torch.float64)
    bf16 = name_precision(wanted, device) == "bf16"
    return Precision(torch.bfloat16, torch.bfloat16) if bf16 else Precision()


def describe(device: torch.device) -> str:
    """Return one line about the device that trained."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{cpu_name()}, {torch.get_num_threads()} threads"
