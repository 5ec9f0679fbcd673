"""Views in, Gaussians out, in the frame and units of the capture: the whole library in one function."""

import dataclasses
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from lrm_ttt.model.reconstructor import Reconstructor
from lrm_ttt.pipeline.virtual import Backdrop, Virtual, predict
from lrm_ttt.render.render import render
from lrm_ttt.scene.cameras import Cameras
from lrm_ttt.scene.gaussians import Gaussians
from lrm_ttt.scene.similarity import Similarity, normalising_similarity
from lrm_ttt.scene.views import Views

# Rasterizers skip what covers less than this of a pixel.
FAINTEST = 1 / 255
# Nothing nearer to a camera is drawn, in units of the normalised scene.
NEAR = 0.1


@dataclasses.dataclass(frozen=True)
class Reconstruction:
    """The Gaussians of one scene in its normalised frame, and the way back to the capture's.

    `num_predicted` is how many the model made before pruning.
    """

    gaussians: Gaussians
    world_to_scene: Similarity
    num_predicted: int

    def in_capture(self) -> Gaussians:
        """Return the Gaussians in the capture's own frame and units."""
        return self.gaussians.transform(self.world_to_scene.inverse())

    @property
    def near_in_capture(self) -> float:
        """The distance NEAR in the capture's units."""
        return NEAR / float(self.world_to_scene.scale)


def reconstruct(
    model: Reconstructor,
    inputs: Views,
    *,
    keep_fraction: float = 1.0,
    virtual: Virtual | None = None,
    background: Float[Tensor, "3"] | None = None,
    backend: str = "auto",
) -> Reconstruction:
    """Reconstruct a scene from its input views `[v]`, given in any frame.

    The input cameras alone decide the normalised frame. Height and width must be multiples of the model's patch size.
    Of the Gaussians the share `keep_fraction` of highest opacity stays, without those that no rasterizer draws.
    `virtual` (None: the inputs) are the views that query the memory: positions among the inputs, or views or cameras
    `[q]` in the frame of the inputs. Where a model needs images of them and there are none, `backend` draws what the
    inputs show, on the `background` (None: white) that they have (pipeline/virtual.py).
    """
    world_to_scene = normalising_similarity(inputs.cameras, model.config.normalisation)
    views = normalise(inputs, world_to_scene)
    color = torch.ones(3) if background is None else background
    backdrop = Backdrop(color.to(inputs.images.device), backend, NEAR)
    with torch.inference_mode():
        predicted = predict(model, views, virtual, world_to_scene, backdrop)
    return Reconstruction(prune(predicted, keep_fraction), world_to_scene, predicted.num_gaussians)


def normalise(views: Views, world_to_scene: Similarity) -> Views:
    """Map views `[v]` into the scene's frame: their cameras, and the depths with the scale."""
    depths = None if views.depths is None else views.depths * world_to_scene.scale
    return dataclasses.replace(views, cameras=world_to_scene.cameras(views.cameras), depths=depths)


def prune(gaussians: Gaussians, keep_fraction: float) -> Gaussians:
    """Keep the share `keep_fraction` of highest opacity, and of these all that can be seen (at least one stays)."""
    kept = gaussians.prune(keep_fraction)
    visible = kept.opacities >= FAINTEST
    if not visible.any():
        visible = kept.opacities == kept.opacities.max()
    return kept.select(visible)


@torch.inference_mode()
def draw(
    gaussians: Gaussians,
    cameras: Cameras,
    background: Float[Tensor, "3"],
    *,
    near: float,
    backend: str = "auto",
    advance: Callable[[int, int], None] = lambda done, total: None,
) -> Float[Tensor, "v 3 h w"]:
    """Render one scene from cameras `[v]`, one after the other; colours 0..1, on the CPU.

    `near` is in the units of the Gaussians, `advance` hears how many views are done.
    """
    images = []
    for index in range(cameras.shape[0]):
        camera = cameras[None, index : index + 1]
        images.append(render(gaussians[None], camera, background[None], backend, near).colors[0, 0].clamp(0, 1).cpu())
        advance(index + 1, cameras.shape[0])
    return torch.stack(images)
