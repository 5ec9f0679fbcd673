"""Laws of quaternions and of the rotation of spherical harmonics."""

import math

import pytest
import torch

from lrm_ttt.kernels.rasterizer.spherical_harmonics import sh_basis
from lrm_ttt.scene.rotations import matrix_to_wxyz, multiply_wxyz, rotate_sh, wxyz_to_matrix
from tests.scene.make import normal, rotations


def test_quaternions_and_matrices_are_inverse() -> None:
    matrices = rotations(50)
    assert torch.allclose(wxyz_to_matrix(matrix_to_wxyz(matrices)), matrices, atol=1e-12)
    assert torch.allclose(torch.linalg.det(matrices), torch.ones(50, dtype=torch.float64))


def test_half_turns_and_nearly_half_turns() -> None:
    """Where w vanishes the other components must carry the rotation."""
    for axis in (
        *torch.eye(3, dtype=torch.float64),
        torch.tensor([1.0, 1, 0]).double() / 2**0.5,
        -torch.ones(3).double() / 3**0.5,
    ):
        for angle in (math.pi, math.pi - 1e-9, math.pi + 1e-4, 0.0, 1e-9):
            half = torch.tensor(angle / 2, dtype=torch.float64)
            wxyz = torch.cat([half.cos()[None], half.sin() * axis])
            again = matrix_to_wxyz(wxyz_to_matrix(wxyz))
            assert torch.allclose((again @ wxyz).abs(), torch.ones((), dtype=torch.float64), atol=1e-12)


def test_a_quarter_turn_about_z_takes_x_to_y() -> None:
    wxyz = torch.tensor([math.cos(math.pi / 4), 0, 0, math.sin(math.pi / 4)], dtype=torch.float64)
    x = torch.tensor([1.0, 0, 0], dtype=torch.float64)
    assert torch.allclose(wxyz_to_matrix(wxyz) @ x, torch.tensor([0.0, 1, 0], dtype=torch.float64), atol=1e-12)


def test_the_product_is_one_rotation_after_the_other() -> None:
    left, right = normal(20, 4), normal(20, 4, seed=1)
    product = wxyz_to_matrix(multiply_wxyz(left, right))
    assert torch.allclose(product, wxyz_to_matrix(left) @ wxyz_to_matrix(right), atol=1e-12)


def test_a_quaternion_of_any_norm() -> None:
    wxyz = normal(5, 4)
    assert torch.allclose(wxyz_to_matrix(7 * wxyz), wxyz_to_matrix(wxyz), atol=1e-12)
    assert torch.allclose(wxyz_to_matrix(-wxyz), wxyz_to_matrix(wxyz), atol=1e-12)


def directions(num: int, seed: int = 0) -> torch.Tensor:
    return torch.nn.functional.normalize(normal(num, 3, seed=seed), dim=-1)


def test_the_harmonics_are_orthonormal() -> None:
    """Integrated over the sphere by a product rule that is exact for their degree."""
    nodes = torch.tensor([-0.9602898565, -0.7966664774, -0.5255324099, -0.1834346425], dtype=torch.float64)
    weights = torch.tensor([0.1012285363, 0.2223810345, 0.3137066459, 0.3626837834], dtype=torch.float64)
    z = torch.cat([nodes, -nodes.flip(0)])
    weight = torch.cat([weights, weights.flip(0)])
    angle = torch.arange(16, dtype=torch.float64) * math.pi / 8
    radius = (1 - z * z).sqrt()[:, None]
    points = torch.stack([radius * angle.cos(), radius * angle.sin(), z[:, None].expand(-1, 16)], -1).reshape(-1, 3)
    basis = sh_basis(points, 3)
    weight = (weight[:, None] * math.pi / 8).expand(-1, 16).reshape(-1)
    assert torch.allclose(basis.T @ (weight[:, None] * basis), torch.eye(16, dtype=torch.float64), atol=1e-8)


def test_the_first_band_is_minus_y_z_minus_x() -> None:
    """The order and the signs of 3DGS files."""
    basis = sh_basis(torch.eye(3, dtype=torch.float64), 1)[:, 1:]
    expected = 0.4886025119029199 * torch.tensor([[0.0, 0, -1], [-1, 0, 0], [0, 1, 0]], dtype=torch.float64)
    assert torch.allclose(basis, expected)


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_rotated_harmonics_show_the_same_colours(degree: int) -> None:
    """The colour along R d after the rotation is the colour along d before."""
    sh, turn, toward = normal(5, (degree + 1) ** 2, 3), rotations(seed=3), directions(40)

    def colours(coefficients: torch.Tensor, along: torch.Tensor) -> torch.Tensor:
        return torch.einsum("mk,nkc->mnc", sh_basis(along, degree), coefficients)

    assert torch.allclose(colours(rotate_sh(sh, turn), toward @ turn.T), colours(sh, toward), atol=1e-10)


def test_rotations_of_harmonics_compose() -> None:
    sh, one, other = normal(4, 16, 3), rotations(seed=1), rotations(seed=2)
    assert torch.allclose(rotate_sh(rotate_sh(sh, one), other), rotate_sh(sh, other @ one), atol=1e-10)
    assert torch.allclose(rotate_sh(sh, torch.eye(3, dtype=torch.float64)), sh, atol=1e-10)
    # A rotation keeps the energy of every band.
    turned = rotate_sh(sh, one)
    for rows in (slice(0, 1), slice(1, 4), slice(4, 9), slice(9, 16)):
        assert torch.allclose(turned[:, rows].square().sum(1), sh[:, rows].square().sum(1), atol=1e-10)


def test_batches_of_rotations() -> None:
    sh, turns = normal(3, 4, 16, 3), rotations(3, seed=1)
    together = rotate_sh(sh, turns)
    for index in range(3):
        assert torch.allclose(together[index], rotate_sh(sh[index], turns[index]), atol=1e-12)
