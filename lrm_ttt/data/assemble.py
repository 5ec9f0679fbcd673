"""From what a capture's own file says to a checked `SceneSource`; every reader ends here."""

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from lrm_ttt.data.files import ALLOW_MISSING, DepthFile, EncodedImage, find_image, path_inside, read_image_size
from lrm_ttt.data.lens import Distortion
from lrm_ttt.data.source import SceneSource
from lrm_ttt.errors import UnreadableScene
from lrm_ttt.scene.cameras import ImageSize

# Poses are often written with four decimals; within this a matrix is made exactly rigid, beyond it is refused.
RIGID_TOLERANCE = 1e-3
EXACT_TOLERANCE = 1e-9


@dataclasses.dataclass(frozen=True)
class DescribedView:
    """One view as a file describes it.

    `matrix` is a camera matrix in OpenCV axes, camera-to-world or (`matrix_is_world_to_cam`) its inverse. Focal lengths
    in pixels, or else the full `view_angles` (horizontal, vertical; radians); `size` is what the intrinsics belong to,
    None: the image file. A `centre` of None is the middle of the image. `depth_name` is the image of its depths, in
    steps of `depth_unit`.
    """

    image_name: str
    matrix: np.ndarray
    matrix_is_world_to_cam: bool = False
    focal: tuple[float, float] | None = None
    view_angles: tuple[float | None, float | None] = (None, None)
    centre: tuple[float | None, float | None] = (None, None)
    size: ImageSize | None = None
    distortion: Distortion | None = None
    depth_name: str | None = None
    depth_unit: float = 0.001


@dataclasses.dataclass(frozen=True)
class DescribedCapture:
    """A capture as the file `described_by` describes it; image names are relative to the folder `root`.

    Nothing was looked for yet: images may be missing. `points` and `notes` are those of `SceneSource`.
    """

    name: str
    described_by: Path
    root: Path
    views: tuple[DescribedView, ...]
    points: torch.Tensor | None = None
    notes: tuple[str, ...] = ()


def assemble(capture: DescribedCapture, *, allow_missing: bool, fewest: int = 2) -> SceneSource:
    """Find the images of a capture and check every camera.

    Raises `UnreadableScene` for a missing or broken image (unless `allow_missing`), an image of another shape than its
    calibration, a matrix that is not rigid, intrinsics that are not positive numbers, and fewer than `fewest` views.
    """
    described_by, views = capture.described_by, capture.views
    if not views:
        raise UnreadableScene(f"{described_by}: lists no views. Give a capture with at least two posed images.")
    kept, sizes, found_notes = _find_images(described_by, capture.root, views, allow_missing)
    if len(kept) < fewest:
        raise UnreadableScene(
            f"{described_by}: only one posed image. A scene needs at least two views: add photographs."
        )
    depths, depth_notes = _find_depths(capture, [view for view, _ in kept])
    return checked(capture, kept, sizes, notes=(*capture.notes, *found_notes, *depth_notes), depths=depths)


def assemble_cameras(capture: DescribedCapture) -> SceneSource:
    """Check every camera of a capture, whose images need not be there: the description then gives their size.

    Raises `UnreadableScene` for a camera as `assemble` does, and for one without an image and without a size.
    """
    described_by = capture.described_by
    if not capture.views:
        raise UnreadableScene(f"{described_by}: lists no views. Give a capture with at least one camera.")
    kept, sizes, absent, unreadable = [], [], [], 0
    for index, view in enumerate(capture.views):
        path = find_image(capture.root, view.image_name, described_by)
        try:
            size = None if path is None else read_image_size(path, view.size)
        except UnreadableScene:
            size, unreadable = None, unreadable + 1
        if path is None or size is None:
            absent.append(index)
            path, size = path_inside(capture.root, view.image_name, described_by), view.size
        if size is None:
            raise UnreadableScene(
                f"{described_by}: {view.image_name} has no image, and the file does not say how large it would be. "
                "Add its size in pixels (w and h), or the image."
            )
        kept.append((view, path))
        sizes.append(size)
    found_notes = (f"{unreadable} images are unreadable and were taken for missing",) if unreadable else ()
    return checked(capture, kept, sizes, notes=(*capture.notes, *found_notes), without_image=tuple(absent))


