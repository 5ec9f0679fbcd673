"""One picture to judge a reconstruction by: the inputs, and for held-out views truth, rendering and error, labelled."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from lrm_ttt.render.video import to_bytes

# Sides of a tile in pixels: smaller images are enlarged by whole factors, larger ones reduced.
SMALLEST_TILE, LARGEST_TILE = 160, 320
MOST_INPUTS, MOST_COMPARED = 12, 6
MARGIN, LINE, FONT_SIZE = 8, 20, 14
# An absolute error (mean over channels) at which the error's colour saturates.
FULL_ERROR = 0.25
PAPER, INK = (255, 255, 255), (30, 30, 30)


@dataclasses.dataclass(frozen=True)
class Comparison:
    """A view with its truth and what was rendered for it."""

    label: str
    truth: Float[Tensor, "3 h w"]
    rendering: Float[Tensor, "3 h w"]


def error_colors(truth: Float[Tensor, "3 h w"], rendering: Float[Tensor, "3 h w"]) -> Float[Tensor, "3 h w"]:
    """Return the absolute error, mean over channels, from white (none) over yellow and red to black (FULL_ERROR)."""
    error = (rendering.clamp(0, 1) - truth).abs().mean(0)
    heat = 3 * (1 - (error / FULL_ERROR).clamp(0, 1))
    return torch.stack([heat, heat - 1, heat - 2]).clamp(0, 1)


def spread(count: int, most: int) -> list[int]:
    """Return at most `most` positions out of `count`, evenly from the first to the last."""
    if count <= most:
        return list(range(count))
    return [round(index * (count - 1) / max(most - 1, 1)) for index in range(most)]


def draw_sheet(
    title: str,
    inputs: Float[Tensor, "v 3 h w"],
    input_labels: Sequence[str],
    compared: Sequence[Comparison],
) -> Image.Image:
    """Draw inputs, and below them truth, rendering and error of views.

    At most MOST_INPUTS and MOST_COMPARED are shown, taken evenly from those given.
    """
    tile = tile_size(inputs.shape[-2], inputs.shape[-1])
    shown = spread(inputs.shape[0], MOST_INPUTS)
    rows = [compared[index] for index in spread(len(compared), MOST_COMPARED)]
    groups = 2 if len(rows) > 2 else 1
    columns = 3 * groups
    across = max(columns, min(len(shown), 6))
    input_rows = -(-len(shown) // across)
    compared_rows = -(-len(rows) // groups)
    cell = (tile[0] + LINE + MARGIN, tile[1] + MARGIN)
    height = MARGIN + LINE + (input_rows + compared_rows) * cell[0] + (LINE if rows else 0)
    sheet = Image.new("RGB", (max(MARGIN + across * cell[1], 420), height), PAPER)
    pen = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(size=FONT_SIZE)

    def place(image: Tensor, label: str, row: int, column: int, top: int) -> None:
        x, y = MARGIN + column * cell[1], top + row * cell[0]
        pen.text((x, y + 2), fitted(label, tile[1], font), INK, font)
        sheet.paste(scaled(image, tile), (x, y + LINE))

    top = MARGIN
    pen.text((MARGIN, top), title, INK, font)
    top += LINE
    for place_in_row, index in enumerate(shown):
        place(inputs[index], f"input {input_labels[index]}", place_in_row // across, place_in_row % across, top)
    top += input_rows * cell[0]
    for number, row in enumerate(rows):
        first = 3 * (number % groups)
        place(row.truth, "truth", number // groups, first, top)
        place(row.rendering, row.label, number // groups, first + 1, top)
        error = error_colors(row.truth, row.rendering)
        place(error, f"error, black from {FULL_ERROR:g}", number // groups, first + 2, top)
    return sheet


def tile_size(height: int, width: int) -> tuple[int, int]:
    """Return height and width of a tile: a whole multiple of a small image, or a large one reduced."""
    longest = max(height, width)
    if longest > LARGEST_TILE:
        return max(1, round(height * LARGEST_TILE / longest)), max(1, round(width * LARGEST_TILE / longest))
    factor = max(1, -(-SMALLEST_TILE // longest))
    return height * factor, width * factor


def scaled(image: Float[Tensor, "3 h w"], tile: tuple[int, int]) -> Image.Image:
    """Return an image at the size of a tile; enlarged pixels stay squares."""
    picture = Image.fromarray(np.ascontiguousarray(to_bytes(image)))
    enlarged = tile[0] >= picture.height
    return picture.resize((tile[1], tile[0]), Image.Resampling.NEAREST if enlarged else Image.Resampling.LANCZOS)


def fitted(text: str, width: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """Cut a label to the width of its tile."""
    while len(text) > 1 and font.getlength(text) > width:
        text = text[:-1]
    return text
