"""A small random model that streams, and captures that grow on disk."""

import dataclasses
import json
import shutil
from pathlib import Path

import torch

from lrm_ttt.model.checkpoint import save_pretrained
from lrm_ttt.model.config import Schedule
from lrm_ttt.model.reconstructor import Reconstructor
from tests.pipeline.make import make_model

VIEWS_PER_UPDATE = 2


def make_causal_model(schedule: Schedule = "causal", elastic: float = 0.0, seed: int = 0) -> Reconstructor:
    """Return the model of `make_model` with another schedule; in fp32, the same each time."""
    config = make_model().config
    memory = dataclasses.replace(config.backbone.memory, elastic=elastic)
    backbone = dataclasses.replace(config.backbone, schedule=schedule, views_per_update=VIEWS_PER_UPDATE, memory=memory)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Reconstructor(dataclasses.replace(config, backbone=backbone)).eval()


def write_causal_checkpoint(folder: Path, schedule: Schedule = "causal", seed: int = 0) -> Path:
    """Write that model."""
    save_pretrained(make_causal_model(schedule, seed=seed), folder)
    return folder


class Writer:
    """Write a finished capture of `write_capture` anew, view by view, as a program that records it would."""

    def __init__(self, finished: Path, folder: Path) -> None:
        self.finished, self.folder = finished, folder
        self.frames = json.loads((finished / "opencv_cameras.json").read_text())
        (folder / "images").mkdir(parents=True)

    def list(self, count: int) -> None:
        """List the first `count` frames, all at once or not at all."""
        partial = self.folder / "partial"
        partial.write_text(json.dumps(self.frames[:count]))
        partial.replace(self.folder / "opencv_cameras.json")

    def list_half(self, count: int) -> None:
        """Leave a description that ends in the middle."""
        text = json.dumps(self.frames[:count])
        (self.folder / "opencv_cameras.json").write_text(text[: len(text) // 2])

    def save(self, index: int, share: float = 1.0) -> None:
        """Write an image, or the first part of it."""
        name = self.frames[index]["file_path"]
        content = (self.finished / name).read_bytes()
        (self.folder / name).write_bytes(content[: round(share * len(content))])

    def copy(self) -> None:
        """Write all that is missing."""
        shutil.copytree(self.finished / "images", self.folder / "images", dirs_exist_ok=True)
        self.list(len(self.frames))