def checked(
    capture: DescribedCapture,
    kept: Sequence[tuple[DescribedView, Path | EncodedImage]],
    sizes: Sequence[ImageSize],
    *,
    notes: tuple[str, ...] = (),
    without_image: tuple[int, ...] = (),
    depths: tuple[DepthFile | None, ...] | None = None,
) -> SceneSource:
    """Return the views `kept`, whose images have the `sizes`, once their cameras are sound.

    Raises `UnreadableScene` for a camera as `assemble` does.
    """
    described_by = capture.described_by
    intrinsics = [_intrinsics(described_by, view, size) for (view, _), size in zip(kept, sizes, strict=True)]
    lenses = tuple(
        None if view.distortion is None or view.distortion.changes_nothing else view.distortion for view, _ in kept
    )
    _check_lenses(described_by, kept)
    return SceneSource(
        name=capture.name,
        image_paths=tuple(path for _, path in kept),
        cam_to_world=torch.from_numpy(np.stack([rigid(described_by, view) for view, _ in kept])),
        intrinsics=torch.tensor(intrinsics, dtype=torch.float64),
        image_sizes=tuple(sizes),
        distortion=lenses,
        points=capture.points,
        notes=notes,
        without_image=without_image,
        depths=depths,
    )


def _find_depths(
    capture: DescribedCapture, views: Sequence[DescribedView]
) -> tuple[tuple[DepthFile | None, ...] | None, list[str]]:
    """Return the depth image of each view, which may be missing, and a note where some are."""
    found = []
    for view in views:
        named = None if view.depth_name is None else path_inside(capture.root, view.depth_name, capture.described_by)
        found.append(DepthFile(named, view.depth_unit) if named is not None and named.is_file() else None)
    missing = sum(view.depth_name is not None and depth is None for view, depth in zip(views, found, strict=True))
    notes = [f"{missing} of the depth images are missing"] if missing else []
    return (tuple(found) if any(found) else None), notes


def _find_images(
    described_by: Path, root: Path, views: Sequence[DescribedView], allow_missing: bool
) -> tuple[list[tuple[DescribedView, Path]], list[ImageSize], list[str]]:
    """Return the views that have an image with its path, the size of each image, and notes."""
    kept, sizes, missing, unreadable = [], [], [], []
    for view in views:
        path = find_image(root, view.image_name, described_by)
        if path is None:
            missing.append(view.image_name)
            continue
        try:
            sizes.append(read_image_size(path, view.size))
        except UnreadableScene:
            if not allow_missing:
                raise
            unreadable.append(view.image_name)
            continue
        kept.append((view, path))
    notes = []
    if missing or unreadable:
        notes.append(_left_out(described_by, len(views), missing, unreadable, allow_missing))
    other = {path.parent.name for view, path in kept if path.parent.name not in _folders(view.image_name)} - {root.name}
    if other:
        notes.append(f"the images are taken from {', '.join(sorted(other))}, and the intrinsics scaled to them")
    if len(set(sizes)) > 1:
        notes.append(f"{len(set(sizes))} image sizes: views are resized and centre-cropped to one")
    return kept, sizes, notes


def _folders(name: str) -> tuple[str, ...]:
    return Path(name.replace("\\", "/")).parts


def _left_out(
    described_by: Path, num_views: int, missing: Sequence[str], unreadable: Sequence[str], allow_missing: bool
) -> str:
    """Return the note on images that are missing or broken, or raise where that is not allowed or leaves nothing."""
    names = [*missing, *unreadable]
    few = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
    state = "missing" if not unreadable else "unreadable" if not missing else "missing or unreadable"
    what = f"lists {num_views} views, but {len(names)} of their images are {state} ({few})"
    there = num_views - len(names)
    if there == 0:
        raise UnreadableScene(f"{described_by}: {what}. Check that the images lie where the file says.")
    if not allow_missing:
        raise UnreadableScene(
            f"{described_by}: {what}. Restore them, or go on with the {there} that are there: {ALLOW_MISSING}."
        )
    return f"{len(names)} of {num_views} listed images are {state} and were left out ({few})"


