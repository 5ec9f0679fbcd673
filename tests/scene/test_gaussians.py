"""What a similarity of the world does to Gaussians, told without rendering."""

import math

import pytest
import torch

from lrm_ttt.kernels.rasterizer.spherical_harmonics import sh_basis
from lrm_ttt.scene.gaussians import SH_C0, Gaussians, _chances
from lrm_ttt.scene.rotations import wxyz_to_matrix
from tests.scene.make import cameras, gaussians, normal, similarity


def covariances(some: Gaussians) -> torch.Tensor:
    half = wxyz_to_matrix(some.wxyz) * some.scales[..., None, :]
    return half @ half.mT


def colours(some: Gaussians, from_point: torch.Tensor) -> torch.Tensor:
    """Return the colours of Gaussians seen from a point."""
    directions = torch.nn.functional.normalize(some.means - from_point, dim=-1)
    basis = sh_basis(directions, some.sh_degree)
    return (0.5 + (basis[..., None] * some.sh).sum(-2)).clamp(min=0)


def density(some: Gaussians, points: torch.Tensor) -> torch.Tensor:
    """Return exp(-1/2 d^T C^-1 d) of each Gaussian `[n]` at `points` `[m 3]`."""
    offset = points[:, None] - some.means
    distance = torch.einsum("mni,nij,mnj->mn", offset, torch.linalg.inv(covariances(some)), offset)
    return torch.exp(-0.5 * distance)


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_everything_is_seen_as_before_when_the_world_moves(degree: int) -> None:
    """Density at moved points, colour from a moved place, and opacity: all unchanged."""
    some, motion = gaussians(30, degree), similarity(seed=4)
    moved = some.transform(motion)
    points = 2 * normal(20, 3, seed=8)
    assert torch.allclose(density(moved, motion.points(points)), density(some, points), atol=1e-9)
    place = torch.tensor([[3.0, -2.0, 1.0]], dtype=torch.float64)
    assert torch.allclose(colours(moved, motion.points(place)), colours(some, place), atol=1e-9)
    assert torch.equal(moved.opacities, some.opacities)
    assert torch.allclose(moved.wxyz.norm(dim=-1), torch.ones(30, dtype=torch.float64))


def test_projected_means_stay() -> None:
    some, motion, view = gaussians(10), similarity(), cameras()
    pixels, _ = view.project(some.means)
    again, _ = motion.cameras(view[None])[0].project(some.transform(motion).means)
    assert torch.allclose(again, pixels, atol=1e-9)


def test_there_and_back() -> None:
    some, motion = gaussians(20), similarity(seed=2)
    again = some.transform(motion).transform(motion.inverse())
    for name in ("means", "scales", "sh"):
        assert torch.allclose(getattr(again, name), getattr(some, name), atol=1e-10), name
    assert torch.allclose(covariances(again), covariances(some), atol=1e-10)


def test_a_batch_is_its_scenes() -> None:
    some, motion = gaussians(7, 3, 2), similarity(2)
    together = some.transform(motion)
    for index in range(2):
        alone = some[index].transform(motion[index])
        for name in ("means", "scales", "wxyz", "sh"):
            assert torch.allclose(getattr(together, name)[index], getattr(alone, name), atol=1e-12)


def test_float32_covariances_follow() -> None:
    some, motion = gaussians(50, dtype=torch.float32), similarity(dtype=torch.float32)
    moved = covariances(some.transform(motion))
    expected = motion.scale**2 * motion.rotation @ covariances(some) @ motion.rotation.T
    assert torch.allclose(moved, expected, rtol=1e-4, atol=1e-5)


def test_prune_keeps_the_most_opaque_in_their_order() -> None:
    some = gaussians(100)
    kept = some.prune(0.4)
    assert kept.num_gaussians == 40
    threshold = some.opacities.sort(descending=True).values[39]
    expected = some.select(some.opacities >= threshold)
    assert torch.equal(kept.means, expected.means)
    assert torch.equal(kept.sh, expected.sh)
    assert some.prune(1.0).num_gaussians == 100


def test_prune_with_a_random_share_contains_the_kept() -> None:
    some = gaussians(1000)
    sure = some.prune(0.4)
    more = some.prune(0.4, 0.1, generator=torch.Generator().manual_seed(0))
    assert set(sure.opacities.tolist()) <= set(more.opacities.tolist())
    # A tenth of the other 600, give or take four standard deviations.
    assert abs(more.num_gaussians - 460) < 4 * math.sqrt(600 * 0.1 * 0.9)
    again = some.prune(0.4, 0.1, generator=torch.Generator().manual_seed(0))
    assert torch.equal(again.means, more.means)


def test_prune_of_a_batch_is_that_of_its_scenes_and_passes_gradients_to_what_it_keeps() -> None:
    some = gaussians(50, 2, 3)
    leaves = some.map(lambda tensor: tensor.clone().requires_grad_())
    kept = leaves.prune(0.3)
    for index in range(3):
        alone = some[index].prune(0.3)
        for name in ("means", "scales", "wxyz", "opacities", "sh"):
            assert torch.equal(getattr(kept[index], name), getattr(alone, name)), name
    kept.means.sum().backward()
    assert leaves.means.grad is not None
    threshold = some.opacities.sort(descending=True).values[:, 14:15]
    assert torch.equal(leaves.means.grad[..., 0], (some.opacities >= threshold).double())


def test_a_generator_on_the_cpu_only_seeds_another_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """The meta device stands for a GPU, which has no generator here."""
    seeds = []

    class OfAnotherDevice:
        def __init__(self, device: torch.device) -> None:
            assert device.type == "meta"

        def manual_seed(self, seed: int) -> None:
            seeds.append(seed)

    one, again = (torch.Generator().manual_seed(5) for _ in range(2))
    monkeypatch.setattr(torch, "Generator", OfAnotherDevice)
    drawn = [_chances(torch.empty(7, device="meta"), generator) for generator in (one, one, again)]
    assert all(chances.device.type == "meta" for chances in drawn)
    assert seeds[0] == seeds[2] != seeds[1]


@pytest.mark.parametrize("random_fraction", [0.0, 0.1])
def test_prune_waits_for_no_device(random_fraction: float) -> None:
    """Meta tensors have no values: whatever asks for one, as a device would have to be waited for, fails."""
    kept = gaussians(100).to("meta").prune(0.4, random_fraction)
    assert kept.num_gaussians == (46 if random_fraction else 40)


def test_select_by_mask_is_select_by_position() -> None:
    some = gaussians(40)
    mask = some.opacities > 0.5
    by_mask, by_position = some.select(mask), some.select(torch.arange(40)[mask])
    assert by_mask.num_gaussians == int(mask.sum())
    assert all(torch.equal(getattr(by_mask, name), getattr(by_position, name)) for name in ("means", "wxyz", "sh"))


def test_degree_and_counts() -> None:
    for degree in range(4):
        some = gaussians(3, degree)
        assert some.sh_degree == degree
        assert some.num_gaussians == 3
        assert some.shape == ()
    assert gaussians(5, 1, 2, 3).shape == (2, 3)
    # The constant of the first harmonic, 1 / (2 sqrt(pi)).
    assert math.isclose(SH_C0, 0.5 / math.sqrt(math.pi))
