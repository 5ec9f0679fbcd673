"""How memory decides about slices."""

from pathlib import Path

import pytest
import torch

from lrm_ttt.errors import InvalidConfig
from lrm_ttt.layers.config import MemoryConfig
from lrm_ttt.model.config import BackboneConfig, EvidenceConfig, ModelConfig, TokenizerConfig
from lrm_ttt.pipeline import slicing
from lrm_ttt.pipeline.config import ReconstructConfig, parse_memory
from lrm_ttt.pipeline.slicing import MARGIN, SHARE_OF_FREE_MEMORY, Workload, plan_slices

CPU = torch.device("cpu")


def workload(num_views: int = 100) -> Workload:
    """Return a run of which the model's work is the peak, and not the check."""
    config = ModelConfig(TokenizerConfig(evidence=EvidenceConfig()), BackboneConfig(192, 6, memory=MemoryConfig(96, 2)))
    return Workload(config, num_views, num_views, pixels=72 * 128, window=144, kept_share=0.05)


@pytest.mark.parametrize(
    ("words", "expected"), [("4GB", 4e9), ("800 mb", 8e8), ("1.5GiB", 1.5 * 2**30), ("2g", 2e9), (None, None)]
)
def test_budgets_are_read_with_their_units(words: str | None, expected: float | None) -> None:
    assert parse_memory(words) == expected


@pytest.mark.parametrize("words", ["4", "GB", "-1GB", "0MB", "4 cows", "1.2.3GB", ""])
def test_other_budgets_are_refused(words: str) -> None:
    with pytest.raises(InvalidConfig, match="unit, such as 4GB"):
        ReconstructConfig("example", Path("out"), memory_budget=words)


def test_a_budget_gives_the_largest_slices_that_fit() -> None:
    work = workload()
    for views in (12, 20, 40):
        peak = work.peak_mb(views)
        plan = plan_slices(work, MARGIN * peak * 1e6 + 1, CPU)
        assert (plan.views, plan.peak_mb) == (views, peak) and plan.note is None
    assert plan_slices(work, MARGIN * work.peak_mb(None) * 1e6 + 1, CPU).views is None


def test_a_budget_below_one_view_is_an_error_that_names_what_works() -> None:
    work = workload()
    least = work.peak_mb(1)
    with pytest.raises(InvalidConfig, match=f"{MARGIN * least / 1000:.2f} GB even one view at a time"):
        plan_slices(work, MARGIN * least * 1e6 - 1e6, CPU)


def test_without_a_budget_what_is_free_decides_and_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    work = workload()
    monkeypatch.setattr(slicing, "available_memory_mb", lambda device: 1e6)
    assert plan_slices(work, None, CPU) == slicing.SlicePlan(None, work.peak_mb(None))
    monkeypatch.setattr(
        slicing, "available_memory_mb", lambda device: MARGIN * work.peak_mb(12) / SHARE_OF_FREE_MEMORY + 1
    )
    plan = plan_slices(work, None, CPU)
    assert plan.views == 12 and plan.note is not None and "12 views at a time" in plan.note
    # Too little even for one view: it is tried, and said.
    monkeypatch.setattr(slicing, "available_memory_mb", lambda device: 1.0)
    assert plan_slices(work, None, CPU).views == 1


def test_beyond_inputs_and_outputs_the_peak_does_not_grow_with_views() -> None:
    def beyond(num_views: int) -> float:
        work = workload(num_views)
        stream = num_views * 144 * work.model.backbone.width * slicing.BYTES_PER_STREAM_CHANNEL
        per_pixel = slicing.BYTES_PER_INPUT_PIXEL + slicing.BYTES_PER_DEPTH_PIXEL + 0.05 * slicing.BYTES_PER_GAUSSIAN
        return work.peak_mb(16) - (stream + num_views * work.pixels * per_pixel) / 1e6

    # From where a slice has all the neighbours that it can have.
    assert beyond(2000) == pytest.approx(beyond(300))
