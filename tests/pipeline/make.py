"""A small procedural capture on disk, and a small random model, which its evidence head makes a fair one."""

import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from lrm_ttt.data.procedural import procedural_capture
from lrm_ttt.layers.config import MemoryConfig
from lrm_ttt.model.checkpoint import save_pretrained
from lrm_ttt.model.config import BackboneConfig, EvidenceConfig, GaussianHeadConfig, ModelConfig, TokenizerConfig
from lrm_ttt.model.reconstructor import Reconstructor
from lrm_ttt.scene.views import Views

HEIGHT, WIDTH = 48, 64


def make_model() -> Reconstructor:
    """Return a model of 0.2 M parameters in fp32, the same each time."""
    config = ModelConfig(
        tokenizer=TokenizerConfig(evidence=EvidenceConfig(num_planes=16, num_neighbours=2, num_silhouettes=4)),
        backbone=BackboneConfig(
            width=64, num_blocks=2, attention_head_dim=32, memory=MemoryConfig(head_dim=32, multiple=2)
        ),
        head=GaussianHeadConfig(distance="evidence", hidden=16),
        normalisation="focus",
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Reconstructor(config).eval()


def make_views(num_views: int = 6, seed: int = 3) -> Views:
    """Return views `[v]` of a procedural object with masks, in its own frame."""
    return procedural_capture(seed, num_views, (HEIGHT, WIDTH), "object")


def write_checkpoint(folder: Path) -> Path:
    """Write the small model."""
    save_pretrained(make_model(), folder)
    return folder


def write_capture(folder: Path, num_views: int = 9) -> Path:
    """Write views as RGBA images with an opencv_cameras.json."""
    views = make_views(num_views)
    assert views.masks is not None
    (folder / "images").mkdir(parents=True)
    colors = ((views.images - (1 - views.masks)) / views.masks.clamp(min=1e-3)).clamp(0, 1)
    pixels = (torch.cat([colors, views.masks], 1) * 255).round().byte().permute(0, 2, 3, 1).numpy()
    frames = []
    for index in range(num_views):
        name = f"images/{index:03d}.png"
        Image.fromarray(np.ascontiguousarray(pixels[index])).save(folder / name)
        fx, fy, cx, cy = views.cameras.intrinsics[index].tolist()
        w2c = views.cameras.world_to_cam[index].tolist()
        frames.append({"file_path": name, "w2c": w2c, "w": WIDTH, "h": HEIGHT, "fx": fx, "fy": fy, "cx": cx, "cy": cy})
    (folder / "opencv_cameras.json").write_text(json.dumps(frames))
    return folder
