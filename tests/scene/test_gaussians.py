"""What a similarity of the world does to Gaussians, told without rendering."""

import math

import pytest
import torch

from lrm_ttt.kernels.rasterizer.spherical_harmonics import sh_basis
from lrm_ttt.scene.gaussians import SH_C0, Gaussians
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


def test_degree_and_counts() -> None:
    for degree in range(4):
        some = gaussians(3, degree)
        assert some.sh_degree == degree
        assert some.num_gaussians == 3
        assert some.shape == ()
    assert gaussians(5, 1, 2, 3).shape == (2, 3)
    # The constant of the first harmonic, 1 / (2 sqrt(pi)).
    assert math.isclose(SH_C0, 0.5 / math.sqrt(math.pi))
