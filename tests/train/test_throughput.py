"""Rates are work over time, whoever did it."""

import time

import pytest
import torch

from lrm_ttt.data.procedural import ProceduralConfig, sample_batch
from lrm_ttt.model.config import ModelConfig
from lrm_ttt.model.flops import count_flops
from lrm_ttt.train import throughput
from lrm_ttt.train.throughput import Peak, Work, batch_work, find_peak, rates

CPU = torch.device("cpu")


def test_work_of_steps_and_ranks_adds_up() -> None:
    model = ModelConfig()
    one, three = (
        batch_work(model, sample_batch(ProceduralConfig((16, 24), (4, 4), 3), count, torch.Generator().manual_seed(0)))
        for count in (1, 3)
    )
    assert three == one + one + one and Work() + one == one
    assert (one.scenes, one.views, one.tokens) == (1, 4, 4 * 2 * 3)
    assert one.flops == count_flops(model, 4, (16, 24)).training


def test_rates() -> None:
    work = Work(6.0, 24.0, 2400.0, 3e12)
    found = rates(work, 2.0, 4, Peak(1.5e12, True), CPU)
    memory = found.pop("memory_gb")
    assert found == {
        "scenes_per_s": 3.0,
        "views_per_s": 12.0,
        "tokens_per_s": 1200.0,
        "tflop_per_s": 1.5,
        "utilisation": 0.25,
    }
    assert 0.05 < memory < 1000


def test_a_measured_peak_is_that_of_products() -> None:
    """What repeated products of another shape reach in the same process lies near it."""
    peak = find_peak(CPU, torch.float32, 256)
    assert peak.measured and "measured" in peak.describe()
    left, right, best = torch.ones(1024, 1024), torch.ones(1024, 1024), float("inf")
    for _ in range(8):
        start = time.perf_counter()
        left @ right
        best = min(best, time.perf_counter() - start)
    # Cores are shared with others, and a peak is that of an undisturbed moment.
    assert 0.3 < peak.flops * best / (2 * 1024**3) < 3


@pytest.mark.parametrize(
    ("name", "tera"),
    [
        ("NVIDIA H200", 989.5),
        ("NVIDIA H100 80GB HBM3", 989.5),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA L40S", 362),
        ("NVIDIA L4", 121),
    ],
)
def test_known_devices(name: str, tera: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
    peak = find_peak(torch.device("cuda"), torch.bfloat16, 768)
    assert peak == Peak(tera * 1e12, measured=False) and "published" in peak.describe()


def test_a_device_that_is_not_known_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA L40")
    monkeypatch.setattr(throughput, "measured_flops", lambda device, dtype, width: 5e12)
    assert find_peak(torch.device("cuda"), torch.bfloat16, 768) == Peak(5e12, measured=True)
    assert find_peak(torch.device("cuda"), torch.float32, 768) == Peak(5e12, measured=True)
