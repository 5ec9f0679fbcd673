"""Shadows of the first light: what it sees from afar, compared with where surfaces are."""

import dataclasses
import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lrm_ttt.data.procedural_caster import Caster, depth_of
from lrm_ttt.data.procedural_primitives import Primitives
from lrm_ttt.data.procedural_shading import Lights
from lrm_ttt.data.procedural_shapes import ROOM
from lrm_ttt.scene.cameras import Cameras, ImageSize, look_at

# The light stands this many radii away, which makes its rays nearly parallel.
_DISTANCE = 12.0
# A surface is in shadow when it lies this share of the radius behind what the light sees.
_BIAS = 0.02


@dataclasses.dataclass(frozen=True)
class ShadowMaps:
    """What the lights of scenes [b] see: their cameras [b 1] and `depths`, infinite where nothing is."""

    cameras: Cameras
    depths: Float[Tensor, "b side side"]
    bias: Float[Tensor, " b"]

    def lit(
        self, points: Float[Tensor, "3 n"], normals: Float[Tensor, "3 n"], scenes: Int[Tensor, " n"]
    ) -> Float[Tensor, " n"]:
        """Return which share of the light reaches world points, blended over the map's cells; 1 outside of it."""
        side = self.depths.shape[-1]
        to_camera = self.cameras.world_to_cam[:, 0, :3]
        focal, middle = self.cameras.intrinsics[:, 0, 0], self.cameras.intrinsics[:, 0, 2]
        table = torch.cat([to_camera.flatten(1), focal[:, None], middle[:, None], self.bias[:, None]], 1)
        values = table.T.contiguous().gather(1, scenes.expand(15, -1))
        # Stepping off the surface keeps it out of its own shadow.
        points = points + normals * values[14]
        x, y, z = (
            torch.addcmul(values[4 * i + 3], values[4 * i], points[0])
            .addcmul_(values[4 * i + 1], points[1])
            .addcmul_(values[4 * i + 2], points[2])
            for i in range(3)
        )
        u = torch.addcmul(values[13], values[12], x / z).sub_(0.5).clamp_(0, side - 1.001)
        v = torch.addcmul(values[13], values[12], y / z).sub_(0.5).clamp_(0, side - 1.001)
        left, top = u.floor(), v.floor()
        cell = (scenes * side + top.long()).mul_(side).add_(left.long())
        u, v, z = u.sub_(left), v.sub_(top), z.sub_(values[14])
        flat = self.depths.flatten()

        def free(offset: int) -> Tensor:
            return (flat.index_select(0, cell + offset) > z).to(z.dtype)

        return torch.lerp(torch.lerp(free(0), free(1), u), torch.lerp(free(side), free(side + 1), u), v)


def cast_shadows(
    primitives: Primitives, lights: Lights, centres: Float[Tensor, "b 3"], radii: Float[Tensor, " b"], cameras: Cameras
) -> ShadowMaps:
    """Return the maps of the first lights over balls about `centres`, about as fine as the pictures of `cameras`.

    Walls of rooms cast no shadow, and border cells count as free, so light reaches everything outside of the balls.
    """
    side = math.ceil(1.25 * max(cameras.image_size))
    direction = lights.directions[:, 0]
    up = torch.tensor([0.3, 0.2, 0.9], device=direction.device)
    poses = look_at(centres + _DISTANCE * radii[:, None] * direction, centres, up)
    focal = 0.5 * (side - 3) * _DISTANCE
    intrinsics = torch.tensor([focal, focal, side / 2, side / 2], device=direction.device)
    size = ImageSize(side, side)
    light_cameras = Cameras(poses[:, None], intrinsics.expand(len(radii), 1, 4), size)
    solids = dataclasses.replace(primitives, kinds=torch.where(primitives.kinds == ROOM, -1, primitives.kinds))
    depths = depth_of(Caster(solids, light_cameras).grid()).nan_to_num_(nan=torch.inf).view(-1, side, side)
    for border in (depths[:, 0], depths[:, -1], depths[:, :, 0], depths[:, :, -1]):
        border.fill_(torch.inf)
    return ShadowMaps(light_cameras, depths, _BIAS * radii)
