"""Values out of a capture's JSON file: checked, or one error that says where."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from lrm_ttt.errors import UnreadableScene
from lrm_ttt.scene.cameras import ImageSize


def number(entry: dict[str, Any], key: str, where: str) -> float | None:
    """Return a number of a JSON object, or None where the key is absent."""
    value = entry.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UnreadableScene(f"{where}: {key} is {value!r}, where a number belongs. Correct the file.")
    try:
        return float(value)
    except OverflowError as error:
        raise UnreadableScene(f"{where}: {key} is too large a number. Correct the file.") from error


def whole_size(entry: dict[str, Any], where: str) -> ImageSize | None:
    """Return the size that keys `w` and `h` of a JSON object give, or None."""
    width, height = number(entry, "w", where), number(entry, "h", where)
    if width is None or height is None:
        return None
    if not (math.isfinite(width) and math.isfinite(height) and width >= 1 and height >= 1):
        raise UnreadableScene(f"{where}: an image of {width} x {height} pixels. Correct w and h.")
    return ImageSize(round(height), round(width))


def matrix_4x4(value: Any, where: str) -> np.ndarray:
    """Return a 4x4 matrix (or a 3x4 one with its last row added) of a JSON list of rows."""
    try:
        matrix = np.array(value, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise UnreadableScene(
            f"{where}: the camera matrix is not a list of rows of numbers. Correct the file."
        ) from error
    if matrix.shape == (3, 4):
        matrix = np.concatenate([matrix, [[0.0, 0.0, 0.0, 1.0]]])
    if matrix.shape != (4, 4):
        raise UnreadableScene(
            f"{where}: the camera matrix has shape {matrix.shape}, where 4 rows of 4 belong. Correct the file."
        )
    return matrix


def file_name(entry: Any, keys: Sequence[str], where: str) -> str:
    """Return the image name that a frame of a JSON file gives under one of `keys`."""
    if not isinstance(entry, dict):
        raise UnreadableScene(
            f"{where}: a frame is {type(entry).__name__}, where an object with a camera matrix belongs."
        )
    for key in keys:
        value = entry.get(key)
        if isinstance(value, str) and value:
            return value
    raise UnreadableScene(f"{where}: names no image (no {' or '.join(keys)}). Add it.")
