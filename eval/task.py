"""What every method of the benchmark is given, and what it gives back: views in, Gaussians out."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from lrm_ttt.kernels.rasterizer.constants import EPS2D, Rasterized
from lrm_ttt.kernels.rasterizer.op import rasterize
from lrm_ttt.render.render import arguments
from lrm_ttt.scene.cameras import Cameras
from lrm_ttt.scene.gaussians import Gaussians
from lrm_ttt.scene.views import Views

Advance = Callable[[int, int], None]


@dataclasses.dataclass(frozen=True)
class Task:
    """One scene to reconstruct.

    `inputs` `[v]` and the sparse `points` (None where the capture has none) are in the capture's own frame and units;
    `background` (0..1) is what transparent inputs lie on. `seed` decides all that is random. `backend` as in
    `lrm_ttt.kernels.rasterizer`.
    """

    inputs: Views
    background: Float[Tensor, "3"]
    points: Float[Tensor, "p 3"] | None = None
    seed: int = 0
    backend: str = "auto"


@dataclasses.dataclass(frozen=True)
class Outcome:
    """Gaussians in the capture's frame, and how their method draws them.

    Nothing nearer to a camera than `near` (the capture's units) is drawn; `eps2d` (square pixels) widens what is thin,
    `antialiased` lowers the opacity of what was widened. Where a method has other Gaussians for every camera,
    `seen_from` gives those of one camera `[1]` of the capture's frame, and `gaussians` are an example.
    """

    gaussians: Gaussians
    near: float
    eps2d: float = EPS2D
    antialiased: bool = False
    seen_from: Callable[[Cameras], Gaussians] | None = None

    @torch.inference_mode()
    def draw(self, cameras: Cameras, background: Float[Tensor, "3"], backend: str = "auto") -> Float[Tensor, "v 3 h w"]:
        """Render from cameras `[v]` of the capture's frame, view by view; colours clamped to 0..1, on the CPU."""
        return torch.stack([each.colors[0].clamp(0, 1).cpu() for each in self._drawn(cameras, background, backend)])

    @torch.inference_mode()
    def draw_depths(self, cameras: Cameras, backend: str = "auto") -> Float[Tensor, "v 1 h w"]:
        """Render the expected camera z, in the capture's units and 0 where nothing is, on the CPU."""
        depths = [each.depths for each in self._drawn(cameras, None, backend)]
        return torch.stack([depth[0].cpu() for depth in depths if depth is not None])

    def _drawn(self, cameras: Cameras, background: Tensor | None, backend: str) -> Iterator[Rasterized]:
        """Yield one view after the other; with depths where no background is asked for."""
        for index in range(cameras.shape[0]):
            camera = cameras[index : index + 1]
            yield rasterize(
                **arguments(self.gaussians if self.seen_from is None else self.seen_from(camera), camera),
                background=background,
                near=self.near,
                eps2d=self.eps2d,
                antialiased=self.antialiased,
                render_depth=background is None,
                backend=backend,
            )


@runtime_checkable
class Method(Protocol):
    """A way from views to Gaussians; what it loads was loaded before, so that its time is that of the work."""

    def __call__(self, task: Task, advance: Advance) -> Outcome:
        """Reconstruct; `advance` hears how many steps of how many are done. Raises `LrmTttError` kinds."""
        ...
