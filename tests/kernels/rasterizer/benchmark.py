"""Measure the native backend: `python -m tests.kernels.rasterizer.benchmark [instruction set]`.

Prints, for one and two threads, milliseconds of the forward pass and of both passes (least of several runs): processor
time for one thread, wall time for two.
"""

import sys
import time
from collections.abc import Callable

import torch

from lrm_ttt.eval.speed.gaussian_clouds import random_scene
from lrm_ttt.kernels.rasterizer.cpu import instruction_set
from lrm_ttt.kernels.rasterizer.op import rasterize

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


def least_ms(run: Callable[[], None], clock: Callable[[], float], seconds: float = 2.0) -> float:
    """Return the least time of one run, in milliseconds, after two to warm up."""
    run()
    run()
    least, until = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < until or least == float("inf"):
        start = clock()
        run()
        least = min(least, clock() - start)
    return 1000 * least


def measure(case: tuple[int, int, int, int, int]) -> str:
    """Return a line of a Markdown table."""
    height, width, num_gaussians, num_scenes, num_views = case
    scene = random_scene(num_gaussians, height, width, num_scenes=num_scenes, num_views=num_views)
    leaves = {name: scene[name].requires_grad_() for name in ("means", "wxyz", "scales", "opacities", "sh")}
    target = torch.rand(num_scenes, num_views, 3, height, width)

    def forward() -> None:
        with torch.no_grad():
            rasterize(**scene, image_size=(height, width), backend="cpu")

    def both() -> None:
        drawn = rasterize(**scene, image_size=(height, width), backend="cpu")
        torch.autograd.backward(drawn, (target, target[:, :, :1], target[:, :, :1]))
        for leaf in leaves.values():
            leaf.grad = None

    columns = []
    for threads, clock in ((1, time.process_time), (2, time.perf_counter)):
        torch.set_num_threads(threads)
        columns.append(f"{least_ms(forward, clock):.1f} / {least_ms(both, clock):.1f}")
    return f"| {num_scenes} x {num_views} of {height}x{width} | {num_gaussians // 1000}k | {' | '.join(columns)} |"


if __name__ == "__main__":
    name = instruction_set(*sys.argv[1:2])
    sys.stdout.write(f"| images | Gaussians | {name}, one thread | two threads |\n|---|---|---|---|\n")
    for each in CASES:
        sys.stdout.write(measure(each) + "\n")
        sys.stdout.flush()
