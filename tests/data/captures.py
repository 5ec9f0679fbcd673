"""Small captures of a textured plane with exactly known cameras, written in every layout that is read.

The plane is z = 0 and its colour a smooth function of x and y without any symmetry, so whoever gets an axis, a sign, a
pixel centre or the order of height and width wrong sees other colours.
"""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from lrm_ttt.data.lens import Distortion
from lrm_ttt.scene.cameras import Cameras, ImageSize, look_at
from lrm_ttt.scene.views import Views

LANDSCAPE = ImageSize(48, 72)
OPENCV_TO_OPENGL = np.diag([1.0, -1.0, -1.0, 1.0])


def texture(points: Tensor) -> Tensor:
    """Return the colours `[... 3]` of points `[... 2 or 3]` of the plane."""
    x, y = points[..., 0], points[..., 1]
    waves = [1.7 * x + 0.6 * y + 0.3, 1.9 * y - 0.5 * x + 1.1, 1.3 * x - 1.5 * y + 0.2 * x * y]
    return torch.stack([0.5 + 0.4 * wave.sin() for wave in waves], -1)


def alpha_of(points: Tensor) -> Tensor:
    """Return a smooth coverage 0..1 `[...]` of points of the plane."""
    return 0.5 + 0.5 * (2 * points[..., 0] + points[..., 1]).cos()


@dataclasses.dataclass(frozen=True)
class Capture:
    """Cameras that look down on the plane, and a lens."""

    cam_to_world: Tensor
    intrinsics: tuple[float, float, float, float]
    size: ImageSize
    distortion: Distortion | None = None


def make_capture(num_views: int = 4, size: ImageSize = LANDSCAPE, distortion: Distortion | None = None) -> Capture:
    """Return cameras in a ring of uneven height, the principal point off the centre, and unequal focal lengths."""
    angle = 2 * math.pi * torch.arange(num_views, dtype=torch.float64) / num_views + 0.4
    height = 2.6 + 0.3 * torch.sin(3 * angle)
    centres = torch.stack([1.1 * angle.cos(), 1.3 * angle.sin(), height], -1)
    targets = torch.stack([0.2 * angle.sin(), 0.1 + 0 * angle, 0 * angle], -1)
    matrices = look_at(centres, targets, torch.tensor([0.2, 0.9, 0.3], dtype=torch.float64))
    longer = max(size)
    return Capture(matrices, (1.25 * longer, 1.3 * longer, 0.47 * size.width, 0.54 * size.height), size, distortion)


def hits(cam_to_world: Tensor, plane: Tensor) -> Tensor:
    """Return where rays through `plane` coordinates `[h w 2]` of one camera meet the plane z = 0."""
    directions = torch.cat([plane, torch.ones_like(plane[..., :1])], -1) @ cam_to_world[:3, :3].T
    centre = cam_to_world[:3, 3]
    return centre - directions * (centre[2] / directions[..., 2:])


def undistorted(distortion: Distortion, bent: Tensor) -> Tensor:
    """Invert a distortion by Newton's method with differences, in float64."""
    plane, step = bent.clone(), 1e-5
    for _ in range(30):
        columns = [
            (distortion.distort(plane + shift) - distortion.distort(plane - shift)) / (2 * step)
            for shift in step * torch.eye(2, dtype=bent.dtype)
        ]
        jacobian = torch.stack(columns, -1)
        plane = plane - torch.linalg.solve(jacobian, (distortion.distort(plane) - bent)[..., None])[..., 0]
    assert (distortion.distort(plane) - bent).abs().max() < 1e-9
    return plane


def photograph(capture: Capture, index: int, *, alpha: bool = False) -> np.ndarray:
    """Return what the camera with its lens sees, 8 bit, with straight alpha if asked."""
    fx, fy, cx, cy = capture.intrinsics
    x = (torch.arange(capture.size.width, dtype=torch.float64) + 0.5 - cx) / fx
    y = (torch.arange(capture.size.height, dtype=torch.float64) + 0.5 - cy) / fy
    plane = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1)
    if capture.distortion is not None:
        plane = undistorted(capture.distortion, plane)
    points = hits(capture.cam_to_world[index], plane)
    colours = texture(points)
    if alpha:
        colours = torch.cat([colours, alpha_of(points)[..., None]], -1)
    return (colours * 255).round().to(torch.uint8).numpy()


def save_images(capture: Capture, folder: Path, names: list[str], *, alpha: bool = False) -> None:
    """Save the photograph of each camera under its name in `folder`."""
    for index, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(photograph(capture, index, alpha=alpha)).save(path)


