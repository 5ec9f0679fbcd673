"""Camera paths made from given cameras: an orbit around what they look at, and a smooth path through them."""

import dataclasses
import math

import torch
from jaxtyping import Float
from torch import Tensor

from lrm_ttt.scene.cameras import Cameras, look_at
from lrm_ttt.scene.rotations import matrix_to_wxyz, wxyz_to_matrix
from lrm_ttt.scene.similarity import focus_point

# Cameras that leave a gap wider than this around the focus point do not surround it.
WIDEST_GAP = math.radians(120)


def orbit(cameras: Cameras, num_frames: int, *, arc: float | None = None, elevation: float | None = None) -> Cameras:
    """Return `num_frames` cameras on a closed path around the focus point of `cameras` `[v]`, at their mean distance.

    `arc` is the angle (radians) that the path covers: with 2 pi it is a full circle, with less it sways to and fro
    around the mean direction of the cameras; None takes a circle where the cameras surround the focus point, and
    otherwise the arc that they cover. `elevation` above the plane across their common up (radians) is their mean by
    default. Focal lengths are their mean, the principal point is the image centre.
    """
    assert len(cameras.shape) == 1 and num_frames >= 1
    focus, up = focus_point(cameras), common_up(cameras)
    offsets = cameras.centres - focus
    distance = offsets.norm(dim=-1).mean()
    heights = (offsets @ up) / offsets.norm(dim=-1).clamp(min=1e-12)
    raised = torch.asin(heights.clamp(-1, 1)).mean() if elevation is None else torch.as_tensor(elevation).to(heights)
    east, north = _plane_axes(cameras, up)
    azimuths = torch.atan2(offsets @ north, offsets @ east)
    start, covered = _covered_arc(azimuths)
    arc = covered if arc is None else arc
    phase = 2 * math.pi * torch.arange(num_frames, device=up.device, dtype=up.dtype) / num_frames
    around = start + (phase if arc >= 2 * math.pi - 1e-6 else 0.5 * arc * torch.sin(phase))
    flat = around.cos()[:, None] * east + around.sin()[:, None] * north
    centres = focus + distance * (raised.cos() * flat + raised.sin() * up)
    cam_to_world = look_at(centres, focus.expand_as(centres), up)
    return Cameras(cam_to_world, _mean_intrinsics(cameras).expand(num_frames, 4), cameras.image_size)


def interpolate(cameras: Cameras, num_frames: int) -> Cameras:
    """Return `num_frames` cameras on a smooth path through `cameras` `[v]` in their order, from the first to the last.

    Centres, quaternions and intrinsics follow one cubic Hermite spline (Catmull-Rom tangents for uneven knots); the
    knots are spaced by how far and how much the camera moves, so that the speed is about even.
    """
    assert len(cameras.shape) == 1 and num_frames >= 1
    if cameras.shape[0] == 1 or num_frames == 1:
        return cameras[:1].map(lambda tensor: tensor.expand(num_frames, *tensor.shape[1:]))
    wxyz = _aligned(matrix_to_wxyz(cameras.cam_to_world[:, :3, :3]))
    values = torch.cat([cameras.centres, wxyz, cameras.intrinsics], -1).double()
    knots = _knots(cameras, wxyz).double()
    times = torch.linspace(0, 1, num_frames, device=knots.device, dtype=knots.dtype) * knots[-1]
    path = _hermite(values, knots, times)
    top = torch.cat([wxyz_to_matrix(path[:, 3:7]), path[:, :3, None]], -1).to(cameras.cam_to_world.dtype)
    bottom = cameras.cam_to_world[:1, 3:].expand(num_frames, 1, 4)
    intrinsics = path[:, 7:].to(cameras.intrinsics.dtype)
    return dataclasses.replace(cameras, cam_to_world=torch.cat([top, bottom], -2), intrinsics=intrinsics)


