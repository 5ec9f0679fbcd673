"""Virtual views: those that query the memory, one Gaussian for each of their pixels, and so where the Gaussians lie.

They are the inputs, some of them, or views of their own, of which a camera is enough.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from lrm_ttt.data.images import choose_image_size, load_cameras, load_views
from lrm_ttt.data.open_scene import open_cameras
from lrm_ttt.data.source import SceneSource
from lrm_ttt.data.view_sampler import spread
from lrm_ttt.errors import InvalidConfig
from lrm_ttt.model.config import ModelConfig
from lrm_ttt.model.reconstructor import Reconstructor
from lrm_ttt.model.state import SceneState
from lrm_ttt.pipeline.capture import DEFAULT_PIXELS, CapturePlan
from lrm_ttt.pipeline.config import Color, ReconstructConfig, parse_virtual
from lrm_ttt.render.render import render
from lrm_ttt.scene.cameras import Cameras, ImageSize
from lrm_ttt.scene.gaussians import Gaussians
from lrm_ttt.scene.manipulable import cat
from lrm_ttt.scene.similarity import Similarity
from lrm_ttt.scene.views import Views


@dataclasses.dataclass(frozen=True)
class VirtualViews:
    """Virtual views of their own: `views` `[v]` that have images, and `cameras` `[c]` alone, in the inputs' frame."""

    views: Views | None = None
    cameras: Cameras | None = None

    def __post_init__(self) -> None:
        assert self.views is not None or self.cameras is not None, "no virtual views"

    def to(self, device: torch.device | str) -> "VirtualViews":
        """Move both to a device."""
        views, cameras = self.views, self.cameras
        return VirtualViews(views and views.to(device), cameras and cameras.to(device))

    def in_scene(self, world_to_scene: Similarity, masked: bool) -> "VirtualViews":
        """Map both to the scene's frame; views have masks if the inputs have (`masked`), and otherwise not.

        The range of distances hangs on whether there are masks, and must be that of the inputs.
        """
        views, cameras = self.views, self.cameras
        if views is not None:
            views = Views(views.images, world_to_scene.cameras(views.cameras), views.coverage if masked else None)
        return VirtualViews(views, cameras and world_to_scene.cameras(cameras))


# Positions among the inputs, views, cameras alone, or views and cameras.
Virtual = Sequence[int] | Views | Cameras | VirtualViews


@dataclasses.dataclass(frozen=True)
class Backdrop:
    """How pictures are drawn for virtual views that need them: before what colour, by what, and from where on."""

    color: Float[Tensor, "3"]
    backend: str
    near: float


def predict(
    model: Reconstructor, inputs: Views, virtual: Virtual | None, world_to_scene: Similarity, backdrop: Backdrop
) -> Gaussians:
    """Return the Gaussians `[n]` that virtual views read from the memory of `inputs` `[v]`.

    `inputs` are in the scene's frame, as the result is, virtual views still in the world's; None: the inputs. Evidence
    of positions is gathered among all inputs, that of other views among themselves. A model with evidence takes colours
    from its virtual views: cameras alone get the picture that the Gaussians of the inputs show from there, which costs
    another query, of all inputs.
    """
    if isinstance(virtual, Views | Cameras):
        virtual = VirtualViews(virtual, None) if isinstance(virtual, Views) else VirtualViews(None, virtual)
    if not isinstance(virtual, VirtualViews):
        return model(inputs[None], virtual)[0]
    masked = inputs.masks is not None
    state = model.update(model.start(1), inputs[None])
    asked = virtual.in_scene(world_to_scene, masked)
    if asked.cameras is not None and model.config.tokenizer.evidence is not None:
        pictures = imagine(model, state, inputs, asked.cameras, backdrop)
        asked = VirtualViews(pictures if asked.views is None else cat([asked.views, pictures]))
    parts = []
    if asked.views is not None:
        parts.append(model.query(state, asked.views[None], inputs.cameras[None]))
    if asked.cameras is not None:
        parts.append(model.query_cameras(state, asked.cameras[None], masked, inputs.cameras[None]))
    return cat(parts, 1)[0]


