"""The baselines as methods: they reconstruct, in the frame of the capture, and the same each time."""

import dataclasses

import pytest
import torch
from torch import Tensor

from lrm_ttt.data.procedural import procedural_capture
from lrm_ttt.eval.baselines.config import AdaptiveConfig, McmcConfig, OptimiseConfig
from lrm_ttt.eval.baselines.optimise import Optimise
from lrm_ttt.eval.baselines.smoothing import filter_scales
from lrm_ttt.eval.metrics import psnr
from lrm_ttt.eval.task import Outcome, Task
from lrm_ttt.scene.similarity import Similarity
from lrm_ttt.scene.views import Views

WHITE = torch.ones(3)
CPU = torch.device("cpu")


def optimise(config: OptimiseConfig, views: Views, points: Tensor | None = None) -> Outcome:
    return Optimise(config, CPU)(Task(views, WHITE, points), lambda done, total: None)


@pytest.mark.parametrize(
    "config",
    [
        OptimiseConfig(strategy="adaptive", adaptive=AdaptiveConfig(start=50)),
        OptimiseConfig(strategy="mcmc", mcmc=McmcConfig(start=50)),
        OptimiseConfig(strategy="adaptive", adaptive=AdaptiveConfig(start=50), mip=True),
    ],
    ids=["3dgs", "mcmc", "mip"],
)
def test_reaches_30_db_on_held_out_views(config: OptimiseConfig) -> None:
    views = procedural_capture(5, 50, (48, 48))
    targets = list(range(0, 50, 8))
    inputs = [index for index in range(50) if index not in targets]
    outcome = optimise(dataclasses.replace(config, iterations=800, initial=800), views[inputs])
    drawn = outcome.draw(views.cameras[targets], WHITE)
    assert float(psnr(drawn, views.images[targets]).mean()) >= 30


def few_steps(strategy: str, mip: bool = False) -> OptimiseConfig:
    """Return a run in which Gaussians come and go."""
    return OptimiseConfig(
        strategy=strategy,  # type: ignore[arg-type]
        mip=mip,
        iterations=60,
        initial=200,
        sh_degree_every=20,
        adaptive=AdaptiveConfig(start=5, every=10, stop=1.0, reset_every=30),
        mcmc=McmcConfig(start=5, every=10, cap=230),
    )


@pytest.mark.parametrize(("strategy", "mip"), [("adaptive", False), ("adaptive", True), ("mcmc", False)])
def test_a_seed_decides_everything(strategy: str, mip: bool) -> None:
    views = procedural_capture(2, 2, (24, 24))
    threads = torch.get_num_threads()
    first = optimise(few_steps(strategy, mip), views).gaussians
    torch.set_num_threads(3 - min(threads, 2))
    try:
        again = optimise(few_steps(strategy, mip), views).gaussians
    finally:
        torch.set_num_threads(threads)
    assert first.num_gaussians != 200
    for name, tensor in vars(first).items():
        assert torch.equal(tensor, getattr(again, name)), name
        assert bool(tensor.isfinite().all())


@pytest.mark.parametrize("strategy", ["adaptive", "mcmc"])
def test_answers_in_the_frame_and_units_of_the_capture(strategy: str) -> None:
    """Another frame and unit change the Gaussians along, and no picture."""
    views = procedural_capture(4, 8, (24, 24))
    points = 0.3 * torch.randn(300, 3, generator=torch.Generator().manual_seed(0))
    quarter = torch.tensor([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    moved = Similarity(quarter, torch.tensor([4.0, -2.0, 8.0]), torch.tensor(4.0))
    other = dataclasses.replace(views, cameras=moved.cameras(views.cameras))
    config = dataclasses.replace(few_steps(strategy), iterations=15)
    here, there = optimise(config, views, points), optimise(config, other, moved.points(points))
    assert there.near == pytest.approx(4 * here.near, rel=1e-4)
    drawn, expected = there.draw(other.cameras, WHITE), here.draw(views.cameras, WHITE)
    assert float(psnr(drawn, expected).min()) > 40


def test_says_how_far_it_is() -> None:
    heard: list[tuple[int, int]] = []
    views = procedural_capture(2, 2, (24, 24))
    config = OptimiseConfig(iterations=5, initial=50)
    Optimise(config, CPU)(Task(views, WHITE), lambda done, total: heard.append((done, total)))
    assert heard == [(step, 5) for step in range(1, 6)]


def test_mip_splatting_gives_back_what_its_filter_widened() -> None:
    views = procedural_capture(2, 3, (24, 24))
    outcome = optimise(few_steps("adaptive", mip=True), views)
    widths = filter_scales(views.cameras, outcome.gaussians.means, outcome.near)
    assert outcome.antialiased and outcome.eps2d == 0.1
    assert bool((outcome.gaussians.scales >= 0.999 * widths[:, None]).all())


@pytest.mark.parametrize(("strategy", "mip"), [("adaptive", True), ("mcmc", False)])
def test_nothing_to_see_is_no_error(strategy: str, mip: bool) -> None:
    views = procedural_capture(2, 2, (24, 24))
    assert views.masks is not None
    blank = dataclasses.replace(views, images=torch.ones_like(views.images), masks=torch.zeros_like(views.masks))
    outcome = optimise(dataclasses.replace(few_steps(strategy, mip), iterations=100), blank)
    assert outcome.gaussians.num_gaussians > 0
    assert float(psnr(outcome.draw(views.cameras, WHITE), blank.images).min()) > 20
