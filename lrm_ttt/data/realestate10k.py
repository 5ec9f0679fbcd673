"""Read the `.torch` chunks of RealEstate10K, ACID and DL3DV, as pixelSplat and its followers ship them."""

import dataclasses
import functools
import json
import pickle
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lrm_ttt.data.assemble import DescribedCapture, DescribedView, checked
from lrm_ttt.data.files import EncodedImage, read_image_size
from lrm_ttt.data.json_values import matrix_4x4
from lrm_ttt.data.lens import Distortion
from lrm_ttt.data.order import POOL
from lrm_ttt.data.source import SceneSource
from lrm_ttt.errors import UnreadableScene

INDEX = "index.json"
# fx fy cx cy as shares of width and height, k1 k2, and the 3x4 world-to-camera matrix in OpenCV axes.
NUM_VALUES = 18
# What the reader of pickles raises for bytes that were damaged.
DAMAGE = (
    pickle.UnpicklingError,
    OSError,
    EOFError,
    RuntimeError,
    ValueError,
    KeyError,
    IndexError,
    TypeError,
    AttributeError,
    AssertionError,
)


@dataclasses.dataclass(frozen=True)
class Chunks:
    """The scenes of a folder of chunks, chunk after chunk; each chunk is a group."""

    folder: Path
    keys: tuple[str, ...]
    files: tuple[str, ...]
    groups: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.keys)

    def scene_name(self, index: int) -> str:
        """Return the key of a scene."""
        return self.keys[index]

    def open(self, index: int) -> SceneSource:
        """Return a scene whose images lie in memory; raises `UnreadableScene` for a broken chunk or scene."""
        key, file = self.keys[index], self.folder / self.files[index]
        scene = _read_chunk(file).get(key)
        if scene is None:
            raise UnreadableScene(f"{file}: holds no scene {key}, as {INDEX} says. Copy the chunk and {INDEX} again.")
        return _source(scene, key, file)


def chunk_folder(path: Path) -> Path | None:
    """Return the folder of chunks that a path is or, for a whole data set, its part `train`; None where it is none."""
    for folder in (path, path / "train"):
        if (folder / INDEX).is_file() and next(folder.glob("*.torch"), None) is not None:
            return folder
    return None


def open_chunks(path: Path) -> Chunks:
    """Read which scene lies in which chunk; opens none.

    `path` is a folder with chunks and `index.json`, or one around `train`. Raises `UnreadableScene` where the index is
    missing or broken, or names chunks that are not there.
    """
    folder = chunk_folder(path)
    if folder is None:
        raise UnreadableScene(
            f"{path}: no {INDEX} with *.torch files beside it, nor in {path / 'train'}. "
            "Give the folder train or test of a data set of the pixelSplat family."
        )
    index = folder / INDEX
    try:
        content = json.loads(index.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise UnreadableScene(f"{index}: cannot be read ({error}). Copy it again.") from error
    if not isinstance(content, dict) or not content or not all(isinstance(file, str) for file in content.values()):
        raise UnreadableScene(f"{index}: does not map keys of scenes to names of chunks. Copy it again.")
    by_file: dict[str, list[str]] = {}
    for key, file in content.items():
        by_file.setdefault(file, []).append(key)
    files = sorted(by_file)
    missing = [file for file in files if Path(file).name != file or not (folder / file).is_file()]
    if missing:
        raise UnreadableScene(
            f"{index}: names {len(files)} chunks, of which {len(missing)} are missing ({missing[0]}"
            f"{', ...' if len(missing) > 1 else ''}). Copy them, or take their scenes out of {INDEX}."
        )
    return Chunks(
        folder,
        keys=tuple(key for file in files for key in by_file[file]),
        files=tuple(file for file in files for _ in by_file[file]),
        groups=tuple(len(by_file[file]) for file in files),
    )


# Chunks have 100 to 200 MB; memory-mapped, an open one costs what is looked at. Scenes of a pool come in turn.
@functools.lru_cache(maxsize=POOL)
def _read_chunk(file: Path) -> dict[str, dict[str, Any]]:
    """Return the scenes of a chunk by their keys; pickles that could run code are refused."""
    try:
        with warnings.catch_warnings():
            # Torch muses about the bytes of files that it then refuses.
            warnings.simplefilter("ignore")
            scenes = torch.load(file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file))
    except DAMAGE as error:
        reason = f" ({error})" if isinstance(error, OSError) else ""
        raise UnreadableScene(
            f"{file}: a chunk that is truncated, or holds more than tensors and texts{reason}. Copy it again."
        ) from error
    if not isinstance(scenes, list) or not all(isinstance(scene, dict) and "key" in scene for scene in scenes):
        raise UnreadableScene(f"{file}: no list of scenes with a key each. Copy it again.")
    return {scene["key"]: scene for scene in scenes}


def _source(scene: dict[str, Any], key: str, file: Path) -> SceneSource:
    where = f"{file}: scene {key}"
    rows, images = scene.get("cameras"), scene.get("images")
    sound = isinstance(rows, Tensor) and rows.ndim == 2 and rows.shape[1] == NUM_VALUES
    if rows is None or not sound or not isinstance(images, list) or len(images) != len(rows):
        raise UnreadableScene(f"{where}: not as many images as cameras of {NUM_VALUES} values. Copy the chunk again.")
    if not all(isinstance(image, Tensor) and image.dtype == torch.uint8 for image in images):
        raise UnreadableScene(f"{where}: its images are not the bytes of files. Copy the chunk again.")
    if len(images) < 2:
        raise UnreadableScene(f"{where}: only one posed image, where a scene needs two. Take it out of {INDEX}.")
    kept, sizes = [], []
    for number, (row, data) in enumerate(zip(rows.double().numpy(), images, strict=True)):
        image = EncodedImage(f"{where}, image {number}", data.numpy().tobytes())
        size = read_image_size(image, None)
        across_down = np.array([size.width, size.height], dtype=np.float64)
        view = DescribedView(
            image_name=f"scene {key}, image {number}",
            matrix=matrix_4x4(row[6:].reshape(3, 4), image.name),
            matrix_is_world_to_cam=True,
            focal=tuple((row[:2] * across_down).tolist()),
            centre=tuple((row[2:4] * across_down).tolist()),
            distortion=Distortion("opencv", tuple(row[4:6].tolist())),
        )
        kept.append((view, image))
        sizes.append(size)
    return checked(DescribedCapture(key, file, file.parent, tuple(view for view, _ in kept)), kept, sizes)
