"""Slices of views change no result: the sums are sums, and the rest is done view by view."""

import dataclasses

import pytest
import torch

from lrm_ttt.layers.config import MemoryConfig
from lrm_ttt.model.backbone import Backbone, Precision
from lrm_ttt.model.config import BackboneConfig, EvidenceConfig, GaussianHeadConfig, ModelConfig, TokenizerConfig
from lrm_ttt.model.evidence import distance_range, gather_evidence
from lrm_ttt.model.novel_view import NovelViewModel
from lrm_ttt.model.reconstructor import Reconstructor
from lrm_ttt.model.slices import Slices
from lrm_ttt.scene.gaussians import Gaussians
from lrm_ttt.scene.manipulable import stack
from lrm_ttt.scene.similarity import normalising_similarity
from lrm_ttt.scene.views import Views
from tests.pipeline.make import make_views

EVIDENCE = EvidenceConfig(num_planes=8, num_neighbours=2, num_silhouettes=3)
BACKBONE = BackboneConfig(32, 2, 16, 2, MemoryConfig(32, 2))


def _scenes(num_views: int, masks: bool = True) -> Views:
    """Return two procedural objects with their focus in the origin."""
    scenes = [make_views(num_views, seed) for seed in (3, 4)]
    if not masks:
        scenes = [dataclasses.replace(views, masks=None) for views in scenes]
    by_focus = [normalising_similarity(views.cameras, "focus") for views in scenes]
    return stack(
        [
            dataclasses.replace(views, cameras=s.cameras(views.cameras))
            for views, s in zip(scenes, by_focus, strict=True)
        ]
    )


def _shaken(module: torch.nn.Module) -> None:
    """Give every branch something to say: what is untrained is nearly zero, and would hide what goes wrong."""
    generator = torch.Generator().manual_seed(0)
    for parameter in module.parameters():
        if parameter.ndim == 2:
            torch.nn.init.normal_(parameter, std=0.15, generator=generator)


def _assert_equal(got: Gaussians, want: Gaussians, tolerance: float) -> None:
    for field in dataclasses.fields(want):
        first, second = getattr(got, field.name), getattr(want, field.name)
        assert first.shape == second.shape and (first - second).norm() < tolerance * second.norm(), field.name


def test_slices_cover_all_views_once() -> None:
    for num_views in range(1, 9):
        for step in (None, 1, 3, 20):
            parts = Slices(step).of(num_views)
            assert [view for part in parts for view in range(part.start, part.stop)] == list(range(num_views))
            assert (len(parts) > 1) == Slices(step).cut(num_views)
    assert Slices(2).of(7, 4) == [slice(4, 6), slice(6, 7)]


@pytest.mark.parametrize("step", [1, 2, 3])
@pytest.mark.parametrize("mixer", ["fast_weight", "softmax"])
@pytest.mark.parametrize("schedule", ["single", "chunked", "causal"])
@torch.no_grad()
def test_tokens_write_and_read_the_same_in_slices(schedule: str, mixer: str, step: int) -> None:
    memory = MemoryConfig(16, 2, output_norm="per_head")
    backbone = Backbone(BackboneConfig(32, 2, 16, 2, memory, schedule, 3, mixer=mixer))  # type: ignore[arg-type]
    _shaken(backbone)
    tokens = torch.randn(2, 7, 6, 32, generator=torch.Generator().manual_seed(4))
    before = tokens.clone()
    state, features = backbone.update(tokens, backbone.start(2), Precision())
    sliced_state, sliced = backbone.update(tokens, backbone.start(2), Precision(), Slices(step))
    queries = tokens.flip(-1)
    read, sliced_read = (backbone.query(queries, state, Precision(), slices) for slices in (Slices(), Slices(step)))
    # Rounding alone, amplified by Newton-Schulz, update after update: relative L2, measured 6e-6.
    assert (sliced - features).norm() < 1e-5 * features.norm()
    assert (sliced_read - read).norm() < 1e-5 * read.norm()
    assert sliced_state.num_views == state.num_views == 7 and torch.equal(tokens, before)
    for name, tensor in state.tensors().items():
        assert (sliced_state.tensors()[name] - tensor).norm() < 2e-5 * tensor.norm(), name


@pytest.mark.parametrize("masks", [True, False])
def test_evidence_of_some_views_is_that_among_all(masks: bool) -> None:
    views = _scenes(7, masks)
    ranges = distance_range(views.cameras, is_object=masks)
    whole = gather_evidence(views, ranges, EVIDENCE)
    for part in Slices(3).of(7):
        some = gather_evidence(views, ranges, EVIDENCE, part)
        assert torch.equal(some.costs, whole.costs[:, part]) and torch.equal(some.hulls, whole.hulls[:, part])


@pytest.mark.parametrize("step", [1, 3])
@pytest.mark.parametrize("schedule", ["single", "causal"])
@pytest.mark.parametrize("head", ["far", "range", "evidence"])
@torch.inference_mode()
def test_gaussians_are_the_same_in_slices(head: str, schedule: str, step: int) -> None:
    tokenizer = TokenizerConfig(8, EVIDENCE if head == "evidence" else None)
    backbone = dataclasses.replace(BACKBONE, schedule=schedule)
    config = ModelConfig(tokenizer, backbone, GaussianHeadConfig(distance=head, hidden=8))  # type: ignore[arg-type]
    model, views = Reconstructor(config).eval(), _scenes(7)
    _shaken(model.backbone)
    whole = model(views)
    model.slices = Slices(step)
    # Measured 1.3e-5 in quaternions that are normalised from short ones, otherwise 2e-6.
    _assert_equal(model(views), whole, 3e-5)
    model.slices = Slices()
    chosen = model(views, [5, 0, 2, 6])
    model.slices = Slices(step)
    _assert_equal(model(views, [5, 0, 2, 6]), chosen, 3e-5)


@torch.inference_mode()
def test_what_is_kept_of_slices_is_what_is_kept_of_all() -> None:
    config = ModelConfig(TokenizerConfig(8, EVIDENCE), BACKBONE, GaussianHeadConfig(distance="evidence", hidden=8))
    model, views = Reconstructor(config).eval(), _scenes(5)[:1]
    whole = model(views)[0]
    opaque = whole.select(whole.opacities > 0.3)
    model.slices = Slices(2, keep=lambda made: made[0].select(made.opacities[0] > 0.3)[None])
    assert 0 < opaque.num_gaussians < whole.num_gaussians
    _assert_equal(model(views)[0], opaque, 1e-5)


@torch.inference_mode()
def test_novel_views_are_the_same_in_slices() -> None:
    model, views = NovelViewModel(ModelConfig(TokenizerConfig(8), BACKBONE, representation="images")), _scenes(5)
    _shaken(model)
    whole = model(views[:, :3], views.cameras[:, 2:])
    model.slices = Slices(2)
    assert (model(views[:, :3], views.cameras[:, 2:]) - whole).abs().max() < 3e-5


def test_slices_are_for_inference() -> None:
    backbone = Backbone(BACKBONE)
    with pytest.raises(AssertionError, match="inference"):
        backbone.update(torch.zeros(1, 3, 2, 32), backbone.start(1), Precision(), Slices(2))
