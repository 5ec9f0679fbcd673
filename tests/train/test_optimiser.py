"""Muon against torch's own, and what happens to gradients that are not fit to be followed."""

import pytest
import torch
from torch import nn

from lrm_ttt.errors import IncompatibleCheckpoint
from lrm_ttt.model.reconstructor import Reconstructor
from lrm_ttt.train.config import OptimiserConfig
from lrm_ttt.train.muon import Muon
from lrm_ttt.train.optimiser import Optimiser, WeightAverage, is_hidden_matrix
from tests.train.micro import MODEL

SHAPES = ((24, 24), (24, 72), (72, 24), (24, 24), (8, 24))


def test_muon_equals_torchs() -> None:
    torch.manual_seed(0)
    ours = [nn.Parameter(torch.randn(shape)) for shape in SHAPES]
    theirs = [nn.Parameter(parameter.detach().clone()) for parameter in ours]
    muon = Muon(ours, 0.05, 0.95, torch.bfloat16)
    reference = torch.optim.Muon(theirs, lr=0.1, weight_decay=0.05, momentum=0.95, adjust_lr_fn="match_rms_adamw")
    muon.param_groups[0]["lr"] = 0.1
    before = [parameter.detach().clone() for parameter in ours]
    for _ in range(3):
        for a, b in zip(ours, theirs, strict=True):
            a.grad = torch.randn_like(a)
            b.grad = a.grad.clone()
        muon.step()
        reference.step()
    for a, b, start in zip(ours, theirs, before, strict=True):
        # bfloat16 carries two to three digits, and both sides round differently at every product: 3e-2 was measured.
        assert (a - b).norm() < 6e-2 * (b - start).norm()


def test_which_parameters_muon_takes() -> None:
    model = Reconstructor(MODEL)
    taken = {name.split(".", 3)[-1] for name, p in model.named_parameters() if is_hidden_matrix(name, p)}
    assert taken == {
        "attention.qkv.weight",
        "attention.out.weight",
        "memory.qkv.weight",
        "memory.out.weight",
        "feed_forward.expand.weight",
        "feed_forward.contract.weight",
    }


def filled(model: nn.Module, value: float) -> None:
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, value)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e6])
def test_bad_gradients_are_skipped(bad: float) -> None:
    model = Reconstructor(MODEL)
    optimiser = Optimiser(model.named_parameters(), OptimiserConfig())
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    filled(model, 0.0)
    next(model.parameters()).grad = torch.full_like(next(model.parameters()), bad)
    assert not optimiser.step(1e-3, 1e-3)[1]
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    filled(model, 1e-3)
    assert optimiser.step(1e-3, 1e-3)[1]
    assert not any(torch.equal(before[name], tensor) for name, tensor in model.named_parameters())


def test_state_of_another_model_is_refused() -> None:
    optimiser = Optimiser(Reconstructor(MODEL).named_parameters(), OptimiserConfig())
    with pytest.raises(IncompatibleCheckpoint, match="other/exp_avg"):
        optimiser.load_state({"other/exp_avg": torch.zeros(3)})


def test_average_lies_between_and_swapping_twice_is_nothing() -> None:
    layer = nn.Linear(2, 2)
    average = WeightAverage(layer, 0.9)
    start = layer.weight.detach().clone()
    with torch.no_grad():
        layer.weight += 1
    average.update(step=10**6)
    torch.testing.assert_close(average.weights["weight"], start + 0.1)
    average.swap()
    torch.testing.assert_close(layer.weight.detach(), start + 0.1)
    average.swap()
    torch.testing.assert_close(layer.weight.detach(), start + 1)
