"""From a capture and a choice of its views to a normalised scene, and from scenes to a batch."""

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor

from lrm_ttt.data.images import load_cameras, load_views
from lrm_ttt.data.source import SceneSource
from lrm_ttt.data.view_sampler import ViewChoice
from lrm_ttt.errors import UnreadableScene
from lrm_ttt.scene.cameras import Cameras, ImageSize
from lrm_ttt.scene.manipulable import cat
from lrm_ttt.scene.similarity import Normalisation, Similarity, normalising_similarity
from lrm_ttt.scene.views import SceneBatch, Views

# Relative to their distance from the origin, nearer cameras than this differ by the rounding of their file.
LEAST_SPREAD = 1e-7


def load_scene(
    source: SceneSource,
    choice: ViewChoice,
    image_size: tuple[int, int],
    *,
    patch_size: int,
    normalisation: Normalisation,
    background: tuple[float, float, float] = (1.0, 1.0, 1.0),
) -> SceneBatch:
    """Decode the inputs and targets of a capture, in the frame that its *input* cameras define; a batch of one.

    Transparent images are composited on `background` (0..1), and depths scaled into the frame. A view that is both
    input and target is decoded once. Cameras are normalised in float64, for captures may lie far from their origin.
    Raises `UnreadableScene` for what is wrong with an image or a camera.
    """
    size, num_inputs = ImageSize(*image_size), len(choice.inputs)
    chosen = (*choice.inputs, *choice.targets)
    different = sorted(set(chosen))
    # A run crops the same captures the same way a thousand times over.
    views = load_views(source, different, size, patch_size=patch_size, background=background, report_crops=False)
    loaded = load_cameras(source, different, size)
    world = Cameras(source.cam_to_world[different].double(), loaded.intrinsics.double(), size)
    where = [different.index(view) for view in chosen]
    views, world = views[where], world[where]
    _check_finite(source, world)
    world_to_scene = _normalising(source, world[:num_inputs], normalisation)
    cameras = world_to_scene.cameras(world[None]).to(torch.float32)
    scale = world_to_scene.scale.float()[:, None, None, None, None]
    depths = None if views.depths is None else views.depths[None] * scale
    masks = None if views.masks is None else views.masks[None]
    scene = Views(views.images[None], cameras, masks, depths)
    return SceneBatch(
        inputs=scene[:, :num_inputs],
        targets=scene[:, num_inputs:] if choice.targets else None,
        queries=None,
        world_to_scene=world_to_scene.to(torch.float32),
        backgrounds=torch.tensor([background]),
        names=(source.name,),
    )


def collate(scenes: Sequence[SceneBatch]) -> SceneBatch:
    """Join scenes to one batch. Where only some have masks or depths, the others are covered, or unknown, all over."""
    inputs = _join([scene.inputs for scene in scenes])
    targets = [scene.targets for scene in scenes if scene.targets is not None]
    assert len(targets) in (0, len(scenes)), "all scenes of a batch have targets, or none"
    return SceneBatch(
        inputs=inputs,
        targets=_join(targets) if targets else None,
        queries=None,
        world_to_scene=cat([scene.world_to_scene for scene in scenes]),
        backgrounds=torch.cat([scene.backgrounds for scene in scenes]),
        names=tuple(name for scene in scenes for name in scene.names),
    )


def renormalised(batch: SceneBatch, by: Normalisation) -> SceneBatch:
    """Return the same scenes in another frame that their input cameras define."""
    to_world = batch.world_to_scene.inverse()
    world_to_scene = normalising_similarity(to_world.cameras(batch.inputs.cameras), by)
    ratio = (world_to_scene.scale * to_world.scale)[:, None, None, None, None]

    def moved(views: Views | None) -> Views | None:
        if views is None:
            return None
        cameras = world_to_scene.cameras(to_world.cameras(views.cameras))
        return dataclasses.replace(
            views, cameras=cameras, depths=None if views.depths is None else views.depths * ratio
        )

    inputs = moved(batch.inputs)
    assert inputs is not None
    targets, queries = moved(batch.targets), moved(batch.queries)
    return dataclasses.replace(batch, inputs=inputs, targets=targets, queries=queries, world_to_scene=world_to_scene)


def _check_finite(source: SceneSource, cameras: Cameras) -> None:
    if not bool(cameras.cam_to_world.isfinite().all() and cameras.intrinsics.isfinite().all()):
        raise UnreadableScene(f"{source.name}: a camera is not made of finite numbers. Correct it, or leave it out.")


def _normalising(source: SceneSource, inputs: Cameras, by: Normalisation) -> Similarity:
    spread = float((inputs.centres - inputs.centres[:1]).abs().max())
    if by != "none" and inputs.shape[0] > 1 and spread <= LEAST_SPREAD * (1 + float(inputs.centres.abs().max())):
        raise UnreadableScene(
            f"{source.name}: all input cameras stand in one place, which leaves the scene without a scale. "
            "Leave the capture out."
        )
    return normalising_similarity(inputs[None], by)


def _join(items: Sequence[Views]) -> Views:
    def filled(name: str, value: float) -> Tensor | None:
        if all(getattr(views, name) is None for views in items):
            return None
        absent = [torch.full_like(views.images[..., :1, :, :], value) for views in items]
        present = [getattr(views, name) for views in items]
        return torch.cat([empty if there is None else there for there, empty in zip(present, absent, strict=True)])

    images, cameras = torch.cat([views.images for views in items]), cat([views.cameras for views in items])
    return Views(images, cameras, filled("masks", 1.0), filled("depths", 0.0))
