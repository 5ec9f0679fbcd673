"""Captures to triplanes and to scene states, through the command line, with small random models."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lrm_ttt import cli
from lrm_ttt.data.images import load_views
from lrm_ttt.data.open_scene import open_scene
from lrm_ttt.layers.config import MemoryConfig
from lrm_ttt.model.build import build
from lrm_ttt.model.checkpoint import save_pretrained
from lrm_ttt.model.config import BackboneConfig, ModelConfig, TriplaneConfig
from lrm_ttt.model.novel_view import NovelViewModel
from lrm_ttt.pipeline.state_file import SavedState, fingerprint, load_state, save_state
from lrm_ttt.render.volume import render_volume
from lrm_ttt.scene.cameras import Cameras
from lrm_ttt.scene.similarity import Similarity
from lrm_ttt.scene.triplanes_file import read_triplanes
from tests.cli.typed import refused
from tests.pipeline.make import write_capture

TRIPLANE = ModelConfig(
    backbone=BackboneConfig(64, 1, 32, 2, memory=MemoryConfig(32, 2)),
    normalisation="focus",
    representation="triplane",
    triplane=TriplaneConfig(16, 8, 4, 16, 1, 1.0, 8, 8),
)
IMAGES = dataclasses.replace(TRIPLANE, representation="images")
HELD_OUT = (0, 4, 8)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a capture, a model of each kind, and what the command makes of them."""
    folder = tmp_path_factory.mktemp("fields")
    write_capture(folder / "capture")
    for config in (TRIPLANE, IMAGES):
        kind = config.representation
        with torch.random.fork_rng():
            torch.manual_seed(0)
            save_pretrained(build(config), folder / kind)
        assert cli.main(words(folder, kind, "-o", str(folder / f"{kind}_out"))) == 0
    with torch.random.fork_rng():
        torch.manual_seed(1)
        save_pretrained(build(IMAGES), folder / "other")
    return folder


def words(folder: Path, kind: str, *more: str) -> list[str]:
    start = ["reconstruct", str(folder / "capture"), "--checkpoint", str(folder / kind)]
    return [*start, "--hold-out", "4", "--precision", "fp32", *more]


def pictures(out: Path) -> torch.Tensor:
    images = [np.asarray(Image.open(out / "renders" / f"{index:04d}_render.png")) for index in HELD_OUT]
    return torch.from_numpy(np.stack(images)).movedim(-1, 1) / 255


def cameras(folder: Path) -> Cameras:
    return load_views(open_scene(folder / "capture"), list(HELD_OUT)).cameras


def test_the_file_alone_shows_what_the_pictures_show(place: Path) -> None:
    """Nothing but the file and the capture's own cameras: neither the model nor the images."""
    triplanes, world_to_scene = read_triplanes(place / "triplane_out" / "triplanes.safetensors")
    scene_cameras = world_to_scene.cameras(cameras(place))[None]
    drawn = render_volume(triplanes[None], scene_cameras, torch.ones(1, 3), 8, 8).colors[0].clamp(0, 1)
    # Half a step of 8 bits.
    assert (drawn - pictures(place / "triplane_out")).abs().max() <= 0.5 / 255 + 1e-4
    assert drawn.std() > 0.01


def test_the_file_is_rendered_from_the_cameras_of_the_capture(place: Path) -> None:
    """`render` takes more samples than the model did, and the field is the same."""
    file, folder = place / "triplane_out" / "triplanes.safetensors", place / "frames"
    assert cli.main(["render", str(file), "-o", str(folder), "--cameras", str(place / "capture")]) == 0
    images = [np.asarray(Image.open(folder / f"{index:04d}_{index:03d}.png")) for index in HELD_OUT]
    frames = torch.from_numpy(np.stack(images)).movedim(-1, 1) / 255
    shown = pictures(place / "triplane_out")
    same, other = ((images - shown).abs().mean() for images in (frames, frames.roll(1, 0)))
    # A random field is rough: 16 samples a ray and 96 differ by 0.011, another view by 0.048.
    assert same < 0.4 * other


