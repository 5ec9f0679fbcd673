"""Cameras are the same whether their images are there or not."""

import json
from pathlib import Path

import pytest
import torch

from lrm_ttt.data.images import load_cameras, load_views
from lrm_ttt.data.lens import Distortion
from lrm_ttt.data.open_scene import open_cameras, open_scene
from lrm_ttt.data.source import SceneSource
from lrm_ttt.errors import UnreadableScene
from lrm_ttt.scene.cameras import Cameras, ImageSize
from tests.data.captures import (
    Capture,
    make_capture,
    opencv_frames,
    save_images,
    transforms,
    write_colmap_text,
    write_transforms,
)
from tests.data.refusals import change

LENSES = {
    "pinhole": None,
    "pincushion": Distortion("opencv", (0.2, -0.15, -0.008, 0.012, 0.05)),
    "fisheye": Distortion("fisheye", (0.05, -0.02, 0.01, 0.0)),
}


def write(folder: Path, layout: str, lens: Distortion | None) -> None:
    capture = make_capture(distortion=lens)
    if layout == "nerfstudio":
        write_transforms(folder, capture)
    elif layout == "opencv":
        names = [f"images/{index}.png" for index in range(4)]
        save_images(capture, folder, names)
        (folder / "opencv_cameras.json").write_text(json.dumps(opencv_frames(capture, names)))
    else:
        coefficients = lens.coefficients[:4] if lens else (0.0,) * 4
        model = "OPENCV_FISHEYE" if lens is not None and lens.model == "fisheye" else "OPENCV"
        write_colmap_text(folder, capture, model, [*capture.intrinsics, *coefficients])


def remove_images(folder: Path) -> None:
    for path in folder.rglob("*.png"):
        path.unlink()


def equal(first: Cameras, second: Cameras) -> bool:
    assert first.image_size == second.image_size
    return torch.equal(first.cam_to_world, second.cam_to_world) and torch.equal(first.intrinsics, second.intrinsics)


def same(first: SceneSource, second: SceneSource) -> bool:
    tensors = ("cam_to_world", "intrinsics")
    plain = ("name", "image_paths", "image_sizes", "distortion", "notes")
    return all(torch.equal(getattr(first, name), getattr(second, name)) for name in tensors) and all(
        getattr(first, name) == getattr(second, name) for name in plain
    )


@pytest.mark.parametrize(
    ("layout", "lens"),
    [
        *(("nerfstudio", lens) for lens in LENSES),
        ("opencv", "pinhole"),
        ("colmap", "fisheye"),
        ("colmap", "pincushion"),
    ],
)
def test_images_make_no_difference(layout: str, lens: str, tmp_path: Path) -> None:
    if layout == "colmap":
        pytest.importorskip("pycolmap")
    write(tmp_path, layout, LENSES[lens])
    source, with_images = open_scene(tmp_path), open_cameras(tmp_path)
    assert same(source, with_images) and with_images.without_image == ()
    remove_images(tmp_path)
    without = open_cameras(tmp_path)
    assert same(source, without) and without.without_image == (0, 1, 2, 3)
    with pytest.raises(UnreadableScene, match="are missing"):
        open_scene(tmp_path)


@pytest.mark.parametrize("lens", LENSES)
@pytest.mark.parametrize("size", [(48, 72), (24, 36), (40, 40), (16, 64)])
def test_cameras_are_those_of_the_loaded_views(lens: str, size: tuple[int, int], tmp_path: Path) -> None:
    """Undistorted, cropped and resized alike, without a pixel."""
    write(tmp_path, "nerfstudio", LENSES[lens])
    source = open_scene(tmp_path)
    views = load_views(source, [3, 0, 1], ImageSize(*size), patch_size=4)
    remove_images(tmp_path)
    assert equal(load_cameras(source, [3, 0, 1], ImageSize(*size)), views.cameras)


def test_smaller_copies_of_the_images_see_the_same(tmp_path: Path) -> None:
    """Where images are given as smaller copies, as in DL3DV, their cameras fit to one size are those of the file."""
    small = make_capture(size=ImageSize(44, 72))
    save_images(small, tmp_path / "images_4", [f"{index}.png" for index in range(4)])
    large = Capture(small.cam_to_world, tuple(4 * value for value in small.intrinsics), ImageSize(176, 288))
    content = transforms(large, [f"images/{index}.png" for index in range(4)])
    (tmp_path / "transforms.json").write_text(json.dumps(content))
    copies = open_cameras(tmp_path)
    remove_images(tmp_path)
    absent = open_cameras(tmp_path)
    assert copies.image_sizes[0] == (44, 72) and absent.image_sizes[0] == (176, 288)
    first, second = (load_cameras(source, range(4), ImageSize(40, 64)) for source in (copies, absent))
    # The crop is rounded to whole pixels of either: half a pixel of the copy at most.
    torch.testing.assert_close(first.intrinsics, second.intrinsics, rtol=0, atol=0.6)
    assert torch.equal(first.cam_to_world, second.cam_to_world)


def test_some_images_may_be_missing_or_broken(tmp_path: Path) -> None:
    write_transforms(tmp_path, make_capture())
    (tmp_path / "images" / "001.png").unlink()
    (tmp_path / "images" / "002.png").write_bytes(b"no image")
    source = open_cameras(tmp_path)
    assert source.without_image == (1, 2) and source.num_views == 4
    assert source.notes == ("1 images are unreadable and were taken for missing",)
    assert load_views(source, [0, 3]).shape == (2,)


def test_one_camera_is_enough(tmp_path: Path) -> None:
    write_transforms(tmp_path, make_capture(1))
    assert open_cameras(tmp_path).num_views == 1
    with pytest.raises(UnreadableScene, match="only one posed image"):
        open_scene(tmp_path)


def test_a_size_must_be_known(tmp_path: Path) -> None:
    """With the images it is theirs; without it is the file's, and where it has none the message says what to add."""
    write_transforms(tmp_path, make_capture(), w=None, h=None)
    assert open_cameras(tmp_path).image_sizes == ((48, 72),) * 4
    (tmp_path / "images" / "002.png").unlink()
    with pytest.raises(UnreadableScene, match=r"transforms.json: images/002.png has no image.*w and h"):
        open_cameras(tmp_path)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [("fl_x", -3.0, "focal lengths must be positive"), ("frames", [], "no list of frames"), ("k1", 1e400, "number")],
)
def test_bad_cameras_are_refused_without_images_too(key: str, value: object, said: str, tmp_path: Path) -> None:
    write_transforms(tmp_path, make_capture())
    remove_images(tmp_path)
    change(tmp_path, lambda content: content.update({key: value}))
    with pytest.raises(UnreadableScene, match=said):
        open_cameras(tmp_path)


def test_mirrored_cameras_are_refused_without_images_too(tmp_path: Path) -> None:
    write_transforms(tmp_path, make_capture())
    remove_images(tmp_path)

    def mirror(content: dict[str, list[dict[str, list[list[float]]]]]) -> None:
        for row in content["frames"][1]["transform_matrix"][:3]:
            row[0] = -row[0]

    change(tmp_path, mirror)
    with pytest.raises(UnreadableScene, match="mirrors the world"):
        open_cameras(tmp_path)


@pytest.mark.parametrize("name", ["../outside.png", "/etc/outside.png"])
def test_names_stay_inside_the_folder(name: str, tmp_path: Path) -> None:
    write_transforms(tmp_path, make_capture())
    change(tmp_path, lambda content: content["frames"][0].update(file_path=name))
    with pytest.raises(UnreadableScene, match="leaves the capture's folder"):
        open_cameras(tmp_path)
