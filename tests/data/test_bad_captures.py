"""Whatever is wrong with a capture, there is one message that says what, where and what now."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lrm_ttt.data.open_scene import open_scene
from lrm_ttt.errors import UnreadableScene
from tests.data.captures import make_capture, opencv_frames, save_images, write_transforms
from tests.data.refusals import change, refused
from tests.helpers.shared import shared_path


@pytest.fixture
def capture_folder(tmp_path: Path) -> Path:
    return write_transforms(tmp_path / "capture", make_capture())


def test_missing_images(capture_folder: Path) -> None:
    (capture_folder / "images" / "002.png").unlink()
    refused(
        capture_folder,
        "transforms.json",
        "4 views",
        "1 of their images",
        "002.png",
        "--allow-missing",
        "3 that are there",
    )
    source = open_scene(capture_folder, allow_missing=True)
    assert [path.name for path in source.image_paths] == ["000.png", "001.png", "003.png"]
    assert "002.png" in source.notes[0]
    assert source.cam_to_world.shape == (3, 4, 4)


def test_all_or_nearly_all_images_missing(capture_folder: Path) -> None:
    for name in ("000.png", "001.png", "002.png"):
        (capture_folder / "images" / name).unlink()
    with pytest.raises(UnreadableScene, match="only one posed image"):
        open_scene(capture_folder, allow_missing=True)
    shutil.rmtree(capture_folder / "images")
    with pytest.raises(UnreadableScene, match="images are missing"):
        open_scene(capture_folder, allow_missing=True)


def test_unreadable_images_are_left_out_like_missing_ones(capture_folder: Path) -> None:
    (capture_folder / "images" / "001.png").write_bytes(b"no image")
    refused(capture_folder, "001.png", "cannot be decoded", "--allow-missing")
    (capture_folder / "images" / "003.png").unlink()
    source = open_scene(capture_folder, allow_missing=True)
    assert [path.name for path in source.image_paths] == ["000.png", "002.png"]
    assert "missing or unreadable" in source.notes[0]


def test_one_view(capture_folder: Path) -> None:
    change(capture_folder, lambda content: content.update(frames=content["frames"][:1]))
    refused(capture_folder, "only one posed image", "at least two")


def test_the_real_capture_with_missing_images() -> None:
    fox = shared_path("data", "fox")
    refused(fox, "lists 67 views", "17 of their images", "--allow-missing", "50")
    assert open_scene(fox, allow_missing=True).num_views == 50


def test_images_without_cameras(tmp_path: Path) -> None:
    save_images(make_capture(), tmp_path / "images", ["a.png", "b.png", "c.jpg", "d.jpg"])
    refused(tmp_path, "4 images but no cameras", "COLMAP")
    refused(tmp_path / "images", "4 images but no cameras")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "neither images nor cameras")
    refused(tmp_path / "nowhere", "no such folder")
    refused(tmp_path / "images" / "a.png", "describes no capture")


def test_two_captures_in_one_folder(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_transforms(tmp_path / name, make_capture())
    refused(tmp_path, "2 captures", "Give one of them")


def set_matrix(row: int, column: int, value: float) -> Callable[[dict[str, Any]], None]:
    return lambda content: content["frames"][1]["transform_matrix"][row].__setitem__(column, value)


def mirror(content: dict[str, Any]) -> None:
    for row in content["frames"][1]["transform_matrix"][:3]:
        row[0] = -row[0]


def scale(content: dict[str, Any]) -> None:
    for row in content["frames"][1]["transform_matrix"][:3]:
        row[:3] = [1.5 * value for value in row[:3]]


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (set_matrix(0, 3, float("nan")), ("NaN", "001.png")),
        (set_matrix(1, 1, float("inf")), ("infinity", "001.png")),
        (scale, ("not rigid", "001.png")),
        (mirror, ("mirrors", "001.png")),
        (set_matrix(3, 3, 2.0), ("not rigid", "001.png")),
        (lambda content: content["frames"][1].update(transform_matrix=[[1, 2], [3, 4]]), ("shape (2, 2)", "001.png")),
        (lambda content: content["frames"][1].update(transform_matrix="eye"), ("not a list of rows", "001.png")),
        (
            lambda content: content["frames"][1].update(transform_matrix=[[1, 2], [3]]),
            ("not a list of rows", "001.png"),
        ),
        (lambda content: content["frames"][1].pop("transform_matrix"), ("no transform_matrix", "001.png")),
        (lambda content: content["frames"][1].pop("file_path"), ("names no image", "frame 1")),
        (lambda content: content["frames"].__setitem__(1, 5), ("frame 1", "a frame is int")),
        (lambda content: content.update(fl_x=0.0), ("focal lengths must be positive",)),
        (lambda content: content.update(fl_y=-5), ("focal lengths must be positive",)),
        (lambda content: content.update(cx=float("nan")), ("intrinsics", "nan")),
        (lambda content: content.update(fl_x="long"), ("fl_x", "'long'", "number")),
        (lambda content: content.update(fl_x=10**400), ("fl_x", "too large")),
        (lambda content: [content.pop("fl_x"), content.pop("fl_y")], ("no focal length", "camera_angle_x")),
        (lambda content: [content.pop("fl_x"), content.pop("fl_y"), content.update(camera_angle_x=4.0)], ("focal",)),
        (lambda content: content.update(k1=float("inf")), ("distortion coefficient",)),
        (lambda content: content.update(k1=-40.0), ("cannot be undone", "-40")),
        (lambda content: content.update(k4=0.1), ("k4", "OPENCV_FISHEYE")),
        (lambda content: content.update(camera_model="EQUIRECTANGULAR"), ("EQUIRECTANGULAR", "Undistort")),
        (lambda content: content.update(w=0), ("pixels", "Correct w and h")),
        (lambda content: content.update(w=480, h=720), ("another shape", "72x48", "480x720")),
        (lambda content: content.update(frames=[]), ("no list of frames",)),
        (lambda content: content.pop("frames"), ("no list of frames", "fl_x")),
        (lambda content: content.update(frames={"a": 1}), ("no list of frames",)),
    ],
)
def test_wrong_values(capture_folder: Path, edit: Callable[[dict[str, Any]], Any], words: tuple[str, ...]) -> None:
    change(capture_folder, edit)
    refused(capture_folder, "transforms.json" if words[0] != "cannot be undone" else "opencv", *words)


@pytest.mark.parametrize(
    "text", ["", "{", "[1, 2", "\x00\xff", "[" * 100_000, '{"frames": 3}', "3", "null", "[]", '"frames"']
)
def test_wrong_json(tmp_path: Path, text: str) -> None:
    for name in ("transforms.json", "opencv_cameras.json"):
        folder = tmp_path / name.split(".")[0]
        folder.mkdir()
        (folder / name).write_text(text, encoding="latin-1")
        refused(folder, name)


def test_opencv_cameras_without_values(tmp_path: Path) -> None:
    capture = make_capture()
    names = [f"{index}.png" for index in range(4)]
    save_images(capture, tmp_path, names)
    for key, words in {
        "fx": ("no fx", "2.png"),
        "w2c": ("no w2c", "2.png"),
        "file_path": ("names no image", "frame 2"),
    }.items():
        frames = opencv_frames(capture, names)
        del frames[2][key]
        (tmp_path / "opencv_cameras.json").write_text(json.dumps(frames))
        refused(tmp_path, *words)
