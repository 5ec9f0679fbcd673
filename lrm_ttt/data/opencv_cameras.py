"""Read opencv_cameras.json of LaCT, Long-LRM, tttLRM and LVSM."""

from pathlib import Path
from typing import Any

from lrm_ttt.data.assemble import DescribedCapture, DescribedView
from lrm_ttt.data.json_values import file_name, matrix_4x4, number, whole_size
from lrm_ttt.errors import UnreadableScene


def read_opencv_cameras(path: Path, frames: list[Any], name: str) -> DescribedCapture:
    """Read frames of `w2c` (world-to-camera in OpenCV axes) with `fx fy cx cy w h file_path`.

    LVSM's `image_path` and `fxfycxcy` are read alike; without `w` and `h` the intrinsics are those of the image file.
    The frame is that of the matrices, the order that of the file.
    """
    views = []
    for index, frame in enumerate(frames):
        image_name = file_name(frame, ("file_path", "image_path"), f"{path}: frame {index}")
        where = f"{path}: frame {index} ({image_name})"
        if "w2c" not in frame:
            raise UnreadableScene(f"{where} has no w2c. Remove the frame, or give its camera.")
        fx, fy, cx, cy = _intrinsics(frame, where)
        views.append(
            DescribedView(
                image_name=image_name,
                matrix=matrix_4x4(frame["w2c"], where),
                matrix_is_world_to_cam=True,
                focal=(fx, fy),
                centre=(cx, cy),
                size=whole_size(frame, where),
            )
        )
    return DescribedCapture(name, path, path.parent, tuple(views))


def _intrinsics(frame: dict[str, Any], where: str) -> tuple[float, float, float, float]:
    keys = ("fx", "fy", "cx", "cy")
    together = frame.get("fxfycxcy")
    if isinstance(together, list) and len(together) == 4:
        frame = dict(zip(keys, together, strict=True))
    fx, fy, cx, cy = (number(frame, key, where) for key in keys)
    if fx is None or fy is None or cx is None or cy is None:
        missing = [key for key in keys if frame.get(key) is None]
        raise UnreadableScene(f"{where} has no {', '.join(missing)}. Add the intrinsics in pixels.")
    return fx, fy, cx, cy
