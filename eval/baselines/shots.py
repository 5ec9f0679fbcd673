"""The input views of one scene as optimisation takes them: in its own frame, and one a step in a shuffled order."""

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from lrm_ttt.eval.baselines.seen import Seen
from lrm_ttt.eval.task import Task
from lrm_ttt.kernels.rasterizer.op import rasterize, rasterize_tracked
from lrm_ttt.kernels.ssim.op import l1_ssim_loss
from lrm_ttt.pipeline.refine import behind
from lrm_ttt.scene.similarity import Similarity, normalising_similarity
from lrm_ttt.scene.views import Views

# Nothing nearer to a camera is drawn, in units of the mean distance between the cameras and what they look at: as much
# as in lrm_ttt.pipeline.reconstruct.
NEAR = 0.05


class Shots:
    """Views `[v]` taken apart once, for indexing their cameras in each step costs as much as drawing some Gaussians."""

    def __init__(self, task: Task, views: Views, generator: torch.Generator) -> None:
        self.cameras, self.image_size = views.cameras, views.image_size
        self.centres = views.cameras.centres
        self._images = views.images.split(1)
        self._uncovered = None if views.masks is None else (1 - views.masks).split(1)
        self._world_to_cam, self._intrinsics = views.cameras.world_to_cam.split(1), views.cameras.intrinsics.split(1)
        self._background, self._backend = task.background.to(views.images.device), task.backend
        self._generator = generator
        self._order: list[int] = []

    def next(self) -> int:
        """Return the index of the view whose turn it is."""
        self._order = self._order or torch.randperm(len(self._images), generator=self._generator).tolist()
        return self._order.pop()

    def loss(
        self, index: int, *gaussians: Tensor, watched: bool, seen_through: dict[str, Any]
    ) -> tuple[Tensor, Seen | None]:
        """Draw one view, and return its loss and, `watched`, what will be seen of the Gaussians once it has gradients.

        `gaussians` and `seen_through` are arguments of `rasterize`.
        """
        uncovered = None if self._uncovered is None else self._uncovered[index]
        background, image = behind(self._images[index], uncovered, self._background, self._generator)
        options = {
            "world_to_cam": self._world_to_cam[index],
            "intrinsics": self._intrinsics[index],
            "image_size": self.image_size,
            "background": background,
            "near": NEAR,
            "render_depth": False,
            "backend": self._backend,
            **seen_through,
        }
        if not watched:
            return l1_ssim_loss(rasterize(*gaussians, **options).colors, image), None
        drawn, screen = rasterize_tracked(*gaussians, **options)
        return l1_ssim_loss(drawn.colors, image), Seen(screen, self.image_size)


def placed(task: Task) -> tuple[Similarity, Views, Tensor | None]:
    """Return the map into the frame of optimisation, and there the inputs and points of a task, on the CPU.

    The cameras look at the origin from a mean distance of 1.
    """
    cameras = task.inputs.cameras.to("cpu")
    to_scene = normalising_similarity(cameras, "focus", distance=1.0)
    views = dataclasses.replace(task.inputs.to("cpu"), cameras=to_scene.cameras(cameras))
    return to_scene, views, None if task.points is None else to_scene.points(task.points.to(views.images))


@contextlib.contextmanager
def seeded(device: torch.device, seed: int) -> Iterator[None]:
    """Seed torch's own random numbers for a while, from which gsplat's strategies and networks draw."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield
