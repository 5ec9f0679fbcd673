"""Scaffold-GS: what its networks make of anchors, when anchors come and go, and that it reconstructs."""

import dataclasses

import pytest
import torch
from torch import Tensor

from lrm_ttt.data.procedural import procedural_capture
from lrm_ttt.eval.baselines.config import ScaffoldConfig
from lrm_ttt.eval.baselines.initialise import Cloud
from lrm_ttt.eval.baselines.scaffold import Networks, Scaffold
from lrm_ttt.eval.baselines.scaffold_density import AnchorDensity, cell_centres, cell_keys, first_anchors
from lrm_ttt.eval.baselines.seen import Seen
from lrm_ttt.eval.baselines.shots import seeded
from lrm_ttt.eval.baselines.splats import MOMENTS, Splats, with_optimisers
from lrm_ttt.eval.metrics import psnr
from lrm_ttt.eval.task import Outcome, Task
from lrm_ttt.kernels.rasterizer.op import Screen
from lrm_ttt.scene.cameras import ImageSize
from lrm_ttt.scene.similarity import Similarity
from lrm_ttt.scene.views import Views

WHITE = torch.ones(3)
CPU = torch.device("cpu")
FEW = ScaffoldConfig(iterations=60, initial=200, start=5, every=10, stop=1.0)
SIZE = ImageSize(20, 40)


def scaffold(config: ScaffoldConfig, views: Views, seed: int = 0) -> Outcome:
    return Scaffold(config, CPU)(Task(views, WHITE, seed=seed), lambda done, total: None)


def make_anchors(config: ScaffoldConfig, number: int = 5) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "means": torch.randn(number, 3, generator=generator),
        "features": torch.randn(number, config.features, generator=generator),
        "offsets": torch.randn(number, config.offsets, 3, generator=generator),
        "scales": torch.randn(number, 6, generator=generator) - 3,
    }


def test_reaches_30_db_on_held_out_views() -> None:
    views = procedural_capture(5, 50, (48, 48))
    targets = list(range(0, 50, 8))
    inputs = [index for index in range(50) if index not in targets]
    outcome = scaffold(ScaffoldConfig(iterations=800, start=50), views[inputs])
    assert float(psnr(outcome.draw(views.cameras[targets], WHITE), views.images[targets]).mean()) >= 30


def test_networks_make_gaussians_around_their_anchors() -> None:
    config, anchors = ScaffoldConfig(offsets=3), make_anchors(ScaffoldConfig(offsets=3))
    with seeded(CPU, 1):
        networks = Networks(config)
    networks.requires_grad_(False)
    found = networks(anchors, torch.tensor([0.0, 0.0, -4.0]))
    anchor, offset = found.places // 3, found.places % 3
    assert 0 < len(anchor) < 15 and bool((found.opacities > 0).all())
    sizes = anchors["scales"].exp()[anchor]
    torch.testing.assert_close(
        found.means, anchors["means"][anchor] + anchors["offsets"][anchor, offset] * sizes[:, :3]
    )
    assert bool((found.scales < sizes[:, 3:]).all())
    # What is seen depends on where from, and nothing else of the scene does.
    there = networks(anchors, torch.tensor([4.0, 0.0, 0.0]))
    both = torch.isin(found.places, there.places)
    other = torch.isin(there.places, found.places)
    torch.testing.assert_close(found.means[both], there.means[other])
    assert float((found.colors[both] - there.colors[other]).abs().max()) > 1e-3


def test_a_cell_has_one_anchor() -> None:
    points = 3 * torch.randn(1000, 3, generator=torch.Generator().manual_seed(0))
    keys = cell_keys(points, 0.5)
    assert float((cell_centres(keys, 0.5) - points).abs().max()) <= 0.25 + 1e-6
    assert len(keys.unique()) == len(cell_centres(keys, 0.5).unique(dim=0)) < 1000
    anchors = first_anchors(Cloud(points, points, torch.arange(1.0, 1001.0)), ScaffoldConfig(cell=0.5))
    assert torch.equal(cell_keys(anchors["means"], 0.5), keys.unique())
    # As large as the points in it are apart at most.
    largest = torch.stack([(torch.arange(1.0, 1001.0) * (keys == key)).max() for key in keys.unique()])
    torch.testing.assert_close(anchors["scales"].exp(), largest[:, None].expand(-1, 6))


def make_splats(anchors: dict[str, Tensor]) -> Splats:
    """Return anchors that have moved once, so that all have moments."""
    splats = with_optimisers(anchors, dict.fromkeys(anchors, 1e-3))
    sum(parameter.square().sum() for parameter in splats.parameters.values()).backward()
    splats.step(0.0)
    return splats


def see(density: AnchorDensity, splats: Splats, step: int, pull: Tensor, opacities: Tensor) -> None:
    """Let all Gaussians be drawn, pulled at by `pull` (in the image's sides of 2) and of these opacities `[m k]`."""
    number = pull.numel()
    screen = Screen(torch.zeros(1, number, 2, requires_grad=True), torch.ones(1, number))
    screen.means2d.grad = torch.stack([torch.zeros(number), pull.flatten() / (SIZE.height / 2)], -1)[None]
    density.after_step(splats, step, Seen(screen, SIZE), torch.arange(number), opacities.flatten())


