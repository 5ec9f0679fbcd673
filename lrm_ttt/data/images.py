"""Decode images: composite, undistort, crop and resize them to one size, with cameras that follow."""

import dataclasses
import logging
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image, ImageOps
from torch import Tensor

from lrm_ttt.data.files import DepthFile, is_turned, open_image
from lrm_ttt.data.lens import pinhole_intrinsics, undistort
from lrm_ttt.data.source import SceneSource
from lrm_ttt.errors import InvalidConfig, UnreadableScene
from lrm_ttt.scene.cameras import Cameras, ImageSize
from lrm_ttt.scene.manipulable import stack
from lrm_ttt.scene.views import Views

log = logging.getLogger(__name__)

# As many pixels as a 960x540 video frame: 8,000 patches of 8x8 a view.
MAX_PIXELS = 960 * 544
# Decoding holds Pillow's buffers for each worker, and two keep two cores busy.
NUM_WORKERS = 2
# A crop that loses less than this share of the image is not worth a word.
UNREMARKABLE_CROP = 0.1


def load_views(
    source: SceneSource,
    indices: Sequence[int],
    image_size: ImageSize | None = None,
    *,
    patch_size: int = 8,
    background: tuple[float, float, float] = (1.0, 1.0, 1.0),
    max_pixels: int = MAX_PIXELS,
    report_crops: bool = True,
) -> Views:
    """Decode the views `indices` `[v]` at one size, in float32.

    Transparent images are composited on `background` (0..1, straight alpha) at full resolution, and their alpha becomes
    the mask; lens distortion is undone; then each image is centre-cropped to the shape of `image_size` and resized
    (antialiased) to cover it, which `report_crops` warns of where much is lost. The intrinsics follow every step, and
    so do depths, of which none are mixed. `image_size` None takes `choose_image_size`. Raises `UnreadableScene` for an
    image that cannot be decoded, `InvalidConfig` for a size that is no multiple of `patch_size`.
    """
    assert len(indices) > 0
    size = (
        choose_image_size(source, patch_size=patch_size, max_pixels=max_pixels)
        if image_size is None
        else ImageSize(*image_size)
    )
    if size.height % patch_size or size.width % patch_size or min(size) < patch_size:
        near = [max(patch_size, round(side / patch_size) * patch_size) for side in size]
        raise InvalidConfig(
            f"image size {size.height} {size.width} (height, width) is not made of patches of {patch_size}. "
            f"Take {near[0]} {near[1]}."
        )
    if report_crops:
        _report_crops(source, indices, size)
    with ThreadPoolExecutor(NUM_WORKERS) as pool:
        loaded = list(pool.map(lambda index: _load_one(source, index, size, background), indices))
    alphas = [view.alpha for view in loaded]
    masks = None
    if any(alpha is not None and bool((alpha < 1).any()) for alpha in alphas):
        masks = torch.stack([torch.ones(1, *size) if alpha is None else alpha for alpha in alphas])
    cameras = Cameras(
        cam_to_world=source.cam_to_world[list(indices)].float(),
        intrinsics=torch.stack([view.intrinsics for view in loaded]).float(),
        image_size=size,
    )
    depths = None
    if any(view.depth is not None for view in loaded):
        depths = torch.stack([torch.zeros(1, *size) if view.depth is None else view.depth for view in loaded])
    return Views(torch.stack([view.image for view in loaded]), cameras, masks, depths)


def load_cameras(source: SceneSource, indices: Sequence[int], image_size: ImageSize) -> Cameras:
    """Return the cameras that `load_views` gives for the views `indices` `[v]`, of any size; no image is decoded."""
    every = []
    for index in indices:
        size, lens, intrinsics = source.image_sizes[index], source.distortion[index], source.intrinsics[index]
        if lens is not None:
            intrinsics = pinhole_intrinsics(lens, intrinsics, size)
        every.append(_fitted(source.cam_to_world[index], intrinsics, size, image_size))
    return stack(every).to(torch.float32)


def choose_image_size(source: SceneSource, *, patch_size: int = 8, max_pixels: int = MAX_PIXELS) -> ImageSize:
    """Return the commonest size of the capture within `max_pixels`, each side down to a multiple of `patch_size`.

    Raises `UnreadableScene` for images smaller than a patch.
    """
    counts = Counter(source.image_sizes)
    common = max(counts, key=lambda size: (counts[size], -size.height * size.width))
    scale = min(1.0, (max_pixels / (common.height * common.width)) ** 0.5)
    # The rounding errors of a scale that fits exactly must not cost a whole patch.
    sides = [int(side * scale / patch_size + 1e-6) * patch_size for side in common]
    if min(common) < patch_size:
        raise UnreadableScene(
            f"{source.image_paths[0]}: images of {common.width}x{common.height} pixels are smaller than a patch "
            f"of {patch_size}x{patch_size}. Use larger images."
        )
    return ImageSize(max(sides[0], patch_size), max(sides[1], patch_size))


def crop_box(size: ImageSize, shape: ImageSize) -> tuple[int, int, ImageSize]:
    """Return top, left and size of the largest centred part of an image of `size` with the aspect ratio of `shape`."""
    factor = max(shape.height / size.height, shape.width / size.width)
    height = min(size.height, max(1, round(shape.height / factor)))
    width = min(size.width, max(1, round(shape.width / factor)))
    return (size.height - height) // 2, (size.width - width) // 2, ImageSize(height, width)


