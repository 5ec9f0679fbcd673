"""A .ply to pictures: the cameras are the capture's, an orbit keeps the object in sight."""

from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
import torch
from PIL import Image

from lrm_ttt import cli
from lrm_ttt.pipeline.reconstruct import draw
from lrm_ttt.scene.gaussians import Gaussians
from lrm_ttt.scene.ply import read_ply, write_ply
from tests.cli.typed import refused
from tests.pipeline.make import HEIGHT, WIDTH, make_views, write_capture


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dark ball of small Gaussians far from the origin, and two that lie astray."""
    folder = tmp_path_factory.mktemp("render")
    generator = torch.Generator().manual_seed(0)
    means = torch.randn(300, 3, generator=generator) * 0.3 + torch.tensor([50.0, -20.0, 5.0])
    means[:2] = torch.tensor([[1e3, 0.0, 0.0], [0.0, 0.0, 1e3]])
    ball = Gaussians(
        means=means,
        scales=torch.full((300, 3), 0.1),
        wxyz=torch.tensor([1.0, 0.0, 0.0, 0.0]).expand(300, 4),
        opacities=torch.full((300,), 0.9),
        sh=torch.full((300, 1, 3), -1.7),
    )
    write_ply(folder / "ball.ply", ball)
    return folder / "ball.ply"


@pytest.mark.parametrize("up", ["-y", "z"])
def test_an_orbit_sees_the_whole_object_in_every_frame(scene: Path, tmp_path: Path, up: str) -> None:
    out = tmp_path / "orbit.mp4"
    flags = ["--up", up, "--num-frames", "6", "--image-size", "48", "64"]
    assert cli.main(["render", str(scene), "-o", str(out), *flags]) == 0
    frames = iio.imread(out)
    assert frames.shape == (6, 48, 64, 3)
    assert (frames[:, 18:30, 26:38].mean((1, 2, 3)) < 60).all(), "dark in the middle"
    border = np.concatenate([frames[:, :3].reshape(6, -1), frames[:, -3:].reshape(6, -1)], 1)
    assert (border.mean(1) > 200).all(), "white at the border"
    assert [path.name for path in tmp_path.iterdir()] == ["orbit.mp4"]


def test_given_cameras_are_those_of_the_capture(tmp_path: Path) -> None:
    capture = write_capture(tmp_path / "capture", num_views=4)
    cameras = make_views(4).cameras
    points = cameras.unproject(
        torch.full((4, 1, 2), 30.0), torch.full((4, 1), float(cameras.centres.norm(dim=-1).mean()))
    )
    means = points.reshape(4, 3)
    four = Gaussians(
        means=means,
        scales=torch.full((4, 3), 0.1) * means.std(),
        wxyz=torch.tensor([1.0, 0.0, 0.0, 0.0]).expand(4, 4),
        opacities=torch.full((4,), 0.9),
        sh=torch.randn(4, 1, 3, generator=torch.Generator().manual_seed(1)),
    )
    write_ply(tmp_path / "four.ply", four)
    words = ["render", str(tmp_path / "four.ply"), "-o", str(tmp_path / "images"), "--cameras", str(capture)]
    assert cli.main([*words, "--background", "0", "0", "0", "--num-frames", "2"]) == 0
    expected = draw(read_ply(tmp_path / "four.ply"), cameras[[0, 3]], torch.zeros(3), near=1e-3)
    for name, image in zip(("0000_000.png", "0003_003.png"), expected, strict=True):
        shown = np.asarray(Image.open(tmp_path / "images" / name), dtype=np.float32) / 255
        assert shown.shape == (HEIGHT, WIDTH, 3)
        assert np.abs(shown - image.permute(1, 2, 0).numpy()).max() < 2 / 255


def test_cameras_need_no_images(scene: Path, tmp_path: Path) -> None:
    capture = write_capture(tmp_path / "capture", num_views=3)
    words = ["render", str(scene), "--cameras", str(capture), "--image-size", "24", "32"]
    assert cli.main([*words, "-o", str(tmp_path / "with")]) == 0
    for path in (capture / "images").iterdir():
        path.unlink()
    assert cli.main([*words, "-o", str(tmp_path / "without")]) == 0
    names = sorted(path.name for path in (tmp_path / "with").iterdir())
    assert names == ["0000_000.png", "0001_001.png", "0002_002.png"]
    for name in names:
        assert (tmp_path / "with" / name).read_bytes() == (tmp_path / "without" / name).read_bytes()


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--num-frames", "0"], "--num-frames 0"),
        (["--checkpoint", "somewhere"], "needs no model"),
        (["--image-size", "0", "9"], "--image-size 0 9"),
        (["-o", "scene.gif"], ".mp4"),
        (["--cameras", "nowhere"], "nowhere"),
    ],
)
def test_bad_flags(scene: Path, flags: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert said in refused(["render", str(scene), *flags], capsys)
    assert [path.name for path in scene.parent.iterdir()] == ["ball.ply"]


def test_a_file_that_is_no_ply(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "scene.ply").write_text("no Gaussians")
    assert cli.main(["render", str(tmp_path / "scene.ply")]) == cli.USERS_MISTAKE
    assert "not a .ply file" in capsys.readouterr().err
