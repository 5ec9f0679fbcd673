"""Which views are shown and which are held out."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans

from lrm_ttt.data.open_scene import open_scene
from lrm_ttt.data.source import SceneSource
from lrm_ttt.data.view_sampler import choose_views
from lrm_ttt.errors import InvalidConfig
from lrm_ttt.scene.cameras import ImageSize
from tests.helpers.shared import shared_path


def source_at(centres: np.ndarray) -> SceneSource:
    """Return cameras at `centres`, all looking the same way."""
    num_views = len(centres)
    matrices = torch.eye(4, dtype=torch.float64).repeat(num_views, 1, 1)
    matrices[:, :3, 3] = torch.from_numpy(centres)
    paths = tuple(Path(f"{index}.png") for index in range(num_views))
    intrinsics = torch.tensor([[10.0, 10, 8, 8]], dtype=torch.float64).expand(num_views, 4)
    return SceneSource("line", paths, matrices, intrinsics, (ImageSize(16, 16),) * num_views, (None,) * num_views)


@pytest.fixture
def line() -> SceneSource:
    rows = np.arange(40, dtype=np.float64)
    return source_at(np.stack([rows, 0.1 * rows, np.zeros(40)], -1))


def test_all_views(line: SceneSource) -> None:
    choice = choose_views(line, num_inputs=None, hold_out=None)
    assert choice.inputs == choice.queries == tuple(range(40))
    assert choice.targets == ()


def test_held_out_views_are_never_inputs(line: SceneSource) -> None:
    for num_inputs in (None, 1, 5, 16, 35):
        choice = choose_views(line, num_inputs=num_inputs, hold_out=8)
        assert choice.targets == (0, 8, 16, 24, 32)
        assert not set(choice.inputs) & set(choice.targets)
        assert len(set(choice.inputs)) == len(choice.inputs) == (num_inputs or 35)
        assert list(choice.inputs) == sorted(choice.inputs)


def test_clusters_are_found(line: SceneSource) -> None:
    """Three far groups: each gives its middle view."""
    centres = np.concatenate([np.full((5, 3), place) + 0.01 * np.arange(5)[:, None] for place in (0.0, 10.0, 30.0)])
    assert choose_views(source_at(centres), num_inputs=3, hold_out=None).inputs == (2, 7, 12)


def test_views_from_one_place() -> None:
    """Fewer distinct views than clusters: as many as asked for, each once, and no warning."""
    assert len(set(choose_views(source_at(np.zeros((9, 3))), num_inputs=4, hold_out=None).inputs)) == 4


def test_the_choice_does_not_depend_on_the_frame() -> None:
    """A turn and a shift of the world change no distance. The clusters are clear, for ties depend on the last bits."""
    random = np.random.default_rng(1)
    source = source_at(20 * random.normal(size=(5, 3))[np.arange(40) % 5] + random.normal(size=(40, 3)))
    rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    rotation *= np.sign(np.linalg.det(rotation))
    motion = torch.eye(4, dtype=torch.float64)
    motion[:3, :3], motion[:3, 3] = torch.from_numpy(rotation), torch.tensor([3.0, -2, 5])
    moved = dataclasses.replace(source, cam_to_world=motion @ source.cam_to_world)
    assert choose_views(moved, num_inputs=5, hold_out=8) == choose_views(source, num_inputs=5, hold_out=8)


def test_a_list(line: SceneSource) -> None:
    choice = choose_views(line, num_inputs=None, hold_out=8, inputs=[5, 1, 30])
    assert choice.inputs == (5, 1, 30)
    assert choice.targets == (0, 8, 16, 24, 32)
    for inputs, words in {
        (1, 40): "not among 0..39",
        (1, 8): "held out",
        (2, 2): "twice",
        (): "none",
        (-1,): "not among",
    }.items():
        with pytest.raises(InvalidConfig, match=words):
            choose_views(line, num_inputs=None, hold_out=8, inputs=inputs)


def test_too_many_or_too_few(line: SceneSource) -> None:
    with pytest.raises(InvalidConfig, match="Ask for 1 to 35"):
        choose_views(line, num_inputs=36, hold_out=8)
    with pytest.raises(InvalidConfig, match="1 to 40"):
        choose_views(line, num_inputs=0, hold_out=None)
    with pytest.raises(InvalidConfig, match="hold-out 1"):
        choose_views(line, num_inputs=4, hold_out=1)


@pytest.mark.parametrize("num_inputs", [16, 32, 64])
def test_the_published_recipe(num_inputs: int) -> None:
    """Long-LRM's recipe, written down from the file: no 8th frame, k-means over centre and forward axis of inv(w2c)."""
    folder = shared_path("data", "mydesk")
    frames = json.loads((folder / "opencv_cameras.json").read_text())["frames"]
    cam_to_world = np.linalg.inv(np.array([frame["w2c"] for frame in frames]))
    rest = np.array([index for index in range(len(frames)) if index % 8])
    features = np.concatenate([cam_to_world[rest, :3, 3], cam_to_world[rest, :3, 2]], 1)
    clusters = KMeans(n_clusters=num_inputs, random_state=0, n_init="auto").fit(features)
    nearest = np.linalg.norm(features[None] - clusters.cluster_centers_[:, None], axis=-1).argmin(1)
    choice = choose_views(open_scene(folder), num_inputs=num_inputs, hold_out=8)
    assert choice.targets == tuple(range(0, 125, 8))
    assert choice.inputs == tuple(sorted(rest[nearest].tolist()))
