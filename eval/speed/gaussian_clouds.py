"""Random Gaussians and cameras, the same on every machine: what the rasterizer is tested and timed with."""

import math

import torch
from jaxtyping import Float
from torch import Tensor


def orbit_cameras(num_views: int, distance: float = 3.0, dtype: torch.dtype = torch.float32) -> Float[Tensor, "v 4 4"]:
    """Return `world_to_cam` on an arc around the origin, looking at it."""
    cameras = torch.eye(4, dtype=dtype).repeat(num_views, 1, 1)
    for i in range(num_views):
        angle = 0.4 * i
        c, s = math.cos(angle), math.sin(angle)
        cameras[i, :3, :3] = torch.tensor([[c, 0, s], [0, 1, 0], [-s, 0, c]], dtype=dtype)
    cameras[:, 2, 3] = distance
    return cameras


def random_scene(
    num_gaussians: int,
    height: int,
    width: int,
    *,
    num_scenes: int = 1,
    num_views: int = 1,
    sh_count: int = 16,
    scale: float | None = None,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
) -> dict[str, Tensor]:
    """Return arguments of `rasterize`: a ball of Gaussians seen from `num_views` cameras, SH as `sh` (0: `colors`).

    The scale, if not given, is 0.6 times the distance between neighbours.
    """
    generator = torch.Generator().manual_seed(seed)
    size = (num_scenes, num_gaussians)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator, dtype=torch.float64).to(dtype)

    directions = torch.nn.functional.normalize(normal(*size, 3), dim=-1)
    middle = 0.6 * max(num_gaussians, 1) ** (-1 / 3) if scale is None else scale
    scene = {
        "means": directions * uniform(*size, 1) ** (1 / 3),
        "wxyz": normal(*size, 4),
        "scales": middle * (0.5 * normal(*size, 3)).exp(),
        "opacities": 0.02 + 0.95 * uniform(*size),
    }
    if sh_count:
        scene["sh"] = 0.3 * normal(*size, sh_count, 3)
    else:
        scene["colors"] = uniform(*size, 3)
    intrinsics = torch.tensor([1.2 * width, 1.25 * width, 0.5 * width + 0.3, 0.5 * height - 0.2], dtype=dtype)
    scene["world_to_cam"] = orbit_cameras(num_views, dtype=dtype).expand(num_scenes, -1, 4, 4).contiguous()
    scene["intrinsics"] = intrinsics.expand(num_scenes, num_views, 4).contiguous()
    scene["background"] = uniform(num_scenes, num_views, 3)
    return scene
