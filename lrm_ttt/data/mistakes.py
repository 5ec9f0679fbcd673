"""The usual mistakes in cameras: what each is called, how to mend it, and the cameras with it undone."""

import dataclasses
from collections.abc import Callable, Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from lrm_ttt.data.lens import Distortion
from lrm_ttt.scene.cameras import Cameras

Lenses = tuple[Distortion | None, ...]

# Diagonals that turn the axes of a camera into OpenCV's.
AXES = {
    "": (1.0, 1.0, 1.0, 1.0),
    "opengl": (1.0, -1.0, -1.0, 1.0),
    "pytorch3d": (-1.0, -1.0, 1.0, 1.0),
    "backwards": (-1.0, 1.0, -1.0, 1.0),
}
AXES_MISTAKES = {
    "opengl": (
        "camera axes",
        "the y and z axes of the cameras are reversed: OpenGL axes (+y up, -z forward) were given where OpenCV's (+y "
        "down, +z forward) belong, or the other way round. Negate the second and third column of each camera-to-world "
        "matrix",
    ),
    "pytorch3d": (
        "camera axes",
        "the x and y axes of the cameras are reversed, as PyTorch3D has them (+x left, +y up). Negate the first and "
        "second column of each camera-to-world matrix",
    ),
    "backwards": (
        "camera axes",
        "the cameras look away from what they show: their x and z axes are reversed. Negate the first and third column "
        "of each camera-to-world matrix",
    ),
}
INVERTED = (
    "inverted cameras",
    "world-to-camera matrices were given where camera-to-world belong, or the other way round. Invert each matrix",
)
# In half octaves: from a factor of 1.4 on, every capture that was tried told the wrong from the right.
SCALES = tuple(2.0 ** (half / 2) for half in range(-6, 7))
# Displacements by a lens, as a share of the distance from the centre, at the corners of the image.
FIRST_LENS_STEP, LAST_LENS_STEP, MOST_LENS = 0.08, 0.01, 0.4
LEAST_LENS_PROGRESS = 1e-3


@dataclasses.dataclass(frozen=True)
class Mistake:
    """A mistake by name, with what it is and what to do."""

    kind: str
    message: str


def undo_camera_mistakes(
    cameras: Cameras,
) -> Iterator[tuple[Float[Tensor, "v 4"], list[tuple[Mistake, Float[Tensor, "v 4 4"]]]]]:
    """Yield intrinsics, and for each the poses and the mistake that both undo together."""
    poses = []
    for inverted in (False, True):
        matrices = torch.linalg.inv(cameras.cam_to_world) if inverted else cameras.cam_to_world
        for axes, diagonal in AXES.items():
            # What turns the whole world leaves every pair of views as it was, so that both orders are one.
            poses.append((inverted, axes, matrices * matrices.new_tensor(diagonal)))
    for scale in SCALES:
        focal_only = cameras.intrinsics * cameras.intrinsics.new_tensor([scale, scale, 1.0, 1.0])
        changed = [pose for pose in poses if pose[0] or pose[1] or scale != 1]
        yield focal_only, [(_named(inverted, axes, scale), matrices) for inverted, axes, matrices in changed]
        if scale != 1:
            yield cameras.intrinsics * scale, [(_named(False, "", scale), cameras.cam_to_world)]


def _named(inverted: bool, axes: str, scale: float) -> Mistake:
    """Return one mistake for all that was changed."""
    parts = [INVERTED] if inverted else []
    parts += [AXES_MISTAKES[axes]] if axes else []
    if scale != 1:
        factor = max(scale, 1 / scale)
        much = f"{factor:.0f}" if abs(factor - round(factor)) < 0.01 else f"{factor:.1f}"
        size = "larger" if scale < 1 else "smaller"
        parts.append(
            (
                "intrinsics scale",
                f"the focal lengths are about {much} times too {'large' if scale < 1 else 'small'}, as if they were "
                f"those of {size} images. Give intrinsics in pixels of these images, or the size (w, h) they belong to",
            )
        )
    return Mistake(" and ".join(kind for kind, _ in parts), "; and ".join(text for _, text in parts) + ".")


def undo_lens_mistakes(
    cameras: Cameras, lenses: Lenses, scores: Callable[[Lenses], Float[Tensor, "pairs"]]
) -> tuple[Mistake, Float[Tensor, "pairs"]]:
    """Return the mistake about the lens that explains most, with the `scores` once it is undone.

    Where the capture has lenses they are left out; where it has none, two radial coefficients are sought.
    """
    if any(lens is not None for lens in lenses):
        mistake = Mistake(
            "doubled distortion",
            "the images have no lens distortion any more, but the cameras still have its coefficients. Remove them.",
        )
        return mistake, scores((None,) * len(lenses))
    corner = _corner_radius(cameras)
    best, shares = scores(lenses), (0.0, 0.0)
    step = FIRST_LENS_STEP
    while step >= LAST_LENS_STEP:
        tried = {}
        for first, second in ((step, 0.0), (-step, 0.0), (0.0, step), (0.0, -step), (step, -step), (-step, step)):
            at = shares[0] + first, shares[1] + second
            if max(map(abs, at)) <= MOST_LENS:
                tried[at] = scores((_radial(at, corner),) * len(lenses))
        at = max(tried, key=lambda key: float(tried[key].mean()))
        if tried[at].mean() > best.mean() + LEAST_LENS_PROGRESS:
            best, shares = tried[at], at
        else:
            step /= 2
    k1, k2 = shares[0] / corner**2, shares[1] / corner**4
    mistake = Mistake(
        "ignored distortion",
        f"the images are bent by their lens, by about k1 = {k1:.3f} and k2 = {k2:.3f}, and the cameras do not say so. "
        "Add the coefficients of the calibration, or undistort the images (colmap image_undistorter).",
    )
    return mistake, best


def _radial(shares: tuple[float, float], corner: float) -> Distortion:
    return Distortion("opencv", (shares[0] / corner**2, shares[1] / corner**4))


def _corner_radius(cameras: Cameras) -> float:
    """Return how far from the axis, on the plane z = 1, the corners of the first image lie."""
    height, width = cameras.image_size
    return float((torch.tensor([width, height]) / 2 / cameras.intrinsics[0, :2]).norm())
