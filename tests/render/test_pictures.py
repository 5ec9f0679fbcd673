"""Pictures and videos show what they were given."""

import itertools
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
import torch
from PIL import Image

from lrm_ttt.render.sheet import Comparison, draw_sheet, error_colors, spread, tile_size
from lrm_ttt.render.video import write_png, write_video


def test_a_png_holds_the_colours(tmp_path: Path) -> None:
    image = torch.rand(3, 5, 7, generator=torch.Generator().manual_seed(0)) * 1.4 - 0.2
    write_png(tmp_path / "a.png", image)
    shown = torch.from_numpy(np.array(Image.open(tmp_path / "a.png"))).permute(2, 0, 1) / 255
    assert (shown - image.clamp(0, 1)).abs().max() <= 0.5 / 255 + 1e-6


def test_a_video_holds_the_frames(tmp_path: Path) -> None:
    """Smooth pictures survive the coding; of odd sides the last row and column go."""
    ramp = torch.linspace(0, 1, 65).expand(3, 33, 65)
    levels = [0.2, 0.5, 0.9]
    assert write_video(tmp_path / "a.mp4", (ramp * level for level in levels)) == 3
    frames = iio.imread(tmp_path / "a.mp4") / 255
    assert frames.shape == (3, 32, 64, 3)
    for frame, level in zip(frames, levels, strict=True):
        assert np.abs(frame - (ramp * level)[:, :32, :64].permute(1, 2, 0).numpy()).mean() < 0.02


def test_errors_go_from_white_to_black() -> None:
    truth = torch.zeros(3, 1, 3)
    rendering = torch.tensor([0.0, 0.25, 1.0]).expand(3, 1, 3)
    colors = error_colors(truth, rendering)[:, 0].T
    assert colors[0].tolist() == [1, 1, 1]
    assert colors[1].tolist() == colors[2].tolist() == [0, 0, 0]


@pytest.mark.parametrize(("count", "most"), [(3, 5), (5, 5), (64, 6), (7, 1)])
def test_a_spread_is_even_and_within(count: int, most: int) -> None:
    chosen = spread(count, most)
    assert len(chosen) == len(set(chosen)) == min(count, most)
    assert chosen[0] == 0 and (most == 1 or chosen[-1] == count - 1)
    gaps = [b - a for a, b in itertools.pairwise(chosen)]
    assert not gaps or max(gaps) - min(gaps) <= 1


@pytest.mark.parametrize("size", [(8, 8), (64, 48), (200, 300), (1080, 1920)])
def test_tiles_keep_the_shape(size: tuple[int, int]) -> None:
    height, width = tile_size(*size)
    assert height / width == pytest.approx(size[0] / size[1], rel=0.01)
    assert 160 <= max(height, width) <= 320


@pytest.mark.parametrize(("num_inputs", "num_compared"), [(2, 0), (1, 1), (13, 9)])
def test_a_sheet_holds_its_pictures(num_inputs: int, num_compared: int) -> None:
    """Inputs are pure blue, truths pure green, renderings pure red: the sheet has so many pixels of each."""
    size = (3, 20, 40)
    blue, green, red = (torch.zeros(size).index_fill(0, torch.tensor([channel]), 1.0) for channel in (2, 1, 0))
    compared = [Comparison("view", green, red)] * num_compared
    labels = [str(index) for index in range(num_inputs)]
    sheet = np.asarray(draw_sheet("title", blue.expand(num_inputs, *size), labels, compared)).reshape(-1, 3)
    tile = 80 * 160
    assert (sheet == (0, 0, 255)).all(-1).sum() == min(num_inputs, 12) * tile
    assert (sheet == (0, 255, 0)).all(-1).sum() == min(num_compared, 6) * tile
    assert (sheet == (255, 0, 0)).all(-1).sum() == min(num_compared, 6) * tile
