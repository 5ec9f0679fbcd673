"""Renderings to files that every browser and viewer plays: PNG images and H.264 video."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from lrm_ttt.errors import BackendUnavailable, LrmTttError
from lrm_ttt.scene.cameras import ImageSize


def to_bytes(images: Float[Tensor, "*b 3 h w"]) -> np.ndarray:
    """Return colours 0..1 as 8-bit arrays `[*b, h, w, 3]`, clamped and rounded to the nearest."""
    return (images.detach().clamp(0, 1) * 255).round().to("cpu", torch.uint8).movedim(-3, -1).numpy()


def write_png(path: Path | str, image: Float[Tensor, "3 h w"]) -> None:
    """Write one image of colours 0..1."""
    from PIL import Image

    Image.fromarray(to_bytes(image)).save(path, format="PNG")


def write_video(
    path: Path | str, frames: Iterable[Float[Tensor, "3 h w"]], *, frames_per_second: int = 24, quality: int = 8
) -> int:
    """Write frames of colours 0..1 as H.264 in yuv420p, and return how many; they may be produced while it writes.

    `quality` is imageio's, 0 to 10. Odd sides lose their last row or column, for the format wants even ones. Raises
    `BackendUnavailable` where there is no ffmpeg, `LrmTttError` where it fails.
    """
    import imageio_ffmpeg

    try:
        imageio_ffmpeg.get_ffmpeg_exe()
    except RuntimeError as error:
        raise BackendUnavailable(
            f"{path}: there is no ffmpeg to write a video with. Install it, or name it in IMAGEIO_FFMPEG_EXE."
        ) from error
    writer = None
    count = 0
    try:
        for frame in frames:
            pixels = to_bytes(frame)
            size = even(ImageSize(*pixels.shape[:2]))
            if writer is None:
                writer = imageio_ffmpeg.write_frames(
                    str(path), (size.width, size.height), fps=frames_per_second, quality=quality,
                    macro_block_size=1, output_params=["-movflags", "+faststart", "-threads", "2"],
                )  # fmt: skip
                writer.send(None)
            writer.send(np.ascontiguousarray(pixels[: size.height, : size.width]))
            count += 1
    except OSError as error:
        # A pipe that breaks has lost its ffmpeg, whose own words are in the message.
        raise LrmTttError(f"{path}: the video cannot be written: {last_line(error)}. Is the disk full?") from error
    finally:
        if writer is not None:
            writer.close()
    assert count, "a video needs a frame"
    return count


def even(size: ImageSize) -> ImageSize:
    """Return the largest size with even sides inside `size`; at least 2 pixels."""
    return ImageSize(max(2, size.height // 2 * 2), max(2, size.width // 2 * 2))


def last_line(error: BaseException) -> str:
    """Return the last line of a message that says something."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
