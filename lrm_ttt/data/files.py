"""Find and open the files of a capture, which may be damaged, missing or made to do harm."""

import contextlib
import dataclasses
import functools
import io
import struct
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from lrm_ttt.errors import UnreadableScene
from lrm_ttt.scene.cameras import ImageSize

# The formats of photographs; others are refused, for some of Pillow's readers start other programs.
FORMATS = ("PNG", "JPEG", "MPO", "WEBP", "TIFF", "BMP", "PPM", "JPEG2000", "AVIF")
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".ppm", ".jp2", ".avif")
# Folders with the same images at another size, as DL3DV, Mip-NeRF 360 and nerfstudio name them, the largest first.
SMALLER_FOLDERS = ("images_2", "images_4", "images_8")
EXIF_ORIENTATION = 274
# What every command that opens captures and every configuration of a data set can be told.
ALLOW_MISSING = "allow missing images (--allow-missing, or allow_missing: true in a data set's configuration)"


@dataclasses.dataclass(frozen=True)
class EncodedImage:
    """An image file that is held in memory, such as one out of a shard; `name` says which in messages."""

    name: str
    data: bytes = dataclasses.field(repr=False)

    @property
    def stem(self) -> str:
        """The name without folder and suffix, as a path has it."""
        return Path(self.name).stem

    def __str__(self) -> str:
        return self.name


@dataclasses.dataclass(frozen=True)
class DepthFile:
    """A 16 bit greyscale image: camera z is its value times `unit`, in the capture's units; 0 is unknown."""

    file: Path | EncodedImage
    unit: float


def path_inside(root: Path, name: str, described_by: Path) -> Path:
    """Return the path of `name` inside the folder `root`, whether the file exists or not.

    Raises `UnreadableScene` for a name that leaves the folder: absolute, with `..`, or through a symbolic link.
    """
    cleaned = name.replace("\\", "/")
    relative = Path(cleaned)
    windows_drive = len(cleaned) > 1 and cleaned[1] == ":"
    leaves = relative.is_absolute() or windows_drive or ".." in relative.parts or "\0" in cleaned
    path = root / relative if not leaves else root
    if leaves or not path.resolve().is_relative_to(root.resolve()):
        raise UnreadableScene(
            f"{described_by}: the path {name!r} leaves the capture's folder {root}. "
            "Put the images (not links to them) into that folder, and name them relative to it."
        )
    return path


def find_image(root: Path, name: str, described_by: Path) -> Path | None:
    """Return the image called `name`, or None where there is none.

    A missing suffix is added (Blender's `./train/r_0`), and a missing folder `images` is replaced by its smaller copies
    (DL3DV).
    """
    first = path_inside(root, name, described_by)
    candidates = [first]
    parts = Path(name.replace("\\", "/")).parts
    if "images" in parts[:-1]:
        at = parts.index("images")
        candidates += [
            path_inside(root, str(Path(*parts[:at], folder, *parts[at + 1 :])), described_by)
            for folder in SMALLER_FOLDERS
        ]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
        for suffix in (*SUFFIXES, *(suffix.upper() for suffix in SUFFIXES)):
            with_suffix = candidate.with_name(candidate.name + suffix)
            if candidate.suffix.lower() not in SUFFIXES and with_suffix.is_file():
                return path_inside(root, str(with_suffix.relative_to(root)), described_by)
    return None


@contextlib.contextmanager
def open_image(path: Path | EncodedImage) -> Iterator[Image.Image]:
    """Open an image lazily; what Pillow raises here and while the block decodes becomes `UnreadableScene`."""
    try:
        with Image.open(io.BytesIO(path.data) if isinstance(path, EncodedImage) else path, formats=_formats()) as image:
            # Pillow only warns here, and refuses at twice this size.
            limit = Image.MAX_IMAGE_PIXELS
            if limit is not None and image.width * image.height > limit:
                raise Image.DecompressionBombError(f"{image.width}x{image.height} pixels, where {limit} are allowed")
            yield image
    except UnreadableScene:
        raise
    except Image.DecompressionBombError as error:
        raise UnreadableScene(
            f"{path}: the image is too large to decode safely ({error}). Make it smaller first."
        ) from error
    except FileNotFoundError as error:
        raise UnreadableScene(f"{path}: there is no such image. Check the capture.") from error
    except (
        OSError,
        SyntaxError,
        ValueError,
        EOFError,
        IndexError,
        KeyError,
        OverflowError,
        struct.error,
        zlib.error,
    ) as error:
        reason = "it is no image of a known format" if isinstance(error, Image.UnidentifiedImageError) else str(error)
        mend = f"or delete it and {ALLOW_MISSING}" if isinstance(path, Path) else "in the file that holds it"
        raise UnreadableScene(
            f"{path}: the image cannot be decoded: {reason}. Replace it with a sound JPEG or PNG, {mend}."
        ) from error


@functools.cache
def _formats() -> tuple[str, ...]:
    """Return those of `FORMATS` that this build of Pillow has."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def is_turned(image: Image.Image, size: ImageSize | None) -> bool:
    """Say whether an image must be turned as its EXIF tag asks to have the calibrated `size`.

    Calibrations speak of the pixels as they are stored, as COLMAP and nerfstudio read them, so the tag is left aside,
    but for one case: the calibration's height and width are those of the turned image.
    """
    if size is None or (image.height, image.width) == size or image.getexif().get(EXIF_ORIENTATION, 1) < 5:
        return False
    return abs(image.width / image.height * size.width / size.height - 1) < 0.02


def read_image_size(path: Path | EncodedImage, calibrated: ImageSize | None) -> ImageSize:
    """Return the size of an image from its header, turned where its calibration is."""
    with warnings.catch_warnings():
        # The error of `open_image` says it better. Images are first opened here, by one thread: the filter is the
        # process's.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        return _size_in_header(path, calibrated)


def _size_in_header(path: Path | EncodedImage, calibrated: ImageSize | None) -> ImageSize:
    with open_image(path) as image:
        if is_turned(image, calibrated):
            return ImageSize(image.width, image.height)
        return ImageSize(image.height, image.width)