def imagine(model: Reconstructor, state: SceneState, inputs: Views, cameras: Cameras, backdrop: Backdrop) -> Views:
    """Return what the Gaussians of the inputs show from cameras `[c]`; coverage is the mask where inputs have masks."""
    gaussians = model.query(state, inputs[None])
    drawn = render(gaussians, cameras[None], backdrop.color[None], backdrop.backend, backdrop.near)[0]
    return Views(drawn.colors.clamp(0, 1), cameras, None if inputs.masks is None else drawn.alphas)


@dataclasses.dataclass(frozen=True)
class VirtualPlan:
    """Which views of which size query the memory, before anything is decoded.

    They are those at `positions` among the inputs (None: all `num_views` of them), or else those of a `capture`.
    """

    num_views: int
    image_size: ImageSize
    positions: tuple[int, ...] | None = None
    capture: SceneSource | None = None

    def load(self, patch_size: int, background: Color) -> VirtualViews:
        """Decode those images of the capture that there are; cameras are in its own frame."""
        assert self.capture is not None
        blind = self.capture.without_image
        seen = tuple(index for index in range(self.num_views) if index not in blind)
        views = cameras = None
        if seen:
            views = load_views(self.capture, seen, self.image_size, patch_size=patch_size, background=background)
        if blind:
            cameras = load_cameras(self.capture, blind, self.image_size)
        return VirtualViews(views, cameras)

    def notes(self, config: ReconstructConfig, model: ModelConfig) -> list[str]:
        """Return what the user should know before the work begins."""
        if self.capture is None:
            return []
        sentences = [f"--virtual {config.virtual}: {note}" for note in self.capture.notes]
        blind = len(self.capture.without_image)
        if blind and model.tokenizer.evidence is not None:
            sentences.append(
                f"--virtual {config.virtual}: {blind} of {self.num_views} views have no image, from which this model "
                "would take colours; each gets the picture that the Gaussians of the inputs show from there, which "
                "costs another pass"
            )
        return sentences

    def resolved(self, inputs: tuple[int, ...]) -> list[int] | list[str]:
        """Return the indices of the virtual views in the capture of the inputs, or their files in another one."""
        if self.capture is not None:
            return [str(path) for path in self.capture.image_paths]
        return list(inputs if self.positions is None else [inputs[position] for position in self.positions])

    def numbers(self) -> dict[str, Any]:
        """Return what metrics.json holds of the virtual views."""
        kind = "inputs" if self.positions is None else "subset"
        return {
            "virtual_views": kind if self.capture is None else "capture",
            "num_virtual_views": self.num_views,
            "num_virtual_without_image": 0 if self.capture is None else len(self.capture.without_image),
        }


def plan_virtual(config: ReconstructConfig, plan: CapturePlan, patch_size: int) -> VirtualPlan:
    """Choose the virtual views.

    Those of a capture have the size that is asked for, or else the shape of its own images. Raises `InvalidConfig` for
    more views than there are inputs, `UnreadableScene` for what is wrong with a capture of cameras.
    """
    virtual, inputs = parse_virtual(config.virtual), plan.choice.inputs
    if virtual is None:
        return VirtualPlan(len(inputs), plan.image_size)
    if isinstance(virtual, int):
        if virtual > len(inputs):
            raise InvalidConfig(
                f"--virtual {virtual}: there are only {len(inputs)} input views to choose from. Ask for 1 to "
                f"{len(inputs)}, or give the capture whose cameras to take."
            )
        chosen = spread(plan.source, inputs, virtual, config.seed)
        return VirtualPlan(virtual, plan.image_size, positions=tuple(map(inputs.index, chosen)))
    capture = open_cameras(virtual)
    size = choose_image_size(capture, patch_size=patch_size, max_pixels=DEFAULT_PIXELS)
    if config.image_size is not None:
        size = ImageSize(*config.image_size)
    return VirtualPlan(capture.num_views, size, capture=capture)
