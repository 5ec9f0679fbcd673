"""What one drawing says of the Gaussians."""

from typing import NamedTuple

from lrm_ttt.kernels.rasterizer.op import Screen
from lrm_ttt.scene.cameras import ImageSize


class Seen(NamedTuple):
    """Gaussians on the screen of each view `[v]`, after the backward pass, and the size of the images."""

    screen: Screen
    image_size: ImageSize
