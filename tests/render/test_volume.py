"""The quadrature against closed forms, and the laws of its samples."""

import dataclasses
import math

import pytest
import torch
from torch import Tensor

from lrm_ttt.render.volume import (
    importance_samples,
    intersect_cube,
    interval_edges,
    quadrature_weights,
    render_volume,
    stratified_samples,
)
from lrm_ttt.scene.cameras import Cameras, ImageSize, look_at
from lrm_ttt.scene.manipulable import Manipulable
from lrm_ttt.scene.triplanes import FieldNetwork, Triplanes


@dataclasses.dataclass(frozen=True)
class Fog:
    """A cube of one density and one colour."""

    density: float
    extent: float = 1.0

    @property
    def shape(self) -> torch.Size:
        return torch.Size([1])

    def radiance(self, points: Tensor) -> tuple[Tensor, Tensor]:
        color = torch.tensor([0.2, 0.5, 0.9], dtype=points.dtype)[:, None]
        return torch.full_like(points[..., 0], self.density), color.expand(1, 3, points.shape[1])


class Slab(Fog):
    """Opaque where z < 0."""

    def radiance(self, points: Tensor) -> tuple[Tensor, Tensor]:
        density, color = super().radiance(points)
        return density * (points[..., 2] < 0), color


def _cameras(num_views: int = 2, size: tuple[int, int] = (6, 8), dtype: torch.dtype = torch.float64) -> Cameras:
    angle = torch.arange(num_views, dtype=dtype)
    centres = 3 * torch.stack([angle.sin() * 0.8, angle.cos() * 0.8, torch.full_like(angle, 0.6)], -1)
    pose = look_at(centres, torch.zeros(3, dtype=dtype).expand_as(centres), torch.tensor([0, 0, 1], dtype=dtype))
    height, width = size
    intrinsics = torch.tensor([width, width, width / 2, height / 2], dtype=dtype).expand(1, num_views, 4)
    return Cameras(pose[None], intrinsics, ImageSize(height, width))


def _triplanes(batch: int = 1, dtype: torch.dtype = torch.float64) -> Triplanes:
    generator = torch.Generator().manual_seed(3)

    def draw(*shape: int) -> Tensor:
        return torch.randn(batch, *shape, generator=generator, dtype=dtype)

    network = FieldNetwork(draw(5, 6), draw(5), draw(1, 5, 5), draw(1, 5), draw(4, 5), draw(4))
    return Triplanes(draw(3, 2, 4, 4), network, 1.0)


def _leaves(parts: Manipulable) -> Manipulable:
    return parts.map(lambda tensor: tensor.clone().requires_grad_())


def _tensors(triplanes: Triplanes) -> dict[str, Tensor]:
    return {"planes": triplanes.planes, **vars(triplanes.network)}


@pytest.mark.parametrize("num_importance", [0, 16])
@pytest.mark.parametrize("random", [False, True])
def test_fog_has_its_closed_form(num_importance: int, random: bool) -> None:
    cameras, density = _cameras(), 0.7
    generator = torch.Generator().manual_seed(1) if random else None
    background = torch.tensor([[1.0, 0.0, 0.3]], dtype=torch.float64)
    drawn = render_volume(Fog(density), cameras, background, 256, num_importance, generator=generator)
    near, far = intersect_cube(*cameras.rays(), 1.0)
    through = torch.exp(-density * (far - near))[:, :, None]
    torch.testing.assert_close(drawn.alphas, 1 - through)
    color = torch.tensor([0.2, 0.5, 0.9], dtype=torch.float64)[:, None, None]
    torch.testing.assert_close(drawn.colors, (1 - through) * color + through * background[0, :, None, None])
    # The mean of an exponential distribution that ends at `far`.
    length, gone = far - near, 1 - through[:, :, 0]
    expected = near + 1 / density - length * (1 - gone) / gone.clamp(min=1e-12)
    hit = length > 0.05
    directions = cameras.rays()[1]
    along = (directions * cameras.forward[..., None, None, :]).sum(-1)
    assert 0.3 < hit.double().mean() < 1
    assert (drawn.depths[:, :, 0] - expected * along)[hit].abs().max() < 2e-3
    assert (drawn.depths[:, :, 0][length == 0] == 0).all()


def test_a_wall_is_where_it_stands() -> None:
    """Importance samples find the wall more sharply than the strata do."""
    cameras = _cameras(1, (16, 16))
    origins, directions = cameras.rays()
    near, far = intersect_cube(origins, directions, 1.0)
    wall = -origins[..., 2] / directions[..., 2]
    seen = (wall > near + 0.1) & (wall < far - 0.1)
    along = (directions * cameras.forward[..., None, None, :]).sum(-1)

    def error(num_importance: int) -> float:
        drawn = render_volume(Slab(400.0), cameras, None, 16, num_importance)
        assert (drawn.alphas[:, :, 0][seen] > 0.999).all()
        return float((drawn.depths[:, :, 0] - wall * along)[seen].abs().mean())

    assert seen.sum() > 50
    assert error(32) < 0.5 * error(0) < 0.05


