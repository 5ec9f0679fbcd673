"""Similarities between frames, and the normalisation that puts a scene at the origin."""

import dataclasses
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from lrm_ttt.scene.cameras import Cameras
from lrm_ttt.scene.manipulable import Manipulable

Normalisation = Literal["focus", "mean_camera", "first_camera", "none"]


@dataclasses.dataclass(frozen=True)
class Similarity(Manipulable):
    """The map x -> scale * rotation @ x + translation."""

    rotation: Float[Tensor, "*b 3 3"]
    translation: Float[Tensor, "*b 3"]
    scale: Float[Tensor, "*b"]

    @property
    def shape(self) -> torch.Size:
        """Leading batch dimensions."""
        return self.scale.shape

    @staticmethod
    def identity(*shape: int, device: torch.device | None = None, dtype: torch.dtype = torch.float32) -> "Similarity":
        """Return the map that changes nothing."""
        rotation = torch.eye(3, device=device, dtype=dtype).expand(*shape, 3, 3)
        return Similarity(rotation, rotation.new_zeros(*shape, 3), rotation.new_ones(shape))

    def inverse(self) -> "Similarity":
        """Return the map back."""
        rotation = self.rotation.transpose(-1, -2)
        scale = 1 / self.scale
        translation = -scale[..., None] * (rotation @ self.translation[..., None])[..., 0]
        return dataclasses.replace(self, rotation=rotation, translation=translation, scale=scale)

    def points(self, points: Float[Tensor, "*b n 3"]) -> Float[Tensor, "*b n 3"]:
        """Map points."""
        return self.scale[..., None, None] * (points @ self.rotation.transpose(-1, -2)) + self.translation[..., None, :]

    def cameras(self, cameras: Cameras) -> Cameras:
        """Map cameras `[*b v]`; intrinsics stay, depths seen by the new cameras are multiplied by the scale."""
        rotation = self.rotation[..., None, :, :] @ cameras.cam_to_world[..., :3, :3]
        centres = self.points(cameras.centres)
        top = torch.cat([rotation, centres[..., None]], -1)
        return dataclasses.replace(cameras, cam_to_world=torch.cat([top, cameras.cam_to_world[..., 3:, :]], -2))


def normalising_similarity(inputs: Cameras, by: Normalisation, distance: float = 2.0) -> Similarity:
    """Return the world -> scene map that the cameras `[*b v]` of the *input* views define.

    `focus` puts the point that the cameras look at in the origin and the mean camera at `distance` from it, with the
    axes of the mean camera. `mean_camera` and `first_camera` put that camera in the origin and divide by the largest
    absolute coordinate of the camera centres (tttLRM, MODEL.md). `none` changes nothing.
    """
    batch = inputs.shape[:-1]
    if by == "none":
        return Similarity.identity(*batch, device=inputs.intrinsics.device, dtype=inputs.intrinsics.dtype)
    rotation = _mean_rotation(inputs) if by != "first_camera" else inputs.cam_to_world[..., 0, :3, :3]
    if by == "focus":
        origin = focus_point(inputs)
        size = (inputs.centres - origin[..., None, :]).square().sum(-1).sqrt().mean(-1) / distance
    else:
        origin = inputs.centres.mean(-2) if by == "mean_camera" else inputs.centres[..., 0, :]
        size = ((inputs.centres - origin[..., None, :]) @ rotation).abs().amax((-1, -2))
    scale = 1 / size.clamp(min=1e-8)
    to_camera = rotation.transpose(-1, -2)
    return Similarity(to_camera, -scale[..., None] * (to_camera @ origin[..., None])[..., 0], scale)


def focus_point(cameras: Cameras) -> Float[Tensor, "*b 3"]:
    """Return the point nearest to all optical axes of cameras `[*b v]` in least squares.

    A weak pull towards a point in front of the mean camera, at four times the spread of the centres, keeps it finite
    for parallel axes, and it never lies behind the mean camera.
    """
    centres, forward = cameras.centres, cameras.forward
    eye = torch.eye(3, device=centres.device, dtype=centres.dtype)
    across = eye - forward[..., :, None] * forward[..., None, :]
    mean_centre = centres.mean(-2)
    mean_forward = torch.nn.functional.normalize(forward.mean(-2), dim=-1, eps=1e-6)
    spread = (centres - mean_centre[..., None, :]).square().sum(-1).mean(-1).sqrt().clamp(min=1e-6)
    prior = mean_centre + 4 * spread[..., None] * mean_forward
    weight = 1e-3
    left = across.mean(-3) + weight * eye
    right = (across @ centres[..., None])[..., 0].mean(-2) + weight * prior
    focus = torch.linalg.solve(left, right)
    ahead = ((focus[..., None, :] - centres) * forward).sum(-1).mean(-1, keepdim=True)
    return torch.where(ahead > 0.1 * spread[..., None], focus, prior)


def _mean_rotation(cameras: Cameras) -> Float[Tensor, "*b 3 3"]:
    """Return the rotation whose forward is the summed forward and whose up is the summed up, made orthogonal to it."""
    forward = cameras.forward.sum(-2)
    up = -cameras.cam_to_world[..., :3, 1].sum(-2)
    first = cameras.cam_to_world[..., 0, :3, :3]
    degenerate = forward.square().sum(-1, keepdim=True) < 1e-8
    forward = torch.nn.functional.normalize(torch.where(degenerate, first[..., 2], forward), dim=-1)
    right = torch.linalg.cross(forward, up)
    flat = right.square().sum(-1, keepdim=True) < 1e-8
    right = torch.linalg.cross(torch.linalg.cross(forward, torch.where(flat, first[..., 0], right)), forward)
    right = torch.nn.functional.normalize(right, dim=-1)
    return torch.stack([right, torch.linalg.cross(forward, right), forward], -1)