def test_the_state_shows_what_the_pictures_show(place: Path) -> None:
    out = place / "images_out"
    model = NovelViewModel.from_pretrained(place / "images")
    saved = load_state(out / "state.safetensors", model)
    parts = json.loads((out / "metrics.json").read_text())["world_to_scene"]
    for name, tensor in vars(saved.world_to_scene).items():
        assert torch.equal(tensor, torch.tensor(parts[name]))
    with torch.no_grad():
        drawn = model.query(saved.state, saved.world_to_scene.cameras(cameras(place))[None])[0]
    assert (drawn - pictures(out)).abs().max() <= 0.5 / 255 + 1e-4
    assert drawn.std() > 0.001


def frames(folder: Path) -> torch.Tensor:
    images = [np.asarray(Image.open(folder / f"{index:04d}_{index:03d}.png")) for index in HELD_OUT]
    return torch.from_numpy(np.stack(images)).movedim(-1, 1) / 255


@pytest.mark.parametrize(("kind", "file"), [("triplane", "triplanes.safetensors"), ("images", "state.safetensors")])
def test_what_was_saved_is_rendered_as_it_was_before(place: Path, tmp_path: Path, kind: str, file: str) -> None:
    """From a copy of the capture's cameras alone: the inputs are not seen again."""
    (tmp_path / "opencv_cameras.json").write_text((place / "capture" / "opencv_cameras.json").read_text())
    words = ["render", str(place / f"{kind}_out" / file), "--cameras", str(tmp_path), "-o", str(tmp_path / "frames")]
    assert cli.main([*words, "--checkpoint", str(place / kind)]) == 0
    # Products may round otherwise at another precision, and then to another of 256 steps.
    assert (frames(tmp_path / "frames") - pictures(place / f"{kind}_out")).abs().max() < 1.5 / 255


def test_an_orbit_goes_around_the_triplanes(place: Path, tmp_path: Path) -> None:
    """Without cameras, and without the model."""
    out = tmp_path / "orbit"
    flags = ["--num-frames", "4", "--image-size", "32", "32", "--background", "0", "0", "1"]
    assert cli.main(["render", str(place / "triplane_out" / "triplanes.safetensors"), "-o", str(out), *flags]) == 0
    images = np.stack([np.asarray(Image.open(path)) for path in sorted(out.iterdir())]).astype(int)
    blue = np.abs(images - [0, 0, 255]).sum(-1) < 3
    # The cube's sides fit into the image, its corners need not.
    assert (blue[:, :, [0, -1]].mean((1, 2)) > 0.25).all()
    assert not blue[:, 12:20, 12:20].any()


