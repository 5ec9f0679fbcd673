"""Pinhole cameras in OpenCV axes: rays, projection, and the intrinsics that follow a resize or a crop."""

import dataclasses
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from lrm_ttt.scene.manipulable import Manipulable


class ImageSize(NamedTuple):
    """Height first, always; in pixels."""

    height: int
    width: int


@dataclasses.dataclass(frozen=True)
class Cameras(Manipulable):
    """Posed pinhole cameras of one image size.

    `cam_to_world` is a rigid camera-to-world matrix in OpenCV axes (+x right, +y down, +z forward). `intrinsics` is
    (fx, fy, cx, cy) in pixels of `image_size`, with pixel centres at +0.5 (the image spans 0..width and 0..height).
    """

    cam_to_world: Float[Tensor, "*b 4 4"]
    intrinsics: Float[Tensor, "*b 4"]
    image_size: ImageSize

    @property
    def shape(self) -> torch.Size:
        """Leading batch dimensions."""
        return self.cam_to_world.shape[:-2]

    @property
    def centres(self) -> Float[Tensor, "*b 3"]:
        """Camera centres in the world."""
        return self.cam_to_world[..., :3, 3]

    @property
    def forward(self) -> Float[Tensor, "*b 3"]:
        """Unit viewing directions in the world."""
        return self.cam_to_world[..., :3, 2]

    @property
    def world_to_cam(self) -> Float[Tensor, "*b 4 4"]:
        """Inverse of `cam_to_world`, by transposing the rotation."""
        rotation = self.cam_to_world[..., :3, :3].transpose(-1, -2)
        translation = -(rotation @ self.centres[..., None])
        top = torch.cat([rotation, translation], -1)
        return torch.cat([top, self.cam_to_world[..., 3:, :]], -2)

    def rays(self) -> tuple[Float[Tensor, "*b h w 3"], Float[Tensor, "*b h w 3"]]:
        """Return origins and unit directions in the world, one ray through the centre of each pixel."""
        height, width = self.image_size
        device, dtype = self.intrinsics.device, self.intrinsics.dtype
        y = torch.arange(height, device=device, dtype=dtype) + 0.5
        x = torch.arange(width, device=device, dtype=dtype) + 0.5
        pixels = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1)
        directions = self._directions(pixels)
        directions = directions / directions.square().sum(-1, keepdim=True).sqrt()
        return self.centres[..., None, None, :].expand_as(directions), directions

    def project(self, points: Float[Tensor, "*b n 3"]) -> tuple[Float[Tensor, "*b n 2"], Float[Tensor, "*b n"]]:
        """Return pixel positions and depths (camera z) of world points.

        Pixels mean nothing where the depth is not positive.
        """
        world_to_cam = self.world_to_cam
        in_camera = points @ world_to_cam[..., :3, :3].transpose(-1, -2) + world_to_cam[..., None, :3, 3]
        depths = in_camera[..., 2]
        safe = torch.where(depths.abs() < 1e-8, torch.full_like(depths, 1e-8), depths)
        pixels = in_camera[..., :2] / safe[..., None] * self.intrinsics[..., None, :2] + self.intrinsics[..., None, 2:]
        return pixels, depths

    def unproject(self, pixels: Float[Tensor, "*b n 2"], depths: Float[Tensor, "*b n"]) -> Float[Tensor, "*b n 3"]:
        """Return the world points at `depths` (camera z) behind `pixels`."""
        scaled = (pixels - self.intrinsics[..., None, 2:]) / self.intrinsics[..., None, :2]
        in_camera = torch.cat([scaled, torch.ones_like(scaled[..., :1])], -1) * depths[..., None]
        return in_camera @ self.cam_to_world[..., :3, :3].transpose(-1, -2) + self.centres[..., None, :]

    def resized(self, image_size: ImageSize) -> "Cameras":
        """Follow a resize of the images to `image_size` (each axis by its own factor)."""
        x = image_size.width / self.image_size.width
        y = image_size.height / self.image_size.height
        factors = torch.tensor([x, y, x, y], device=self.intrinsics.device, dtype=self.intrinsics.dtype)
        return dataclasses.replace(self, intrinsics=self.intrinsics * factors, image_size=ImageSize(*image_size))

    def cropped(self, top: int, left: int, image_size: ImageSize) -> "Cameras":
        """Follow a crop of the images to `image_size`, starting `top` rows down and `left` columns in."""
        offset = torch.tensor([0, 0, left, top], device=self.intrinsics.device, dtype=self.intrinsics.dtype)
        return dataclasses.replace(self, intrinsics=self.intrinsics - offset, image_size=ImageSize(*image_size))

    def _directions(self, pixels: Float[Tensor, "h w 2"]) -> Float[Tensor, "*b h w 3"]:
        intrinsics = self.intrinsics[..., None, None, :]
        plane = (pixels - intrinsics[..., 2:]) / intrinsics[..., :2]
        in_camera = torch.cat([plane, torch.ones_like(plane[..., :1])], -1)
        return in_camera @ self.cam_to_world[..., None, :3, :3].transpose(-1, -2)


def look_at(
    centres: Float[Tensor, "*b 3"], targets: Float[Tensor, "*b 3"], up: Float[Tensor, "*#b 3"]
) -> Float[Tensor, "*b 4 4"]:
    """Return camera-to-world matrices (OpenCV axes) at `centres` that look at `targets` with world `up` towards the
    image top.

    Where the viewing direction is parallel to `up` another up is taken.
    """
    forward = torch.nn.functional.normalize(targets - centres, dim=-1)
    up = up.expand_as(forward)
    other = torch.roll(up, 1, -1)
    parallel = torch.linalg.cross(forward, up).square().sum(-1, keepdim=True) < 1e-8
    up = torch.where(parallel, other, up)
    right = torch.nn.functional.normalize(torch.linalg.cross(forward, up), dim=-1)
    down = torch.linalg.cross(forward, right)
    top = torch.stack([right, down, forward, centres], -1)
    bottom = torch.tensor([0.0, 0.0, 0.0, 1.0], device=top.device, dtype=top.dtype).expand(*top.shape[:-2], 1, 4)
    return torch.cat([top, bottom], -2)
