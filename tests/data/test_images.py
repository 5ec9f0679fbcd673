"""Decoding, compositing, cropping and resizing, each against what it must give."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lrm_ttt.data.files import open_image
from lrm_ttt.data.images import choose_image_size, crop_box, decode, load_views
from lrm_ttt.data.lens import Distortion, undistort, widest_scale
from lrm_ttt.data.open_scene import open_scene
from lrm_ttt.data.source import SceneSource
from lrm_ttt.errors import UnreadableScene
from lrm_ttt.scene.cameras import ImageSize
from tests.data.captures import (
    alpha_error,
    alpha_of,
    colour_error,
    hits,
    make_capture,
    save_images,
    texture,
    undistorted,
    write_transforms,
)


def source_of(paths: list[Path], sizes: list[ImageSize], intrinsics: list[list[float]]) -> SceneSource:
    """Return a source of images with cameras at the origin."""
    eye = torch.eye(4, dtype=torch.float64).expand(len(paths), 4, 4)
    numbers = torch.tensor(intrinsics, dtype=torch.float64)
    return SceneSource("made", tuple(paths), eye, numbers, tuple(sizes), (None,) * len(paths))


@pytest.mark.parametrize(
    "target", [ImageSize(24, 40), ImageSize(32, 32), ImageSize(24, 64), ImageSize(64, 24), ImageSize(96, 144)]
)
def test_the_cameras_follow_a_crop_and_a_resize(tmp_path: Path, target: ImageSize) -> None:
    """Any shape, smaller or larger: each pixel still shows the point of the plane that its ray meets."""
    capture = make_capture(size=ImageSize(72, 108))
    views = load_views(open_scene(write_transforms(tmp_path, capture)), [0, 2, 3], target)
    assert views.images.shape == (3, 3, *target)
    error = colour_error(views)
    # Antialiasing averages the texture over the area of a pixel, the borders over less than it.
    assert error.mean() < 0.004
    assert error[..., 2:-2, 2:-2].max() < 0.015


def test_the_signs_of_the_resize_error_cancel(tmp_path: Path) -> None:
    """A shift of the sampling positions by a fraction of a pixel would tilt the error along the colour's slope."""
    capture = make_capture(size=ImageSize(96, 144))
    views = load_views(open_scene(write_transforms(tmp_path, capture)), [0], ImageSize(24, 36), patch_size=4)
    best = colour_error(views)[..., 2:-2, 2:-2].mean()
    for shift in ([0.1, 0], [-0.1, 0], [0, 0.1], [0, -0.1]):
        intrinsics = views.cameras.intrinsics + torch.tensor([0, 0, *shift])
        moved = dataclasses.replace(views, cameras=dataclasses.replace(views.cameras, intrinsics=intrinsics))
        assert colour_error(moved)[..., 2:-2, 2:-2].mean() > best


def test_transparent_images_are_composited_before_they_are_resized(tmp_path: Path) -> None:
    """Straight alpha at full resolution: black under transparent pixels must not show."""
    rgba = np.zeros((32, 32, 4), dtype=np.uint8)
    rgba[:, 13:] = (255, 128, 0, 255)
    Image.fromarray(rgba).save(tmp_path / "a.png")
    source = source_of([tmp_path / "a.png"] * 2, [ImageSize(32, 32)] * 2, [[30.0, 30, 16, 16]] * 2)
    views = load_views(source, [0], ImageSize(8, 8), background=(0.0, 1.0, 0.5))
    assert views.masks is not None
    mask = views.masks[0]
    expected = (
        mask * torch.tensor([1, 128 / 255, 0])[:, None, None] + (1 - mask) * torch.tensor([0, 1, 0.5])[:, None, None]
    )
    assert torch.allclose(views.images[0], expected, atol=1e-5)
    assert mask.min() == 0
    assert mask.max() == 1
    assert ((mask > 0.1) & (mask < 0.9)).any()


