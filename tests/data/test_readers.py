"""Every layout gives the cameras that saw its images: the colours prove it."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lrm_ttt.data.images import load_views
from lrm_ttt.data.lens import Distortion
from lrm_ttt.data.open_scene import open_scene
from lrm_ttt.data.source import SceneSource
from lrm_ttt.errors import UnreadableScene
from lrm_ttt.scene.cameras import ImageSize
from tests.data.captures import (
    Capture,
    colour_error,
    make_capture,
    opencv_frames,
    save_images,
    transforms,
    write_colmap_text,
    write_transforms,
)

# The images have 8 bits, which is 0.002; a shift by half a pixel gives 0.01 on average and 0.03 at most.
MEAN_ERROR, LARGEST_ERROR = 0.0015, 0.004
# Lenses are undone by bilinear sampling.
LENS_MEAN, LENS_LARGEST = 0.0015, 0.006
LENS = Distortion("opencv", (0.2, -0.15, -0.008, 0.012, 0.05))
BARREL = Distortion("opencv", (-0.25, 0.08, 0.006, -0.009))


def check(source: SceneSource, capture: Capture, mean: float = MEAN_ERROR, largest: float = LARGEST_ERROR) -> None:
    """Compare cameras with those that made the capture, and every pixel with the plane."""
    assert torch.allclose(source.cam_to_world, capture.cam_to_world, atol=1e-9)
    assert source.cam_to_world.dtype == torch.float64
    views = load_views(source, range(source.num_views), patch_size=4)
    error = colour_error(views)
    assert error.mean() < mean
    assert error.max() < largest


@pytest.mark.parametrize("size", [ImageSize(48, 72), ImageSize(76, 44)], ids=["landscape", "portrait"])
def test_nerfstudio(tmp_path: Path, size: ImageSize) -> None:
    capture = make_capture(size=size)
    check(open_scene(write_transforms(tmp_path, capture)), capture)


def test_a_wrong_convention_would_show(tmp_path: Path) -> None:
    """The tolerance above is tight enough to see half a pixel and any exchange of axes."""
    capture = make_capture()
    views = load_views(open_scene(write_transforms(tmp_path, capture)), range(4), patch_size=4)
    right = colour_error(views).mean()
    for wrong in (
        dataclasses.replace(views.cameras, intrinsics=views.cameras.intrinsics + torch.tensor([0, 0, 0.5, 0.0])),
        dataclasses.replace(views.cameras, intrinsics=views.cameras.intrinsics[:, [1, 0, 3, 2]]),
        dataclasses.replace(
            views.cameras, cam_to_world=views.cameras.cam_to_world @ torch.diag(torch.tensor([-1.0, -1, 1, 1]))
        ),
    ):
        assert colour_error(dataclasses.replace(views, cameras=wrong)).mean() > 4 * right


@pytest.mark.parametrize(
    "lens", [LENS, BARREL, Distortion("fisheye", (0.05, -0.02, 0.01, 0.0))], ids=["pincushion", "barrel", "fisheye"]
)
def test_nerfstudio_with_a_lens(tmp_path: Path, lens: Distortion) -> None:
    capture = make_capture(distortion=lens, size=ImageSize(96, 144))
    source = open_scene(write_transforms(tmp_path, capture))
    check(source, capture, LENS_MEAN, LENS_LARGEST)
    # Without the lens the same images disagree with the cameras.
    pinhole = dataclasses.replace(source, distortion=(None,) * source.num_views)
    assert colour_error(load_views(pinhole, range(4), patch_size=4)).mean() > 3 * LENS_MEAN


def test_intrinsics_in_each_frame(tmp_path: Path) -> None:
    capture = make_capture()
    content = transforms(capture, [f"images/{index:03d}.png" for index in range(4)], camera_angle_x=0.3)
    for key in ("fl_x", "fl_y", "cx", "cy", "w", "h"):
        for frame in content["frames"]:
            frame[key] = content[key]
        # The top level says something else, which the frame overrides.
        content[key] = 7
    write_transforms(tmp_path, capture)
    (tmp_path / "transforms.json").write_text(json.dumps(content))
    check(open_scene(tmp_path), capture)


def test_instant_ngp_angles(tmp_path: Path) -> None:
    """Without `fl_x` the field of view gives it; names have no `w` and `h`, and Windows separators."""
    square = make_capture()
    focal = square.intrinsics[0]
    capture = Capture(square.cam_to_world, (focal, 1.1 * focal, 36.0, 24.0), square.size)
    angles = {"camera_angle_x": 2 * np.arctan(36 / focal), "camera_angle_y": 2 * np.arctan(24 / (1.1 * focal))}
    gone = dict.fromkeys(("fl_x", "fl_y", "cx", "cy", "w", "h"))
    write_transforms(tmp_path, capture, **angles, **gone)
    text = (tmp_path / "transforms.json").read_text().replace("images/", ".\\\\images\\\\")
    (tmp_path / "transforms.json").write_text(text)
    check(open_scene(tmp_path / "transforms.json"), capture)


def test_blender(tmp_path: Path) -> None:
    """One angle for both axes, no suffix, three splits of which the training one is read."""
    other = make_capture()
    focal = other.intrinsics[0]
    capture = Capture(other.cam_to_world, (focal, focal, 36.0, 24.0), other.size)
    save_images(capture, tmp_path, [f"train/r_{index}.png" for index in range(4)])
    content = transforms(capture, [f"./train/r_{index}" for index in range(4)])
    content = {"camera_angle_x": 2 * np.arctan(36 / focal), "frames": content["frames"]}
    for split in ("train", "val", "test"):
        (tmp_path / f"transforms_{split}.json").write_text(json.dumps(content))
    source = open_scene(tmp_path)
    check(source, capture)
    check(open_scene(tmp_path / "transforms_test.json"), capture)


@pytest.mark.parametrize("folder", ["images_4", "images_8"])
def test_dl3dv(tmp_path: Path, folder: str) -> None:
    """The intrinsics are of a frame that is not there, only a smaller copy is. The world stays as the file has it."""
    capture = make_capture(size=ImageSize(44, 72), distortion=LENS)
    scene = tmp_path / "5f0041e5" / "nerfstudio"
    names = [f"frame_{index:05d}.png" for index in range(4)]
    save_images(capture, scene / folder, names)
    times = int(folder[-1])
    large = Capture(
        capture.cam_to_world,
        tuple(times * value for value in capture.intrinsics),
        ImageSize(44 * times, 72 * times),
        LENS,
    )
    applied = [[0.0, 1, 0, 0], [1, 0, 0, 0], [0, 0, -1, 0]]
    content = transforms(large, [f"images/{name}" for name in names], applied_transform=applied)
    (scene / "transforms.json").write_text(json.dumps(content))
    source = open_scene(tmp_path)
    check(source, capture, LENS_MEAN, 2 * LENS_LARGEST)
    assert source.name == "5f0041e5"
    assert any(folder in note for note in source.notes)


@pytest.mark.parametrize("kind", ["list", "dict", "lvsm"])
def test_opencv_cameras(tmp_path: Path, kind: str) -> None:
    capture = make_capture()
    names = [f"renders/{index:08d}_rgba.png" for index in range(4)]
    save_images(capture, tmp_path, names)
    content = opencv_frames(capture, names)
    if kind == "lvsm":
        content = [
            {
                "image_path": frame["file_path"],
                "fxfycxcy": [frame[key] for key in ("fx", "fy", "cx", "cy")],
                "w2c": frame["w2c"],
            }
            for frame in content
        ]
    (tmp_path / "opencv_cameras.json").write_text(
        json.dumps(content if kind == "list" else {"scene_name": "plane", "frames": content})
    )
    source = open_scene(tmp_path)
    check(source, capture)
    assert source.name == (tmp_path.name if kind == "list" else "plane")


COLMAP_LENSES = {
    "PINHOLE": None,
    "OPENCV": Distortion("opencv", (0.2, -0.15, -0.008, 0.012)),
    "FULL_OPENCV": Distortion("opencv", (0.2, -0.15, -0.008, 0.012, 0.05, 0.04, -0.03, 0.02)),
    "SIMPLE_RADIAL": Distortion("opencv", (-0.2,)),
    "RADIAL": Distortion("opencv", (-0.2, 0.1)),
    "OPENCV_FISHEYE": Distortion("fisheye", (0.05, -0.02, 0.01, 0.0)),
}


@pytest.mark.parametrize("model", COLMAP_LENSES)
@pytest.mark.parametrize("binary", [False, True], ids=["txt", "bin"])
def test_colmap(tmp_path: Path, model: str, binary: bool) -> None:
    pycolmap = pytest.importorskip("pycolmap")
    lens = COLMAP_LENSES[model]
    capture = make_capture(distortion=lens, size=ImageSize(96, 144))
    fx, fy, cx, cy = capture.intrinsics
    one_focal = "RADIAL" in model
    if one_focal:
        capture = Capture(capture.cam_to_world, (fx, fx, cx, cy), capture.size, lens)
    parameters = [*((fx,) if one_focal else (fx, fy)), cx, cy, *(lens.coefficients if lens else ())]
    write_colmap_text(tmp_path, capture, model, parameters)
    sparse = tmp_path / "sparse" / "0"
    if binary:
        pycolmap.Reconstruction(str(sparse)).write_binary(str(sparse))
        for text in sparse.glob("*.txt"):
            text.unlink()
    source = open_scene(tmp_path)
    # COLMAP sorts by name: all of left/ before all of right/.
    order = [1, 3, 0, 2]
    sorted_capture = Capture(capture.cam_to_world[order], capture.intrinsics, capture.size, lens)
    check(source, sorted_capture, LENS_MEAN, LENS_LARGEST)
    assert source.points is not None
    expected = torch.tensor([[0.25, -0.5, 0.0], [1.0, 0.75, 0.0]], dtype=torch.float64)
    assert torch.equal(source.points[source.points[:, 0].argsort()], expected)
    for place in (sparse, tmp_path / "sparse", next(sparse.glob("cameras.*"))):
        assert open_scene(place).image_paths == source.image_paths


def test_colmap_agrees_with_its_own_projection() -> None:
    """Every lens model bends the plane as pycolmap does."""
    pycolmap = pytest.importorskip("pycolmap")
    plane = torch.rand(50, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64) - 0.5
    rays = torch.cat([plane, torch.ones(50, 1, dtype=torch.float64)], 1).numpy()
    for model, lens in COLMAP_LENSES.items():
        focal = [100.0] if "RADIAL" in model else [100.0, 100.0]
        parameters = [*focal, 50.0, 40.0, *(lens.coefficients if lens else ())]
        camera = pycolmap.Camera.create_from_model_name(1, model, 100.0, 100, 80)
        camera.params = parameters
        pixels = torch.from_numpy(np.array(camera.img_from_cam(rays)))
        bent = lens.distort(plane) if lens else plane
        assert torch.allclose(bent * 100 + torch.tensor([50.0, 40.0]), pixels, atol=1e-9), model


def test_nerfstudio_points(tmp_path: Path) -> None:
    """`ply_file_path` names sparse points in the frame of the cameras."""
    write_transforms(tmp_path, make_capture(), ply_file_path="sparse_pc.ply")
    source = open_scene(tmp_path)
    assert source.points is None
    assert "sparse_pc.ply" in source.notes[0]
    vertices = "1 2 3.5\n-4 5 6\n"
    header = (
        "ply\nformat ascii 1.0\nelement vertex 2\nproperty float x\nproperty float y\nproperty float z\nend_header\n"
    )
    (tmp_path / "sparse_pc.ply").write_text(header + vertices)
    points = open_scene(tmp_path).points
    assert points is not None
    assert points.tolist() == [[1, 2, 3.5], [-4, 5, 6]]
    write_transforms(tmp_path, make_capture(), ply_file_path="../sparse_pc.ply")
    with pytest.raises(UnreadableScene, match="leaves the capture's folder"):
        open_scene(tmp_path)


def test_a_folder_around_the_capture(tmp_path: Path) -> None:
    capture = make_capture()
    write_transforms(tmp_path / "some" / "where", capture)
    check(open_scene(tmp_path), capture)


def test_poses_with_few_decimals_become_rigid(tmp_path: Path) -> None:
    capture = make_capture()
    write_transforms(tmp_path, capture)
    content = transforms(capture, [f"images/{index:03d}.png" for index in range(4)])
    for frame in content["frames"]:
        frame["transform_matrix"] = np.round(frame["transform_matrix"], 4).tolist()
    (tmp_path / "transforms.json").write_text(json.dumps(content))
    rotation = open_scene(tmp_path).cam_to_world[:, :3, :3]
    assert torch.allclose(rotation @ rotation.mT, torch.eye(3, dtype=torch.float64).expand(4, 3, 3), atol=1e-14)
    assert torch.allclose(rotation, capture.cam_to_world[:, :3, :3], atol=2e-4)


def test_the_exif_turn_is_taken_only_when_the_calibration_asks(tmp_path: Path) -> None:
    """Stored pixels count, unless the calibrated shape is that of the turned image."""
    capture = make_capture()
    write_transforms(tmp_path, capture)
    exif = Image.Exif()
    exif[274] = 6
    for path in (tmp_path / "images").glob("*.png"):
        image = Image.open(path)
        image.save(path, exif=exif)
    check(open_scene(tmp_path), capture)
    for path in (tmp_path / "images").glob("*.png"):
        image = Image.open(path)
        # Orientation 6 says: turn clockwise by 90 degrees to see it upright. So it is stored turned the other way.
        image.transpose(Image.Transpose.ROTATE_90).save(path, exif=exif)
    check(open_scene(tmp_path), capture)
