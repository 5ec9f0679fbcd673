"""Read COLMAP models, binary and text, through pycolmap."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from lrm_ttt.data.assemble import DescribedCapture, DescribedView
from lrm_ttt.data.colmap_binary import check_complete
from lrm_ttt.data.files import SMALLER_FOLDERS
from lrm_ttt.data.lens import Distortion
from lrm_ttt.errors import BackendUnavailable, UnreadableScene
from lrm_ttt.scene.cameras import ImageSize

MODEL_PLACES = ("sparse/0", "sparse", "colmap/sparse/0", "colmap/sparse", ".")
# How COLMAP's camera models spread their parameters after focal lengths and centre; `f` stands for one focal length for
# both axes.
PARAMETERS = {
    "SIMPLE_PINHOLE": "f cx cy",
    "PINHOLE": "fx fy cx cy",
    "SIMPLE_RADIAL": "f cx cy k1",
    "RADIAL": "f cx cy k1 k2",
    "OPENCV": "fx fy cx cy k1 k2 p1 p2",
    "FULL_OPENCV": "fx fy cx cy k1 k2 p1 p2 k3 k4 k5 k6",
    "SIMPLE_RADIAL_FISHEYE": "f cx cy k1",
    "RADIAL_FISHEYE": "f cx cy k1 k2",
    "OPENCV_FISHEYE": "fx fy cx cy k1 k2 k3 k4",
}


def find_model(folder: Path) -> Path | None:
    """Return the folder of a COLMAP model in or below a capture's folder, or None."""
    for place in MODEL_PLACES:
        model = folder / place
        if any(
            (model / f"cameras{suffix}").is_file() and (model / f"images{suffix}").is_file()
            for suffix in (".bin", ".txt")
        ):
            return model
    return None


def read_colmap(model: Path, name: str) -> DescribedCapture:
    """Read the posed images of a COLMAP model, sorted by name, with its sparse points.

    The frame is COLMAP's. The images are looked for in `images/` (or `images_2`, `images_4`, `images_8`) beside the
    folder `sparse`. Images without a pose are left out and noted. Raises `BackendUnavailable` without pycolmap.
    """
    try:
        import pycolmap
    except ImportError as error:
        raise BackendUnavailable(
            f"{model}: a COLMAP model needs pycolmap, which is not installed. Run: pip install 'lrm-ttt[colmap]'"
        ) from error
    check_complete(model)
    try:
        reconstruction = pycolmap.Reconstruction(str(model))
    except (RuntimeError, ValueError, IndexError, OSError, MemoryError) as error:
        raise UnreadableScene(
            f"{model}: not a complete COLMAP model ({_first_line(error)}). Copy or export it again."
        ) from error
    model = model.absolute()
    root, prefix = _image_folder(model)
    images = sorted(reconstruction.images.values(), key=lambda image: image.name)
    posed = [image for image in images if image.has_pose]
    notes = [f"{len(images) - len(posed)} images without a pose were left out"] if len(posed) < len(images) else []
    views = tuple(_view(model, image, reconstruction.cameras[image.camera_id], prefix) for image in posed)
    if len({image.camera_id for image in posed}) > 1:
        notes.append(f"{len({image.camera_id for image in posed})} cameras")
    others = [
        folder.name
        for folder in model.parent.iterdir()
        if folder.is_dir() and folder.name.isdigit() and folder != model
    ]
    if model.name.isdigit() and others:
        notes.append(f"model {model.name} of {len(others) + 1} was read; give the folder of another one to read that")
    xyz = [point.xyz for point in reconstruction.points3D.values()]
    points = torch.from_numpy(np.array(xyz, dtype=np.float64)) if xyz else None
    return DescribedCapture(name, model, root, views, points, tuple(notes))


def capture_folder(model: Path) -> Path:
    """Return the folder that holds both a model and its images: above `sparse` and `colmap`, or the model's own."""
    folder = model.absolute()
    while folder.name in ("sparse", "colmap") or folder.name.isdigit():
        if any((folder / images).is_dir() for images in ("images", *SMALLER_FOLDERS)):
            break
        folder = folder.parent
    return folder


def _image_folder(model: Path) -> tuple[Path, str]:
    """Return the capture's folder, and what stands before the image names inside it."""
    root = capture_folder(model)
    has_folder = any((root / images).is_dir() for images in ("images", *SMALLER_FOLDERS))
    return root, "images/" if has_folder else ""


def _view(model: Path, image: Any, camera: Any, prefix: str) -> DescribedView:
    kind = camera.model.name
    if kind not in PARAMETERS:
        raise UnreadableScene(
            f"{model}: {image.name} has the camera model {kind}, which is not one of {', '.join(PARAMETERS)}. "
            "Undistort the images first (colmap image_undistorter)."
        )
    values = dict(zip(PARAMETERS[kind].split(), (float(value) for value in camera.params), strict=True))
    pose = image.cam_from_world() if callable(image.cam_from_world) else image.cam_from_world
    return DescribedView(
        image_name=prefix + image.name,
        matrix=np.concatenate([np.asarray(pose.matrix(), dtype=np.float64), [[0.0, 0.0, 0.0, 1.0]]]),
        matrix_is_world_to_cam=True,
        focal=(values.get("fx", values.get("f", 0.0)), values.get("fy", values.get("f", 0.0))),
        centre=(values["cx"], values["cy"]),
        size=ImageSize(int(camera.height), int(camera.width)),
        distortion=_distortion(kind, values),
    )


def _distortion(kind: str, values: dict[str, float]) -> Distortion:
    if kind.endswith("FISHEYE"):
        return Distortion("fisheye", tuple(values.get(key, 0.0) for key in ("k1", "k2", "k3", "k4")))
    return Distortion("opencv", tuple(values.get(key, 0.0) for key in ("k1", "k2", "p1", "p2", "k3", "k4", "k5", "k6")))


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
