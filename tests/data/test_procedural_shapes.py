"""Closed-form hits against known values, against a dense search along the ray, and against the surfaces themselves."""

import pytest
import torch
from torch import Tensor

from lrm_ttt.data.procedural_shapes import BALL, BOX, FRUSTUM, ROOM, TORUS, box_face, intersect, outward


def _one(kind: int, origin: list[float], direction: list[float], parameter: float = 1.0) -> float:
    column = torch.tensor([origin, direction]).unsqueeze(-1)
    return float(intersect(kind, column[0], column[1], torch.tensor([parameter])))


@pytest.mark.parametrize(
    ("kind", "origin", "direction", "parameter", "expected"),
    [
        (BOX, [0.0, 0, -5], [0, 0, 1.0], 1.0, 4.0),
        (BOX, [-4.0, 0.5, 0.5], [2.0, 0, 0], 1.0, 1.5),
        (BOX, [0.0, 1.01, -5], [0, 0, 1.0], 1.0, torch.inf),
        (BOX, [0.0, 0, 5], [0, 0, 1.0], 1.0, torch.inf),
        (BALL, [0.0, 0, -5], [0, 0, 1.0], 1.0, 4.0),
        (BALL, [0.6, 0, -5], [0, 0, 2.0], 1.0, 2.1),
        (BALL, [1.01, 0, -5], [0, 0, 1.0], 1.0, torch.inf),
        (FRUSTUM, [-5.0, 0, 0.3], [1.0, 0, 0], 1.0, 4.0),
        (FRUSTUM, [0.5, 0, -5], [0, 0, 1.0], 0.0, 4.0),
        (FRUSTUM, [0.25, 0, 5], [0, 0, -1.0], 0.5, 4.0),
        (FRUSTUM, [-5.0, 0, 0], [1.0, 0, 0], 0.0, 4.5),
        (FRUSTUM, [-5.0, 0, 0.5], [1.0, 0, 0], 0.5, 5 - 0.625),
        (FRUSTUM, [-5.0, 0, 1.01], [1.0, 0, 0], 1.0, torch.inf),
        (TORUS, [-5.0, 0, 0], [1.0, 0, 0], 0.2, 4.0),
        (TORUS, [0.0, 0, -5], [0, 0, 1.0], 0.2, torch.inf),
        (TORUS, [0.8, 0, -5], [0, 0, 1.0], 0.2, 4.8),
        (TORUS, [-5.0, 0, 0.25], [1.0, 0, 0], 0.2, torch.inf),
        (ROOM, [0.0, 0, 0.5], [0, 0, 0.25], 1.0, 2.0),
    ],
)
def test_known_hits(kind: int, origin: list[float], direction: list[float], parameter: float, expected: float) -> None:
    assert _one(kind, origin, direction, parameter) == pytest.approx(expected, abs=2e-6)


def _inside(kind: int, points: Tensor, parameters: Tensor) -> Tensor:
    """Return a function that is negative inside of the solid."""
    x, y, z = points
    radius = (x * x + y * y).sqrt()
    if kind == BOX:
        return points.abs().amax(0) - 1
    if kind == BALL:
        return points.norm(dim=0) - 1
    if kind == FRUSTUM:
        return torch.maximum(radius - ((1 + parameters) / 2 + (parameters - 1) / 2 * z), z.abs() - 1)
    return ((radius - 1 + parameters) ** 2 + z * z).sqrt() - parameters


def _random_rays(n: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    origins = torch.nn.functional.normalize(torch.randn(3, n, generator=generator), dim=0) * 4
    aims = torch.rand(3, n, generator=generator) * 2.2 - 1.1
    return origins, aims - origins


def _parameters(kind: int, n: int) -> Tensor:
    spread = torch.linspace(0, 1, n)
    return 0.03 + 0.44 * spread if kind == TORUS else spread


@pytest.mark.parametrize("kind", [BOX, BALL, FRUSTUM, TORUS])
def test_hits_agree_with_a_dense_search(kind: int) -> None:
    n, steps = 1500, 3000
    origins, directions = _random_rays(n, kind)
    parameters = _parameters(kind, n)
    t = intersect(kind, origins, directions, parameters)
    grid = torch.linspace(0, 2, steps)
    values = _inside(kind, origins[..., None] + directions[..., None] * grid, parameters[:, None])
    within = values < 0
    searched = torch.where(within.any(1), grid[within.int().argmax(1)], torch.inf)
    step = 2 / (steps - 1)
    # The search may miss a ray that only grazes, never the other way round.
    assert not (torch.isinf(t) & torch.isfinite(searched)).any()
    grazing = torch.isfinite(t) & torch.isinf(searched)
    assert grazing.float().mean() < 0.005
    both = torch.isfinite(t) & torch.isfinite(searched)
    early = (searched - t)[both]
    assert early.min() > -1e-5
    assert (early > 1.01 * step).float().mean() < 0.005


@pytest.mark.parametrize("kind", [BOX, BALL, FRUSTUM, TORUS])
def test_hits_lie_on_the_surface_and_normals_are_its_gradient(kind: int) -> None:
    n = 4000
    origins, directions = _random_rays(n, 10 + kind)
    parameters = _parameters(kind, n)
    t = intersect(kind, origins, directions, parameters)
    hit = torch.isfinite(t)
    assert hit.float().mean() > 0.1
    points, parameters = (origins + t * directions)[:, hit], parameters[hit]
    assert _inside(kind, points, parameters).abs().max() < 1e-4
    normals = torch.nn.functional.normalize(outward(kind, points, parameters), dim=0)
    assert ((normals * directions[:, hit]).sum(0) < 1e-3).all()
    exact = points.double().requires_grad_()
    (gradient,) = torch.autograd.grad(_inside(kind, exact, parameters.double()).sum(), exact)
    agreement = (torch.nn.functional.normalize(gradient, dim=0) * normals).sum(0)
    # Rounding decides between two faces on an edge, and near a thin tube's axis turns the normal a little.
    assert (agreement > 0.999).float().mean() > 0.99


@pytest.mark.parametrize("kind", [BALL, FRUSTUM, TORUS])
def test_hits_stay_exact_for_far_cameras(kind: int) -> None:
    origins, directions = _random_rays(4000, 20 + kind)
    aims, far = origins + directions, 100 * origins
    parameters = _parameters(kind, 4000)
    t = intersect(kind, far, aims - far, parameters)
    hit = torch.isfinite(t)
    points = (far + t * (aims - far))[:, hit]
    # Positions 400 units away have a spacing of 3e-5.
    assert _inside(kind, points, parameters[hit]).abs().max() < 3e-4


def test_rooms_are_hit_from_within_and_face_inwards() -> None:
    origins = torch.rand(3, 500, generator=torch.Generator().manual_seed(0)) * 1.8 - 0.9
    directions = torch.randn(3, 500, generator=torch.Generator().manual_seed(1))
    t = intersect(ROOM, origins, directions, torch.ones(500))
    points = origins + t * directions
    torch.testing.assert_close(points.abs().amax(0), torch.ones(500), atol=1e-5, rtol=0)
    normals = outward(ROOM, points, torch.ones(500))
    assert ((normals * directions).sum(0) < 0).all()


def test_faces_are_numbered_by_axis_and_sign() -> None:
    normals = torch.tensor([[-1.0, 1, 0, 0, 0, 0], [0, 0, -1, 1, 0, 0], [0, 0, 0, 0, -1, 1]])
    assert box_face(normals).tolist() == [0, 1, 2, 3, 4, 5]
