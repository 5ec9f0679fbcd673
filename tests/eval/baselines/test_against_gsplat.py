"""Our strategies against gsplat's: the same Gaussians, moments of Adam included, from the same random numbers."""

import copy
import importlib.util
from collections.abc import Iterator
from types import ModuleType

import pytest
import torch
from torch import Tensor

from lrm_ttt.data.procedural import procedural_capture
from lrm_ttt.eval.baselines.adaptive import AdaptiveDensity
from lrm_ttt.eval.baselines.config import AdaptiveConfig, McmcConfig, OptimiseConfig, RatesConfig
from lrm_ttt.eval.baselines.density import Density
from lrm_ttt.eval.baselines.gsplat_density import GsplatAdaptive, GsplatMcmc
from lrm_ttt.eval.baselines.mcmc import MOST_OPACITY, McmcDensity, shake, shares
from lrm_ttt.eval.baselines.optimise import Optimise
from lrm_ttt.eval.baselines.seen import Seen
from lrm_ttt.eval.baselines.splats import MOMENTS, Splats, lower_opacities, make_splats
from lrm_ttt.eval.metrics import psnr
from lrm_ttt.eval.task import Task
from lrm_ttt.kernels.rasterizer.op import Screen
from lrm_ttt.scene.cameras import ImageSize
from lrm_ttt.scene.rotations import wxyz_to_matrix
from tests.helpers.gsplat import equation_9, gsplat_strategies

pytestmark = pytest.mark.skipif(importlib.util.find_spec("gsplat") is None, reason="gsplat is not installed")


@pytest.fixture
def strategies() -> Iterator[ModuleType]:
    with gsplat_strategies() as module:
        yield module


def random_splats(number: int, opacities: tuple[float, float], seed: int = 0) -> Splats:
    """Return Gaussians that Adam has moved a little."""
    generator = torch.Generator().manual_seed(seed)
    low, high = opacities
    values = {
        "means": torch.randn(number, 3, generator=generator),
        "scales": torch.rand(number, 3, generator=generator) * 3 - 5.5,
        "quats": torch.randn(number, 4, generator=generator),
        "opacities": (low + (high - low) * torch.rand(number, generator=generator)).logit(),
        "sh0": torch.randn(number, 1, 3, generator=generator),
        "shN": torch.randn(number, 15, 3, generator=generator),
    }
    splats = make_splats(values, RatesConfig())
    for parameter in splats.parameters.values():
        parameter.grad = torch.randn(parameter.shape, generator=generator)
    splats.step(1e-4)
    return splats


def assert_same(ours: Splats, theirs: Splats, tolerance: float) -> None:
    for name, parameter in ours.parameters.items():
        other = theirs.parameters[name]
        torch.testing.assert_close(parameter, other, rtol=tolerance, atol=tolerance)
        assert ours.optimisers[name].param_groups[0]["params"][0] is parameter
        state, other_state = ours.optimisers[name].state[parameter], theirs.optimisers[name].state[other]
        for key in (*MOMENTS, "step"):
            torch.testing.assert_close(state[key], other_state[key], rtol=0, atol=0)
        assert len(ours.optimisers[name].state) == 1


def random_seen(number: int, step: int) -> Seen:
    generator = torch.Generator().manual_seed(step)
    means2d = torch.zeros(1, number, 2, requires_grad=True)
    means2d.grad = 1e-5 * torch.randn(1, number, 2, generator=generator).exp()
    radii = (4 * torch.rand(1, number, generator=generator) - 1).clamp(min=0)
    means2d.grad *= radii[..., None] > 0
    return Seen(Screen(means2d, radii), ImageSize(48, 64))


def follow(density: Density, splats: Splats, steps: int) -> list[int]:
    """Let a strategy act in some steps; return how many Gaussians there are after each."""
    numbers = []
    for step in range(steps):
        density.after_step(splats, step, random_seen(splats.num_gaussians, step), 1.6e-4)
        numbers.append(splats.num_gaussians)
    return numbers


def test_adaptive_density_is_that_of_gsplat(strategies: ModuleType) -> None:
    # Of 11 steps those after 4 and 8 change numbers, with the huge removed in the second, and 6 resets opacities.
    config = AdaptiveConfig(start=2, every=4, reset_every=6, stop=0.5, grow_gradient=1e-3, prune_scale=0.06)
    splats = random_splats(60, (0.001, 0.6))
    other = copy.deepcopy(splats)
    torch.manual_seed(3)
    numbers = follow(AdaptiveDensity(config, 24, torch.Generator().manual_seed(3)), splats, 11)
    assert numbers == follow(GsplatAdaptive(config, 24), other, 11)
    assert len(set(numbers)) == 3
    assert_same(splats, other, 1e-6)


