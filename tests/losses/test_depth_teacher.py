"""The teacher gives what the pipeline of transformers gives, in the form that the depth term wants."""

import dataclasses
import importlib.util
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import interpolate

from lrm_ttt.errors import BackendUnavailable, InvalidConfig
from lrm_ttt.losses.config import LossConfig
from lrm_ttt.losses.depth_teacher import DepthTeacher
from lrm_ttt.losses.geometry import relative_disparity_error
from lrm_ttt.losses.objective import Objective, build_objectives
from lrm_ttt.scene.cameras import Cameras, ImageSize
from lrm_ttt.scene.views import Views

transformers = pytest.importorskip("transformers")
SIZE = ImageSize(20, 28)


def enliven(model: torch.nn.Module) -> None:
    """Draw weights with He's deviation: with those that a new model has, all depths are the same to six digits."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=math.sqrt(2 / math.prod(parameter.shape[1:])))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a saved DPT of random weights, so small that it takes milliseconds."""
    path = tmp_path_factory.mktemp("dpt")
    torch.manual_seed(0)
    config = transformers.DPTConfig(
        hidden_size=16,
        num_hidden_layers=4,
        num_attention_heads=2,
        intermediate_size=32,
        image_size=32,
        patch_size=16,
        backbone_out_indices=[0, 1, 2, 3],
        neck_hidden_sizes=[8, 8, 8, 8],
        fusion_hidden_size=8,
        head_in_index=-1,
        is_hybrid=False,
    )
    model = transformers.DPTForDepthEstimation(config)
    enliven(model)
    model.save_pretrained(path)
    transformers.DPTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(path)
    return path


def make_views(depths: torch.Tensor | None = None) -> Views:
    images = (torch.rand(2, 5, 3, *SIZE, generator=torch.Generator().manual_seed(1)) * 255).round() / 255
    cameras = Cameras(torch.eye(4).expand(2, 5, 4, 4), torch.tensor([20.0, 20.0, 14.0, 10.0]).expand(2, 5, 4), SIZE)
    return Views(images, cameras, None, depths)


def predicted(folder: Path, images: torch.Tensor) -> torch.Tensor:
    """Return what the pipeline itself predicts, picture by picture, at the size of the images."""
    pipeline = transformers.pipeline("depth-estimation", model=str(folder), device="cpu")
    pictures = (images.flatten(0, 1) * 255).round().byte().movedim(1, -1).numpy()
    maps = [pipeline(Image.fromarray(np.ascontiguousarray(picture)))["predicted_depth"] for picture in pictures]
    resized = [interpolate(one[None, None], SIZE, mode="bilinear") for one in maps]
    return torch.cat(resized).reshape(*images.shape[:2], 1, *SIZE)


def test_depth_is_the_pipelines(folder: Path) -> None:
    views = make_views()
    expected = predicted(folder, views.images)
    assert expected.std() > 1e-3
    found = DepthTeacher(str(folder), "depth")(views.images)
    # Views in one batch and alone differ by rounding.
    torch.testing.assert_close(found, expected.clamp(min=0), rtol=1e-4, atol=1e-5)


def test_the_depth_term_heeds_the_disparity_alone(folder: Path) -> None:
    """Gaussians whose disparity is that of the network, but for scale and offset, have no error."""
    views = make_views()
    disparity = predicted(folder, views.images).flatten(2)
    found = DepthTeacher(str(folder), "disparity")(views.images).flatten(2)
    assert found.min() >= 1 and found.max() <= 1 / 0.1 + 1e-4
    known = torch.ones_like(found, dtype=torch.bool)
    least, most = disparity.amin(-1, keepdim=True), disparity.amax(-1, keepdim=True)
    z = 1 / (3 * (disparity - least) / (most - least) + 0.5)
    assert relative_disparity_error(z, found, known) < 1e-6
    assert relative_disparity_error(z, 1 / found, known) > 1e-1


def test_only_views_without_depths_are_taught(folder: Path) -> None:
    config = LossConfig(depth=0.1, depth_teacher=str(folder), depth_teacher_predicts="depth")
    objective, again = build_objectives([config, config], 4)
    assert objective.teacher is not None and objective.teacher is again.teacher
    assert not any(parameter.requires_grad for parameter in objective.parameters())
    views = make_views()
    taught = objective.teach(views)
    assert taught is not None and torch.equal(taught, objective.teacher(views.images))
    part = objective.teach(views[:, 1:3])
    assert part is not None
    torch.testing.assert_close(part, taught[:, 1:3], rtol=1e-4, atol=1e-5)
    own = torch.rand(2, 5, 1, *SIZE) + 1
    own[0, 1], own[1, 4] = 0, 0
    mixed = objective.teach(make_views(own))
    assert mixed is not None
    lacking = (own == 0).all((-1, -2, -3))
    assert lacking.sum() == 2 and torch.equal(mixed[~lacking], own[~lacking])
    torch.testing.assert_close(mixed[lacking], taught[lacking], rtol=1e-4, atol=1e-5)
    assert objective.teach(make_views(own + 1)) is not None
    assert Objective(LossConfig(), 4).teach(views) is None
    without = Objective(dataclasses.replace(config, depth_teacher=None, depth_teacher_predicts=None), 4)
    assert without.teach(views) is None


def test_what_is_missing_is_said(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidConfig, match="depth_teacher_predicts to disparity"):
        DepthTeacher(str(folder))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(InvalidConfig, match=r"nothing cannot be loaded.*or set losses\.depth_teacher to null"):
        DepthTeacher(str(tmp_path / "nothing"))
    with pytest.raises(InvalidConfig, match="depth_teacher names no model"):
        LossConfig(depth_teacher_predicts="depth")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BackendUnavailable, match=r"pip install 'lrm-ttt\[depth\]'"):
        DepthTeacher(str(folder), "depth")


@pytest.mark.parametrize(("stated", "predicts"), [("relative", "disparity"), ("metric", "depth")])
def test_depth_anything_tells_itself(stated: str, predicts: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    backbone = transformers.Dinov2Config(
        hidden_size=16,
        num_hidden_layers=4,
        num_attention_heads=2,
        image_size=28,
        patch_size=14,
        out_indices=[1, 2, 3, 4],
        reshape_hidden_states=False,
    )
    config = transformers.DepthAnythingConfig(
        backbone_config=backbone,
        reassemble_hidden_size=16,
        patch_size=14,
        neck_hidden_sizes=[8, 8, 8, 8],
        fusion_hidden_size=8,
        depth_estimation_type=stated,
        max_depth=20,
    )
    model = transformers.DepthAnythingForDepthEstimation(config)
    enliven(model)
    model.save_pretrained(tmp_path)
    transformers.DPTImageProcessor(size={"height": 28, "width": 28}).save_pretrained(tmp_path)
    teacher = DepthTeacher(str(tmp_path))
    assert teacher.predicts == predicts
    expected = predicted(tmp_path, make_views().images[:1])
    assert expected.std() > 1e-3
    found = DepthTeacher(str(tmp_path), "depth")(make_views().images[:1])
    torch.testing.assert_close(found, expected.clamp(min=0), rtol=1e-4, atol=1e-5)
