"""Whatever is wrong with a capture, there is one message that says what, where and what now."""

import json
import re
import shutil
import struct
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from lrm_ttt.data.images import choose_image_size, load_views
from lrm_ttt.data.open_scene import open_scene
from lrm_ttt.errors import BackendUnavailable, InvalidConfig, LrmTttError, UnreadableScene
from lrm_ttt.scene.cameras import ImageSize
from tests.data.captures import make_capture, opencv_frames, save_images, write_colmap_text, write_transforms
from tests.helpers.shared import shared_path


@pytest.fixture
def capture_folder(tmp_path: Path) -> Path:
    return write_transforms(tmp_path / "capture", make_capture())


def change(folder: Path, edit: Callable[[dict[str, Any]], Any]) -> None:
    """Edit transforms.json in place."""
    path = folder / "transforms.json"
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


def refused(path: Path, *words: str, kind: type[LrmTttError] = UnreadableScene) -> None:
    """Open and decode; expect one message of one paragraph with all `words`, ending in a sentence."""

    def open_and_decode() -> None:
        source = open_scene(path)
        load_views(source, range(source.num_views))

    with pytest.raises(kind) as caught:
        open_and_decode()
    message = str(caught.value)
    assert "\n" not in message
    assert message.endswith((".", ")", "'lrm-ttt[colmap]'"))
    for word in words:
        assert word in message, message


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


@pytest.mark.parametrize(
    "name",
    [
        "../secret.png",
        "images/../../secret.png",
        "{outside}/secret.png",
        "link.png",
        "linked/secret.png",
        "C:\\secret.png",
        "..\\secret.png",
    ],
)
def test_paths_that_leave_the_folder(capture_folder: Path, name: str) -> None:
    outside = capture_folder.parent / "outside"
    outside.mkdir()
    shutil.copy(capture_folder / "images" / "000.png", outside / "secret.png")
    shutil.copy(capture_folder / "images" / "000.png", capture_folder.parent / "secret.png")
    (capture_folder / "link.png").symlink_to(outside / "secret.png")
    (capture_folder / "linked").symlink_to(outside)
    change(capture_folder, lambda content: content["frames"][1].update(file_path=name.format(outside=outside)))
    refused(capture_folder, "leaves the capture's folder")
    with pytest.raises(UnreadableScene, match="leaves the capture's folder"):
        open_scene(capture_folder, allow_missing=True)


def test_a_link_behind_an_added_suffix(capture_folder: Path) -> None:
    shutil.copy(capture_folder / "images" / "000.png", capture_folder.parent / "secret.png")
    (capture_folder / "r_0.png").symlink_to(capture_folder.parent / "secret.png")
    change(capture_folder, lambda content: content["frames"][1].update(file_path="./r_0"))
    refused(capture_folder, "leaves the capture's folder")


def test_links_inside_the_folder_are_fine(capture_folder: Path) -> None:
    (capture_folder / "same").symlink_to(capture_folder / "images")
    change(capture_folder, lambda content: content["frames"][1].update(file_path="same/001.png"))
    assert open_scene(capture_folder).num_views == 4


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (
            lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
            ("001.png", "cannot be decoded"),
        ),
        (lambda path: path.write_bytes(b""), ("001.png", "no image of a known format")),
        (lambda path: path.write_text("<html>"), ("001.png", "no image of a known format")),
        (
            lambda path: path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"),
            ("no image of a known format",),
        ),
        (lambda path: Image.new("RGB", (40, 40)).save(path), ("001.png", "another shape")),
    ],
)
def test_broken_images(capture_folder: Path, spoil: Callable[[Path], None], words: tuple[str, ...]) -> None:
    spoil(capture_folder / "images" / "001.png")
    refused(capture_folder, *words)


def test_a_truncated_photograph(capture_folder: Path) -> None:
    """A JPEG that stops half way has a sound header: the error comes when it is decoded."""
    noise = Image.effect_noise((72, 48), 100).convert("RGB")
    path = capture_folder / "images" / "001.jpg"
    noise.save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    change(capture_folder, lambda content: content["frames"][1].update(file_path="images/001.jpg"))
    assert open_scene(capture_folder).num_views == 4
    refused(capture_folder, "001.jpg", "cannot be decoded")


