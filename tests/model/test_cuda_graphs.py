"""Graphed passes: one recording a set of shapes, results that stay, and else the plain function."""

import logging
from collections.abc import Callable
from typing import Literal, NamedTuple

import pytest
import torch
from torch import Tensor

from lrm_ttt.layers.config import MemoryConfig
from lrm_ttt.model import cuda_graphs
from lrm_ttt.model.backbone import Backbone, Precision
from lrm_ttt.model.config import BackboneConfig
from lrm_ttt.model.cuda_graphs import GraphedPass, why_not


class Pair(NamedTuple):
    total: Tensor
    rest: tuple[Tensor, None]


def work(x: Tensor, y: Tensor) -> Pair:
    return Pair(x @ y, (x.exp(), None))


class FakeGraph:
    """As a CUDA graph does, it reads and writes the same memory at every replay, and knows no other."""

    def __init__(self, function: Callable[..., Pair], inputs: tuple[Tensor, ...]) -> None:
        self.function = function
        self.inputs = tuple(torch.full_like(tensor, float("nan")) for tensor in inputs)
        self.output = function(*self.inputs)
        self.replays = 0

    def replay(self) -> None:
        self.replays += 1
        made = self.function(*self.inputs)
        self.output.total.copy_(made.total)
        self.output.rest[0].copy_(made.rest[0])


@pytest.fixture
def anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_graphs, "why_not", lambda inputs: "")


@pytest.fixture
def recorded() -> list[FakeGraph]:
    return []


@pytest.fixture
def graphed(anywhere: None, recorded: list[FakeGraph]) -> GraphedPass:
    def record(function: Callable[..., Pair], inputs: tuple[Tensor, ...]) -> FakeGraph:
        recorded.append(FakeGraph(function, inputs))
        return recorded[-1]

    return GraphedPass(work, most_graphs=2, record=record)


def _inputs(n: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 3, generator=generator).to(dtype), torch.randn(3, 2, generator=generator).to(dtype)


def test_replays_compute_what_the_function_computes(graphed: GraphedPass, recorded: list[FakeGraph]) -> None:
    for seed in range(3):
        made, expected = graphed(*_inputs(4, seed)), work(*_inputs(4, seed))
        assert isinstance(made, Pair) and made.rest[1] is None
        assert torch.equal(made.total, expected.total) and torch.equal(made.rest[0], expected.rest[0])
    assert [graph.replays for graph in recorded] == [3]


def test_a_result_outlives_the_next_replay(graphed: GraphedPass) -> None:
    first = graphed(*_inputs(4, 0))
    graphed(*_inputs(4, 1))
    assert torch.equal(first.total, work(*_inputs(4, 0)).total)


def test_inputs_are_left_alone_and_may_lie_anyhow(graphed: GraphedPass) -> None:
    x, y = _inputs(4)
    strided = x.T.contiguous().T
    assert torch.equal(graphed(strided, y).total, graphed(x, y).total)
    assert torch.equal(strided, x)


def test_one_graph_for_each_shape_and_dtype(graphed: GraphedPass, recorded: list[FakeGraph]) -> None:
    for inputs in (_inputs(4), _inputs(5), _inputs(4, 1)):
        graphed(*inputs)
    assert len(recorded) == graphed.num_graphs == 2
    graphed(*_inputs(4, dtype=torch.float64))
    assert len(recorded) == 3


def test_the_least_recently_used_goes_first(graphed: GraphedPass, recorded: list[FakeGraph]) -> None:
    for n in (4, 5, 4, 6, 4):
        graphed(*_inputs(n))
    # Five went when six came, four stayed.
    assert len(recorded) == 3 and graphed.num_graphs == 2
    graphed(*_inputs(5))
    assert len(recorded) == 4
    graphed.forget()
    assert graphed.num_graphs == 0


def test_what_cannot_be_recorded_runs_as_it_is(anywhere: None, caplog: pytest.LogCaptureFixture) -> None:
    tried = []

    def record(function: Callable[..., Pair], inputs: tuple[Tensor, ...]) -> FakeGraph:
        tried.append(inputs)
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    graphed = GraphedPass(work, record=record)
    caplog.set_level(logging.INFO)
    for _ in range(2):
        assert torch.equal(graphed(*_inputs(4)).total, work(*_inputs(4)).total)
    assert len(tried) == 1 and graphed.num_graphs == 0
    assert caplog.messages == ["no CUDA graph: recording fails: operation not permitted when stream is capturing"]


def test_off_cuda_the_function_runs_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    graphed = GraphedPass(work)
    for n in (4, 5):
        assert torch.equal(graphed(*_inputs(n)).total, work(*_inputs(n)).total)
    assert graphed.num_graphs == 0
    assert caplog.messages == ["no CUDA graph: tensors are on cpu"]


def test_gradients_pass_where_no_graph_is_made() -> None:
    x, y = (tensor.requires_grad_() for tensor in _inputs(4))
    GraphedPass(work)(x, y).total.sum().backward()
    assert x.grad is not None and torch.equal(x.grad, y.detach().sum(1).expand(4, 3))


def test_reasons(monkeypatch: pytest.MonkeyPatch) -> None:
    class OnCuda(Tensor):
        device = torch.device("cuda", 0)

    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    there = torch.zeros(1).as_subclass(OnCuda)
    assert why_not((there,)) == "gradients are taken"
    with torch.no_grad():
        assert why_not((there,)) == ""
        assert why_not((there, torch.zeros(1))) == "tensors are on cpu"
        monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
        assert why_not((there,)) == "another graph is being recorded"


@pytest.mark.parametrize("schedule", ["single", "chunked", "causal"])
@pytest.mark.parametrize("mixer", ["fast_weight", "softmax"])
def test_the_pass_through_the_blocks_can_be_recorded(
    schedule: Literal["single", "chunked", "causal"], mixer: Literal["fast_weight", "softmax"]
) -> None:
    """Meta tensors have no values: what asks for one, as a GPU would have to be waited for, fails here as there."""
    memory = MemoryConfig(head_dim=32, multiple=2)
    backbone = Backbone(BackboneConfig(32, 2, 16, 2, memory, mixer=mixer, schedule=schedule, views_per_update=2))
    backbone.to("meta")
    precision = Precision(torch.bfloat16, torch.bfloat16)

    def read(tokens: Tensor) -> Tensor:
        state, features = backbone.update(tokens, backbone.start(1), precision)
        return backbone.query(features, state, precision)

    with torch.no_grad():
        assert GraphedPass(read)(torch.empty(1, 5, 6, 32, device="meta")).shape == (1, 5, 6, 32)
