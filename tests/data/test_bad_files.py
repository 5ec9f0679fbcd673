"""Harmful paths, broken images and cut-off files: one message each, and no harm."""

import re
import shutil
import struct
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from lrm_ttt.data.images import choose_image_size, load_views
from lrm_ttt.data.open_scene import open_scene
from lrm_ttt.errors import BackendUnavailable, InvalidConfig, UnreadableScene
from lrm_ttt.scene.cameras import ImageSize
from tests.data.captures import make_capture, write_colmap_text, write_transforms
from tests.data.refusals import change, refused
from tests.helpers.shared import shared_path


@pytest.fixture
def capture_folder(tmp_path: Path) -> Path:
    return write_transforms(tmp_path / "capture", make_capture())


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
