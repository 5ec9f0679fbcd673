"""Check that the binary files of a COLMAP model are complete, before its own reader sees them.

That reader trusts every count it meets: of a file that was cut off while it was copied it reads garbage, or reads on
without end.
"""

import mmap
import struct
from collections.abc import Callable
from pathlib import Path

from lrm_ttt.errors import UnreadableScene

# Parameters of the camera models by their numbers in the file; COLMAP's reader refuses numbers that it does not know.
NUM_PARAMETERS = {0: 3, 1: 4, 2: 4, 3: 5, 4: 8, 5: 8, 6: 12, 7: 5, 8: 4, 9: 5, 10: 12}
POSE_BYTES = 7 * 8


class _Cursor:
    """Walk over the bytes of a file; `struct.error` where they end."""

    def __init__(self, content: mmap.mmap) -> None:
        self.content = content
        self.position = 0

    def take(self, layout: struct.Struct) -> tuple[int, ...]:
        values = layout.unpack_from(self.content, self.position)
        self.position += layout.size
        return values

    def skip(self, num_bytes: int) -> None:
        if num_bytes > len(self.content) - self.position:
            raise struct.error("the file ends too early")
        self.position += num_bytes


# The fixed part of each record, of which only the counts are wanted.
COUNT = struct.Struct("<Q")
CAMERA = struct.Struct("<Ii16x")
POINTS = struct.Struct("<43xQ")
DATA_COUNT = struct.Struct(f"<8x{POSE_BYTES}xI")
RIG = struct.Struct("<4xI")
SENSOR = struct.Struct("<8xB")


def check_complete(model: Path) -> None:
    """Walk through the .bin files of a model. Raises `UnreadableScene` for one that ends too early or too late."""
    for name, record in RECORDS.items():
        path = model / name
        if path.is_file() and not _is_complete(path, record):
            raise UnreadableScene(f"{path}: not a complete file of a COLMAP model. Copy or export it again.")


def _is_complete(path: Path, record: Callable[[_Cursor], bool]) -> bool:
    if path.stat().st_size < COUNT.size:
        return False
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
        cursor = _Cursor(content)
        (count,) = cursor.take(COUNT)
        try:
            known = all(record(cursor) for _ in range(count))
        except (struct.error, OverflowError):
            return False
        return not known or cursor.position == len(content)


def _camera(cursor: _Cursor) -> bool:
    """Pass one camera; an unknown model ends the walk, for its length is not known."""
    _, kind = cursor.take(CAMERA)
    if kind not in NUM_PARAMETERS:
        return False
    cursor.skip(8 * NUM_PARAMETERS[kind])
    return True


def _image(cursor: _Cursor) -> bool:
    cursor.skip(4 + POSE_BYTES + 4)
    end = cursor.content.find(b"\0", cursor.position)
    if end < 0:
        raise struct.error("a name without an end")
    cursor.position = end + 1
    (num_points,) = cursor.take(COUNT)
    cursor.skip(24 * num_points)
    return True


def _point(cursor: _Cursor) -> bool:
    (track_length,) = cursor.take(POINTS)
    cursor.skip(8 * track_length)
    return True


def _frame(cursor: _Cursor) -> bool:
    (num_images,) = cursor.take(DATA_COUNT)
    cursor.skip(16 * num_images)
    return True


def _rig(cursor: _Cursor) -> bool:
    (num_sensors,) = cursor.take(RIG)
    cursor.skip(8 if num_sensors else 0)
    for _ in range(num_sensors - 1):
        (has_pose,) = cursor.take(SENSOR)
        cursor.skip(POSE_BYTES if has_pose else 0)
    return True


RECORDS = {"cameras.bin": _camera, "images.bin": _image, "points3D.bin": _point, "frames.bin": _frame, "rigs.bin": _rig}