def test_what_is_pulled_at_gets_an_anchor_where_there_is_none() -> None:
    config = ScaffoldConfig(offsets=2, start=0, every=10, cell=0.01, grow_gradient=0.5)
    anchors = make_anchors(config, 3)
    anchors["means"] = torch.tensor([[0.0, 0.0, 0.0], [0.64, 0.0, 0.0], [1.28, 0.0, 0.0]])
    anchors["scales"] = torch.zeros(3, 6)
    # Both of the first anchor ask at one place, one of the second beside its anchor, one of the third too weakly.
    place = torch.tensor([[0.0, 3.2, 0.0], [0.0, 3.2, 0.0]])
    anchors["offsets"] = torch.stack([place, torch.zeros(2, 3), torch.tensor([[0.0, -3.2, 0.0], [0.0, 3.2, 0.0]])])
    splats = with_optimisers(anchors, dict.fromkeys(anchors, 1e-3))
    density = AnchorDensity(config, torch.Generator().manual_seed(0))
    pull = torch.tensor([[0.9, 0.9], [0.9, 0.0], [0.1, 0.1]])
    for step in range(1, 101):
        see(density, splats, step, pull, torch.full((3, 2), 0.5))
        if splats.num_gaussians > 3:
            break
    assert splats.num_gaussians == 4
    new = {name: parameter.detach()[-1] for name, parameter in splats.parameters.items()}
    torch.testing.assert_close(new["means"], torch.tensor([0.0, 3.2, 0.0]), atol=0.08 + 1e-6, rtol=0)
    torch.testing.assert_close(new["features"], anchors["features"][0])
    assert not new["offsets"].any()
    # The widest cells come first, for they ask for least.
    torch.testing.assert_close(new["scales"].exp(), torch.full((6,), 0.16))


def test_anchors_that_show_nothing_go_and_the_others_stay_as_they_are() -> None:
    config = ScaffoldConfig(offsets=2, start=0, every=10, grow_gradient=1e9)
    splats = make_splats(make_anchors(config, 4))
    before = {name: parameter.detach().clone() for name, parameter in splats.parameters.items()}
    moments = {name: splats.optimisers[name].state[splats.parameters[name]]["exp_avg"].clone() for name in before}
    density = AnchorDensity(config, torch.Generator().manual_seed(0))
    opacities = torch.tensor([[0.5, 0.0], [0.001, 0.002], [0.004, 0.004], [0.0, 0.0]])
    for step in range(1, 11):
        see(density, splats, step, torch.zeros(4, 2), opacities)
    for name, parameter in splats.parameters.items():
        assert torch.equal(parameter, before[name][[0, 2]]), name
        state = splats.optimisers[name].state[parameter]
        assert torch.equal(state["exp_avg"], moments[name][[0, 2]]) and set(MOMENTS) < set(state), name
    assert len(density.counts) == len(density.steps) == 2


def test_a_seed_decides_everything() -> None:
    views = procedural_capture(2, 2, (24, 24))
    first, again, other = (scaffold(FEW, views, seed).draw(views.cameras, WHITE) for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_answers_in_the_frame_and_units_of_the_capture() -> None:
    """Another frame and unit change the Gaussians along, and no picture."""
    views = procedural_capture(4, 8, (24, 24))
    quarter = torch.tensor([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    moved = Similarity(quarter, torch.tensor([4.0, -2.0, 8.0]), torch.tensor(4.0))
    there = dataclasses.replace(views, cameras=moved.cameras(views.cameras))
    config = dataclasses.replace(FEW, iterations=15)
    first, second = scaffold(config, views), scaffold(config, there)
    assert second.near == pytest.approx(4 * first.near, rel=1e-4)
    drawn, expected = second.draw(there.cameras, WHITE), first.draw(views.cameras, WHITE)
    assert float(psnr(drawn, expected).min()) > 40


def test_every_camera_sees_its_own_gaussians() -> None:
    views = procedural_capture(2, 4, (24, 24))
    outcome = scaffold(FEW, views)
    assert outcome.seen_from is not None
    one_by_one = [
        dataclasses.replace(outcome, gaussians=outcome.seen_from(views.cameras[i : i + 1]), seen_from=None)
        for i in range(4)
    ]
    expected = torch.cat([each.draw(views.cameras[i : i + 1], WHITE) for i, each in enumerate(one_by_one)])
    assert torch.equal(outcome.draw(views.cameras, WHITE), expected)
    assert not torch.equal(one_by_one[0].draw(views.cameras[1:2], WHITE)[0], expected[1])
    assert torch.equal(outcome.gaussians.means, one_by_one[0].gaussians.means)


def test_nothing_to_see_is_no_error() -> None:
    views = procedural_capture(2, 2, (24, 24))
    assert views.masks is not None
    blank = dataclasses.replace(views, images=torch.ones_like(views.images), masks=torch.zeros_like(views.masks))
    outcome = scaffold(dataclasses.replace(FEW, iterations=100), blank)
    assert float(psnr(outcome.draw(views.cameras, WHITE), blank.images).min()) > 20
