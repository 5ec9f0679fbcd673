"""Random cameras, similarities and Gaussians for the laws of geometry."""

import torch
from torch import Tensor

from lrm_ttt.scene.cameras import Cameras, ImageSize, look_at
from lrm_ttt.scene.gaussians import Gaussians
from lrm_ttt.scene.rotations import wxyz_to_matrix
from lrm_ttt.scene.similarity import Similarity

DOUBLE = torch.float64


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = DOUBLE) -> Tensor:
    return torch.randn(shape, generator=generator(seed), dtype=dtype)


def rotations(*shape: int, seed: int = 0, dtype: torch.dtype = DOUBLE) -> Tensor:
    """Return random rotation matrices."""
    return wxyz_to_matrix(normal(*shape, 4, seed=seed, dtype=dtype))


def similarity(*shape: int, seed: int = 0, dtype: torch.dtype = DOUBLE) -> Similarity:
    """Return a random similarity of the world, with scales around one."""
    scale = (0.5 * normal(*shape, seed=seed + 1, dtype=dtype)).exp()
    return Similarity(
        rotations(*shape, seed=seed, dtype=dtype), 3 * normal(*shape, 3, seed=seed + 2, dtype=dtype), scale
    )


def cameras(*shape: int, seed: int = 0, image_size: ImageSize | None = None, dtype: torch.dtype = DOUBLE) -> Cameras:
    """Return cameras around the origin that look near it."""
    size = image_size or ImageSize(24, 32)
    centres = normal(*shape, 3, seed=seed, dtype=dtype)
    centres = 3 * centres / centres.norm(dim=-1, keepdim=True)
    targets = 0.2 * normal(*shape, 3, seed=seed + 1, dtype=dtype)
    up = normal(*shape, 3, seed=seed + 2, dtype=dtype)
    offsets = torch.rand((*shape, 4), generator=generator(seed + 3), dtype=dtype)
    middle = torch.tensor([30.0, 32, size.width / 2, size.height / 2], dtype=dtype)
    return Cameras(look_at(centres, targets, up), middle + 5 * offsets, size)


def gaussians(num: int, degree: int = 3, *batch: int, seed: int = 0, dtype: torch.dtype = DOUBLE) -> Gaussians:
    """Return random Gaussians near the origin."""
    wxyz = normal(*batch, num, 4, seed=seed + 2, dtype=dtype)
    return Gaussians(
        means=normal(*batch, num, 3, seed=seed, dtype=dtype),
        scales=(normal(*batch, num, 3, seed=seed + 1, dtype=dtype) - 2).exp(),
        wxyz=wxyz / wxyz.norm(dim=-1, keepdim=True),
        opacities=torch.sigmoid(2 * normal(*batch, num, seed=seed + 3, dtype=dtype)),
        sh=0.3 * normal(*batch, num, (degree + 1) ** 2, 3, seed=seed + 4, dtype=dtype),
    )