def test_alpha_follows_the_lens_and_the_crop(tmp_path: Path) -> None:
    capture = make_capture(size=ImageSize(96, 144), distortion=Distortion("opencv", (0.2, -0.1, 0.01, -0.01)))
    write_transforms(tmp_path, capture)
    save_images(capture, tmp_path, [f"images/{index:03d}.png" for index in range(4)], alpha=True)
    views = load_views(open_scene(tmp_path), range(4), ImageSize(64, 64), background=(0.2, 0.4, 0.6))
    assert alpha_error(views).max() < 0.03
    origins, directions = views.cameras.to(torch.float64).rays()
    points = origins - directions * (origins[..., 2:] / directions[..., 2:])
    alpha = alpha_of(points)[..., None]
    expected = texture(points) * alpha + (1 - alpha) * torch.tensor([0.2, 0.4, 0.6])
    assert (views.images - expected.permute(0, 3, 1, 2)).abs().max() < 0.03


def test_opaque_alpha_is_no_mask(tmp_path: Path) -> None:
    Image.new("RGBA", (16, 16), (10, 20, 30, 255)).save(tmp_path / "a.png")
    Image.new("RGB", (16, 16), (10, 20, 30)).save(tmp_path / "b.png")
    Image.new("RGBA", (16, 16), (10, 20, 30, 51)).save(tmp_path / "c.png")
    paths = [tmp_path / name for name in ("a.png", "b.png", "c.png")]
    source = source_of(paths, [ImageSize(16, 16)] * 3, [[16.0, 16, 8, 8]] * 3)
    assert load_views(source, [0, 1]).masks is None
    mixed = load_views(source, [1, 2]).masks
    assert mixed is not None
    assert mixed[0].min() == 1
    assert torch.allclose(mixed[1], torch.tensor(0.2))


def test_every_kind_of_pixel(tmp_path: Path) -> None:
    """The same grey or colour in every mode and format gives the same numbers."""
    colour, grey = (200, 100, 51), 128
    colours = Image.new("RGB", (20, 16), colour)
    cases = {
        "rgb.png": (colours, colour, 0),
        "palette.png": (colours.quantize(4), colour, 0),
        "rgb.webp": (colours, colour, 4),
        "rgb.jpg": (colours, colour, 4),
        "rgb.tif": (colours, colour, 0),
        "rgb.bmp": (colours, colour, 0),
        "cmyk.tif": (colours.convert("CMYK"), colour, 2),
        "grey.png": (Image.new("L", (20, 16), grey), (grey,) * 3, 0),
        "bits.png": (Image.new("1", (20, 16), 1), (255,) * 3, 0),
        "grey16.png": (Image.fromarray(np.full((16, 20), grey * 257, dtype=np.uint16)), (grey,) * 3, 0.01),
        "grey16.tif": (Image.fromarray(np.full((16, 20), grey * 257, dtype=np.uint16)), (grey,) * 3, 0.01),
        "float.tif": (Image.fromarray(np.full((16, 20), grey / 255, dtype=np.float32)), (grey,) * 3, 0.01),
    }
    for name, (image, expected, tolerance) in cases.items():
        image.save(tmp_path / name)
        with open_image(tmp_path / name) as opened:
            pixels, alpha = decode(opened)
        assert pixels.shape == (3, 16, 20), name
        assert alpha is None, name
        assert pixels.dtype == torch.float32
        error = (pixels * 255 - torch.tensor(expected)[:, None, None]).abs().max()
        assert error <= tolerance + 1e-4, (name, error)


def test_every_kind_of_transparency(tmp_path: Path) -> None:
    half = Image.new("RGBA", (8, 8), (200, 100, 50, 128))
    palette = Image.new("P", (8, 8), 1)
    palette.putpalette([0, 0, 0, 200, 100, 50])
    palette.info["transparency"] = bytes([255, 128])
    key = Image.new("RGB", (8, 8), (200, 100, 50))
    cases = [
        ("rgba.png", half, {}, 128),
        ("grey.png", Image.new("LA", (8, 8), (200, 128)), {}, 128),
        ("palette.png", palette, {"transparency": bytes([255, 128])}, 128),
        ("key.png", key, {"transparency": (200, 100, 50)}, 0),
    ]
    for name, image, options, expected in cases:
        image.save(tmp_path / name, **options)
        with open_image(tmp_path / name) as opened:
            pixels, alpha = decode(opened)
        assert alpha is not None, name
        assert torch.allclose(alpha * 255, torch.full((1, 8, 8), float(expected))), name
        assert abs(float(pixels[0, 0, 0]) * 255 - 200) < 1e-3, name