@pytest.mark.parametrize(
    ("kind", "flags", "said"),
    [
        ("images", [], ["--checkpoint"]),
        ("images", ["--checkpoint", "images"], ["--cameras", "orbit"]),
        ("images", ["--checkpoint", "triplane", "--cameras", "capture"], ["predicts 'triplane'", "'images'"]),
        ("images", ["--checkpoint", "other", "--cameras", "capture"], ["another model", "--checkpoint"]),
        ("images", ["--checkpoint", "images", "--cameras", "capture", "--background", "0", "0", "0"], ["--background"]),
        ("images", ["--checkpoint", "images", "--cameras", "capture", "--image-size", "30", "40"], ["30 40", "32 40"]),
        ("triplane", ["--checkpoint", "images"], ["predicts 'images'", "need no model"]),
        ("triplane", ["--backend", "cpu"], ["--backend", "Gaussians"]),
    ],
)
def test_what_does_not_fit_a_saved_scene_is_refused(
    place: Path, tmp_path: Path, kind: str, flags: list[str], said: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    file = place / f"{kind}_out" / ("state.safetensors" if kind == "images" else "triplanes.safetensors")
    flags = [str(place / flag) if (place / flag).exists() else flag for flag in flags]
    message = refused(["render", str(file), "-o", str(tmp_path / "none"), *flags], capsys)
    assert all(word in message for word in said), message
    assert not (tmp_path / "none").exists()


def test_what_is_no_saved_scene_is_refused_by_naming_those_that_are(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cut = (place / "images_out" / "state.safetensors").read_bytes()[:-100]
    (tmp_path / "cut.safetensors").write_bytes(cut)
    (tmp_path / "empty.safetensors").touch()
    (tmp_path / "folder.safetensors").mkdir()
    (tmp_path / "folder.ply").mkdir()
    names = ("cut.safetensors", "empty.safetensors", "folder.safetensors", "folder.ply", "gone.safetensors", "gone.ply")
    others = (place / "images" / "model.safetensors", place / "capture" / "opencv_cameras.json", place / "capture")
    for path in (*(tmp_path / name for name in names), *others):
        message = refused(
            ["render", str(path), "-o", str(tmp_path / "o"), "--checkpoint", str(place / "images")], capsys
        )
        kinds = (".ply of Gaussians", "triplanes.safetensors", "state.safetensors")
        assert str(path) in message and all(kind in message for kind in kinds), message
        assert "holds triplanes" not in message


def test_a_state_without_frame_or_size_is_refused(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, path = NovelViewModel.from_pretrained(place / "images"), tmp_path / "state.safetensors"
    words = ["render", str(path), "-o", str(tmp_path / "o"), "--checkpoint", str(place / "images")]
    model.start(1).save(path)
    assert "which frame" in refused(words, capsys)
    save_state(path, SavedState(model.start(1), Similarity.identity(), fingerprint(model)))
    assert "how large its inputs were" in refused(words, capsys)


@pytest.mark.parametrize(("kind", "file"), [("triplane", "triplanes.safetensors"), ("images", "state.safetensors")])
def test_the_results_are_those_of_any_run(place: Path, kind: str, file: str) -> None:
    out = place / f"{kind}_out"
    names = {file, "metrics.json", "config.yaml", "renders", "report.html", "video.mp4"}
    assert {path.name for path in out.iterdir()} == names
    numbers = json.loads((out / "metrics.json").read_text())
    assert numbers["representation"] == kind and numbers["result"] == file
    assert (numbers["num_input_views"], numbers["num_held_out_views"]) == (6, 3)
    assert "num_gaussians" not in numbers and "ply_round_trip_db_gap" not in numbers
    truth = [np.asarray(Image.open(out / "renders" / f"{index:04d}_truth.png")) / 255 for index in HELD_OUT]
    errors = [(t - p.movedim(0, -1).numpy()) ** 2 for t, p in zip(truth, pictures(out), strict=True)]
    expected = np.mean([-10 * np.log10(error.mean()) for error in errors])
    # Two roundings to 8 bits.
    assert numbers["psnr_held_out"] == pytest.approx(expected, abs=0.02)


@pytest.mark.parametrize(
    ("kind", "flags", "said"),
    [
        ("triplane", ["--representation", "gaussians"], ["predicts 'triplane'", "lrm-ttt train"]),
        ("images", ["--representation", "triplane"], ["predicts 'images'", "--checkpoint"]),
        ("images", ["--refine", "10"], ["--refine", "Gaussians"]),
        ("triplane", ["--keep-fraction", "0.5"], ["--keep-fraction", "Gaussians"]),
        ("triplane", ["--backend", "reference"], ["--backend", "Gaussians"]),
        ("images", ["--virtual", "2"], ["--virtual", "Gaussians"]),
    ],
)
def test_what_does_not_fit_the_checkpoint_is_refused(
    place: Path, kind: str, flags: list[str], said: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    message = refused(words(place, kind, "-o", str(place / "none"), *flags), capsys)
    assert all(word in message for word in said), message
    assert not (place / "none").exists()


def test_the_representation_may_be_named(place: Path) -> None:
    flags = ["--representation", "triplane", "--dry-run"]
    assert cli.main(words(place, "triplane", "-o", str(place / "none"), *flags)) == 0