def _intrinsics(described_by: Path, view: DescribedView, actual: ImageSize) -> tuple[float, float, float, float]:
    """Return (fx, fy, cx, cy) for the image file's own size."""
    size = view.size or actual
    focal = view.focal
    if focal is None:
        by_x, by_y = (
            None if angle is None else _half_over_tangent(pixels, angle)
            for angle, pixels in zip(view.view_angles, (size.width, size.height), strict=True)
        )
        across, down = by_x or by_y, by_y or by_x
        if across is None or down is None:
            raise UnreadableScene(
                f"{described_by}: no focal length for {view.image_name}. Add fl_x or camera_angle_x (radians)."
            )
        focal = across, down
    centre_x = size.width / 2 if view.centre[0] is None else view.centre[0]
    centre_y = size.height / 2 if view.centre[1] is None else view.centre[1]
    values = (*focal, centre_x, centre_y)
    if not all(math.isfinite(value) for value in values) or min(focal) <= 0:
        raise UnreadableScene(
            f"{described_by}: the intrinsics of {view.image_name} are fx, fy, cx, cy = {values}; "
            "focal lengths must be positive numbers of pixels. Correct the file."
        )
    scale_x, scale_y = actual.width / size.width, actual.height / size.height
    # A smaller copy of the images is rounded to whole pixels: allow one pixel of the copy.
    if abs(scale_x / scale_y - 1) > 1.01 / min(actual):
        raise UnreadableScene(
            f"{described_by}: {view.image_name} has {actual.width}x{actual.height} pixels, but its calibration is for "
            f"{size.width}x{size.height}, another shape. "
            "Use the images that were calibrated, without cropping or turning them."
        )
    return focal[0] * scale_x, focal[1] * scale_y, centre_x * scale_x, centre_y * scale_y


def _half_over_tangent(pixels: int, angle: float) -> float:
    if not 0 < angle < math.pi:
        return math.nan
    return 0.5 * pixels / math.tan(0.5 * angle)


def _check_lenses(described_by: Path, kept: Sequence[tuple[DescribedView, Path | EncodedImage]]) -> None:
    for view, _ in kept:
        if view.distortion is not None and not all(math.isfinite(value) for value in view.distortion.coefficients):
            raise UnreadableScene(
                f"{described_by}: a distortion coefficient of {view.image_name} is not a number. Correct the file."
            )


def rigid(described_by: Path, view: DescribedView) -> np.ndarray:
    """Return the camera-to-world matrix, made rigid where it nearly is; raises `UnreadableScene` where it is not."""
    matrix, where = view.matrix, f"{described_by}: the camera matrix of {view.image_name}"
    if not np.isfinite(matrix).all():
        raise UnreadableScene(f"{where} holds NaN or infinity. Correct or remove this view.")
    rotation = matrix[:3, :3]
    error = float(np.abs(rotation @ rotation.T - np.eye(3)).max())
    last_row = float(np.abs(matrix[3] - (0, 0, 0, 1)).max())
    if error > RIGID_TOLERANCE or last_row > RIGID_TOLERANCE:
        raise UnreadableScene(
            f"{where} is not rigid (its rotation is off by {max(error, last_row):.2g}; a scale or a shear?). "
            "Give a rotation and a translation alone."
        )
    if np.linalg.det(rotation) < 0:
        raise UnreadableScene(
            f"{where} mirrors the world (its determinant is -1). Check the axes: one of them has the wrong sign."
        )
    if error > EXACT_TOLERANCE or last_row > 0:
        left, _, right = np.linalg.svd(rotation)
        translation, matrix = matrix[:3, 3], np.eye(4)
        matrix[:3, :3], matrix[:3, 3] = left @ right, translation
    # Published view lists break ties of two frames by the last bits of exactly this inverse.
    return np.linalg.inv(matrix) if view.matrix_is_world_to_cam else matrix
