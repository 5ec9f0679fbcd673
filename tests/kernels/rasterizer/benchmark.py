"""Measure the native backend: `python -m tests.kernels.rasterizer.benchmark [instruction set]`.

Prints, for one and two threads, milliseconds of the forward pass and of both passes (least of several runs): processor
time for one thread, wall time for two. Then how many times as long the torch formulation takes, on one thread.
"""

import math
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor

from lrm_ttt.eval.speed.gaussian_clouds import random_scene
from lrm_ttt.kernels.rasterizer.constants import MIN_ALPHA, Settings
from lrm_ttt.kernels.rasterizer.cpu import instruction_set
from lrm_ttt.kernels.rasterizer.op import rasterize
from lrm_ttt.kernels.rasterizer.reference import project_covariances, rotation_matrices

# Height, width, Gaussians, scenes, views.
CASES = [
    (64, 64, 5_000, 1, 1),
    (128, 128, 50_000, 1, 1),
    (256, 256, 50_000, 1, 1),
    (256, 256, 200_000, 1, 1),
    (540, 960, 500_000, 1, 1),
    (64, 64, 32_000, 2, 4),
    (128, 128, 130_000, 2, 4),
]


# Height, width and Gaussians of the case in which the torch formulation is timed too.
COMPARED = (128, 128, 50_000)


def covered_pixels(scene: dict[str, Tensor], height: int, width: int) -> float:
    """Return the mean area of the ellipses in which a Gaussian's alpha is 1/255 or more, in the first view."""
    settings = Settings(height, width)
    rotation, translation = scene["world_to_cam"][0, 0, :3, :3], scene["world_to_cam"][0, 0, :3, 3]
    axes = rotation_matrices(scene["wxyz"][0]) * scene["scales"][0, :, None]
    in_camera = scene["means"][0] @ rotation.mT + translation
    sharp = project_covariances(in_camera, axes @ axes.mT, rotation, scene["intrinsics"][0, 0], settings)
    areas = math.pi * torch.linalg.det(sharp + settings.eps2d * torch.eye(2)).sqrt()
    return float((2 * torch.log(scene["opacities"][0] / MIN_ALPHA).clamp(min=0) * areas).mean())


def least_ms(run: Callable[[], None], clock: Callable[[], float], seconds: float = 2.0) -> float:
    """Return the least time of one run, in milliseconds, after one to warm up."""
    run()
    least, until = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < until or least == float("inf"):
        start = clock()
        run()
        least = min(least, clock() - start)
    return 1000 * least


def passes(scene: dict[str, Tensor], height: int, width: int, backend: str) -> tuple[Callable[[], None], ...]:
    """Return a function that draws, and one that draws and takes every gradient but the camera's."""
    leaves = [scene[name].requires_grad_() for name in ("means", "wxyz", "scales", "opacities", "sh")]
    target = torch.rand(*scene["world_to_cam"].shape[:2], 3, height, width)

    def forward() -> None:
        with torch.no_grad():
            rasterize(**scene, image_size=(height, width), backend=backend)

    def both() -> None:
        drawn = rasterize(**scene, image_size=(height, width), backend=backend)
        torch.autograd.backward(drawn, (target, target[:, :, :1], target[:, :, :1]))
        for leaf in leaves:
            leaf.grad = None

    return forward, both


def measure(case: tuple[int, int, int, int, int]) -> str:
    """Return a line of a Markdown table."""
    height, width, num_gaussians, num_scenes, num_views = case
    scene = random_scene(num_gaussians, height, width, num_scenes=num_scenes, num_views=num_views)
    columns = [f"{covered_pixels(scene, height, width):.0f}"]
    functions = passes(scene, height, width, "cpu")
    for threads, clock in ((1, time.process_time), (2, time.perf_counter)):
        torch.set_num_threads(threads)
        columns.append(" / ".join(f"{least_ms(run, clock):.1f}" for run in functions))
    return f"| {num_scenes} x {num_views} of {height}x{width} | {num_gaussians // 1000}k | {' | '.join(columns)} |"


def times_as_long() -> float:
    """Return the time of the torch formulation over the native backend's, both passes, on one thread."""
    torch.set_num_threads(1)
    height, width, num_gaussians = COMPARED
    scene = random_scene(num_gaussians, height, width)
    native, plain = (
        least_ms(passes(scene, height, width, backend)[1], time.process_time) for backend in ("cpu", "reference")
    )
    return plain / native


if __name__ == "__main__":
    name = instruction_set(*sys.argv[1:2])
    sys.stdout.write(f"| images | Gaussians | pixels of each | {name}, one thread | two threads |\n")
    sys.stdout.write("|---|---|---|---|---|\n")
    for each in CASES:
        sys.stdout.write(measure(each) + "\n")
        sys.stdout.flush()
    sys.stdout.write("torch takes {:.0f} times as long at {}x{}, {} Gaussians\n".format(times_as_long(), *COMPARED))
