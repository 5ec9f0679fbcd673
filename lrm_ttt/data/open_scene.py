"""Recognise a capture, whatever its layout, and look at it without decoding an image."""

import contextlib
import dataclasses
import json
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from lrm_ttt.data.assemble import DescribedCapture, assemble, assemble_cameras
from lrm_ttt.data.colmap import capture_folder, find_model, read_colmap
from lrm_ttt.data.files import SMALLER_FOLDERS, SUFFIXES
from lrm_ttt.data.objaverse import GOBJAVERSE_FILE, GOBJAVERSE_FOLDER, ZERO123_FILE, read_gobjaverse, read_zero123
from lrm_ttt.data.opencv_cameras import read_opencv_cameras
from lrm_ttt.data.source import SceneSource
from lrm_ttt.data.transforms_json import read_transforms
from lrm_ttt.errors import UnreadableScene

# In a folder with several descriptions the first of these is taken.
JSON_NAMES = (
    "transforms.json",
    "opencv_cameras.json",
    "transforms_train.json",
    "transforms_val.json",
    "transforms_test.json",
    # Beside it the DL3DV benchmark has a COLMAP model of the same scene.
    "nerfstudio/transforms.json",
)
# What a folder has in it, any of these, when it is a capture.
SIGNS = frozenset(Path(name).parts[0] for name in JSON_NAMES) | {
    "sparse",
    "colmap",
    "cameras.bin",
    "cameras.txt",
    ZERO123_FILE,
    GOBJAVERSE_FOLDER,
}
# Folders inside a capture, which do not name it.
NAMELESS = ("nerfstudio", "colmap", "gaussian_splat", GOBJAVERSE_FOLDER)
KNOWN_LAYOUTS = (
    "transforms.json (nerfstudio, instant-ngp, DL3DV, Blender), opencv_cameras.json, a COLMAP model in sparse/0, "
    "or object renders of Zero123 or G-Objaverse"
)
DEEPEST, MOST_FOLDERS = 3, 500


def open_scene(path: Path | str, *, allow_missing: bool = False, image_folder: str | None = None) -> SceneSource:
    """Return the cameras and image paths of a capture: its folder, a folder around it, or the file that describes it.

    Reads nerfstudio, instant-ngp and DL3DV transforms.json, Blender transforms_train.json (or _val, _test),
    opencv_cameras.json, COLMAP models, and the object renders of Zero123 and G-Objaverse; only the headers of the
    images are read. With `allow_missing`, views whose image is missing are left out and noted. `image_folder` names the
    copy of `images` to take (images_4), where the capture speaks of such a folder. Raises `UnreadableScene`, with one
    message that says what to do, for everything that is wrong with the capture.
    """
    capture = describe_scene(path)
    if image_folder is not None:
        capture = _with_images_in(image_folder, capture)
    with _refusals_explained(Path(path)):
        return assemble(capture, allow_missing=allow_missing)


def open_cameras(path: Path | str) -> SceneSource:
    """Return the cameras of a capture, of any layout that `open_scene` reads, whether its images are there or not.

    Sizes are those of the images, or of the calibration where an image is missing or unreadable (`without_image`). One
    view is enough. Raises `UnreadableScene` as `open_scene` does, and where neither image nor file gives a size.
    """
    capture = describe_scene(path)
    with _refusals_explained(Path(path)):
        return assemble_cameras(capture)


def describe_scene(path: Path | str) -> DescribedCapture:
    """Return what the description of a capture says, as `open_scene` does, without looking for its images."""
    path = Path(path).expanduser()
    with _refusals_explained(path):
        if path.is_file():
            return _read_file(path)
        if not path.is_dir():
            raise UnreadableScene(f"{path}: there is no such folder or file. Check the path.")
        return _read_description(_find_description(path))


def is_capture(names: Collection[str]) -> bool:
    """Say whether a folder that holds files and folders of these names is a capture that `open_scene` would try."""
    return not SIGNS.isdisjoint(names)


def _with_images_in(folder: str, capture: DescribedCapture) -> DescribedCapture:
    """Rename the images of a capture to their copies in another folder beside `images`."""
    views = []
    for view in capture.views:
        *folders, last = view.image_name.replace("\\", "/").split("/")
        folders = [folder if name in ("images", *SMALLER_FOLDERS) else name for name in folders]
        views.append(dataclasses.replace(view, image_name="/".join([*folders, last])))
    return dataclasses.replace(capture, views=tuple(views))