def test_different_sizes_and_cameras_come_to_one(tmp_path: Path) -> None:
    """A capture of two cameras, one portrait: every view covers the frame, and the cameras agree on one world."""
    wide, tall = make_capture(size=ImageSize(48, 72)), make_capture(size=ImageSize(80, 64))
    write_transforms(tmp_path / "a", wide)
    write_transforms(tmp_path / "b", tall)
    first, second = open_scene(tmp_path / "a"), open_scene(tmp_path / "b")
    both = SceneSource(
        name="both",
        image_paths=first.image_paths + second.image_paths[:1],
        cam_to_world=torch.cat([first.cam_to_world, second.cam_to_world[:1]]),
        intrinsics=torch.cat([first.intrinsics, second.intrinsics[:1]]),
        image_sizes=first.image_sizes + second.image_sizes[:1],
        distortion=first.distortion + second.distortion[:1],
    )
    assert choose_image_size(both) == (48, 72)
    views = load_views(both, range(5))
    assert colour_error(views).mean() < 0.004


def test_a_deep_crop_is_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = open_scene(write_transforms(tmp_path, make_capture()))
    load_views(source, [0], ImageSize(48, 48))
    assert "72x48 lose 33 %" in caplog.text
    caplog.clear()
    load_views(source, [0])
    assert not caplog.text


@pytest.mark.parametrize(
    ("size", "max_pixels", "expected"),
    [
        ((540, 960), 960 * 544, (536, 960)),
        ((960, 540), 960 * 544, (960, 536)),
        ((2160, 3840), 960 * 540, (536, 960)),
        ((512, 512), 960 * 544, (512, 512)),
        ((512, 512), 256 * 256, (256, 256)),
        ((9, 9), 960 * 544, (8, 8)),
        ((16, 4000), 1000, (8, 496)),
    ],
)
def test_the_size_that_is_chosen(size: tuple[int, int], max_pixels: int, expected: tuple[int, int]) -> None:
    source = source_of([Path("a.png")], [ImageSize(*size)], [[10.0, 10, 5, 5]])
    assert choose_image_size(source, max_pixels=max_pixels) == expected


@pytest.mark.parametrize("size", [(540, 960), (960, 540), (7, 1000), (333, 217)])
@pytest.mark.parametrize("shape", [(64, 64), (536, 960), (960, 536), (8, 80)])
def test_the_crop_is_the_largest_of_its_shape(size: tuple[int, int], shape: tuple[int, int]) -> None:
    top, left, box = crop_box(ImageSize(*size), ImageSize(*shape))
    assert top >= 0
    assert left >= 0
    assert top + box.height <= size[0]
    assert left + box.width <= size[1]
    assert box.height == size[0] or box.width == size[1]
    # Within half a pixel of the shape that was asked for, and within one of the middle.
    assert abs(box.height - min(size[0], size[1] * shape[0] / shape[1])) <= 0.5
    assert abs(box.width - min(size[1], size[0] * shape[1] / shape[0])) <= 0.5
    assert 0 <= size[0] - box.height - 2 * top <= 1
    assert 0 <= size[1] - box.width - 2 * left <= 1


LENSES = [
    Distortion("opencv", (0.0578, -0.0805, -0.00098, 0.000156)),
    Distortion("opencv", (-0.28, 0.09, 0.001, -0.002, -0.01)),
    Distortion("opencv", (0.2, 0.1, 0.0, 0.0, 0.0, 0.1, 0.05, 0.02)),
    Distortion("fisheye", (-0.02, 0.01, -0.005, 0.001)),
]


