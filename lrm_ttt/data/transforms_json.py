"""Read the transforms.json of nerfstudio, instant-ngp, DL3DV and Blender (NeRF synthetic)."""

import math
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from lrm_ttt.data.assemble import DescribedCapture, DescribedView
from lrm_ttt.data.files import path_inside
from lrm_ttt.data.json_values import file_name, matrix_4x4, number, whole_size
from lrm_ttt.data.lens import Distortion
from lrm_ttt.errors import UnreadableScene
from lrm_ttt.scene.ply import read_points

# OpenGL cameras look along -z with y up; ours look along +z with y down: the signs of the matrix columns.
OPENGL_TO_OPENCV = np.array([1.0, -1.0, -1.0, 1.0])
PERSPECTIVE = ("OPENCV", "PINHOLE", "SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL", "PERSPECTIVE", "FULL_OPENCV")
MILLIMETRE = 0.001
FISHEYE = ("OPENCV_FISHEYE", "FISHEYE")


def read_transforms(path: Path, content: dict[str, Any], name: str) -> DescribedCapture:
    """Read cameras whose `transform_matrix` is camera-to-world in OpenGL axes.

    The capture's own frame is that of `transform_matrix` *as given*: `applied_transform` and `applied_scale`, which
    tell how it was made from another one, are left alone. So a .ply made from the capture lies where nerfstudio and
    DL3DV users have their cameras. Intrinsics stand on the top level or in each frame, as `fl_x` or as
    `camera_angle_x`; without `w` and `h` they are those of the image file. Distortion (`k1 k2 p1 p2 k3`, or
    `OPENCV_FISHEYE` with `k1..k4`) is undone when the images are loaded. `depth_file_path` is nerfstudio's: 16 bit
    millimetres before `applied_scale`, which therefore multiplies them.
    """
    notes = []
    views = []
    scale = number(content, "applied_scale", str(path))
    if scale is not None and not 0 < scale < math.inf:
        raise UnreadableScene(f"{path}: applied_scale is {scale}, where a positive number belongs. Correct the file.")
    for index, frame in enumerate(content["frames"]):
        image_name = file_name(frame, ("file_path",), f"{path}: frame {index}")
        where = f"{path}: frame {index} ({image_name})"
        if "transform_matrix" not in frame:
            raise UnreadableScene(f"{where} has no transform_matrix. Remove the frame, or give its camera.")
        # A frame may override single values of the top level.
        values = {**content, **frame}
        fx, fy = number(values, "fl_x", where), number(values, "fl_y", where)
        across, down = fx if fx is not None else fy, fy if fy is not None else fx
        views.append(
            DescribedView(
                image_name=image_name,
                matrix=matrix_4x4(frame["transform_matrix"], where) * OPENGL_TO_OPENCV,
                focal=None if across is None or down is None else (across, down),
                view_angles=(number(values, "camera_angle_x", where), number(values, "camera_angle_y", where)),
                centre=(number(values, "cx", where), number(values, "cy", where)),
                size=whole_size(values, where),
                distortion=_distortion(values, where),
                depth_name=file_name(frame, ("depth_file_path",), where) if "depth_file_path" in frame else None,
                depth_unit=MILLIMETRE * (1.0 if scale is None else scale),
            )
        )
    if any(isinstance(frame, dict) and "mask_path" in frame for frame in content["frames"]):
        notes.append("mask_path is not read; transparency comes from the images' own alpha channel")
    points = _points(path, content, notes)
    return DescribedCapture(name, path, path.parent, tuple(views), points, tuple(notes))


def _points(path: Path, content: dict[str, Any], notes: list[str]) -> Tensor | None:
    """Return the sparse points that nerfstudio names, which are in the frame of `transform_matrix`."""
    file = content.get("ply_file_path")
    if not isinstance(file, str):
        return None
    place = path_inside(path.parent, file, path)
    if not place.is_file():
        notes.append(f"the sparse points {file} are missing")
        return None
    return read_points(place)


def _distortion(values: dict[str, Any], where: str) -> Distortion | None:
    model = values.get("camera_model", "OPENCV")
    fisheye = model in FISHEYE or values.get("is_fisheye") is True
    if not fisheye and model not in PERSPECTIVE:
        raise UnreadableScene(
            f"{where}: the camera model {model!r} is none of {', '.join(PERSPECTIVE + FISHEYE)}. "
            "Undistort the images to PINHOLE first."
        )
    k1, k2, k3, k4, p1, p2 = (number(values, key, where) or 0.0 for key in ("k1", "k2", "k3", "k4", "p1", "p2"))
    if fisheye:
        return Distortion("fisheye", (k1, k2, k3, k4))
    if k4 and model != "FULL_OPENCV":
        raise UnreadableScene(
            f"{where}: k4 = {k4} has no place in the camera model {model}. Is it OPENCV_FISHEYE? Correct camera_model."
        )
    k5, k6 = (number(values, key, where) or 0.0 for key in ("k5", "k6"))
    return Distortion("opencv", (k1, k2, p1, p2, k3, k4, k5, k6))
