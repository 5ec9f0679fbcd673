"""Schedules, states and queries of the backbone: the laws of ARCHITECTURE and MODEL."""

import pytest
import torch

from lrm_ttt.errors import InvalidConfig
from lrm_ttt.layers.config import MemoryConfig
from lrm_ttt.model.backbone import Backbone, Precision
from lrm_ttt.model.config import BackboneConfig
from lrm_ttt.model.state import SceneState

PRECISION = Precision()


MIXERS = pytest.mark.parametrize("mixer", ["fast_weight", "softmax"])


def _backbone(
    schedule: str, heads: int = 1, views_per_update: int = 2, elastic: float = 0.0, mixer: str = "fast_weight"
) -> Backbone:
    torch.manual_seed(0)
    norm = "merged" if heads == 1 else "per_head"
    memory = MemoryConfig(head_dim=32 // heads, multiple=2, output_norm=norm, elastic=elastic)  # type: ignore[arg-type]
    config = BackboneConfig(32, 2, 16, 2, memory, schedule, views_per_update, mixer=mixer)  # type: ignore[arg-type]
    backbone = Backbone(config)
    for parameter in backbone.parameters():
        # The published deviation of 0.02 would leave every branch near zero and the laws untested.
        if parameter.ndim == 2:
            torch.nn.init.normal_(parameter, std=0.15)
    return backbone


def _tokens(views: int) -> torch.Tensor:
    return torch.randn(2, views, 6, 32, generator=torch.Generator().manual_seed(4))


@MIXERS
@pytest.mark.parametrize("schedule", ["single", "chunked"])
def test_update_then_query_of_the_same_views_is_the_joint_pass_bit_for_bit(schedule: str, mixer: str) -> None:
    backbone, tokens = _backbone(schedule, mixer=mixer), _tokens(4)
    state, features = backbone.update(tokens, backbone.start(2), PRECISION)
    assert torch.equal(backbone.query(tokens, state, PRECISION), features)


@MIXERS
def test_single_does_not_depend_on_the_order_of_views(mixer: str) -> None:
    backbone, tokens = _backbone("single", heads=2, mixer=mixer), _tokens(5)
    order = [3, 0, 4, 1, 2]
    _, features = backbone.update(tokens, backbone.start(2), PRECISION)
    _, shuffled = backbone.update(tokens[:, order], backbone.start(2), PRECISION)
    torch.testing.assert_close(shuffled, features[:, order], rtol=1e-4, atol=1e-5)


def test_chunked_and_causal_do_depend_on_the_order_of_chunks() -> None:
    for schedule in ("chunked", "causal"):
        backbone, tokens = _backbone(schedule), _tokens(4)
        _, features = backbone.update(tokens, backbone.start(2), PRECISION)
        _, flipped = backbone.update(tokens.flip(1), backbone.start(2), PRECISION)
        assert (flipped.flip(1) - features).abs().max() > 1e-2


@pytest.mark.parametrize(("mixer", "elastic"), [("fast_weight", 0.0), ("fast_weight", 0.05), ("softmax", 0.0)])
def test_causal_streamed_in_chunks_is_one_causal_pass(mixer: str, elastic: float) -> None:
    backbone, tokens = _backbone("causal", elastic=elastic, mixer=mixer), _tokens(6)
    whole_state, whole = backbone.update(tokens, backbone.start(2), PRECISION)
    state, parts = backbone.start(2), []
    for chunk in tokens.split(2, 1):
        state, features = backbone.update(chunk, SceneState.from_tensors(state.tensors(), state.num_views), PRECISION)
        parts.append(features)
    assert state.num_views == whole_state.num_views == 6
    # Rounding alone, amplified by Newton-Schulz: relative L2, measured 3e-6.
    assert (torch.cat(parts, 1) - whole).norm() < 1e-5 * whole.norm()
    for name, tensor in state.tensors().items():
        # Importances are squares, so their relative error is twice that.
        assert (tensor - whole_state.tensors()[name]).norm() < 2e-5 * tensor.norm(), name


@MIXERS
def test_causal_never_looks_ahead(mixer: str) -> None:
    backbone, tokens = _backbone("causal", mixer=mixer), _tokens(6)
    changed = tokens.clone()
    changed[:, 4:] += 1
    _, before = backbone.update(tokens, backbone.start(2), PRECISION)
    _, after = backbone.update(changed, backbone.start(2), PRECISION)
    torch.testing.assert_close(after[:, :4], before[:, :4], rtol=1e-5, atol=1e-5)


def test_one_chunk_makes_all_schedules_equal() -> None:
    tokens = _tokens(3)
    outputs = []
    for schedule in ("single", "chunked", "causal"):
        backbone = _backbone(schedule, views_per_update=3)
        outputs.append(backbone.update(tokens, backbone.start(2), PRECISION)[1])
    assert torch.equal(outputs[0], outputs[1]) and torch.equal(outputs[0], outputs[2])


def test_the_mixers_share_every_slow_weight_but_the_memory() -> None:
    """The comparison is fair by construction: what is not the memory has the same names, shapes and initial values."""
    ours, theirs = _backbone("single").state_dict(), _backbone("single", mixer="softmax").state_dict()
    shared = [name for name in ours if ".memory." not in name]
    assert shared == [name for name in theirs if ".memory." not in name]
    assert all(ours[name].shape == theirs[name].shape for name in shared)


@pytest.mark.parametrize("schedule", ["single", "chunked"])
def test_only_causal_goes_on_from_a_state(schedule: str) -> None:
    backbone = _backbone(schedule)
    state, _ = backbone.update(_tokens(2), backbone.start(2), PRECISION)
    with pytest.raises(InvalidConfig, match="causal"):
        backbone.update(_tokens(2), state, PRECISION)


def test_queries_leave_no_trace_and_do_not_see_each_other() -> None:
    backbone = _backbone("single")
    state, _ = backbone.update(_tokens(3), backbone.start(2), PRECISION)
    queries = torch.randn(2, 3, 6, 32)
    together = backbone.query(queries, state, PRECISION)
    torch.testing.assert_close(
        backbone.query(queries[:, 1:2], state, PRECISION), together[:, 1:2], rtol=1e-5, atol=1e-5
    )


def test_checkpointing_changes_no_gradient() -> None:
    backbone, tokens = _backbone("chunked"), _tokens(4)
    gradients = []
    for checkpointing in (False, True):
        backbone.checkpointing = checkpointing
        backbone.zero_grad()
        backbone.update(tokens, backbone.start(2), PRECISION)[1].square().sum().backward()
        gradients.append([parameter.grad.clone() for parameter in backbone.parameters()])
    for plain, checkpointed in zip(*gradients, strict=True):
        torch.testing.assert_close(checkpointed, plain, rtol=1e-4, atol=1e-4)


@MIXERS
def test_every_slow_weight_gets_a_gradient(mixer: str) -> None:
    backbone = _backbone("chunked", heads=2, mixer=mixer)
    state, features = backbone.update(_tokens(4), backbone.start(2), PRECISION)
    (features.square().sum() + backbone.query(_tokens(2), state, PRECISION).sum()).backward()
    silent = [name for name, parameter in backbone.named_parameters() if not parameter.grad.abs().max() > 0]
    assert not silent
