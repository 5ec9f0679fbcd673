"""Views in, Gaussians out, in the frame and units of the capture: the whole library in one function."""

import dataclasses
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from lrm_ttt.model.reconstructor import Reconstructor
from lrm_ttt.pipeline.virtual import Backdrop, Virtual, VirtualViews, predict
from lrm_ttt.render.render import render
from lrm_ttt.scene.cameras import Cameras
from lrm_ttt.scene.gaussians import Gaussians
from lrm_ttt.scene.similarity import Similarity, normalising_similarity
from lrm_ttt.scene.views import Views

# Rasterizers skip what covers less than this of a pixel.
FAINTEST = 1 / 255
# Nothing nearer to a camera is drawn, in units of the normalised scene.
NEAR = 0.1
# A drawing keeps some 220 bytes of every Gaussian that it sees, so more of them are drawn in layers.
MOST_DRAWN = 2**21
SAMPLED_DEPTHS = 10_000


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
    num_predicted = _num_pixels(views if virtual is None else virtual, inputs)
    return Reconstruction(prune(predicted, keep_fraction, num_predicted), world_to_scene, num_predicted)


def _num_pixels(virtual: Virtual, inputs: Views) -> int:
    """Return how many Gaussians virtual views predict."""
    if isinstance(virtual, VirtualViews):
        return sum(_num_pixels(views, inputs) for views in (virtual.views, virtual.cameras) if views is not None)
    if isinstance(virtual, Views | Cameras):
        return virtual.shape[0] * virtual.image_size.height * virtual.image_size.width
    return len(virtual) * inputs.image_size.height * inputs.image_size.width


def normalise(views: Views, world_to_scene: Similarity) -> Views:
    """Map views `[v]` into the scene's frame: their cameras, and the depths with the scale."""
    depths = None if views.depths is None else views.depths * world_to_scene.scale
    return dataclasses.replace(views, cameras=world_to_scene.cameras(views.cameras), depths=depths)


def prune(gaussians: Gaussians, keep_fraction: float, num_predicted: int | None = None) -> Gaussians:
    """Keep the share `keep_fraction` of highest opacity, and of these all that can be seen (at least one stays).

    It is a share of the `num_predicted` that there were before others were dropped (None: of these Gaussians).
    """
    share = keep_fraction * (num_predicted or gaussians.num_gaussians) / gaussians.num_gaussians
    kept = gaussians.prune(min(share, 1.0))
    # The most opaque stays, however faint it is. A GPU is waited for once, where they are counted.
    opacities = kept.opacities.nan_to_num(nan=0.0)
    visible = (opacities >= opacities.max().clamp(max=FAINTEST)).nonzero()[:, 0]
    return kept if len(visible) == kept.num_gaussians else kept.select(visible)


def drop_invisible(gaussians: Gaussians) -> Gaussians:
    """Keep what can be seen of one slice `[1 n]` (model/slices.py), and at least one Gaussian."""
    return prune(gaussians[0], 1.0)[None]


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
        images.append(_draw_one(gaussians, camera, background, near, backend).clamp(0, 1).cpu())
        advance(index + 1, cameras.shape[0])
    return torch.stack(images)


def _draw_one(
    gaussians: Gaussians, camera: Cameras, background: Float[Tensor, "3"], near: float, backend: str
) -> Float[Tensor, "3 h w"]:
    """Draw one view; of more than MOST_DRAWN Gaussians in layers, front to back, which together are the same image."""
    if gaussians.num_gaussians <= MOST_DRAWN:
        return render(gaussians[None], camera, background[None], backend, near).colors[0, 0]
    axis = camera.world_to_cam[0, 0, 2]
    depths = gaussians.means @ axis[:3] + axis[3]
    # Layers of about the same size, by the depths of some.
    some = depths[:: max(1, len(depths) // SAMPLED_DEPTHS)].sort().values
    num_layers = -(-len(depths) // MOST_DRAWN)
    ends = [some[len(some) * layer // num_layers] for layer in range(1, num_layers)]
    layer_of = torch.bucketize(depths, torch.stack(ends), out_int32=True)
    image = torch.zeros(3, *camera.image_size, device=depths.device)
    through = torch.ones_like(image[:1])
    for layer in range(num_layers):
        drawn = render(gaussians.select(layer_of == layer)[None], camera, None, backend, near)[0, 0]
        image = image + through * drawn.colors
        through = through * (1 - drawn.alphas)
    return image + through * background[:, None, None]