def test_rays_meet_the_cube() -> None:
    origins = torch.tensor([[-3.0, 0.5, 0], [0.2, 0, 0], [-3, 2, 0], [5, 0, 0], [0, 0, -2]])
    directions = torch.tensor([[1.0, 0, 0], [0, 1, 0], [1, 0, 0], [1, 0, 0], [0.6, 0, 0.8]])
    near, far = intersect_cube(origins, directions, 1.0)
    torch.testing.assert_close(near, torch.tensor([2, 0, 0, 0, 1.25]))
    torch.testing.assert_close(far, torch.tensor([4, 1, 0, 0, 5 / 3]))


def test_strata_hold_one_sample_each() -> None:
    near, far = torch.full((1000,), 2.0), torch.full((1000,), 3.0)
    noise = torch.rand(1000, 10, generator=torch.Generator().manual_seed(0))
    distances = stratified_samples(near, far, noise)
    assert torch.equal(((distances - 2) * 10).floor().long(), torch.arange(10).expand(1000, 10))
    middles = stratified_samples(near, far, torch.full((1000, 10), 0.5))
    torch.testing.assert_close(middles[0], 2.05 + 0.1 * torch.arange(10))
    # Ten uniforms over a tenth each: the mean of all has standard deviation 0.1 / sqrt(12 * 10 * 1000).
    assert abs(distances.mean() - 2.5) < 4 * 0.1 / math.sqrt(120000)
    # Unbiased for any integrand: exp over the ray; the spread within a stratum is below 0.1 * e^3.
    assert abs(distances.exp().mean() - (math.exp(3) - math.exp(2))) < 4 * 0.1 * math.exp(3) / math.sqrt(120000)


def test_importance_samples_follow_the_weights() -> None:
    edges = torch.tensor([0.0, 1, 3, 4, 8])
    weights = torch.tensor([0.0, 0.6, 0.0, 0.3])
    samples = importance_samples(edges, weights, torch.full((900,), 0.5))
    counts = torch.histc(samples[samples <= 8], 8, 0, 8)
    assert counts.sum() == 900 and torch.equal(samples, samples.sort().values)
    # Two thirds in 1..3 and one third in 4..8, evenly inside, and the uniform share of a hundredth over all four.
    share = torch.tensor([0.0025, 0.30125, 0.30125, 0.0025, *[0.075625] * 4]) / 0.91
    assert (counts / 900 - share).abs().max() < 2 / 900
    empty = importance_samples(torch.linspace(0, 1, 5), torch.zeros(4), torch.full((8,), 0.5))
    torch.testing.assert_close(empty, (torch.arange(8) + 0.5) / 8)


def test_weights_are_a_distribution() -> None:
    generator = torch.Generator().manual_seed(2)
    distances = torch.rand(50, 12, generator=generator, dtype=torch.float64).sort(-1).values
    edges = interval_edges(distances, torch.zeros(50, dtype=torch.float64), torch.ones(50, dtype=torch.float64))
    density = 5 * torch.rand(50, 12, generator=generator, dtype=torch.float64)
    weights = quadrature_weights(density, edges)
    assert (edges.diff(dim=-1) > 0).all() and (weights >= 0).all()
    torch.testing.assert_close(weights.sum(-1), 1 - torch.exp(-(density * edges.diff(dim=-1)).sum(-1)))


@pytest.mark.parametrize("random", [False, True])
def test_chunks_change_nothing(random: bool) -> None:
    results = []
    for rays_per_chunk in (10**6, 14):
        generator = torch.Generator().manual_seed(4) if random else None
        triplanes = _leaves(_triplanes(2))
        cameras = dataclasses.replace(
            _cameras(),
            cam_to_world=_cameras(4).cam_to_world.reshape(2, 2, 4, 4),
            intrinsics=_cameras(4).intrinsics.reshape(2, 2, 4),
        )
        drawn = render_volume(triplanes, cameras, torch.rand(2, 3).double() * 0, 6, 5, rays_per_chunk, generator)
        loss = (drawn.colors * torch.linspace(0, 1, 8)).sum() + drawn.alphas.square().sum() + drawn.depths.sum()
        loss.backward()
        results.append((drawn.detach(), {name: tensor.grad for name, tensor in _tensors(triplanes).items()}))
    (whole, whole_gradients), (pieces, piece_gradients) = results
    torch.testing.assert_close(pieces.colors, whole.colors)
    torch.testing.assert_close(pieces.depths, whole.depths)
    for name, gradient in whole_gradients.items():
        assert gradient.abs().max() > 1e-3, name
        torch.testing.assert_close(piece_gradients[name], gradient, msg=name)


def test_gradients_are_those_of_finite_differences() -> None:
    """The importance samples are where they are: only what they read is differentiated."""
    cameras, triplanes = _cameras(1, (2, 2)), _triplanes()

    def run(planes: Tensor, *network: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        drawn = render_volume(Triplanes(planes, FieldNetwork(*network), 1.0), cameras, None, 4, 0)
        return drawn.colors, drawn.alphas, drawn.depths

    assert torch.autograd.gradcheck(run, tuple(_tensors(_leaves(triplanes)).values()))
