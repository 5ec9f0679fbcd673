"""The operations beside the model: drawing Gaussians, and the plane sweep that gathers matching evidence."""

import dataclasses
import functools
from collections.abc import Iterator

import torch
from torch import Tensor

from lrm_ttt.eval.speed.config import SpeedConfig
from lrm_ttt.eval.speed.gaussian_clouds import orbit_cameras, random_scene
from lrm_ttt.eval.speed.op import Function, Op, Tensors, Variant
from lrm_ttt.eval.speed.variants import NATIVE, OURS, REFERENCE
from lrm_ttt.kernels.plane_sweep.cpu import library, plane_sweep_cpu
from lrm_ttt.kernels.plane_sweep.reference import plane_sweep_reference
from lrm_ttt.kernels.rasterizer.op import available_backends, rasterize

GAUSSIANS = ("means", "wxyz", "scales", "opacities", "sh")
CAMERAS = ("world_to_cam", "intrinsics", "background")
# Without Gaussians at the very edge of a threshold, which float32 and float64 would decide differently.
CHECKED_GAUSSIANS, CHECKED_SIDE = 300, 32
CHECKED_SWEEP = (5, 32, 8)
# Gaussians times pixels above which the torch formulation would take too much of the time.
MOST_FOR_REFERENCE = 50_000 * 128**2
NEIGHBOURS, SILHOUETTES = 4, 8


def drawing_ops(config: SpeedConfig, device: torch.device) -> Iterator[Op]:
    """Yield the rasterizer, forward and backward, and the sweep."""
    for height, width, number in config.rasterizer_cases:
        checked = (CHECKED_SIDE, CHECKED_SIDE, min(number, CHECKED_GAUSSIANS))
        for backward in (False, True):
            small = _rasterizer(checked, False, backward, device)
            yield _rasterizer(
                (height, width, number), number * height * width > MOST_FOR_REFERENCE, backward, device, small
            )
    yield dataclasses.replace(_sweep(*config.sweep_case, device), checked=_sweep(*CHECKED_SWEEP, device))


def _rasterizer(
    case: tuple[int, int, int], large: bool, backward: bool, device: torch.device, checked: Op | None = None
) -> Op:
    height, width, number = case
    scene = functools.cache(
        lambda: {key: value.to(device) for key, value in random_scene(number, height, width).items()}
    )

    def drawing(backend: str) -> Function:
        def draw(*gaussians: Tensor) -> Tensors:
            world_to_cam, intrinsics, background = (scene()[key].to(gaussians[0].dtype) for key in CAMERAS)
            drawn = rasterize(
                *gaussians,
                world_to_cam=world_to_cam,
                intrinsics=intrinsics,
                image_size=(height, width),
                background=background,
                backend=backend,
            )
            assert drawn.depths is not None
            return drawn.colors, drawn.alphas, drawn.depths

        return draw

    lacks = available_backends(device)
    ours = "gsplat" if device.type == "cuda" else "cpu"
    variants = (
        Variant(REFERENCE, None, "not run: too large") if large else Variant(REFERENCE, drawing("reference")),
        Variant(f"{OURS}, gsplat" if ours == "gsplat" else NATIVE, None if lacks[ours] else drawing(ours), lacks[ours]),
    )
    name = "rasterizer + backward" if backward else "rasterizer"
    return Op(
        name,
        f"{height} x {width}, {number} Gaussians",
        "fp32",
        lambda: tuple(scene()[key] for key in GAUSSIANS),
        variants,
        tolerance=1e-4,
        backward=backward,
        checked=checked,
    )


def _sweep(views: int, side: int, planes: int, device: torch.device) -> Op:
    native = None if library() is None or device.type != "cpu" else _costs(plane_sweep_cpu)
    variants = (Variant(REFERENCE, _costs(plane_sweep_reference)), Variant(NATIVE, native))
    size = f"{views} x {side} x {side}, {planes} planes"
    inputs = functools.partial(_swept, views, side, planes, device)
    # Measured 1e-6; a ray that float32 takes to the other side of an image's border would cost a thousand times that.
    return Op("plane sweep", size, "fp32", inputs, variants, tolerance=1e-3)


def _costs(function: Function) -> Function:
    return lambda *inputs: tuple(function(*inputs))


def _swept(views: int, side: int, planes: int, device: torch.device) -> Tensors:
    """Return the arguments of a sweep of random images on an arc around the origin."""
    generator = torch.Generator().manual_seed(0)
    world_to_cam = orbit_cameras(views)
    images = torch.nn.functional.interpolate(
        torch.rand(views, 3, side // 8, side // 8, generator=generator), (side, side)
    )
    masks = torch.ones(views, 1, side, side)
    focal = torch.tensor([[1.2 * side, 0, side / 2], [0, 1.2 * side, side / 2], [0, 0, 1]])
    rotations, shifts = world_to_cam[:, :3, :3], world_to_cam[:, :3, 3]
    y, x = torch.meshgrid(torch.arange(side) + 0.5, torch.arange(side) + 0.5, indexing="ij")
    pixels = torch.stack([x, y, torch.ones_like(x)], -1)
    rays = torch.nn.functional.normalize(pixels @ focal.inverse().T, dim=-1)
    directions = torch.einsum("hwi,vij->vhwj", rays, rotations)
    origins = -torch.einsum("vij,vi->vj", rotations, shifts)
    distances = torch.linspace(2, 4, planes).expand(views, planes).contiguous()
    order = torch.cdist(origins, origins).argsort(-1)
    near, around = order[:, 1 : 1 + NEIGHBOURS], order[:, 1 : 1 + SILHOUETTES]
    made = (images, masks, focal @ world_to_cam[:, :3], origins, directions, distances, near, around)
    return tuple(tensor.to(device) for tensor in made)
