"""A made-up output folder of a benchmark: plausible names and numbers, pictures of coloured blobs."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

METHODS = ("feed-forward", "feed-forward + refine", "softmax", "streaming", "3DGS-7k", "MCMC-7k", "Mip-Splatting-7k")
SCENES = ("gso_character", "lego", "mydesk", "procedural-object-0", "procedural-object-1", "procedural-room-0")
TARGETS = (0, 8, 16)
# PSNR with 4 views and its gain with each doubling; seconds with 4 views; Gaussians.
LOOKS = (
    (21.0, 1.2, 1.1),
    (23.5, 1.6, 11.0),
    (20.4, 1.1, 1.3),
    (20.1, 1.3, 1.6),
    (17.2, 3.4, 95.0),
    (17.9, 3.5, 140.0),
    (17.6, 3.5, 120.0),
)
VARIANTS = {
    "psnr": "per image, colours 0..1, then mean",
    "ssim": "11-tap Gaussian, sigma 1.5 (torchmetrics)",
    "ssim_uniform7": "7x7 uniform window, as in the tables of tttLRM and Long-LRM",
}


def make_results(
    folder: Path,
    scenes: Sequence[str] = SCENES,
    methods: Sequence[str] = METHODS,
    views: Sequence[int] = (4, 8, 16),
    size: int = 32,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Write benchmark.json, results.jsonl and all pictures; return the cells."""
    random = np.random.default_rng(seed)
    about = _about(scenes, methods, views, size)
    truths = {(scene, target): _blobs(random, size) for scene in scenes for target in TARGETS[:2]}
    for (scene, target), truth in truths.items():
        _save(folder / "truths" / scene / f"{target}.png", truth)
    cells = []
    for scene in scenes:
        ease = random.normal(0, 1.5)
        for count in views:
            for number, method in enumerate(methods):
                cell = _cell(random, scene, method, count, number, ease)
                cells.append(cell)
                for target in TARGETS[:2]:
                    noise = 10 ** (-cell["psnr_each"][TARGETS.index(target)] / 20)
                    truth = truths[scene, target]
                    _save(folder / cell["pictures"][str(target)], _spoil(random, truth, noise))
    about["cells"] = len(cells)
    (folder / "benchmark.json").write_text(json.dumps(about), encoding="utf-8")
    write_cells(folder, cells)
    return cells


def write_cells(folder: Path, cells: Sequence[dict[str, Any]]) -> None:
    """Write results.jsonl, one line for each cell."""
    (folder / "results.jsonl").write_text("".join(f"{json.dumps(cell)}\n" for cell in cells), encoding="utf-8")


def fail(cell: dict[str, Any], error: str) -> dict[str, Any]:
    """Return the cell as if its method had raised."""
    nothing = dict.fromkeys(("seconds", "processor_seconds", "peak_memory_bytes", "num_gaussians"))
    return {**cell, **nothing, "status": "failed", "error": error, "metrics": {}, "psnr_each": [], "pictures": {}}


def _about(scenes: Sequence[str], methods: Sequence[str], views: Sequence[int], size: int) -> dict[str, Any]:
    return {
        "name": "quick_cpu",
        "command": "lrm-ttt benchmark configs/benchmark/quick_cpu.yaml -o out/quick_cpu",
        "commit": "0123456789abcdef0123456789abcdef01234567",
        "date": "2026-11-21T20:00:00+00:00",
        "hardware": {"cpu": "A made-up processor", "cores": 2, "memory_gb": 8.0, "gpu": None, "device": "cpu"},
        "versions": {"lrm-ttt": "0.1.0", "python": "3.13", "torch": "2.15"},
        "config": {"name": "quick_cpu", "methods": [{"name": name} for name in methods], "views": list(views)},
        "metric_variants": VARIANTS,
        "lpips": "LPIPS was not computed: the weights of VGG-16 are not at hand.",
        "missing": ["Scaffold-GS: its neural anchors are not written yet."],
        "scenes": [
            {
                "name": name,
                "protocol": "procedural" if name.startswith("procedural") else "hold_out_8",
                "image_size": [size, size],
                "background": [1, 1, 1],
                "targets": list(TARGETS),
                "num_views": 24,
            }
            for name in scenes
        ],
    }


def _cell(random: np.random.Generator, scene: str, method: str, views: int, number: int, ease: float) -> dict[str, Any]:
    start, gain, seconds = LOOKS[number % len(LOOKS)]
    mean = start + gain * math.log2(views / 4) + ease
    each = (mean + random.normal(0, 0.6, len(TARGETS))).tolist()
    psnr = sum(each) / len(each)
    slug = f"method-{number}"
    took = seconds * (views / 4) ** (0.9 if number < 4 else 0.1) * random.uniform(0.9, 1.1)
    return {
        "scene": scene,
        "method": method,
        "views": views,
        "status": "done",
        "error": None,
        "seconds": took,
        "processor_seconds": 1.6 * took,
        "peak_memory_bytes": int(random.uniform(6e8, 1.4e9)),
        "num_gaussians": int(16384 * views if number < 4 else random.uniform(2e4, 9e4)),
        "metrics": {
            "psnr": psnr,
            "ssim": psnr / 30,
            "ssim_uniform7": psnr / 30.5,
            "lpips": None,
            "depth_abs_rel": 2 / psnr if scene.startswith("procedural") else None,
            "depth_delta1": psnr / 30 if scene.startswith("procedural") else None,
        },
        "psnr_each": each,
        "inputs": list(range(1, views + 1)),
        "targets": list(TARGETS),
        "pictures": {str(index): f"renders/{scene}/{views}/{slug}/{index}.png" for index in TARGETS[:2]},
        "commit": "0123456789abcdef0123456789abcdef01234567",
        "date": "2026-11-21T20:00:00+00:00",
        "threads": 1,
        "workers": 2,
    }


def _blobs(random: np.random.Generator, size: int) -> np.ndarray:
    """Return soft discs on white, `[size size 3]` in 0..1."""
    rows, columns = np.mgrid[0:size, 0:size] / size
    image = np.ones((size, size, 3))
    for _ in range(7):
        row, column, radius = random.uniform(0.2, 0.8), random.uniform(0.2, 0.8), random.uniform(0.08, 0.22)
        inside = 1 / (1 + np.exp((np.hypot(rows - row, columns - column) - radius) * 60))
        image += inside[..., None] * (random.uniform(0, 1, 3) - image)
    return image


def _spoil(random: np.random.Generator, image: np.ndarray, noise: float) -> np.ndarray:
    """Return the image with smooth noise of this root mean square."""
    coarse = random.normal(0, noise, (8, 8, 3))
    return image + np.kron(coarse, np.ones((image.shape[0] // 8, image.shape[1] // 8, 1)))


def _save(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((image.clip(0, 1) * 255).round().astype(np.uint8)).save(path)
