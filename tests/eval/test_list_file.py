"""View lists: ours are the peers', what is written is read again, and a wrong file is one message."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lrm_ttt.data.source import SceneSource
from lrm_ttt.data.view_sampler import choose_views
from lrm_ttt.errors import InvalidConfig
from lrm_ttt.eval.list_file import (
    SceneViews,
    ViewLists,
    list_key,
    of_long_lrm,
    of_pixelsplat,
    read_lists,
    write_lists,
)
from lrm_ttt.eval.protocol import LISTS, PROTOCOLS
from lrm_ttt.scene.cameras import ImageSize
from tests.helpers.shared import shared_path

# Scenes of RealEstate10K's evaluation index in which a target is an input.
SHOWN = 575
Convert = Callable[[Any], dict[str, SceneViews]]


def source(num_views: int, name: str = "a") -> SceneSource:
    generator = torch.Generator().manual_seed(0)
    poses = torch.eye(4, dtype=torch.float64).repeat(num_views, 1, 1)
    poses[:, :3, 3] = torch.randn(num_views, 3, generator=generator).double()
    return SceneSource(
        name=name,
        image_paths=tuple(Path(f"{number:03d}.png") for number in range(num_views)),
        cam_to_world=poses,
        intrinsics=torch.tensor([50.0, 50, 32, 24]).double().repeat(num_views, 1),
        image_sizes=(ImageSize(48, 64),) * num_views,
        distortion=(None,) * num_views,
    )


@pytest.mark.parametrize(
    ("name", "file", "num_scenes", "convert"),
    [
        ("dl3dv_140", "dl3dv_fold_8_kmeans_input_idx.json", 140, of_long_lrm),
        ("tanks_and_temples", "tnt_fold_8_kmeans_input_idx.json", 2, of_long_lrm),
        ("realestate10k", "depthsplat_evaluation_index_re10k.json", 6474, of_pixelsplat),
    ],
)
def test_our_lists_are_those_of_their_source(name: str, file: str, num_scenes: int, convert: Convert) -> None:
    ours = read_lists(LISTS / f"{name}.json")
    assert ours.scenes == convert(json.loads(shared_path("data", "view_lists", file).read_text()))
    assert len(ours.scenes) == num_scenes and ours.protocol == name
    assert "https://github.com/" in ours.source and "MIT" in ours.licence


@pytest.mark.parametrize("name", ["dl3dv_140", "tanks_and_temples"])
def test_no_target_is_a_listed_input(name: str) -> None:
    lists = read_lists(LISTS / f"{name}.json")
    assert lists.hold_out == 8 and all(set(views.inputs) == {16, 32} for views in lists.scenes.values())
    for views in lists.scenes.values():
        assert views.targets is None
        assert all(index % 8 for inputs in views.inputs.values() for index in inputs)


def test_realestate10k_has_targets_that_are_inputs() -> None:
    """As published, in so many scenes; the protocol's description tells the reader."""
    scenes = read_lists(LISTS / "realestate10k.json").scenes.values()
    assert all(len(views.targets or ()) == 3 and set(views.inputs) == {2} for views in scenes)
    shown = [views for views in scenes if set(views.inputs[2]) & set(views.targets or ())]
    assert len(shown) == SHOWN and f"in {SHOWN} of them" in PROTOCOLS["realestate10k"].description


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    lists = ViewLists(
        "mine",
        "drawn by hand, ≤ 3 views",
        "none",
        {"a": SceneViews({2: (1, 5), 3: (1, 2, 5)}, (0, 4)), "b/ü": SceneViews({1: (7,)})},
        hold_out=4,
    )
    write_lists(tmp_path / "lists.json", lists)
    assert read_lists(tmp_path / "lists.json") == lists
    write_lists(tmp_path / "again.json", read_lists(LISTS / "dl3dv_140.json"))
    assert (tmp_path / "again.json").read_bytes() == (LISTS / "dl3dv_140.json").read_bytes()


def test_a_list_decides_where_it_can_and_kmeans_otherwise() -> None:
    lists = ViewLists("mine", "", "", {"a": SceneViews({3: (1, 2, 11)})}, hold_out=8)
    listed = lists.choose(source(20), 3)
    assert listed.inputs == (1, 2, 11) and listed.targets == (0, 8, 16)
    assert lists.choose(source(20), 4) == choose_views(source(20), num_inputs=4, hold_out=8)
    assert lists.choose(source(20, "b"), 3) == choose_views(source(20, "b"), num_inputs=3, hold_out=8)
    with pytest.raises(InvalidConfig, match=r"\[11\] are not among 0\.\.9"):
        lists.choose(source(10), 3)


def test_without_hold_out_only_the_list_counts() -> None:
    lists = ViewLists("mine", "", "", {"a": SceneViews({2: (4, 6)}, (5, 7))})
    assert lists.choose(source(8), 2).targets == (5, 7)
    for views, name, message in ((8, "b", "there are: none"), (7, "a", r"\[7\] are not among the views 0\.\.6")):
        with pytest.raises(InvalidConfig, match=message):
            lists.choose(source(views, name), 2)
    with pytest.raises(InvalidConfig, match="there are: 2"):
        lists.choose(source(8), 3)


def test_names_of_scenes_are_found_in_their_places() -> None:
    scene = "ab" * 32
    assert list_key(f"1K/dl3dv_{scene}") == list_key(scene.upper()) == scene
    assert list_key("tandt/Truck") == "truck" and list_key("lego") == "lego"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{", "JSONDecodeError"),
        ("[]", "TypeError"),
        ('{"scenes": {"a": {"2": [1]}}}', "the list of 2 inputs has 1"),
        ('{"scenes": {"a": {"2": [1, 1]}}}', "names a view twice"),
        ('{"scenes": {"a": {"1": [true]}}}', "is no list of indices"),
        ('{"hold_out": 1, "scenes": {}}', "hold_out is 1"),
    ],
)
def test_another_file_is_one_message(content: str, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "lists.json"
    path.write_text(content)
    with pytest.raises(InvalidConfig, match=reason) as found:
        read_lists(path)
    assert str(path) in str(found.value) and "hold_out" in str(found.value)
