"""Views, the batches of views that models see, and the renderings that come back."""

import dataclasses

import torch
from jaxtyping import Float
from torch import Tensor

from lrm_ttt.scene.cameras import Cameras, ImageSize
from lrm_ttt.scene.manipulable import Manipulable
from lrm_ttt.scene.similarity import Similarity


@dataclasses.dataclass(frozen=True)
class Views(Manipulable):
    """Images with their cameras.

    `images` in 0..1, RGB already composited on the background. `masks` is coverage 0..1 (the alpha channel), `depths`
    is camera z in the cameras' units with 0 where unknown; both only where the source has them.
    """

    images: Float[Tensor, "*b 3 h w"]
    cameras: Cameras
    masks: Float[Tensor, "*b 1 h w"] | None = None
    depths: Float[Tensor, "*b 1 h w"] | None = None

    @property
    def shape(self) -> torch.Size:
        """Leading batch dimensions, the last of which is usually the number of views."""
        return self.images.shape[:-3]

    @property
    def image_size(self) -> ImageSize:
        """Height and width in pixels."""
        return self.cameras.image_size

    @property
    def coverage(self) -> Float[Tensor, "*b 1 h w"]:
        """The masks, or ones where the source has none."""
        return torch.ones_like(self.images[..., :1, :, :]) if self.masks is None else self.masks


@dataclasses.dataclass(frozen=True)
class SceneBatch(Manipulable):
    """A batch of `b` scenes in normalised coordinates.

    `inputs` are written to the memory, `targets` are compared with renderings, `queries` are the virtual views (None:
    the inputs). `world_to_scene` is the normalisation that was applied; its inverse leads back. `backgrounds` 0..1 is
    what shows where nothing is.
    """

    inputs: Views
    targets: Views | None
    queries: Views | None
    world_to_scene: Similarity
    backgrounds: Float[Tensor, "*b 3"]
    names: tuple[str, ...] = ()

    @property
    def shape(self) -> torch.Size:
        """The batch dimension."""
        return self.inputs.shape[:1]


@dataclasses.dataclass(frozen=True)
class Renderings(Manipulable):
    """What a camera sees: colours 0..1 (not clamped), coverage 0..1, expected depth (camera z; 0 where nothing is)."""

    colors: Float[Tensor, "*b 3 h w"]
    alphas: Float[Tensor, "*b 1 h w"]
    depths: Float[Tensor, "*b 1 h w"]

    @property
    def shape(self) -> torch.Size:
        """Leading batch dimensions."""
        return self.colors.shape[:-3]