@contextlib.contextmanager
def _refusals_explained(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UnreadableScene(
            f"{path}: cannot be read ({error.strerror or error}). Check the path and its permissions."
        ) from error


def _read_description(path: Path) -> DescribedCapture:
    if path.is_file():
        return _read_file(path)
    return read_colmap(path, _name(capture_folder(path)))


def _read_file(path: Path) -> DescribedCapture:
    if path.suffix.lower() in (".bin", ".txt") and path.stem in ("cameras", "images", "points3D", "rigs", "frames"):
        return _read_description(path.parent)
    if path.name == ZERO123_FILE:
        return read_zero123(path.parent, _name(path.parent))
    if path.parts[-2:] == Path(GOBJAVERSE_FILE).parts:
        return read_gobjaverse(path.parent.parent, _name(path.parent.parent))
    if path.suffix.lower() != ".json":
        raise UnreadableScene(f"{path}: describes no capture. Give its folder, or {KNOWN_LAYOUTS}.")
    content = _load_json(path)
    frames = content.get("frames") if isinstance(content, dict) else content
    if isinstance(frames, list) and frames:
        keys = {key for frame in frames if isinstance(frame, dict) for key in frame}
        if "transform_matrix" in keys and isinstance(content, dict):
            return read_transforms(path, content, _name(path.parent))
        if "w2c" in keys:
            name = content.get("scene_name") if isinstance(content, dict) else None
            name = name if isinstance(name, str) and name else _name(path.parent)
            return read_opencv_cameras(path, frames, name)
    found = ", ".join(sorted(map(str, content))[:8]) if isinstance(content, dict) else f"a {type(content).__name__}"
    raise UnreadableScene(
        f"{path}: no list of frames with transform_matrix (OpenGL camera-to-world) or w2c (OpenCV world-to-camera); "
        f"it holds {found}. Give {KNOWN_LAYOUTS}."
    )


def _load_json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except json.JSONDecodeError as error:
        raise UnreadableScene(
            f"{path}: not JSON (line {error.lineno}: {error.msg}). Write or download it again."
        ) from error
    except (UnicodeDecodeError, ValueError, RecursionError) as error:
        raise UnreadableScene(f"{path}: not JSON ({type(error).__name__}). Write or download it again.") from error


def _description_in(folder: Path) -> Path | None:
    for name in (*JSON_NAMES, ZERO123_FILE, GOBJAVERSE_FILE):
        if (folder / name).is_file():
            return folder / name
    return find_model(folder)


def _find_description(folder: Path) -> Path:
    """Return the one description in a folder, or in the folders below it, level by level."""
    level, seen = [folder], 0
    for _ in range(DEEPEST + 1):
        found = [description for place in level if (description := _description_in(place)) is not None]
        if len(found) == 1:
            return found[0]
        if found:
            few = ", ".join(str(description) for description in found[:4]) + (", ..." if len(found) > 4 else "")
            raise UnreadableScene(f"{folder}: holds {len(found)} captures ({few}). Give one of them.")
        level = sorted(child for place in level for child in _children(place))
        seen += len(level)
        if seen > MOST_FOLDERS:
            break
    raise UnreadableScene(_no_cameras(folder))


def _children(folder: Path) -> list[Path]:
    """Return the folders in a folder; none where it may not be read."""
    try:
        return [child for child in folder.iterdir() if child.is_dir() and not child.is_symlink()]
    except PermissionError:
        return []


def _no_cameras(folder: Path) -> str:
    images = [path for path in (*folder.glob("*"), *folder.glob("*/*")) if path.suffix.lower() in SUFFIXES]
    what = f"{len(images)} images but no cameras" if images else "neither images nor cameras"
    return (
        f"{folder}: {what}. Reconstruction needs posed images: {KNOWN_LAYOUTS}. "
        "To find the poses of photographs run COLMAP (colmap automatic_reconstructor) or ns-process-data first."
    )


def _name(folder: Path) -> str:
    """Return the capture's name: its folder's, or the one above where the layout adds a fixed folder."""
    folder = folder.resolve()
    return folder.parent.name if folder.name in NAMELESS else folder.name
