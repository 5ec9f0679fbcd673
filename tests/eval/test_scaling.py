"""What the formulas say equals what the model has, and what autograd keeps."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from lrm_ttt.config_io import load_yaml
from lrm_ttt.eval.scaling import (
    KEPT_BY_FEATURE,
    KEPT_BY_GAUSSIAN,
    KEPT_BY_HARMONIC,
    KEPT_BY_PERCEPTUAL,
    KEPT_BY_PIXEL,
    Step,
    Traffic,
    kept_by_block,
    memory,
    num_fast_weights,
    num_floats,
    num_parameters,
    traffic,
    view_rate,
)
from lrm_ttt.eval.scaling_tables import Assumptions, arrange, report
from lrm_ttt.layers.block import Block
from lrm_ttt.layers.config import MemoryConfig
from lrm_ttt.layers.initialisation import initialise
from lrm_ttt.losses.perceptual import PerceptualError
from lrm_ttt.model.build import build
from lrm_ttt.model.config import BackboneConfig, GaussianHeadConfig, ModelConfig
from lrm_ttt.model.heads.gaussian import GaussianHead
from lrm_ttt.model.tokenizer import Tokenizer
from lrm_ttt.scene.cameras import Cameras, ImageSize
from lrm_ttt.scene.views import Views
from tests.helpers.shared import CHECKOUT
from tests.helpers.vgg import random_vgg

BASE_FILE = CHECKOUT / "configs" / "model" / "base.yaml"
BASE = load_yaml(BASE_FILE, ModelConfig)


def small(width: int = 96, multiple: int = 4, feed_forward: int = 4, heads: int = 1, degree: int = 1) -> ModelConfig:
    memory = MemoryConfig(width // heads, multiple)
    return ModelConfig(
        backbone=BackboneConfig(width, 2, 32, feed_forward, memory), head=GaussianHeadConfig(sh_degree=degree)
    )


def kept(run: Callable[[], object], *modules: torch.nn.Module) -> int:
    """Return the bytes that autograd keeps of a forward pass, parameters apart."""
    own = {parameter.untyped_storage().data_ptr() for module in modules for parameter in module.parameters()}
    storages, alive = {}, []

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            storages[storage.data_ptr()] = storage.nbytes()
            alive.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        alive.append(run())  # type: ignore[arg-type]
    return sum(storages.values())


@pytest.mark.parametrize("representation", ["gaussians", "images"])
@pytest.mark.parametrize(
    "model", [BASE, small(), small(heads=2), small(64, 2, 3, degree=0)], ids=["base", "one head", "two heads", "others"]
)
def test_parameters_are_those_of_the_model(model: ModelConfig, representation: str) -> None:
    model = dataclasses.replace(model, representation=representation)
    with torch.device("meta"):
        built = build(model)
    assert num_parameters(model) == built.num_parameters
    assert num_fast_weights(model) * model.backbone.num_blocks == sum(
        parameter.numel() for name, parameter in built.named_parameters() if name.endswith(("gate", "up", "down"))
    )


@pytest.mark.parametrize("model", [small(), small(192), small(multiple=2), small(feed_forward=2)])
def test_a_block_keeps_what_the_formula_says(model: ModelConfig) -> None:
    """Within 1 %, for a block in bf16 with the steps of Newton-Schulz as on a GPU, in float16 and taken again."""
    backbone = model.backbone
    block = Block(backbone.width, 32, backbone.memory, backbone.feed_forward_multiple)
    initialise(block, 1, False)

    def counted(tokens: int) -> int:
        x = torch.randn(1, tokens, backbone.width, requires_grad=True)
        rest = (None, False, torch.float16, torch.bfloat16)
        return kept(lambda: block(x, block.memory.start(1), 64, *rest), block)  # type: ignore[operator]

    for tokens in (512, 1024):
        assert kept_by_block(model, tokens, 1) == pytest.approx(counted(tokens), rel=0.01)


@pytest.mark.parametrize(("degree", "width"), [(0, 64), (1, 64), (3, 128)])
def test_the_ends_keep_what_the_formula_says_for_each_pixel(degree: int, width: int) -> None:
    """Differences between 4 and 2 views, so that what belongs to the weights drops out; within 2 %."""
    model = small(width, degree=degree)
    head, tokenizer = GaussianHead(width, 8, model.head), Tokenizer(width, model.tokenizer)
    size = ImageSize(32, 48)

    def counted(num_views: int) -> tuple[int, int]:
        cam_to_world = torch.eye(4).repeat(1, num_views, 1, 1)
        cam_to_world[..., :3, 3] = torch.randn(1, num_views, 3)
        cameras = Cameras(cam_to_world, torch.tensor([40.0, 40, 24, 16]).repeat(1, num_views, 1), size)
        views = Views(torch.rand(1, num_views, 3, *size), cameras)
        tokens = tokenizer(views, torch.bfloat16)
        features = torch.randn(1, num_views, 24, width, requires_grad=True)
        before = kept(lambda: tokenizer(views, torch.bfloat16), tokenizer)
        return before, kept(lambda: head(features, tokens, torch.bfloat16), head)

    few, many = counted(2), counted(4)
    by_pixel = [(more - less) / (2 * 32 * 48) for less, more in zip(few, many, strict=True)]
    # The norm of a token keeps it in fp32.
    assert by_pixel[0] == pytest.approx(KEPT_BY_PIXEL + 4 * width / 64, rel=0.02)
    expected = KEPT_BY_GAUSSIAN + KEPT_BY_HARMONIC * (degree + 1) ** 2 + KEPT_BY_FEATURE * width / 64
    assert by_pixel[1] == pytest.approx(expected, rel=0.02)


def test_the_perceptual_loss_keeps_what_the_formula_says_for_each_pixel(tmp_path: Path) -> None:
    """Of the renderings alone; within 1 %."""
    random_vgg("vgg19", tmp_path / "vgg19.pth")
    error = PerceptualError("vgg19", str(tmp_path / "vgg19.pth"))
    colors, images = torch.rand(2, 2, 3, 32, 48).unbind()
    colors.requires_grad_()
    assert kept(lambda: error(colors, images), error) == pytest.approx(2 * 32 * 48 * KEPT_BY_PERCEPTUAL, rel=0.01)


def find(found: list[Traffic], what: str) -> Traffic:
    (one,) = [each for each in found if each.what == what]
    return one


def test_traffic_in_closed_form() -> None:
    step = Step(32, (536, 960), ranks_per_scene=4, world=16, accumulation=3, checkpointing=False)
    found = traffic(BASE, step)
    sums = find(found, "fast-weight gradients")
    # Forward and backward of 24 layers, three matrices of 768 x 3072 in fp32.
    assert sums.calls == 3 * 2 * 24 and sums.payload == sums.calls * 3 * 768 * 3072 * 4
    assert sums.sent == 2 * 3 / 4 * sums.payload
    gathered = find(found, "Gaussians")
    assert gathered.payload == 3 * 32 * 536 * 960 * 59 * 4 and gathered.sent == 3 / 4 * gathered.payload
    assert find(found, "gradients of Gaussians").payload == gathered.payload
    # Once a step, however many accumulations.
    assert find(found, "gradients").payload == 4 * num_parameters(BASE)
    sharded = traffic(BASE, dataclasses.replace(step, strategy="fsdp2"))
    assert find(sharded, "parameters").payload == 3 * 4 * num_parameters(BASE)
    assert find(sharded, "gradients").sent == 15 / 16 * 4 * num_parameters(BASE)
    again = traffic(BASE, dataclasses.replace(step, checkpointing=True))
    assert find(again, "fast-weight gradients").payload == 1.5 * sums.payload


def test_every_chunk_is_summed() -> None:
    backbone = dataclasses.replace(BASE.backbone, schedule="causal", views_per_update=4)
    step = Step(30, (64, 64), ranks_per_scene=2, world=2)
    single = find(traffic(BASE, step), "fast-weight gradients")
    causal = find(traffic(dataclasses.replace(BASE, backbone=backbone), step), "fast-weight gradients")
    assert causal.payload == 8 * single.payload


def test_one_rank_alone_sends_nothing_and_images_gather_nothing() -> None:
    assert traffic(BASE, Step(32, (536, 960))) == []
    images = dataclasses.replace(BASE, representation="images")
    names = [one.what for one in traffic(images, Step(32, (536, 960), ranks_per_scene=2, world=2))]
    assert names == ["fast-weight gradients", "gradients"]


def test_sharding_divides_the_weights_and_view_groups_the_views() -> None:
    alone = memory(BASE, Step(32, (536, 960), world=8))
    sharded = memory(BASE, Step(32, (536, 960), world=8, strategy="fsdp2"))
    weights = ("parameters", "gradients", "optimiser", "average")
    assert all(sharded[name] == alone[name] / 8 for name in ("optimiser", "average"))
    # They are whole while they are used.
    assert all(sharded[name] == alone[name] * (1 + 1 / 8) for name in ("parameters", "gradients"))
    assert sum(alone[name] for name in weights) == 20 * num_parameters(BASE)
    assert {name: sharded[name] for name in alone if name not in weights} == {
        name: alone[name] for name in alone if name not in weights
    }
    shared = memory(BASE, Step(32, (536, 960), world=8, ranks_per_scene=4))
    assert shared["head"] == alone["head"] / 4
    # All ranks hold all Gaussians once they are gathered, and their gradient.
    assert shared["gathered Gaussians"] == 2 * 32 * 536 * 960 * num_floats(BASE) * 4


def test_what_64_gpus_are_given() -> None:
    wanted = Assumptions(BASE_FILE)
    step = arrange(BASE, wanted, 32, 64)
    assert (step.ranks_per_scene, step.accumulation, step.num_scenes) == (2, 2, 64)
    # No more groups than scenes, whatever fits.
    assert arrange(BASE, wanted, 16, 512).ranks_per_scene == 8
    assert view_rate(step, 16.0) == 64 * 40 / 16


def test_the_tables_are_those_of_the_document() -> None:
    """docs/scaling.md holds them word for word."""
    text = (CHECKOUT / "docs" / "scaling.md").read_text(encoding="utf-8")
    lines = [line for line in report(BASE, Assumptions(BASE_FILE)).splitlines() if line.startswith("|")]
    assert not [line for line in lines if line not in text]
