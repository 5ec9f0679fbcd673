"""The main job through the command line, on a small procedural capture and a small random model."""

import json
import random
from pathlib import Path
from typing import Any

import imageio.v3 as iio
import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from lrm_ttt import cli
from lrm_ttt.data.images import load_views
from lrm_ttt.data.open_scene import open_scene
from lrm_ttt.pipeline.reconstruct import draw
from lrm_ttt.scene.ply import read_ply
from tests.pipeline.make import HEIGHT, WIDTH, write_capture, write_checkpoint

KEYS = {
    "num_input_views",
    "num_held_out_views",
    "num_gaussians",
    "psnr_input",
    "psnr_held_out",
    "ssim_held_out",
    "ply_round_trip_db_gap",
    "seconds",
    "peak_memory_mb",
    "device",
    "backend",
    "checkpoint",
    "commit",
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a capture, a checkpoint, and in `out` what the command makes of them."""
    folder = tmp_path_factory.mktemp("job")
    write_capture(folder / "capture")
    write_checkpoint(folder / "model")
    assert reconstruct(folder, "out") == 0
    return folder


def reconstruct(folder: Path, out: str, *more: str) -> int:
    words = ["reconstruct", str(folder / "capture"), "-o", str(folder / out), "--checkpoint", str(folder / "model")]
    return cli.main([*words, "--hold-out", "4", "--precision", "fp32", *more])


def metrics(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "metrics.json").read_text())


def test_the_numbers_are_there_and_sane(place: Path) -> None:
    numbers = metrics(place / "out")
    assert numbers.keys() >= KEYS
    assert (numbers["num_input_views"], numbers["num_held_out_views"]) == (6, 3)
    assert 0 < numbers["num_gaussians"] <= 6 * HEIGHT * WIDTH
    assert numbers["ply_round_trip_db_gap"] < 0.05
    assert numbers["psnr_held_out"] > 12
    assert {"read", "model", "write", "check", "read_to_ply", "total"} <= numbers["seconds"].keys()
    assert "11-tap" in numbers["metric_variants"]["ssim"]


def test_the_ply_rendered_again_is_what_the_pictures_show(place: Path) -> None:
    """Read the file as a stranger would: nothing but the .ply and the capture's own cameras."""
    source = open_scene(place / "capture")
    held_out = load_views(source, [0, 4, 8])
    drawn = draw(read_ply(place / "out" / "scene.ply"), held_out.cameras, torch.ones(3), near=0.1)
    for image, index in zip(drawn, (0, 4, 8), strict=True):
        shown = np.asarray(Image.open(place / "out" / "renders" / f"{index:04d}_render.png"), dtype=np.float32) / 255
        # Half a step of 8 bits.
        assert np.abs(shown - image.permute(1, 2, 0).numpy()).max() <= 0.5 / 255 + 1e-4
    mse = (drawn - held_out.images).square().flatten(1).mean(1)
    assert metrics(place / "out")["psnr_held_out"] == pytest.approx(float((-10 * mse.log10()).mean()), abs=1e-3)


def test_all_files_are_there(place: Path) -> None:
    out = place / "out"
    names = {"scene.ply", "metrics.json", "config.yaml", "renders", "report.html", "video.mp4"}
    assert {path.name for path in out.iterdir()} == names
    assert Image.open(out / "renders" / "sheet.png").size[0] > 3 * WIDTH
    frames = iio.imread(out / "video.mp4")
    assert frames.shape == (72, HEIGHT, WIDTH, 3)
    # Every frame of the orbit shows something on the white background.
    assert (frames.min((1, 2, 3)) < 200).all()
    page = (out / "report.html").read_text()
    assert page.count("data:image/png;base64,") == page.count("data:video/mp4;base64,") == 1
    assert "http:" not in page and "https:" not in page
    config = yaml.safe_load((out / "config.yaml").read_text())
    assert config["source"] == str(place / "capture")
    assert config["resolved"]["held_out"] == [0, 4, 8]
    assert config["resolved"]["model"]["head"]["distance"] == "evidence"


def test_held_out_views_are_never_seen(place: Path) -> None:
    """Fill them with noise: the Gaussians stay the same to the last bit, and their scores fall."""
    earlier = {}
    for index in (0, 4, 8):
        path = place / "capture" / "images" / f"{index:03d}.png"
        earlier[path] = path.read_bytes()
        noise = np.random.default_rng(index).integers(0, 255, (HEIGHT, WIDTH, 4), dtype=np.uint8)
        Image.fromarray(noise).save(path)
    try:
        assert reconstruct(place, "blind") == 0
    finally:
        for path, content in earlier.items():
            path.write_bytes(content)
    assert (place / "blind" / "scene.ply").read_bytes() == (place / "out" / "scene.ply").read_bytes()
    assert metrics(place / "blind")["psnr_held_out"] < metrics(place / "out")["psnr_held_out"] - 3


def test_refining_helps_held_out_views_too(place: Path) -> None:
    assert reconstruct(place, "refined", "--refine", "40") == 0
    before, after = metrics(place / "out"), metrics(place / "refined")
    assert after["psnr_input"] > before["psnr_input"] + 2
    assert after["psnr_held_out"] > before["psnr_held_out"] + 0.5
    assert after["ply_round_trip_db_gap"] < 0.05


def test_the_order_of_listed_views_changes_nothing_that_is_seen(place: Path) -> None:
    views = ["1", "2", "3", "5", "6", "7"]
    random.Random(0).shuffle(views)
    assert reconstruct(place, "shuffled", "--views", ",".join(views)) == 0
    assert metrics(place / "shuffled")["psnr_held_out"] == pytest.approx(
        metrics(place / "out")["psnr_held_out"], abs=0.02
    )


def test_the_example_needs_no_files(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["reconstruct", "example", "-o", str(place / "example"), "--checkpoint", str(place / "model")]
    assert cli.main([*words, "--image-size", "32", "32", "--views", "6"]) == 0
    numbers = metrics(place / "example")
    assert (numbers["num_input_views"], numbers["num_held_out_views"]) == (6, 4)
    assert (place / "example" / "config.yaml").read_text().startswith("source: example\n")
    assert "scene.ply" in capsys.readouterr().out
