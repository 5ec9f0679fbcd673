"""The native backend's speed, and the memory it keeps between calls for the sake of it."""

import math
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor

from lrm_ttt.eval.speed.gaussian_clouds import random_scene
from lrm_ttt.kernels.rasterizer import cpu
from lrm_ttt.kernels.rasterizer.op import rasterize
from tests.kernels.rasterizer.test_cpu import draw_with_gradients, weighted_sum

pytestmark = pytest.mark.skipif(cpu.library() is None, reason="the native library is not built: no C++ compiler")


def test_nothing_is_left_uninitialised(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = random_scene(200, 40, 40, num_views=2, seed=9)
    # Most of the Gaussians are out of sight.
    scene["means"] = 8 * scene["means"]
    monkeypatch.setattr(torch, "empty", lambda *shape: torch.full(*shape, math.nan))
    monkeypatch.setattr(Tensor, "new_empty", lambda _, *shape: torch.full(shape, math.nan))
    monkeypatch.setattr(torch, "empty_like", lambda tensor: torch.full_like(tensor, math.nan))
    assert torch.empty([3]).isnan().all()
    drawn, gradients = draw_with_gradients(scene, (40, 40), "cpu")
    for tensor in (*drawn, *gradients.values()):
        assert tensor.isfinite().all()


def test_two_graphs_at_once_and_one_twice() -> None:
    first, second = (random_scene(60, 24, 24, seed=seed) for seed in (5, 6))
    alone = [draw_with_gradients(scene, (24, 24), "cpu")[1]["means"] for scene in (first, second)]
    images = []
    for scene in (first, second):
        scene["means"].requires_grad_()
        images.append(rasterize(**scene, image_size=(24, 24), backend="cpu"))
    for scene, drawn, expected in zip((first, second), images, alone, strict=True):
        total = weighted_sum(drawn)
        for repeat in range(2):
            total.backward(retain_graph=repeat == 0)
        assert torch.equal(scene["means"].grad, 2 * expected)


def test_calls_from_several_threads_share_nothing() -> None:
    # More calls at once than sets of memory are kept, of sizes that shrink and grow what they find there.
    sizes = [(500, 24, 24), (4000, 40, 70), (50, 90, 16), (2000, 64, 64), (9000, 33, 20), (300, 8, 8)]
    scenes = [random_scene(count, *size, num_views=2, seed=i) for i, (count, *size) in enumerate(sizes)]
    jobs = [(scene, (height, width)) for scene, (_, height, width) in zip(scenes, sizes, strict=True)]
    alone = [draw_with_gradients(scene, size, "cpu") for scene, size in jobs]
    with ThreadPoolExecutor(len(jobs)) as pool:
        for _ in range(2):
            together = pool.map(lambda job: draw_with_gradients(*job, "cpu"), jobs)
            for (drawn, gradients), (expected, expected_gradients) in zip(together, alone, strict=True):
                for image, right in zip(drawn, expected, strict=True):
                    assert torch.equal(image, right)
                for name, right in expected_gradients.items():
                    assert torch.equal(gradients[name], right), name


def test_large_gradients_are_those_of_small_ones() -> None:
    # Gradients of many Gaussians are written past the caches; all but the first hundred here are not drawn.
    small = random_scene(100, 24, 24, scale=0.1, seed=14)
    large = random_scene(30_000, 24, 24, seed=15)
    large["opacities"] = torch.zeros_like(large["opacities"])
    for name in ("means", "wxyz", "scales", "opacities", "sh"):
        large[name][:, :100] = small[name]
    large |= {name: small[name] for name in ("world_to_cam", "intrinsics", "background")}
    _, expected = draw_with_gradients(small, (24, 24), "cpu")
    _, gradients = draw_with_gradients(large, (24, 24), "cpu")
    for name in ("means", "wxyz", "scales", "opacities", "sh"):
        assert torch.equal(gradients[name][:, :100], expected[name]), name
        assert not gradients[name][:, 100:].any(), name


def test_it_is_much_faster_than_the_plain_version() -> None:
    scene = random_scene(3000, 64, 64, seed=16)

    def seconds(backend: str) -> float:
        times = []
        for _ in range(3):
            start = time.process_time()
            draw_with_gradients(scene, (64, 64), backend)
            times.append(time.process_time() - start)
        return min(times)

    # Measured: 60 times as fast.
    assert seconds("reference") > 5 * seconds("cpu")
