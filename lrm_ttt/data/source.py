"""A capture that was looked at and not yet decoded: which images there are, and the camera of each."""

import dataclasses
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from lrm_ttt.data.files import DepthFile, EncodedImage
from lrm_ttt.data.lens import Distortion
from lrm_ttt.scene.cameras import ImageSize


@dataclasses.dataclass(frozen=True)
class SceneSource:
    """Name the images of a capture and their cameras, in the capture's own frame and units (float64).

    `cam_to_world` has OpenCV axes. `intrinsics` are (fx, fy, cx, cy) of the image *files*, whose sizes are
    `image_sizes`, still with their lens `distortion` (None: a pinhole camera). `points` are the sparse points of the
    capture, where it has them. `notes` are sentences about what was noticed: missing images, other images taken than
    named, lenses that differ. `without_image` are the indices of views whose image is not there, which `open_cameras`
    alone gives: their path is where it would be, their size that of their calibration. `depths` are the depth images of
    the views, where the capture has any, seen by the same cameras and lenses as the colours.
    """

    name: str
    image_paths: tuple[Path | EncodedImage, ...]
    cam_to_world: Float[Tensor, "v 4 4"]
    intrinsics: Float[Tensor, "v 4"]
    image_sizes: tuple[ImageSize, ...]
    distortion: tuple[Distortion | None, ...]
    points: Float[Tensor, "p 3"] | None = None
    notes: tuple[str, ...] = ()
    without_image: tuple[int, ...] = ()
    depths: tuple[DepthFile | None, ...] | None = None

    @property
    def num_views(self) -> int:
        """Number of posed views."""
        return len(self.image_paths)