def common_up(cameras: Cameras) -> Float[Tensor, "3"]:
    """Return the unit direction that cameras `[v]` held level agree is up.

    It is across all image rows in least squares, with a weak pull towards the mean of the image columns, which decides
    where the rows are nearly parallel; cameras in a ring that look down take up against their viewing direction.
    """
    across = cameras.cam_to_world[..., :3, 0]
    mean_up = -cameras.cam_to_world[..., :3, 1].mean(0)
    if mean_up.norm() < 0.1:
        mean_up = -cameras.forward.mean(0)
    if mean_up.norm() < 1e-3:
        mean_up = -cameras.cam_to_world[0, :3, 1]
    # Hands hold a camera level to about three degrees, and the squares of those add up to half of this.
    weight = 0.005
    eye = torch.eye(3, device=across.device, dtype=across.dtype)
    up = torch.linalg.solve(across.T @ across / across.shape[0] + weight * eye, mean_up)
    return torch.nn.functional.normalize(up, dim=-1)


def _plane_axes(cameras: Cameras, up: Float[Tensor, "3"]) -> tuple[Float[Tensor, "3"], Float[Tensor, "3"]]:
    """Return two unit axes across `up`, tied to the cameras so that the path turns with the world."""
    candidates = torch.cat([cameras.cam_to_world[0, :3, :3].T, -cameras.forward[:1]])
    flat = candidates - (candidates @ up)[:, None] * up
    east = torch.nn.functional.normalize(flat[flat.norm(dim=-1).argmax()], dim=-1)
    return east, torch.linalg.cross(up, east)


def _covered_arc(azimuths: Float[Tensor, "v"]) -> tuple[Tensor, float]:
    """Return where to start and how much of the circle the cameras cover (2 pi where no gap is wide)."""
    ordered = azimuths.sort().values
    gaps = torch.cat([ordered[1:] - ordered[:-1], ordered[:1] + 2 * math.pi - ordered[-1:]])
    widest = int(gaps.argmax())
    gap = float(gaps[widest])
    if gap < WIDEST_GAP:
        return azimuths[0], 2 * math.pi
    covered = 2 * math.pi - gap
    first = ordered[(widest + 1) % len(ordered)]
    return first + covered / 2, covered


def _mean_intrinsics(cameras: Cameras) -> Float[Tensor, "4"]:
    focal = cameras.intrinsics[:, :2].mean(0)
    centre = [cameras.image_size.width / 2, cameras.image_size.height / 2]
    return torch.cat([focal, focal.new_tensor(centre)])


def _aligned(wxyz: Float[Tensor, "v 4"]) -> Float[Tensor, "v 4"]:
    """Choose the sign of each quaternion so that neighbours are near each other."""
    flips = torch.where((wxyz[1:] * wxyz[:-1]).sum(-1) < 0, -1.0, 1.0).to(wxyz)
    return torch.cat([wxyz[:1], wxyz[1:] * flips.cumprod(0)[:, None]])


def _knots(cameras: Cameras, wxyz: Float[Tensor, "v 4"]) -> Float[Tensor, "v"]:
    """Return times that grow with the way (in mean distances to the focus point) and the turn (in radians)."""
    size = (cameras.centres - focus_point(cameras)).norm(dim=-1).mean().clamp(min=1e-12)
    way = (cameras.centres[1:] - cameras.centres[:-1]).norm(dim=-1) / size
    turn = 2 * torch.acos((wxyz[1:] * wxyz[:-1]).sum(-1).clamp(-1, 1))
    return torch.cat([way.new_zeros(1), (way + turn + 1e-6).cumsum(0)])


def _hermite(
    values: Float[Tensor, "v d"], knots: Float[Tensor, "v"], times: Float[Tensor, "n"]
) -> Float[Tensor, "n d"]:
    """Evaluate the cubic Hermite spline through `values` at `knots`."""
    steps = knots[1:] - knots[:-1]
    slopes = (values[1:] - values[:-1]) / steps[:, None]
    # The inner tangents are those of the parabola through three neighbours; the ends take the slope of their segment.
    inner = (slopes[:-1] * steps[1:, None] + slopes[1:] * steps[:-1, None]) / (steps[1:] + steps[:-1])[:, None]
    tangents = torch.cat([slopes[:1], inner, slopes[-1:]])
    segment = (torch.searchsorted(knots, times, right=True) - 1).clamp(0, len(steps) - 1)
    step = steps[segment][:, None]
    u = ((times - knots[segment]) / steps[segment])[:, None]
    start, end = values[segment], values[segment + 1]
    rise = end - start
    first, last = tangents[segment] * step, tangents[segment + 1] * step
    return start + u * (first + u * (3 * rise - 2 * first - last + u * (first + last - 2 * rise)))
