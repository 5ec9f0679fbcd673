"""One scene as the members of a tar: a JSON file with the cameras, and an image file for each view.

Transparent views keep colours and alpha apart (straight alpha), so that whoever reads them chooses the background.
Depths are 16-bit PNG files of camera z over a `depth_unit`.
"""

import dataclasses
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from lrm_ttt.scene.views import Views

ImageFormat = Literal["webp", "jpeg", "png"]
SUFFIXES = {"webp": "webp", "jpeg": "jpg", "png": "png"}
# Pillow lets go of Python's lock while it encodes.
NUM_WORKERS = 2
LARGEST_DEPTH = 65535


@dataclasses.dataclass(frozen=True)
class Member:
    """A file in a tar."""

    name: str
    data: bytes


@dataclasses.dataclass(frozen=True)
class EncodedScene:
    """The members of a scene, the JSON file first."""

    members: tuple[Member, ...]
    num_views: int


@dataclasses.dataclass(frozen=True)
class _EncodedView:
    entry: dict[str, Any]
    members: tuple[Member, ...]


def encode_scene(key: str, name: str, chunks: Iterator[Views], image_format: str, quality: int) -> EncodedScene:
    """Encode a scene, whose views come in chunks of any number.

    The views are composited on black and have float64 cameras in the capture's own frame. Views with transparent
    pixels become WebP where JPEG is asked for.
    """
    encoded: list[_EncodedView] = []
    image_size = None
    with ThreadPoolExecutor(NUM_WORKERS) as pool:
        for views in chunks:
            image_size = views.image_size
            numbers = range(len(encoded), len(encoded) + views.shape[0])
            jobs = [(f"{key}.{number:04d}", views[at]) for at, number in enumerate(numbers)]
            encoded += pool.map(lambda job: _encode_view(job[0], job[1], image_format, quality), jobs)
    assert image_size is not None, "a scene has views"
    description = {"name": name, "image_size": list(image_size), "views": [view.entry for view in encoded]}
    text = json.dumps(description, separators=(",", ":"))
    members = (Member(f"{key}.json", text.encode()), *(member for view in encoded for member in view.members))
    return EncodedScene(members, len(encoded))


def _encode_view(stem: str, view: Views, image_format: str, quality: int) -> _EncodedView:
    pixels, transparent = straight_pixels(view.images, view.masks)
    chosen = "webp" if transparent and image_format == "jpeg" else image_format
    image = Member(f"{stem}.{SUFFIXES[chosen]}", _encode_image(pixels, chosen, quality))
    entry: dict[str, Any] = {
        "image": image.name,
        "bytes": len(image.data),
        "transparent": transparent,
        "cam_to_world": view.cameras.cam_to_world.tolist(),
        "intrinsics": view.cameras.intrinsics.tolist(),
    }
    if view.depths is None:
        return _EncodedView(entry, (image,))
    data, unit = encode_depth(view.depths)
    depth = Member(f"{stem}.depth.png", data)
    return _EncodedView(entry | {"depth": depth.name, "depth_bytes": len(data), "depth_unit": unit}, (image, depth))


def straight_pixels(on_black: Float[Tensor, "3 h w"], mask: Float[Tensor, "1 h w"] | None) -> tuple[np.ndarray, bool]:
    """Return 8-bit pixels `[h w 3]`, or `[h w 4]` with straight alpha, and whether any is transparent.

    Composited on any background they give what the image had there, to 1/255.
    """
    if mask is None or bool((mask >= 1).all()):
        return _bytes_of(on_black), False
    alpha = (mask * 255).round() / 255
    # Dividing by the alpha that is stored, not by the exact one, keeps the error of the composite to one step.
    colours = torch.where(alpha > 0, on_black / alpha.clamp(min=1 / 255), torch.zeros(()))
    return _bytes_of(torch.cat([colours, alpha])), True


def _bytes_of(values: Float[Tensor, "c h w"]) -> np.ndarray:
    return (values.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy()


def _encode_image(pixels: np.ndarray, image_format: str, quality: int) -> bytes:
    stream = io.BytesIO()
    image = Image.fromarray(pixels)
    if image_format == "png":
        image.save(stream, "PNG")
    elif image_format == "jpeg":
        # Halved colour resolution costs more than it saves at the sizes of training.
        image.save(stream, "JPEG", quality=quality, subsampling=0)
    else:
        image.save(stream, "WEBP", quality=quality)
    return stream.getvalue()


def encode_depth(depths: Float[Tensor, "1 h w"]) -> tuple[bytes, float]:
    """Return a 16-bit PNG of depths and its unit: depth = stored value x unit, 0 unknown."""
    largest = float(depths.max())
    unit = largest / LARGEST_DEPTH if largest > 0 else 1.0
    known = depths[0].double() > 0
    stored = torch.where(
        known, (depths[0].double() / unit).round().clamp(1, LARGEST_DEPTH), torch.zeros((), dtype=torch.float64)
    )
    stream = io.BytesIO()
    Image.fromarray(stored.numpy().astype(np.uint16)).save(stream, "PNG")
    return stream.getvalue(), unit


def file_sizes(description: Mapping[str, Any]) -> Sequence[tuple[str, int]]:
    """Return name and bytes of every member that follows the JSON file, in the order in which they lie."""
    sizes = []
    for view in description["views"]:
        sizes.append((str(view["image"]), int(view["bytes"])))
        if "depth" in view:
            sizes.append((str(view["depth"]), int(view["depth_bytes"])))
    return sizes
