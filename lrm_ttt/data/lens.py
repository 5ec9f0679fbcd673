"""Lens distortion, and the pinhole image that a distorted one becomes."""

import dataclasses
import functools
import math
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from lrm_ttt.errors import UnreadableScene
from lrm_ttt.scene.cameras import ImageSize

# A pinhole image wider than this angle is nearly all stretched border.
WIDEST_VIEW = math.radians(120)
LEAST_SCALE, LARGEST_SCALE = 0.25, 4.0


@dataclasses.dataclass(frozen=True)
class Distortion:
    """Map the plane z = 1 of an ideal pinhole camera to where the lens really puts it.

    `opencv` has `k1 k2 p1 p2 k3 k4 k5 k6` (radial over rational, and tangential), `fisheye` has `k1 k2 k3 k4` of the
    equidistant model; coefficients left out at the end are zero. Both are the models of OpenCV and of COLMAP's OPENCV,
    FULL_OPENCV and OPENCV_FISHEYE.
    """

    model: Literal["opencv", "fisheye"]
    coefficients: tuple[float, ...]

    @property
    def changes_nothing(self) -> bool:
        """Say whether the camera is a pinhole camera as it is."""
        return self.model == "opencv" and not any(self.coefficients)

    def distort(self, plane: Float[Tensor, "*b 2"]) -> Float[Tensor, "*b 2"]:
        """Return distorted plane coordinates."""
        return self._fisheye(plane) if self.model == "fisheye" else self._opencv(plane)

    def _opencv(self, plane: Float[Tensor, "*b 2"]) -> Float[Tensor, "*b 2"]:
        k1, k2, p1, p2, k3, k4, k5, k6 = (*self.coefficients, *[0.0] * (8 - len(self.coefficients)))
        x, y = plane.unbind(-1)
        square = x * x + y * y
        radial = 1 + square * (k1 + square * (k2 + square * k3))
        if k4 or k5 or k6:
            radial = radial / (1 + square * (k4 + square * (k5 + square * k6)))
        along_x = x * radial + 2 * p1 * x * y + p2 * (square + 2 * x * x)
        along_y = y * radial + 2 * p2 * x * y + p1 * (square + 2 * y * y)
        return torch.stack([along_x, along_y], -1)

    def _fisheye(self, plane: Float[Tensor, "*b 2"]) -> Float[Tensor, "*b 2"]:
        k1, k2, k3, k4 = (*self.coefficients, *[0.0] * (4 - len(self.coefficients)))
        radius = plane.norm(dim=-1, keepdim=True)
        angle = torch.atan(radius)
        square = angle * angle
        bent = angle * (1 + square * (k1 + square * (k2 + square * (k3 + square * k4))))
        return plane * torch.where(radius > 1e-8, bent / radius.clamp(min=1e-8), torch.ones_like(radius))


def undistort(
    image: Float[Tensor, "c h w"],
    distortion: Distortion,
    intrinsics: Float[Tensor, "4"],
    mode: Literal["bilinear", "nearest"] = "bilinear",
) -> tuple[Float[Tensor, "c h w"], Float[Tensor, "4"]]:
    """Return the image that a pinhole camera of the same size sees, and its intrinsics.

    The principal point stays; the focal lengths are the smallest for which every pixel lies inside the distorted image,
    so there is no border. `mode` "nearest" mixes no pixels, as depths need it. Raises `UnreadableScene` where the
    coefficients fold the image over.
    """
    size = ImageSize(*image.shape[-2:])
    fx, fy, cx, cy = intrinsics.tolist()
    scale, grid = _sampling_grid(distortion, (fx, fy, cx, cy), size)
    sampled = torch.nn.functional.grid_sample(
        image[None], grid[None].to(image), mode=mode, padding_mode="border", align_corners=False
    )
    return sampled[0], _widened(intrinsics, scale)


def pinhole_intrinsics(distortion: Distortion, intrinsics: Float[Tensor, "4"], size: ImageSize) -> Float[Tensor, "4"]:
    """Return the intrinsics that `undistort` gives for an image of a size, without the image."""
    fx, fy, cx, cy = intrinsics.tolist()
    return _widened(intrinsics, widest_scale(distortion, (fx, fy, cx, cy), size))


