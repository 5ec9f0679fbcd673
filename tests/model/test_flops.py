"""The analytic count against torch's counter, and against the table that the design was made from."""

import dataclasses
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode, flop_registry, sdpa_backward_flop_count, sdpa_flop_count

from lrm_ttt.data.procedural import ProceduralConfig, sample_batch
from lrm_ttt.layers.config import MemoryConfig
from lrm_ttt.model.build import build
from lrm_ttt.model.config import (
    BackboneConfig,
    EvidenceConfig,
    GaussianHeadConfig,
    ModelConfig,
    TokenizerConfig,
    TriplaneConfig,
)
from lrm_ttt.model.flops import count_flops

SMALL = ModelConfig(
    TokenizerConfig(4),
    BackboneConfig(32, 2, 16, 3, MemoryConfig(16, 2), views_per_update=2),
    GaussianHeadConfig(sh_degree=1, distance="range"),
    "focus",
    triplane=TriplaneConfig(8, 4, 4, 8, 1, num_stratified=2, num_importance=0),
)
# Attention on processors, which torch's counter knows from 2.15.
ON_CPU = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: lambda *shapes, **_: sdpa_flop_count(*shapes[:3]),
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: lambda *shapes, **_: sdpa_backward_flop_count(
        *shapes[:4]
    ),
}
UNKNOWN = {operation: formula for operation, formula in ON_CPU.items() if operation not in flop_registry}
INPUTS, TARGETS, SIZE = 5, 2, (8, 12)
# The rays of a camera are a product of 3 x 3 matrices for each pixel, which the analytic count leaves out.
RAYS_OF_A_VIEW = 18 * SIZE[0] * SIZE[1]


def small(representation: str = "gaussians", **backbone: Any) -> ModelConfig:
    return dataclasses.replace(
        SMALL, representation=representation, backbone=dataclasses.replace(SMALL.backbone, **backbone)
    )


def measure(config: ModelConfig, train: bool = False, checkpointing: bool = False) -> FlopCounterMode:
    """Return what torch counts, without rendering."""
    torch.manual_seed(0)
    scenes = ProceduralConfig(SIZE, (INPUTS, INPUTS), TARGETS, 0.0)
    batch = sample_batch(scenes, 1, torch.Generator().manual_seed(0))
    assert batch.targets is not None
    model = build(config)
    model.backbone.checkpointing = checkpointing
    forward = getattr(model, "reconstruct", model)
    with FlopCounterMode(display=False, custom_mapping=UNKNOWN) as counter:
        out = (
            forward(batch.inputs, batch.targets.cameras) if config.representation == "images" else forward(batch.inputs)
        )
        if train:
            values = [out] if isinstance(out, torch.Tensor) else [getattr(out, field.name) for field in fields(out)]
            torch.stack([value.square().sum() for value in values]).sum().backward()
    return counter


def fields(out: Any) -> list[dataclasses.Field[Any]]:
    return [field for field in dataclasses.fields(out) if isinstance(getattr(out, field.name), torch.Tensor)]


@pytest.mark.parametrize("mixer", ["fast_weight", "softmax"])
@pytest.mark.parametrize("schedule", ["single", "chunked", "causal"])
@pytest.mark.parametrize("representation", ["gaussians", "images", "triplane"])
def test_forward_is_what_torch_counts(representation: str, schedule: str, mixer: str) -> None:
    config = small(representation, schedule=schedule, mixer=mixer)
    counted = count_flops(config, INPUTS, SIZE, TARGETS)
    views = {"gaussians": (3 if schedule == "causal" else 2) * INPUTS, "images": INPUTS + TARGETS, "triplane": INPUTS}
    expected = counted.forward + views[representation] * RAYS_OF_A_VIEW
    assert measure(config).get_total_flops() == expected


def test_evidence_is_embedded_and_its_head_convolves() -> None:
    model = dataclasses.replace(
        small(), tokenizer=TokenizerConfig(4, EvidenceConfig(6, 2, 2)), head=GaussianHeadConfig(1, "evidence", hidden=8)
    )
    found = measure(model).get_flop_counts()
    counted = count_flops(model, INPUTS, SIZE)
    assert found["Reconstructor.tokenizer"][torch.ops.aten.mm] == counted.embedding
    head = found["Reconstructor.head"]
    assert head[torch.ops.aten.mm] + head[torch.ops.aten.convolution] == counted.head


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("changes", [{}, {"mixer": "softmax"}, {"schedule": "chunked"}])
def test_training_is_what_torch_counts(changes: dict[str, Any], checkpointing: bool) -> None:
    config = small(**changes)
    counted = count_flops(config, INPUTS, SIZE)
    done = counted.training_recomputed if checkpointing else counted.training
    # Images need no gradient, so the backward pass of the embedding is one product instead of two.
    expected = done - counted.embedding + 2 * INPUTS * RAYS_OF_A_VIEW
    assert measure(config, True, checkpointing).get_total_flops() == expected


@pytest.mark.parametrize(
    ("num_inputs", "size", "tera"),
    [(16, (536, 960), 269), (32, (536, 960), 536), (64, (536, 960), 1069), (8, (512, 512), 61), (8, (256, 256), 16)],
)
def test_base_model_costs_what_the_design_counted(num_inputs: int, size: tuple[int, int], tera: int) -> None:
    base = dataclasses.replace(ModelConfig(), head=GaussianHeadConfig(sh_degree=3))
    assert round(count_flops(base, num_inputs, size).forward / 1e12) == tera