@pytest.mark.parametrize("lens", LENSES)
def test_a_lens_against_opencv(lens: Distortion) -> None:
    cv2 = pytest.importorskip("cv2")
    plane = torch.rand(100, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 1.2 - 0.6
    points = torch.cat([plane, torch.ones(100, 1, dtype=torch.float64)], 1).numpy()
    zero, eye, coefficients = np.zeros(3), np.eye(3), np.array(lens.coefficients)
    if lens.model == "fisheye":
        bent, _ = cv2.fisheye.projectPoints(points[:, None], zero, zero, eye, coefficients)
    else:
        bent, _ = cv2.projectPoints(points[:, None], zero, zero, eye, coefficients)
    assert torch.allclose(lens.distort(plane), torch.from_numpy(bent[:, 0]), atol=1e-12)


@pytest.mark.parametrize("lens", LENSES)
def test_an_undistorted_image_against_opencv(lens: Distortion) -> None:
    """OpenCV counts pixels from their centres, we from the image corner: its centre is half a pixel less."""
    cv2 = pytest.importorskip("cv2")
    image = torch.rand(1, 3, 6, 9, generator=torch.Generator().manual_seed(2))
    image = torch.nn.functional.interpolate(image, size=(80, 120), mode="bicubic").clamp(0, 1)[0]
    intrinsics = torch.tensor([110.0, 115.0, 57.0, 44.0], dtype=torch.float64)
    ours, new = undistort(image, lens, intrinsics)

    def matrix(values: torch.Tensor) -> np.ndarray:
        fx, fy, cx, cy = values.tolist()
        return np.array([[fx, 0, cx - 0.5], [0, fy, cy - 0.5], [0, 0, 1]])

    make_maps = cv2.fisheye.initUndistortRectifyMap if lens.model == "fisheye" else cv2.initUndistortRectifyMap
    maps = make_maps(matrix(intrinsics), np.array(lens.coefficients), np.eye(3), matrix(new), (120, 80), cv2.CV_32FC1)
    theirs = cv2.remap(image.permute(1, 2, 0).numpy(), *maps, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    # OpenCV rounds positions to 1/32 pixel.
    assert (ours - torch.from_numpy(theirs).permute(2, 0, 1)).abs().max() < 5e-3


@pytest.mark.parametrize("lens", LENSES)
def test_the_undistorted_image_is_as_wide_as_can_be(lens: Distortion) -> None:
    """No border pixel looks outside the photograph, and one of them touches its edge."""
    intrinsics, size = (500.0, 510.0, 330.0, 230.0), ImageSize(480, 640)
    scale = widest_scale(lens, intrinsics, size)
    fx, fy, cx, cy = intrinsics
    x = (torch.linspace(0, 640, 401, dtype=torch.float64) - cx) / fx * scale
    y = (torch.linspace(0, 480, 401, dtype=torch.float64) - cy) / fy * scale
    bent = lens.distort(torch.stack(torch.meshgrid(x, y, indexing="xy"), -1))
    pixels = bent * torch.tensor([fx, fy]) + torch.tensor([cx, cy])
    room = torch.stack([pixels[..., 0], 640 - pixels[..., 0], pixels[..., 1], 480 - pixels[..., 1]])
    assert -0.05 < room.min() < 0.5


def test_no_lens_changes_nothing() -> None:
    size = ImageSize(48, 64)
    assert widest_scale(Distortion("opencv", (0.0,)), (60.0, 60.0, 30.0, 20.0), size) == 1
    assert Distortion("opencv", (0.0, 0.0)).changes_nothing
    assert not Distortion("fisheye", ()).changes_nothing
    # Without any coefficient a fisheye image of a plane is still not a pinhole image of it.
    with pytest.raises(UnreadableScene, match="cannot be undone"):
        widest_scale(Distortion("opencv", (-40.0,)), (60.0, 60.0, 30.0, 20.0), size)


def test_the_inverse_used_by_the_tests() -> None:
    lens = LENSES[1]
    plane = torch.rand(5, 7, 2, dtype=torch.float64) - 0.5
    assert torch.allclose(undistorted(lens, lens.distort(plane)), plane, atol=1e-9)
    capture = make_capture()
    assert hits(capture.cam_to_world[0], plane)[..., 2].abs().max() < 1e-12


def test_workers_do_not_change_the_order(tmp_path: Path) -> None:
    capture = make_capture(num_views=9)
    source = open_scene(write_transforms(tmp_path, capture))
    indices = [7, 1, 4, 0, 8, 2]
    views = load_views(source, indices)
    for position, index in enumerate(indices):
        alone = load_views(source, [index])
        assert torch.equal(views.images[position], alone.images[0])
        assert torch.equal(views.cameras.cam_to_world[position], alone.cameras.cam_to_world[0])