def _widened(intrinsics: Float[Tensor, "4"], scale: float) -> Float[Tensor, "4"]:
    return intrinsics / intrinsics.new_tensor([scale, scale, 1, 1])


@functools.lru_cache(maxsize=2)
def _sampling_grid(
    distortion: Distortion, intrinsics: tuple[float, float, float, float], size: ImageSize
) -> tuple[float, Tensor]:
    """Return the widening scale, and where each pinhole pixel lies in the distorted image (-1..1)."""
    scale = widest_scale(distortion, intrinsics, size)
    fx, fy, cx, cy = intrinsics
    x = (torch.arange(size.width, dtype=torch.float64) + 0.5 - cx) * (scale / fx)
    y = (torch.arange(size.height, dtype=torch.float64) + 0.5 - cy) * (scale / fy)
    rows = []
    # Row by row in float64 would be slow and the whole in float64 large: bands of rows are neither.
    for band in y.split(128):
        plane = torch.stack(torch.meshgrid(x, band, indexing="xy"), -1)
        bent = distortion.distort(plane)
        across = 2 * (bent[..., 0] * fx + cx) / size.width - 1
        down = 2 * (bent[..., 1] * fy + cy) / size.height - 1
        rows.append(torch.stack([across, down], -1).float())
    return scale, torch.cat(rows)


@functools.lru_cache(maxsize=64)
def widest_scale(distortion: Distortion, intrinsics: tuple[float, float, float, float], size: ImageSize) -> float:
    """Return the largest s for which the pinhole camera (fx / s, fy / s, cx, cy) has every pixel in the image.

    The border of the pinhole image is moved outwards until a point of it leaves the distorted image or turns back (a
    fold). Raises `UnreadableScene` when less than a quarter of the width is usable.
    """
    border = _border(intrinsics, size)
    limit = LARGEST_SCALE
    if distortion.model == "fisheye":
        limit = min(limit, math.tan(WIDEST_VIEW / 2) / float(border.abs().max()))
    low, step = 0.0, limit / 256
    # The second pass looks for the end between two steps of the first.
    for _ in range(2):
        scales = low + step * torch.arange(257, dtype=torch.float64)
        num_good = _num_good(distortion.distort(scales[:, None, None] * border), intrinsics, size)
        low, step = float(scales[max(num_good - 1, 0)]), step / 256
    scale = min(low, limit)
    if scale < LEAST_SCALE:
        raise UnreadableScene(
            f"The lens distortion {distortion.model} {distortion.coefficients} cannot be undone over an image of "
            f"{size.width}x{size.height}. "
            "Check the coefficients, or undistort the images first (colmap image_undistorter)."
        )
    return scale


def _border(intrinsics: tuple[float, float, float, float], size: ImageSize) -> Float[Tensor, "n 2"]:
    """Return points all around the border of a pinhole image, on the plane z = 1."""
    fx, fy, cx, cy = intrinsics
    steps = torch.linspace(0, 1, 65, dtype=torch.float64)
    across, down = (steps * size.width - cx) / fx, (steps * size.height - cy) / fy
    sides = [torch.stack([across, torch.full_like(across, float(end))], -1) for end in (down[0], down[-1])]
    sides += [torch.stack([torch.full_like(down, float(end)), down], -1) for end in (across[0], across[-1])]
    return torch.cat(sides)


def _num_good(bent: Float[Tensor, "s n 2"], intrinsics: tuple[float, float, float, float], size: ImageSize) -> int:
    """Return how many of the growing borders, from the first on, stay inside the image and still move outwards."""
    pixels = bent * bent.new_tensor(intrinsics[:2]) + bent.new_tensor(intrinsics[2:])
    ends = pixels.new_tensor([size.width, size.height])
    inside = ((pixels >= -1e-6 * ends) & (pixels <= (1 + 1e-6) * ends)).all(-1).all(-1)
    radii = bent.norm(dim=-1)
    outwards = torch.cat([radii[:1] >= 0, radii[1:] > radii[:-1]]).all(-1)
    return int((inside & outwards).long().cumprod(0).sum())
