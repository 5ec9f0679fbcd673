"""How fast a run goes: what its steps did, a second, and which share of the machine that is."""

import dataclasses
import re
import time

import torch

from lrm_ttt.model.config import ModelConfig
from lrm_ttt.model.flops import count_flops
from lrm_ttt.pipeline.memory import peak_memory_mb
from lrm_ttt.scene.views import SceneBatch

# Dense bf16 FLOP/s by a part of what CUDA calls the device, the more particular part first. From NVIDIA's data sheets,
# which give twice as much, with sparsity, from Hopper on.
KNOWN_PEAKS = (
    ("B200", 2250e12),
    ("GH200", 989.5e12),
    ("H200 NVL", 835.5e12),
    ("H200", 989.5e12),
    ("H100 PCIe", 756e12),
    ("H100 NVL", 835.5e12),
    ("H100", 989.5e12),
    ("H800", 989.5e12),
    ("A100", 312e12),
    ("A800", 312e12),
    ("L40S", 362e12),
    ("L4", 121e12),
)
MEASURING_S = 0.1
MEASURED_TOKENS = 2048


@dataclasses.dataclass(frozen=True)
class Peak:
    """The FLOP/s that one rank's device can reach: as its maker says, or as a large product was `measured` to do."""

    flops: float
    measured: bool

    def describe(self) -> str:
        """Return it in words."""
        return f"{self.flops / 1e12:.4g} TFLOP/s, {'measured' if self.measured else 'as published'}"


@dataclasses.dataclass(frozen=True)
class Work:
    """What was done: scenes, input views and their tokens, and the model's FLOP; steps and ranks may be added up."""

    scenes: float = 0.0
    views: float = 0.0
    tokens: float = 0.0
    flops: float = 0.0

    def __add__(self, other: "Work") -> "Work":
        return Work(
            self.scenes + other.scenes,
            self.views + other.views,
            self.tokens + other.tokens,
            self.flops + other.flops,
        )


def batch_work(model: ModelConfig, batch: SceneBatch) -> Work:
    """Return the work of learning from a batch; in a view group that of all its ranks together."""
    assert batch.targets is not None
    num_scenes, num_inputs = batch.inputs.shape
    size = batch.inputs.image_size
    tokens = num_inputs * (size.height // model.tokenizer.patch_size) * (size.width // model.tokenizer.patch_size)
    flops = count_flops(model, num_inputs, (size.height, size.width), batch.targets.shape[1]).training
    parts = (1, num_inputs, tokens, flops)
    return Work(*(float(num_scenes * part) for part in parts))


def rates(work: Work, seconds: float, num_ranks: int, peak: Peak, device: torch.device) -> dict[str, float]:
    """Return what all ranks together did a second, which share of their peak that was, and this rank's memory.

    `work` is that of all ranks in `seconds`, whatever else they waited for meanwhile; `utilisation` lies in 0..1, and
    counts the FLOP of the model, not those that are done twice to save memory.
    """
    seconds = max(seconds, 1e-9)
    return {
        "scenes_per_s": work.scenes / seconds,
        "views_per_s": work.views / seconds,
        "tokens_per_s": work.tokens / seconds,
        "tflop_per_s": work.flops / seconds / 1e12,
        "utilisation": work.flops / seconds / (num_ranks * peak.flops),
        "memory_gb": peak_memory_mb(device) / 1e3,
    }


def find_peak(device: torch.device, dtype: torch.dtype, width: int) -> Peak:
    """Return what the device is known to reach in bf16, or what a product of a model `width` wide reaches in `dtype`.

    Measuring takes MEASURING_S, and what other ranks of the machine do meanwhile lowers it, as it does in training.
    """
    if device.type == "cuda" and dtype == torch.bfloat16:
        name = torch.cuda.get_device_name(device)
        for part, flops in KNOWN_PEAKS:
            if re.search(rf"\b{part}\b", name):
                return Peak(flops, measured=False)
    return Peak(measured_flops(device, dtype, width), measured=True)


def measured_flops(device: torch.device, dtype: torch.dtype, width: int) -> float:
    """Return the most FLOP/s that the expanding product of an MLP reached in MEASURING_S."""
    left = torch.full((MEASURED_TOKENS, width), 0.5, device=device, dtype=dtype)
    right = torch.full((width, 4 * width), 0.5, device=device, dtype=dtype)
    best, begin = float("inf"), time.perf_counter()
    while time.perf_counter() - begin < MEASURING_S:
        start = time.perf_counter()
        # Reading one number waits for the device.
        float((left @ right)[0, 0])
        best = min(best, time.perf_counter() - start)
    return 2 * MEASURED_TOKENS * width * 4 * width / best
