"""Views one after the other, and after each step the Gaussians so far; what a step computes does not grow."""

import dataclasses
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from lrm_ttt.errors import InvalidConfig
from lrm_ttt.model.config import Schedule
from lrm_ttt.model.reconstructor import Reconstructor
from lrm_ttt.model.state import SceneState
from lrm_ttt.pipeline.reconstruct import Reconstruction, normalise, prune
from lrm_ttt.pipeline.state_file import fingerprint
from lrm_ttt.pipeline.stream_config import DEFAULT_VIRTUAL, Strategy
from lrm_ttt.scene.cameras import Cameras
from lrm_ttt.scene.gaussians import Gaussians
from lrm_ttt.scene.manipulable import cat
from lrm_ttt.scene.similarity import Similarity, normalising_similarity
from lrm_ttt.scene.views import Views

Recall = Callable[[tuple[int, ...]], Views]


@dataclasses.dataclass(frozen=True)
class Stream:
    """What a stream has come to; never mutated, a step returns the next one.

    The frame is fixed from the start (`world_to_scene`). `re-predict` predicts the Gaussians of at most `num_virtual`
    of the views seen. `poses` are the camera-to-world matrices of all of them in the scene's frame and `intrinsics`
    theirs, on the CPU: 80 bytes a view are kept, and no image. `merged` are the Gaussians that `merge` has gathered, in
    the scene's frame. `masked` says whether views have masks, as the first ones decided.
    """

    model: Reconstructor
    fingerprint: str
    strategy: Strategy
    num_virtual: int
    world_to_scene: Similarity
    state: SceneState
    poses: Float[Tensor, "v 4 4"]
    intrinsics: Float[Tensor, "v 4"]
    masked: bool | None = None
    merged: tuple[Gaussians, ...] = ()

    @property
    def num_views(self) -> int:
        """Number of views seen."""
        return self.state.num_views

    @property
    def virtual(self) -> tuple[int, ...]:
        """Positions, in the order in which views came, of those that `re-predict` queries."""
        return far_apart(self.poses, self.num_virtual)

    def in_scene(self, views: Views) -> Views:
        """Map views `[v]` of the capture to the scene's frame and the model's device, with masks if others have."""
        masked = views.masks is not None if self.masked is None else self.masked
        views = dataclasses.replace(views, masks=views.coverage if masked else None)
        return normalise(views.to(self.world_to_scene.scale.device), self.world_to_scene)


def start_stream(
    model: Reconstructor, cameras: Cameras, *, strategy: Strategy = "re-predict", num_virtual: int | None = None
) -> Stream:
    """Begin a stream whose frame the `cameras` `[n]` fix: those of input views that are known by now, in any frame.

    `num_virtual` is for `re-predict` alone (None: DEFAULT_VIRTUAL).
    Raises `InvalidConfig` for a model that cannot go on from a state.
    """
    check_schedule(model.config.backbone.schedule)
    num_virtual = DEFAULT_VIRTUAL if num_virtual is None else num_virtual
    assert num_virtual >= 1
    assert cameras.shape[0] >= 2, "one camera defines no scale"
    device = next(model.parameters()).device
    world_to_scene = normalising_similarity(cameras, model.config.normalisation)
    with torch.inference_mode():
        state = model.start(1)
    return Stream(
        model=model,
        fingerprint=fingerprint(model),
        strategy=strategy,
        num_virtual=num_virtual,
        # Transposed in memory it would round otherwise than after saving and loading.
        world_to_scene=world_to_scene.to(device).map(torch.Tensor.contiguous),
        state=state,
        poses=torch.empty(0, 4, 4),
        intrinsics=torch.empty(0, 4),
    )


def check_schedule(schedule: Schedule) -> None:
    """Raise `InvalidConfig` for a schedule that cannot go on from a state."""
    if schedule != "causal":
        raise InvalidConfig(
            f"This model has the schedule '{schedule}', which sees all views at once: only 'causal' can go on from a "
            "state. Stream with a model that was trained with 'causal', try --schedule causal (an experiment, usually "
            "for the worse), or reconstruct all views at once."
        )


def push(stream: Stream, views: Views, recall: Recall) -> tuple[Stream, Reconstruction]:
    """Show the views `[v]`, in the frame of the cameras that began the stream, and return the Gaussians so far.

    `recall` gives views again by their positions in the order in which they came, as `re-predict` needs it; `merge`
    never calls it. What is computed is the same in every step: `v` views are written, and at most `num_virtual` (merge:
    `v`) are queried. What `merge` returns grows with every step, and so does saving or drawing it. For equality with
    one causal pass `v` is a multiple of the model's `views_per_update`.
    """
    return query(update(stream, views), views, recall)


@torch.inference_mode()
def update(stream: Stream, views: Views) -> Stream:
    """Write views to the memory."""
    scene = stream.in_scene(views)
    return dataclasses.replace(
        stream,
        state=stream.model.update(stream.state, scene[None]),
        masked=scene.masks is not None,
        poses=torch.cat([stream.poses, scene.cameras.cam_to_world.cpu()]),
        intrinsics=torch.cat([stream.intrinsics, scene.cameras.intrinsics.cpu()]),
    )


@torch.inference_mode()
def query(stream: Stream, views: Views, recall: Recall) -> tuple[Stream, Reconstruction]:
    """Return the Gaussians so far: of the virtual views, or (merge) of the new `views` after those of earlier steps.

    How large an object is, the cameras of all views seen say, whichever of them are queried.
    """
    merges = stream.strategy == "merge"
    queries = stream.in_scene(views if merges else recall(stream.virtual))
    seen = Cameras(stream.poses, stream.intrinsics, queries.image_size).to(queries.images.device)
    predicted = stream.model.query(stream.state, queries[None], seen[None])[0]
    gaussians = prune(predicted, 1.0)
    if merges:
        stream = dataclasses.replace(stream, merged=(*stream.merged, gaussians))
        gaussians = cat(stream.merged)
    return stream, Reconstruction(gaussians, stream.world_to_scene, predicted.num_gaussians)


def far_apart(poses: Float[Tensor, "n 4 4"], count: int) -> tuple[int, ...]:
    """Return the positions of at most `count` cameras: from the first on always the one that is farthest from those
    taken.

    Cameras are as far from each other as their centres, plus one minus the cosine between their viewing directions. No
    camera is then farther from a taken one than twice what the best choice allows (Gonzalez 1985).
    """
    centres, forward = poses[:, :3, 3].double(), poses[:, :3, 2].double()
    taken, nearest = [0], torch.full((len(poses),), float("inf"), dtype=torch.float64)
    while len(taken) < min(count, len(poses)):
        last = taken[-1]
        apart = (centres - centres[last]).square().sum(-1).sqrt() + 1 - forward @ forward[last]
        # Ties (regular rigs have many) go to the earlier view, and rounding must not decide.
        nearest = torch.minimum(nearest, (apart * 1e6).round())
        nearest[taken] = -1
        taken.append(int(nearest.argmax()))
    return tuple(sorted(taken))