@dataclasses.dataclass(frozen=True)
class _Loaded:
    image: Float[Tensor, "3 h w"]
    alpha: Float[Tensor, "1 h w"] | None
    intrinsics: Float[Tensor, "4"]
    depth: Float[Tensor, "1 h w"] | None


def _load_one(source: SceneSource, index: int, size: ImageSize, background: tuple[float, float, float]) -> _Loaded:
    path, expected, lens = source.image_paths[index], source.image_sizes[index], source.distortion[index]
    if min(expected) < 2:
        raise UnreadableScene(
            f"{path}: an image of {expected.width}x{expected.height} pixels. Replace it, or take it out."
        )
    intrinsics = source.intrinsics[index]
    top, left, box = crop_box(expected, size)
    with open_image(path) as opened:
        image = ImageOps.exif_transpose(opened) if is_turned(opened, expected) else opened
        if (image.height, image.width) != expected:
            raise UnreadableScene(f"{path}: the image changed its size since the capture was opened. Start again.")
        pixels, alpha = decode(image)
    if alpha is not None:
        # Before any resampling: colours under transparent pixels mean nothing and must not leak into their neighbours.
        pixels = pixels * alpha + torch.tensor(background)[:, None, None] * (1 - alpha)
        pixels = torch.cat([pixels, alpha])
    if lens is not None:
        pixels, intrinsics = undistort(pixels, lens, intrinsics)
    pixels = pixels[:, top : top + box.height, left : left + box.width]
    if box != size:
        pixels = torch.nn.functional.interpolate(pixels[None], size=tuple(size), mode="bilinear", antialias=True)[0]
    intrinsics = _fitted(source.cam_to_world[index], intrinsics, expected, size).intrinsics
    pixels = pixels.clamp(0, 1)
    depth_file = None if source.depths is None else source.depths[index]
    depth = None if depth_file is None else _load_depth(source, index, depth_file, size)
    return _Loaded(pixels[:3].contiguous(), None if alpha is None else pixels[3:].contiguous(), intrinsics, depth)


def _load_depth(source: SceneSource, index: int, file: DepthFile, size: ImageSize) -> Float[Tensor, "1 h w"]:
    """Return the depth of each pixel of a loaded view: that of one pixel of the file, for a mean lies in mid-air."""
    expected, lens = source.image_sizes[index], source.distortion[index]
    with open_image(file.file) as image:
        if not image.mode.startswith("I"):
            raise UnreadableScene(
                f"{file.file}: an image of mode {image.mode}, where depths belong. Write 16 bit greyscale PNG."
            )
        depth = torch.from_numpy(np.asarray(image, dtype=np.float32) * np.float32(file.unit))[None]
    height, width = depth.shape[-2:]
    # A smaller copy is rounded to whole pixels.
    if abs(width / height * expected.height / expected.width - 1) > 1.01 / min(height, width):
        raise UnreadableScene(
            f"{file.file}: depths of {width}x{height} pixels for an image of {expected.width}x{expected.height}, "
            "another shape. Give depths of the same camera."
        )
    depth = _resized_to(depth, expected)
    if lens is not None:
        depth, _ = undistort(depth, lens, source.intrinsics[index], mode="nearest")
    top, left, box = crop_box(expected, size)
    return _resized_to(depth[:, top : top + box.height, left : left + box.width], size).contiguous()


def _resized_to(depth: Float[Tensor, "1 _ _"], size: ImageSize) -> Float[Tensor, "1 h w"]:
    return torch.nn.functional.interpolate(depth[None], size=tuple(size), mode="nearest-exact")[0]


def _fitted(
    cam_to_world: Float[Tensor, "4 4"], intrinsics: Float[Tensor, "4"], actual: ImageSize, size: ImageSize
) -> Cameras:
    """Return the camera of an image that is centre-cropped to the shape of `size`, and resized to it."""
    top, left, box = crop_box(actual, size)
    return Cameras(cam_to_world, intrinsics, actual).cropped(top, left, box).resized(ImageSize(*size))


def decode(image: Image.Image) -> tuple[Float[Tensor, "3 h w"], Float[Tensor, "1 h w"] | None]:
    """Return the colours 0..1 of an opened image and its alpha, where it has one.

    Palettes, greyscale, 16 bit greyscale and CMYK become RGB; numbers are taken as sRGB, without colour management.
    """
    if image.mode.startswith(("I", "F")):
        values = np.asarray(image, dtype=np.float32)
        whole = 65535.0 if image.mode.startswith("I;16") or values.max(initial=0) > 255 else 255.0
        grey = torch.from_numpy(np.array(values / (whole if image.mode != "F" else 1.0))).clamp(0, 1)
        return grey.expand(3, -1, -1), None
    transparent = "transparency" in image.info or image.mode in ("RGBA", "LA", "PA", "La", "RGBa")
    array = np.array(image.convert("RGBA" if transparent else "RGB"))
    pixels = torch.from_numpy(array).permute(2, 0, 1).float() / 255
    return pixels[:3], pixels[3:] if transparent else None


def _report_crops(source: SceneSource, indices: Sequence[int], size: ImageSize) -> None:
    lost = {}
    for index in indices:
        actual = source.image_sizes[index]
        box = crop_box(actual, size)[2]
        lost[actual] = 1 - box.height * box.width / (actual.height * actual.width)
    for actual, share in lost.items():
        if share > UNREMARKABLE_CROP:
            log.warning(
                "%s: images of %dx%d lose %.0f %% of their area to a centre-crop, for the shape %dx%d (width x height)",
                source.name, actual.width, actual.height, 100 * share, size.width, size.height,
            )  # fmt: skip
