"""The objective is the weighted sum of exactly the terms that were asked for."""

import dataclasses
from pathlib import Path

import pytest
import torch

from lrm_ttt.data.procedural import ProceduralConfig, sample_batch
from lrm_ttt.errors import InvalidConfig
from lrm_ttt.losses.config import LossConfig
from lrm_ttt.losses.objective import Objective, build_objectives
from lrm_ttt.losses.perceptual import PerceptualError
from lrm_ttt.scene.gaussians import Gaussians
from lrm_ttt.scene.views import Renderings, SceneBatch
from tests.helpers.vgg import random_vgg

WEIGHTS = {"mse": 2.0, "alpha": 0.3, "position": 0.2, "depth": 0.05, "opacity": 0.01, "coverage": 0.7}


def case(room_fraction: float) -> tuple[Renderings, SceneBatch, Gaussians]:
    config = ProceduralConfig((8, 8), (2, 2), 2, room_fraction)
    batch = sample_batch(config, 1, torch.Generator().manual_seed(3))
    n = 2 * 64
    gaussians = Gaussians(
        torch.rand(1, n, 3), torch.rand(1, n, 3), torch.rand(1, n, 4), torch.rand(1, n), torch.rand(1, n, 1, 3)
    )
    return Renderings(torch.rand(1, 2, 3, 8, 8), torch.rand(1, 2, 1, 8, 8), torch.rand(1, 2, 1, 8, 8)), batch, gaussians


def test_total_is_the_weighted_sum() -> None:
    renderings, batch, gaussians = case(room_fraction=0.0)
    losses = Objective(LossConfig(**WEIGHTS), 4)(renderings, batch.targets, gaussians, batch.inputs)
    assert set(losses.terms) == set(WEIGHTS)
    expected = sum(WEIGHTS[name] * float(term) for name, term in losses.terms.items())
    assert abs(float(losses.total) - expected) < 1e-6
    for name in WEIGHTS:
        alone = Objective(LossConfig(**{"mse": 0.0, name: 1.0}), 4)(renderings, batch.targets, gaussians, batch.inputs)
        assert alone.terms == {name: losses.terms[name]} and alone.total == losses.terms[name]


def test_rooms_have_no_mask_terms() -> None:
    renderings, batch, gaussians = case(room_fraction=1.0)
    losses = Objective(LossConfig(**WEIGHTS), 4)(renderings, batch.targets, gaussians, batch.inputs)
    assert set(losses.terms) == set(WEIGHTS) - {"alpha", "coverage"}


@pytest.mark.parametrize(("network", "file"), [("vgg19", "vgg19-dcbb9e9d.pth"), ("lpips", "vgg16-397923af.pth")])
def test_absent_weights_are_one_error_with_both_remedies(
    network: str, file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    wanted = LossConfig(perceptual=0.5, perceptual_network=network)
    with pytest.raises(InvalidConfig) as found:
        build_objectives([LossConfig(), wanted], 8)
    message = str(found.value)
    for part in (str(tmp_path / "checkpoints" / file), "losses.perceptual_weights", "losses.perceptual to 0"):
        assert part in message
    named = dataclasses.replace(wanted, perceptual_weights=str(tmp_path / "mine.pth"))
    with pytest.raises(InvalidConfig, match=r"mine\.pth"):
        build_objectives([named], 8)


def test_weights_that_do_not_fit_are_named(tmp_path: Path) -> None:
    path = tmp_path / "vgg.pth"
    torch.save({"features.0.weight": torch.zeros(1)}, path)
    with pytest.raises(InvalidConfig, match=r"vgg\.pth holds another network"):
        PerceptualError("vgg19", str(path))
    for name, content in (("page.pth", b"<html>"), ("page.safetensors", b"<html>"), ("empty.pth", b"")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InvalidConfig, match=f"{name} with the weights of 'vgg19' cannot be read"):
            PerceptualError("vgg19", str(tmp_path / name))


@pytest.mark.parametrize(("network", "file"), [("vgg19", "vgg19-dcbb9e9d.pth"), ("lpips", "vgg16-397923af.pth")])
def test_perceptual_error_is_a_distance(
    network: str, file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    random_vgg(network, tmp_path / "checkpoints" / file)
    # Without a name the file in torchvision's cache is taken, and stages share the network.
    first, second = build_objectives(2 * [LossConfig(perceptual=0.5, perceptual_network=network)], 8)
    error = first.perceptual
    assert error is not None and error is second.perceptual
    a, b = torch.rand(2, 1, 3, 32, 32).unbind()
    assert error(a, a) == 0
    assert error(a, b) > error(a, a + 0.05 * (b - a)) > 0
    colors, images = a.clone().requires_grad_(), b.clone().requires_grad_()
    error(colors, images).backward()
    assert colors.grad is not None and colors.grad.abs().sum() > 0 and images.grad is None
    # A run in fp64 keeps the network as it is.
    assert torch.equal(error(a.double(), b.double()), error(a, b).double())
    assert not any(parameter.requires_grad for parameter in error.parameters())