def test_opacities_are_reset_as_gsplat_would(strategies: ModuleType) -> None:
    splats = random_splats(20, (0.001, 0.6))
    other = copy.deepcopy(splats)
    lower_opacities(splats, 0.01)
    strategies.ops.reset_opa(other.parameters, other.optimisers, {}, 0.01)  # type: ignore[attr-defined]
    assert_same(splats, other, 0.0)
    assert splats.parameters["opacities"].sigmoid().max() < 0.0101


def test_mcmc_is_that_of_gsplat(strategies: ModuleType) -> None:
    config = McmcConfig(cap=66, start=0, every=2)
    splats = random_splats(60, (0.001, MOST_OPACITY - 0.01))
    # Where the axes of a Gaussian are those of the world, the same random numbers make the same noise.
    splats.parameters["quats"].data = torch.tensor([2.0, 0.0, 0.0, 0.0]).repeat(60, 1)
    other = copy.deepcopy(splats)
    torch.manual_seed(5)
    numbers = follow(McmcDensity(config, 100, torch.Generator().manual_seed(5)), splats, 7)
    assert numbers == follow(GsplatMcmc(config, 100), other, 7) == [60, 60, 63, 63, 66, 66, 66]
    # Equation 9 by its binomials taken together, and covariances never built.
    assert_same(splats, other, 2e-5)


def test_noise_has_the_shape_of_the_gaussian() -> None:
    """Its covariance is that of the Gaussian, squared."""
    number = 20_000
    one = {name: tensor.detach()[:1] for name, tensor in random_splats(20, (0.004, 0.006)).parameters.items()}
    splats = make_splats(
        {name: tensor.expand(number, *tensor.shape[1:]) for name, tensor in one.items()}, RatesConfig()
    )
    before = splats.parameters["means"].detach().clone()
    shake(splats, 100.0, torch.Generator().manual_seed(0))
    moved = (splats.parameters["means"] - before).detach()
    axes = wxyz_to_matrix(one["quats"][0]) * one["scales"][0].exp()
    share = 100 / (1 + (100 * (one["opacities"][0].sigmoid() - 0.005)).exp())
    expected = share**2 * (axes @ axes.T) @ (axes @ axes.T)
    torch.testing.assert_close(moved.T @ moved / number, expected, rtol=0.05, atol=0.02 * float(expected.amax()))


def test_what_is_solid_is_not_shaken() -> None:
    splats = random_splats(60, (MOST_OPACITY + 0.01, 0.9))
    before = splats.parameters["means"].detach().clone()
    shake(splats, 80.0, torch.Generator())
    assert torch.equal(splats.parameters["means"], before)


def test_shares_are_equation_9() -> None:
    opacities = torch.linspace(0.01, 0.99, 50, dtype=torch.float64)
    copies = torch.arange(1, 51)
    shared, factors = shares(opacities, copies)
    expected, scales = equation_9(opacities, torch.ones(50, 3, dtype=torch.float64), copies, torch.zeros(51, 51))
    torch.testing.assert_close(shared, expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(factors, scales[:, 0], rtol=1e-6, atol=0)
    torch.testing.assert_close(1 - (1 - shared) ** copies, opacities)


@pytest.mark.parametrize("strategy", ["adaptive", "mcmc"])
def test_optimises_through_gsplats_classes_as_through_ours(
    strategy: str, strategies: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What runs on CUDA, on the CPU: the strategies act on what our rasterizer says."""
    views = procedural_capture(3, 6, (32, 32))
    config = OptimiseConfig(
        strategy=strategy,  # type: ignore[arg-type]
        iterations=120,
        initial=150,
        adaptive=AdaptiveConfig(start=10, every=20, reset_every=50, stop=1.0),
        mcmc=McmcConfig(start=10, every=20),
    )

    def quality() -> tuple[int, Tensor]:
        outcome = Optimise(config, torch.device("cpu"))(Task(views, torch.ones(3)), lambda done, total: None)
        return outcome.gaussians.num_gaussians, psnr(outcome.draw(views.cameras, torch.ones(3)), views.images).mean()

    number, ours = quality()
    # gsplat draws from torch's own random numbers.
    torch.manual_seed(0)
    theirs = GsplatAdaptive(config.adaptive, 120) if strategy == "adaptive" else GsplatMcmc(config.mcmc, 120)
    monkeypatch.setattr("lrm_ttt.eval.baselines.optimise.build_density", lambda *arguments: theirs)
    other_number, other = quality()
    # Other random numbers make other Gaussians.
    assert number > 150 and abs(number - other_number) <= 0.2 * number
    assert abs(float(ours - other)) < 1.0
