"""Data sets of every layout show exactly the scenes that they were made from."""

import dataclasses
import json
import logging
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from lrm_ttt.data.benchmark_scenes import benchmark_hashes, is_benchmark_scene
from lrm_ttt.data.config import DatasetConfig
from lrm_ttt.data.dataset import SceneDataset, open_dataset
from lrm_ttt.data.images import load_views
from lrm_ttt.data.open_scene import open_scene
from lrm_ttt.data.order import POOL
from lrm_ttt.data.realestate10k import _read_chunk
from lrm_ttt.data.shard_scenes import DatasetScenes
from lrm_ttt.data.shard_writer import ShardFormat, write_shards
from lrm_ttt.scene.cameras import ImageSize
from lrm_ttt.scene.views import Views
from tests.data.captures import make_capture, write_transforms
from tests.data.layouts import (
    LAYOUTS,
    Layout,
    depth_unit,
    drawn,
    write_dl3dv,
    write_gobjaverse,
    write_nerfstudio,
    write_opencv_cameras,
    write_realestate10k,
    write_zero123,
)
from tests.helpers.shared import shared_path

# Half a step of 8 bit, and the rounding of float32.
HALF_STEP = 0.5 / 255 + 1e-6
NAMES = ("a" * 64, "b" * 64, "c" * 64)


def opened(path: Path, **options: object) -> SceneDataset:
    return open_dataset(DatasetConfig("test", str(path), **options))  # type: ignore[arg-type]


def all_views(dataset: SceneDataset, index: int, size: ImageSize) -> Views:
    source = dataset.open(index)
    return load_views(source, range(source.num_views), size)


def assert_same(found: Views, truth: Views) -> None:
    """Compare views, to the rounding of what was written."""
    assert (found.images - truth.images).abs().max() <= HALF_STEP
    distances = truth.cameras.centres.norm(dim=-1).max()
    assert (found.cameras.cam_to_world - truth.cameras.cam_to_world).abs().max() <= 1e-5 * max(1.0, float(distances))
    torch.testing.assert_close(found.cameras.intrinsics, truth.cameras.intrinsics, rtol=1e-5, atol=0)
    assert (found.masks is None) == (truth.masks is None)
    assert (found.depths is None) == (truth.depths is None)
    if truth.masks is not None and found.masks is not None:
        assert truth.masks.min() < 0.5 < truth.masks.max()
        assert (found.masks - truth.masks).abs().max() <= HALF_STEP
    if truth.depths is not None and found.depths is not None:
        # Half a step of 16 bit; depths of float32 add one hundredth.
        assert (found.depths - truth.depths).abs().max() <= 0.51 * depth_unit(truth)


def scenes_for(layout: Layout, number: int = 3) -> dict[str, Views]:
    return {name: drawn(seed, layout.kind, *layout.size) for seed, name in enumerate(NAMES[:number])}


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_shows_the_scenes_it_was_made_from(name: str, tmp_path: Path) -> None:
    layout = LAYOUTS[name]
    scenes = scenes_for(layout)
    layout.write(tmp_path, scenes)
    dataset = pickle.loads(pickle.dumps(opened(tmp_path / layout.opened, image_folder=layout.image_folder)))
    assert isinstance(dataset, SceneDataset)
    assert sum(dataset.groups) == len(dataset) == len(scenes)
    for index, (key, views) in enumerate(scenes.items()):
        assert key in dataset.scene_name(index)
        assert dataset.open(index).name == dataset.scene_name(index)
        truth = layout.seen(views)
        assert_same(all_views(dataset, index, truth.image_size), truth)


def test_shards_show_the_scenes_they_were_made_from(tmp_path: Path) -> None:
    scenes = scenes_for(LAYOUTS["nerfstudio"])
    write_nerfstudio(tmp_path / "tree", scenes)
    size = ImageSize(48, 64)
    tree = DatasetScenes(DatasetConfig("test", str(tmp_path / "tree")), size, None)
    write_shards(tree, tmp_path / "shards", ShardFormat("png", scenes_per_shard=2), image_size=size)
    dataset = opened(tmp_path / "shards")
    assert dataset.groups == (2, 1)
    for index, views in enumerate(scenes.values()):
        found = all_views(dataset, index, size)
        # Depths were rounded twice, the second time in steps of the shard's own.
        assert found.depths is not None and views.depths is not None
        assert (found.depths - views.depths).abs().max() <= 2 * depth_unit(views)
        assert_same(dataclasses.replace(found, depths=None), dataclasses.replace(views, depths=None))


@pytest.mark.parametrize("name", ["zero123", "gobjaverse", "dl3dv_benchmark"])
def test_open_scene_reads_one_scene_of_a_data_set(name: str, tmp_path: Path) -> None:
    layout = LAYOUTS[name]
    layout.write(tmp_path, scenes_for(layout, 1))
    place = next(path for path in tmp_path.rglob(NAMES[0]))
    source = open_scene(place)
    assert source.name == NAMES[0]
    assert_same(load_views(source, range(3), ImageSize(*layout.size)), layout.seen(drawn(0, layout.kind, *layout.size)))


def test_a_portrait_scene_is_cropped_to_the_landscape_that_training_asks_for(tmp_path: Path) -> None:
    views = drawn(0, "room", 64, 48)
    write_dl3dv(tmp_path, {NAMES[0]: views})
    # 32 of the 64 rows over the whole width: the middle of the image, at its own scale.
    found = all_views(opened(tmp_path), 0, ImageSize(32, 48))
    truth = Views(views.images[..., 16:48, :], views.cameras.cropped(16, 0, ImageSize(32, 48)))
    assert_same(found, truth)