@pytest.mark.parametrize("side", [12_000, 60_000])
def test_decompression_bomb(capture_folder: Path, side: int, recwarn: pytest.WarningsRecorder) -> None:
    """A tiny file that says it holds gigabytes is refused from its header, without a warning beside the message."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    bomb = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")
    (capture_folder / "images" / "001.png").write_bytes(bomb)
    refused(capture_folder, "001.png", "too large to decode safely")
    assert not recwarn.list


def test_images_smaller_than_a_patch(tmp_path: Path) -> None:
    source = open_scene(write_transforms(tmp_path, make_capture(size=ImageSize(12, 40))))
    with pytest.raises(UnreadableScene, match="40x12 pixels are smaller than a patch of 16x16"):
        choose_image_size(source, patch_size=16)
    assert load_views(source, [0]).image_size == (8, 40)


def test_an_image_size_that_is_no_multiple(capture_folder: Path) -> None:
    with pytest.raises(InvalidConfig, match="Take 48 64"):
        load_views(open_scene(capture_folder), [0], ImageSize(45, 65))


def test_an_image_that_changes_after_opening(capture_folder: Path) -> None:
    source = open_scene(capture_folder)
    Image.new("RGB", (10, 10)).save(capture_folder / "images" / "000.png")
    with pytest.raises(UnreadableScene, match="changed its size"):
        load_views(source, [0])


@pytest.mark.parametrize("name", ["cameras.bin", "images.bin", "points3D.bin", "frames.bin", "rigs.bin"])
def test_a_colmap_file_cut_off(tmp_path: Path, name: str) -> None:
    """COLMAP's own reader would read garbage, or for ever."""
    pycolmap = pytest.importorskip("pycolmap")
    capture = make_capture()
    write_colmap_text(tmp_path, capture, "PINHOLE", list(capture.intrinsics))
    sparse = tmp_path / "sparse" / "0"
    pycolmap.Reconstruction(str(sparse)).write_binary(str(sparse))
    whole = (sparse / name).read_bytes()
    for size in (0, 3, 8, 20, len(whole) // 2, len(whole) - 1):
        (sparse / name).write_bytes(whole[:size])
        refused(tmp_path, name, "not a complete file")
    (sparse / name).write_bytes(b"\xff" * 8 + whole[8:])
    refused(tmp_path, name, "not a complete file")


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("cameras.txt", "1 PINHOLE 72 48 90\n", ("not a complete COLMAP model",)),
        ("cameras.txt", "1 WRONG 72 48 90 90 36 24\n", ("not a complete COLMAP model",)),
        ("cameras.txt", "1 FOV 72 48 90 90 36 24 0.5\n2 FOV 72 48 90 90 36 24 0.5\n", ("FOV", "image_undistorter")),
        (
            "cameras.txt",
            "1 PINHOLE 72 48 0 90 36 24\n2 PINHOLE 72 48 90 90 36 24\n",
            ("focal lengths must be positive",),
        ),
        ("images.txt", "1 nonsense\n", ("not a complete COLMAP model",)),
        ("images.txt", "", ("lists no views",)),
        (
            "images.txt",
            "1 1 0 0 0 0 0 0 1 ../a.png\n\n2 1 0 0 0 0 0 0 1 ../../b.png\n\n",
            ("leaves the capture's folder",),
        ),
        ("images.txt", "1 1 0 0 0 0 0 0 1 a.png\n\n2 1 0 0 0 0 0 0 1 b.png\n\n", ("images are missing", "a.png")),
        ("points3D.txt", "1 2\n", ("not a complete COLMAP model",)),
    ],
)
def test_wrong_colmap_text(tmp_path: Path, name: str, text: str, words: tuple[str, ...]) -> None:
    pytest.importorskip("pycolmap")
    capture = make_capture()
    write_colmap_text(tmp_path, capture, "PINHOLE", list(capture.intrinsics))
    (tmp_path / "sparse" / "0" / name).write_text(text)
    refused(tmp_path, *words)


def test_without_pycolmap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    capture = make_capture()
    write_colmap_text(tmp_path, capture, "PINHOLE", list(capture.intrinsics))
    monkeypatch.setitem(sys.modules, "pycolmap", None)
    refused(tmp_path, "pip install 'lrm-ttt[colmap]'", kind=BackendUnavailable)


def test_shared_images_without_poses() -> None:
    refused(shared_path("data", "castle_unposed"), "11 images but no cameras", "COLMAP")


def test_messages_name_the_extra_that_exists() -> None:
    text = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    assert re.search(r"^colmap = \[\"pycolmap", text, re.MULTILINE)
