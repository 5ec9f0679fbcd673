"""Quaternions (wxyz) and the rotation of real spherical harmonics."""

import functools

import torch
from jaxtyping import Float
from torch import Tensor

from lrm_ttt.kernels.rasterizer.spherical_harmonics import sh_basis


def wxyz_to_matrix(wxyz: Float[Tensor, "*b 4"]) -> Float[Tensor, "*b 3 3"]:
    """Return rotation matrices; quaternions are normalised first."""
    w, x, y, z = torch.nn.functional.normalize(wxyz, dim=-1).unbind(-1)
    rows = [
        torch.stack([1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)], -1),
        torch.stack([2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)], -1),
        torch.stack([2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)], -1),
    ]
    return torch.stack(rows, -2)


def matrix_to_wxyz(matrix: Float[Tensor, "*b 3 3"]) -> Float[Tensor, "*b 4"]:
    """Return unit quaternions with the largest of the four candidates chosen.

    So that it is accurate for every rotation.
    """
    m = matrix
    xx, yy, zz = m[..., 0, 0], m[..., 1, 1], m[..., 2, 2]
    a, b, c = m[..., 2, 1] - m[..., 1, 2], m[..., 0, 2] - m[..., 2, 0], m[..., 1, 0] - m[..., 0, 1]
    d, e, f = m[..., 1, 0] + m[..., 0, 1], m[..., 0, 2] + m[..., 2, 0], m[..., 2, 1] + m[..., 1, 2]
    candidates = torch.stack(
        [
            torch.stack([1 + xx + yy + zz, a, b, c], -1),
            torch.stack([a, 1 + xx - yy - zz, d, e], -1),
            torch.stack([b, d, 1 - xx + yy - zz, f], -1),
            torch.stack([c, e, f, 1 - xx - yy + zz], -1),
        ],
        -2,
    )
    best = torch.diagonal(candidates, dim1=-2, dim2=-1).argmax(-1)
    chosen = candidates.gather(-2, best[..., None, None].expand(*best.shape, 1, 4))[..., 0, :]
    return torch.nn.functional.normalize(chosen, dim=-1)


def multiply_wxyz(left: Float[Tensor, "*b 4"], right: Float[Tensor, "*b 4"]) -> Float[Tensor, "*b 4"]:
    """Return the quaternion of `left` after `right`."""
    a, b, c, d = left.unbind(-1)
    w, x, y, z = right.unbind(-1)
    product = [a * w - b * x - c * y - d * z, a * x + b * w + c * z - d * y]
    product += [a * y - b * z + c * w + d * x, a * z + b * y - c * x + d * w]
    return torch.stack(product, -1)


def rotate_by_wxyz(wxyz: Float[Tensor, "n 4"], vectors: Float[Tensor, "*b n 3"]) -> Float[Tensor, "*b n 3"]:
    """Rotate each vector by its quaternion, which need not have unit length."""
    unit = torch.nn.functional.normalize(wxyz, dim=-1)
    real, imaginary = unit[:, :1], unit[:, 1:].expand_as(vectors)
    across = 2 * torch.linalg.cross(imaginary, vectors)
    return vectors + real * across + torch.linalg.cross(imaginary, across)


def rotate_sh(sh: Float[Tensor, "*b n k 3"], rotation: Float[Tensor, "*b 3 3"]) -> Float[Tensor, "*b n k 3"]:
    """Rotate real spherical harmonics with the world: the colour seen along R d afterwards is the one seen along d
    before.

    Each band is mapped by the matrix that least squares finds between the basis at fixed directions and at those
    directions rotated back, which is exact because a band is closed under rotation.
    """
    degree = round(sh.shape[-2] ** 0.5) - 1
    if degree == 0:
        return sh
    directions = _directions().to(sh.device)
    before = sh_basis(directions, degree)
    after = sh_basis(directions @ rotation.double(), degree)
    mixing = (torch.linalg.pinv(before) @ after).to(sh.dtype)
    bands = [sh[..., :1, :]]
    for band in range(1, degree + 1):
        rows = slice(band * band, (band + 1) * (band + 1))
        bands.append(mixing[..., None, rows, rows] @ sh[..., rows, :])
    return torch.cat(bands, -2)


@functools.cache
def _directions() -> Float[Tensor, "n 3"]:
    """Return 64 directions spread over the sphere on a golden spiral."""
    index = torch.arange(64, dtype=torch.float64)
    z = 1 - (2 * index + 1) / 64
    angle = index * torch.pi * (3 - 5**0.5)
    radius = (1 - z * z).sqrt()
    return torch.stack([radius * angle.cos(), radius * angle.sin(), z], -1)
