"""What is wrong with a data set is one message that says what, where and what now."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lrm_ttt.data.benchmark_scenes import benchmark_hashes
from lrm_ttt.data.config import DatasetConfig
from lrm_ttt.data.dataset import open_dataset
from lrm_ttt.data.images import load_views
from lrm_ttt.errors import InvalidConfig, LrmTttError, UnreadableScene
from tests.data.layouts import (
    drawn,
    write_dl3dv,
    write_gobjaverse,
    write_nerfstudio,
    write_realestate10k,
    write_zero123,
)
from tests.data.refusals import change

NAME = "a" * 64


def refused(path: Path | None, *words: str, kind: type[LrmTttError] = UnreadableScene, **options: Any) -> None:
    """Open a data set and decode its first scene; expect one message with all `words`."""

    def open_and_decode() -> None:
        dataset = open_dataset(DatasetConfig("mine", None if path is None else str(path), **options))
        source = dataset.open(0)
        load_views(source, range(source.num_views))

    with pytest.raises(kind) as caught:
        open_and_decode()
    message = str(caught.value)
    assert "\n" not in message and message.endswith(".")
    for word in words:
        assert word in message, message


def test_paths_that_are_not_there(tmp_path: Path) -> None:
    refused(None, "data set mine: no path", "--data mine=PATH", kind=InvalidConfig)
    refused(tmp_path / "gone", "data set mine", "gone", kind=InvalidConfig)


def test_folders_without_scenes(tmp_path: Path) -> None:
    refused(tmp_path, "no captures")
    refused(tmp_path, "no index.json", layout="realestate10k")
    refused(tmp_path, "manifest.json", layout="shards")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "1.jpg").write_bytes(b"")
    refused(tmp_path, "1 folders with images, but no cameras")


def test_lists_that_name_nothing(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("# none\n\n")
    refused(tmp_path / "list.txt", "list.txt", "an empty list")
    (tmp_path / "list.txt").write_text("one\ntwo\n")
    refused(tmp_path / "list.txt", "one, two", "relative to the folder of the list")
    (tmp_path / "list.json").write_text('["one"')
    refused(tmp_path / "list.json", "list.json", "cannot be read")


def test_a_data_set_of_nothing_but_benchmark(tmp_path: Path) -> None:
    write_dl3dv(tmp_path, {min(benchmark_hashes()): drawn(0, "room", 48, 64)})
    refused(tmp_path, "data set mine", "benchmark", "--keep-benchmark", "exclude_benchmark: false", kind=InvalidConfig)


def truncate(path: Path, share: float = 0.5) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])


@pytest.fixture
def chunks(tmp_path: Path) -> Path:
    views = drawn(0, "room", 48, 64)
    write_realestate10k(tmp_path, {"one": views, "two": views, "three": views})
    return tmp_path / "train"


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.99])
def test_truncated_chunks(share: float, chunks: Path) -> None:
    truncate(chunks / "000000.torch", share)
    refused(chunks, "000000.torch", "truncated", "Copy it again")


@pytest.mark.parametrize(
    "pickled",
    [
        b".",
        b"\x80\x02h\x00.",
        b"\x80\x02ccollections\nOrderedDict\n(K\x01K\x02tR.",
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(K\x01K\x01K\x01K\x01K\x01K\x01tR.",
    ],
    ids=["IndexError", "KeyError", "TypeError", "AttributeError"],
)
def test_damaged_pickles(pickled: bytes, chunks: Path) -> None:
    """Whatever the reader of pickles trips over."""
    (chunks / "000000.torch").write_bytes(pickled)
    refused(chunks, "000000.torch", "truncated", "Copy it again")


def test_chunks_that_are_missing(chunks: Path) -> None:
    (chunks / "000001.torch").unlink()
    refused(chunks, "index.json", "names 2 chunks, of which 1 are missing (000001.torch)")


@pytest.mark.parametrize("content", ["[1]", "{}", '{"one": 3}', "{"])
def test_broken_indices(content: str, chunks: Path) -> None:
    (chunks / "index.json").write_text(content)
    refused(chunks, "index.json")


def test_indices_that_lead_elsewhere(chunks: Path) -> None:
    (chunks.parent / "secret.torch").write_bytes(b"")
    (chunks / "index.json").write_text(json.dumps({"one": "../secret.torch"}))
    refused(chunks, "missing (../secret.torch)")
    (chunks / "index.json").write_text(json.dumps({"four": "000000.torch"}))
    refused(chunks, "000000.torch: holds no scene four")


def edit(file: Path, change_scene: Callable[[dict[str, Any]], object]) -> None:
    scenes = torch.load(file, weights_only=True)
    change_scene(scenes[0])
    torch.save(scenes, file)


BROKEN_SCENES: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "nan": (lambda scene: scene["cameras"][1, 9].fill_(torch.nan), "image 1 holds NaN"),
    "focal": (lambda scene: scene["cameras"][2, 0].fill_(-1.0), "focal lengths must be positive"),
    "camera_to_world_scale": (lambda scene: scene["cameras"][0, 6:].mul_(2), "not rigid"),
    "fewer_cameras": (lambda scene: scene.update(cameras=scene["cameras"][:2]), "not as many images as cameras"),
    "short_rows": (lambda scene: scene.update(cameras=scene["cameras"][:, :16]), "cameras of 18 values"),
    "no_images": (lambda scene: scene.pop("images"), "not as many images as cameras"),
    "one_view": (lambda scene: scene.update(cameras=scene["cameras"][:1], images=scene["images"][:1]), "one posed"),
    "floats": (lambda scene: scene["images"].__setitem__(0, torch.zeros(9)), "not the bytes of files"),
    "no_image": (lambda scene: scene["images"].__setitem__(1, torch.zeros(9, dtype=torch.uint8)), "image 1: the image"),
    "half_image": (
        lambda scene: scene["images"].__setitem__(2, scene["images"][2][:900].clone()),
        "image 2: the image cannot be decoded",
    ),
}


@pytest.mark.parametrize("name", BROKEN_SCENES)
def test_broken_scenes_in_a_chunk(name: str, chunks: Path) -> None:
    spoil, words = BROKEN_SCENES[name]
    edit(chunks / "000000.torch", spoil)
    refused(chunks, "000000.torch", "scene one", words)


class Stranger:
    """Anything that is no tensor."""


def test_chunks_that_could_run_code(chunks: Path) -> None:
    torch.save([{"key": "one", "images": Stranger()}], chunks / "000000.torch")
    refused(chunks, "000000.torch", "more than tensors")


def test_images_of_another_shape_than_their_calibration(tmp_path: Path) -> None:
    write_dl3dv(tmp_path, {NAME: drawn(0, "room", 48, 64)})
    change(tmp_path / "1K" / NAME, lambda content: content.update(w=192, h=256))
    refused(tmp_path, "frame_00001.png has 64x48 pixels", "calibration is for 192x256")


def test_copies_of_the_images_that_are_not_there(tmp_path: Path) -> None:
    write_dl3dv(tmp_path, {NAME: drawn(0, "room", 48, 64)})
    refused(tmp_path, "missing (images_2/frame_00001.png", image_folder="images_2")


def test_cameras_that_are_no_numbers(tmp_path: Path) -> None:
    write_dl3dv(tmp_path, {NAME: drawn(0, "room", 48, 64)})
    folder = tmp_path / "1K" / NAME
    change(folder, lambda content: content["frames"][1]["transform_matrix"][0].__setitem__(3, float("nan")))
    refused(tmp_path, "frame_00002.png holds NaN")


def test_broken_matrices_of_zero123(tmp_path: Path) -> None:
    write_zero123(tmp_path, {NAME: drawn(0, "object", 64, 64)})
    file = tmp_path / NAME / "001.npy"
    matrix = np.load(file)
    for values, words in ((matrix * np.nan, "001.png holds NaN"), (matrix[:2], "shape (2, 4)")):
        np.save(file, values)
        refused(tmp_path, words)
    np.save(file, np.array([Stranger()]), allow_pickle=True)
    refused(tmp_path, "001.npy", "no array of NumPy")
    np.save(file, matrix)
    truncate(file)
    refused(tmp_path, "001.npy", "no array of NumPy")
    file.with_suffix(".png").unlink()
    np.save(file, matrix)
    refused(tmp_path, "missing (001.png)")


def test_broken_views_of_gobjaverse(tmp_path: Path) -> None:
    write_gobjaverse(tmp_path, {NAME: drawn(0, "object", 64, 64)})
    file = tmp_path / "0" / NAME / "campos_512_v4" / "00001" / "00001.json"
    sound = json.loads(file.read_text())
    for content, words in (
        ({key: sound[key] for key in ("x", "y", "z")}, "no vector 'origin'"),
        ({**sound, "x": [1, 0]}, "'x' has shape (2,)"),
        ({**sound, "x": [-value for value in sound["x"]]}, "mirrors the world"),
        ([], "no vector 'x'"),
    ):
        file.write_text(json.dumps(content))
        refused(tmp_path, words)
    file.write_text("{")
    refused(tmp_path, "00001.json: not JSON")


def test_depths_that_are_none(tmp_path: Path) -> None:
    write_nerfstudio(tmp_path, {NAME: drawn(0, "room", 48, 64)})
    depth, colour = tmp_path / NAME / "depths" / "001.png", tmp_path / NAME / "images_4" / "frame_00002.png"
    depth.write_bytes(colour.read_bytes())
    refused(tmp_path, "001.png: an image of mode RGB, where depths belong")
    depth.write_bytes(b"")
    refused(tmp_path, "001.png", "cannot be decoded")
    change(tmp_path / NAME, lambda content: content.update(applied_scale=0))
    refused(tmp_path, "applied_scale is 0")


def test_missing_depths_are_unknown_and_noted(tmp_path: Path) -> None:
    write_nerfstudio(tmp_path, {NAME: drawn(0, "room", 48, 64)})
    (tmp_path / NAME / "depths" / "001.png").unlink()
    source = open_dataset(DatasetConfig("mine", str(tmp_path))).open(0)
    assert any(re.match("1 of the depth images", note) for note in source.notes)
    depths = load_views(source, range(3)).depths
    assert depths is not None
    assert (depths.amax((1, 2, 3)) > 0).tolist() == [True, False, True]