def test_a_list_takes_those_it_names_in_its_order(tmp_path: Path) -> None:
    write_opencv_cameras(tmp_path / "renders", scenes_for(LAYOUTS["opencv_cameras"]))
    (tmp_path / "some.txt").write_text(
        f"# two of three\nrenders/{NAMES[2]}\n\nrenders/{NAMES[0]}/opencv_cameras.json\n"
    )
    dataset = opened(tmp_path / "some.txt")
    assert [dataset.scene_name(i) for i in range(len(dataset))] == [f"renders/{NAMES[2]}", f"renders/{NAMES[0]}"]
    assert_same(all_views(dataset, 0, ImageSize(48, 64)), LAYOUTS["opencv_cameras"].seen(drawn(2, "object", 48, 64)))


@pytest.mark.parametrize("write", [write_dl3dv, write_zero123, write_gobjaverse])
def test_a_single_capture_is_a_data_set_of_one(write: object, tmp_path: Path) -> None:
    write(tmp_path, {NAMES[0]: drawn(0, "object", 64, 64)})  # type: ignore[operator]
    place = next(path for path in tmp_path.rglob(NAMES[0]))
    dataset = opened(place)
    assert (len(dataset), dataset.scene_name(0)) == (1, NAMES[0])
    assert dataset.open(0).num_views == 3


def test_a_tree_is_listed_without_opening_its_scenes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for number in range(60):
        folder = tmp_path / f"{number % 3}K" / f"{number:03d}"
        folder.mkdir(parents=True)
        (folder / "transforms.json").write_text("broken")
    (tmp_path / "0K" / "stray").mkdir()
    (tmp_path / "0K" / "stray" / "photo.jpg").write_bytes(b"")
    dataset = opened(tmp_path)
    names = [dataset.scene_name(index) for index in range(len(dataset))]
    assert len(names) == 60 and names == sorted(names)
    assert "1 folders hold images that no file describes (0K/stray" in caplog.text
    with pytest.raises(ValueError, match=r"0K/000/transforms.json: not JSON"):
        dataset.open(0)


def test_a_data_set_may_go_on_without_missing_images(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_transforms(tmp_path / name, make_capture())
    whole = opened(tmp_path)
    gone = whole.open(0).image_paths[1]
    assert isinstance(gone, Path)
    gone.unlink()
    with pytest.raises(ValueError, match=r"1 of their images are missing .*allow_missing: true"):
        whole.open(0)
    going_on = opened(tmp_path, allow_missing=True)
    assert gone not in going_on.open(0).image_paths
    assert going_on.open(0).num_views == whole.open(1).num_views - 1


def test_chunks_are_groups_and_stay_open_while_their_scenes_are_read(tmp_path: Path) -> None:
    views = drawn(0, "room", 48, 64)
    write_realestate10k(tmp_path, {f"scene{number}": views for number in range(5)})
    dataset = opened(tmp_path / "train", layout="realestate10k")
    assert dataset.groups == (2, 2, 1)
    _read_chunk.cache_clear()
    # The scenes of all chunks in turn, as in a pool of the order of training, which may hold more.
    assert len(dataset.groups) <= POOL
    for index in (0, 2, 4, 1, 3, 0, 2, 4):
        dataset.open(index)
    assert _read_chunk.cache_info().misses == 3


def test_the_benchmark_is_the_published_one() -> None:
    folder = shared_path("data", "view_lists")
    published = {
        scene["scene_name"] for scene in json.loads((folder / "dl3dv_fold_8_kmeans_input_idx.json").read_text())
    }
    assert benchmark_hashes() == published
    assert set(json.loads((folder / "mvsplat360_dl3dv_ctx_5v_tgt_56v.json").read_text())) == published


def test_benchmark_scenes_are_known_by_name() -> None:
    assert len(benchmark_hashes()) == 140
    scene = min(benchmark_hashes())
    for name in (scene, f"dl3dv_{scene}", f"1K/{scene}", f"1K/{scene}/nerfstudio"):
        assert is_benchmark_scene(name)
    for name in (scene[:-1], f"{scene}0", "a" * 64, "room"):
        assert not is_benchmark_scene(name)


@pytest.mark.parametrize("name", ["dl3dv", "realestate10k", "prefixed"])
def test_benchmark_scenes_are_left_out(name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    prefix = "dl3dv_" if name == "prefixed" else ""
    views = drawn(0, "room", 48, 64)
    scenes = {
        f"{prefix}{key}": views for key in (*NAMES[:2], min(benchmark_hashes()), max(benchmark_hashes()), NAMES[2])
    }
    LAYOUTS["dl3dv" if name == "dl3dv" else "realestate10k"].write(tmp_path, scenes)
    with caplog.at_level(logging.INFO):
        dataset = pickle.loads(pickle.dumps(opened(tmp_path)))
    kept = [dataset.scene_name(index).rsplit("/")[-1] for index in range(len(dataset))]
    assert sorted(kept) == [f"{prefix}{key}" for key in NAMES]
    assert [dataset.open(index).name for index in range(3)] == [dataset.scene_name(index) for index in range(3)]
    assert dataset.groups == ((1, 1, 1) if name == "dl3dv" else (2, 1))
    assert "left out 2 of 5 scenes" in caplog.text
    assert len(opened(tmp_path, exclude_benchmark=False)) == 5


def test_shared_captures_are_data_sets() -> None:
    dataset = opened(shared_path("data", "dl3dv_layout"), image_folder="images_8")
    source = dataset.open(0)
    assert (len(dataset), source.num_views, source.image_sizes[0]) == (1, 16, ImageSize(270, 480))
    assert opened(shared_path("data", "gso_character")).open(0).num_views == 64
    assert np.isclose(float(opened(shared_path("data", "lego")).open(0).intrinsics[0, 0]), 1111.11 / 2, atol=0.01)
