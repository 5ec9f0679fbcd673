"""Read renders of objects that describe each view in a file of its own: Zero123's and G-Objaverse's."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from lrm_ttt.data.assemble import DescribedCapture, DescribedView
from lrm_ttt.data.json_values import matrix_4x4
from lrm_ttt.errors import UnreadableScene

# The first file of each layout, by which it is known.
ZERO123_FILE = "000.npy"
GOBJAVERSE_FILE = "00000/00000.json"
GOBJAVERSE_FOLDER = "campos_512_v4"
# Blender's lens and sensor in millimetres: Zero123's rendering script, and fx = 1422.222 of 1024 pixels (RichDreamer).
ZERO123_ANGLE = 2 * math.atan(32 / 2 / 35)
GOBJAVERSE_ANGLE = 2 * math.atan(36 / 2 / 50)
OPENGL_TO_OPENCV = np.array([1.0, -1.0, -1.0, 1.0])


def read_zero123(folder: Path, name: str) -> DescribedCapture:
    """Read Zero123's renders of Objaverse: `000.png` with `000.npy`, and so on, of a lens of 49.1 degrees.

    The matrices are 3x4, world-to-camera, of OpenGL cameras in Blender's world (z up), which is the capture's frame.
    Images without a matrix are left aside.
    """
    views = []
    for file in sorted(folder.glob("*.npy")):
        if not file.stem.isdigit():
            continue
        try:
            # Without pickles, which could run code.
            values = np.load(file, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise UnreadableScene(f"{file}: no array of NumPy, or a broken one ({error}). Copy it again.") from error
        matrix = OPENGL_TO_OPENCV[:, None] * matrix_4x4(values, str(file))
        angles = (ZERO123_ANGLE, None)
        views.append(DescribedView(f"{file.stem}.png", matrix, matrix_is_world_to_cam=True, view_angles=angles))
    return DescribedCapture(name, folder, folder, tuple(views))


def read_gobjaverse(folder: Path, name: str) -> DescribedCapture:
    """Read G-Objaverse's renders: `00000/00000.json` with `00000/00000.png`, and so on, of a lens of 39.6 degrees.

    The files give the axes `x y z` of OpenGL cameras and their `origin`, camera-to-world, in Blender's world (z up),
    which is the capture's frame. Normals and depths (.exr) are not read.
    """
    views = []
    for file in sorted(folder.glob("[0-9]*/[0-9]*.json")):
        if file.stem != file.parent.name:
            continue
        try:
            content = json.loads(file.read_bytes())
        except (OSError, ValueError, RecursionError) as error:
            raise UnreadableScene(f"{file}: not JSON ({type(error).__name__}). Copy it again.") from error
        matrix = np.eye(4)
        matrix[:3] = np.stack([_vector(content, key, file) for key in ("x", "y", "z", "origin")], 1)
        image_name = f"{file.stem}/{file.stem}.png"
        views.append(DescribedView(image_name, matrix * OPENGL_TO_OPENCV, view_angles=(GOBJAVERSE_ANGLE, None)))
    return DescribedCapture(name, folder, folder, tuple(views))


def _vector(content: Any, key: str, file: Path) -> np.ndarray:
    try:
        vector = np.array(content[key], dtype=np.float64)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise UnreadableScene(f"{file}: gives no vector {key!r} of three numbers. Copy it again.") from error
    if vector.shape != (3,):
        raise UnreadableScene(f"{file}: {key!r} has shape {vector.shape}, where three numbers belong. Copy it again.")
    return vector
