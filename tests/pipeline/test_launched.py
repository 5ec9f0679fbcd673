"""Processes that share the views of a capture write the .ply that one process writes."""

from pathlib import Path

import torch

from lrm_ttt.cli import main
from lrm_ttt.scene.ply import read_ply
from tests.helpers.launch import launch
from tests.pipeline.make import write_capture, write_checkpoint

# float32; sums over tokens are taken in another order. The scene is about a unit wide.
TOLERANCE = 1e-4


def command(folder: Path, out: str) -> list[str]:
    views = ["--views", "7", "--hold-out", "8", "--device", "cpu", "--precision", "fp32"]
    return [
        "reconstruct",
        str(folder / "capture"),
        "-o",
        str(folder / out),
        "--checkpoint",
        str(folder / "model"),
        *views,
    ]


def reconstruct_and_leave(folder: Path) -> None:
    assert main(command(folder, "shared")) == 0


def test_two_processes_write_what_one_writes(tmp_path: Path) -> None:
    write_capture(tmp_path / "capture")
    write_checkpoint(tmp_path / "model")
    assert main(command(tmp_path, "alone")) == 0
    launch(2, reconstruct_and_leave, tmp_path)
    alone, shared = (read_ply(tmp_path / out / "scene.ply") for out in ("alone", "shared"))
    assert alone.num_gaussians == shared.num_gaussians
    for name in ("means", "scales", "opacities", "sh"):
        assert torch.allclose(getattr(alone, name), getattr(shared, name), rtol=TOLERANCE, atol=TOLERANCE), name