def transforms(capture: Capture, names: list[str], **changes: Any) -> dict[str, Any]:
    """Return the content of a transforms.json; `changes` replace keys of the top level, None removes one."""
    fx, fy, cx, cy = capture.intrinsics
    content: dict[str, Any] = {
        "fl_x": fx,
        "fl_y": fy,
        "cx": cx,
        "cy": cy,
        "w": capture.size.width,
        "h": capture.size.height,
    }
    if capture.distortion is not None:
        keys = ("k1", "k2", "p1", "p2", "k3") if capture.distortion.model == "opencv" else ("k1", "k2", "k3", "k4")
        content |= dict(zip(keys, capture.distortion.coefficients, strict=False))
        content["camera_model"] = "OPENCV" if capture.distortion.model == "opencv" else "OPENCV_FISHEYE"
    matrices = (capture.cam_to_world.numpy() @ OPENCV_TO_OPENGL).tolist()
    content["frames"] = [
        {"file_path": name, "transform_matrix": matrix} for name, matrix in zip(names, matrices, strict=True)
    ]
    return {key: value for key, value in (content | changes).items() if value is not None}


def write_transforms(folder: Path, capture: Capture, *, file: str = "transforms.json", **changes: Any) -> Path:
    """Write a nerfstudio capture and return its folder."""
    names = [f"images/{index:03d}.png" for index in range(len(capture.cam_to_world))]
    save_images(capture, folder, names)
    (folder / file).write_text(json.dumps(transforms(capture, names, **changes)))
    return folder


def opencv_frames(capture: Capture, names: list[str]) -> list[dict[str, Any]]:
    """Return the frames of an opencv_cameras.json."""
    fx, fy, cx, cy = capture.intrinsics
    shared = {"w": capture.size.width, "h": capture.size.height, "fx": fx, "fy": fy, "cx": cx, "cy": cy}
    world_to_cam = torch.linalg.inv(capture.cam_to_world).tolist()
    return [{**shared, "file_path": name, "w2c": matrix} for name, matrix in zip(names, world_to_cam, strict=True)]


def write_colmap_text(folder: Path, capture: Capture, model: str, parameters: list[float]) -> Path:
    """Write a COLMAP text model with two cameras of one kind, its image names in sub-folders; return its folder."""
    names = [f"{'left' if index % 2 else 'right'}/{index:02d}.png" for index in range(len(capture.cam_to_world))]
    save_images(capture, folder / "images", names)
    sparse = folder / "sparse" / "0"
    sparse.mkdir(parents=True)
    line = f"{model} {capture.size.width} {capture.size.height} {' '.join(map(repr, parameters))}"
    (sparse / "cameras.txt").write_text(f"# cameras\n1 {line}\n2 {line}\n")
    rows = []
    for index, matrix in enumerate(torch.linalg.inv(capture.cam_to_world).numpy()):
        w, x, y, z = wxyz(matrix[:3, :3])
        pose = " ".join(repr(float(value)) for value in (w, x, y, z, *matrix[:3, 3]))
        # The second line, of a row without points, is empty: some readers stumble over it.
        rows.append(f"{index + 1} {pose} {index % 2 + 1} {names[index]}\n\n")
    (sparse / "images.txt").write_text("# images\n" + "".join(rows))
    (sparse / "points3D.txt").write_text("# points\n1 0.25 -0.5 0.0 10 20 30 0.5\n2 1.0 0.75 0.0 10 20 30 0.5\n")
    return folder


def wxyz(rotation: np.ndarray) -> tuple[float, float, float, float]:
    """Return the quaternion of a rotation through its eigenvector, by another way than the library's."""
    m = rotation
    symmetric = np.array(
        [
            [m[0, 0] + m[1, 1] + m[2, 2], m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1]],
            [m[2, 1] - m[1, 2], m[0, 0] - m[1, 1] - m[2, 2], m[1, 0] + m[0, 1], m[2, 0] + m[0, 2]],
            [m[0, 2] - m[2, 0], m[1, 0] + m[0, 1], m[1, 1] - m[0, 0] - m[2, 2], m[2, 1] + m[1, 2]],
            [m[1, 0] - m[0, 1], m[2, 0] + m[0, 2], m[2, 1] + m[1, 2], m[2, 2] - m[0, 0] - m[1, 1]],
        ]
    )
    return tuple(np.linalg.eigh(symmetric)[1][:, -1])


def colour_error(views: Views) -> Tensor:
    """Return |image - texture where each pixel's ray meets the plane| `[v 3 h w]` for views of a capture."""
    return (views.images.double() - _seen(views.cameras, texture).permute(0, 3, 1, 2)).abs()


def alpha_error(views: Views) -> Tensor:
    """Return |mask - coverage of the plane| `[v h w]`."""
    assert views.masks is not None
    return (views.masks[:, 0].double() - _seen(views.cameras, alpha_of)).abs()


def _seen(cameras: Cameras, function: Any) -> Tensor:
    origins, directions = cameras.to(torch.float64).rays()
    return function(origins - directions * (origins[..., 2:] / directions[..., 2:]))
