"""What a run writes can be read back, and what cannot be written is said before it begins."""

import dataclasses
import importlib.util
import json
import logging
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lrm_ttt.data.procedural import ProceduralConfig, sample_batch
from lrm_ttt.errors import BackendUnavailable, InvalidConfig
from lrm_ttt.losses.config import LossConfig
from lrm_ttt.model.flops import count_flops
from lrm_ttt.scene.gaussians import Gaussians
from lrm_ttt.scene.views import Renderings, SceneBatch
from lrm_ttt.train.logging import Reporter, Stopwatch, check_trackers, measure_module, start_trackers, status_line
from lrm_ttt.train.loop import Trainer
from lrm_ttt.train.measures import step_measures
from lrm_ttt.train.pictures import Album
from tests.train.micro import micro, train

RATES = {"scenes_per_s": 1.25, "utilisation": 0.381, "memory_gb": 1.04}


def scenes(num_scenes: int, seed: int = 0) -> SceneBatch:
    return sample_batch(ProceduralConfig((16, 24), (2, 2), 2, 0.0), num_scenes, torch.Generator().manual_seed(seed))


def rendered(batch: SceneBatch, offset: float) -> Renderings:
    """Return renderings that miss the truth by `offset` in every value."""
    assert batch.targets is not None
    images = batch.targets.images
    off = torch.where(images > 0.5, images - offset, images + offset)
    return Renderings(off, torch.ones_like(images[:, :, :1]), torch.zeros_like(images[:, :, :1]))


def test_numbers_and_pictures_come_back(tmp_path: Path) -> None:
    accelerator = Accelerator(log_with=["tensorboard"], project_dir=str(tmp_path))
    start_trackers(accelerator, ("tensorboard",), tmp_path, {"seed": 0})
    reporter = Reporter(tmp_path, accelerator, 10, True)
    reporter.record("train", 3, {"loss": 0.25, "stage": "small", "seconds": {"data": 0.5}})
    pixels = np.random.default_rng(0).integers(0, 256, (12, 20, 3), dtype=np.uint8)
    reporter.picture("held out", 3, Image.fromarray(pixels))
    reporter.close()
    line = json.loads((tmp_path / "metrics.jsonl").read_text())
    assert line == {"kind": "train", "step": 3, "loss": 0.25, "stage": "small", "seconds": {"data": 0.5}}
    assert np.array_equal(np.asarray(Image.open(tmp_path / "pictures" / "step-3.png")), pixels)
    events = EventAccumulator(str(next(tmp_path.rglob("events.out.*")).parent))
    events.Reload()
    assert {tag: events.Scalars(tag)[0].value for tag in events.Tags()["scalars"]} == {
        "train/loss": 0.25,
        "train/seconds/data": 0.5,
    }
    (image,) = events.Images("held out")
    (tmp_path / "shown.png").write_bytes(image.encoded_image_string)
    assert image.step == 3 and np.array_equal(np.asarray(Image.open(tmp_path / "shown.png")), pixels)


def test_without_trackers_metrics_and_pictures_are_written(tmp_path: Path) -> None:
    accelerator = Accelerator()
    start_trackers(accelerator, (), tmp_path, {})
    reporter = Reporter(tmp_path, accelerator, 10, False)
    reporter.record("validation", 0, {"psnr": 20.0})
    reporter.picture("held out", 0, Image.new("RGB", (4, 4)))
    reporter.close()
    assert json.loads((tmp_path / "metrics.jsonl").read_text())["psnr"] == 20
    assert (tmp_path / "pictures" / "step-0.png").is_file() and not list(tmp_path.rglob("events.out.*"))


def test_what_a_killed_run_told_after_its_checkpoint_is_forgotten(tmp_path: Path) -> None:
    def tell(first: int, last: int, after: int) -> None:
        accelerator = Accelerator(log_with=["tensorboard"], project_dir=str(tmp_path))
        start_trackers(accelerator, ("tensorboard",), tmp_path, {}, after)
        reporter = Reporter(tmp_path, accelerator, 10, True, after)
        for step in range(first, last + 1):
            reporter.record("train", step, {"loss": float(10 * after + step)})
        reporter.close()

    path = tmp_path / "metrics.jsonl"
    tell(1, 5, 0)
    with path.open("a") as file:
        file.write('{"kind": "tra')
    tell(4, 6, 3)
    expected = [(1, 1.0), (2, 2.0), (3, 3.0), (4, 34.0), (5, 35.0), (6, 36.0)]
    assert [(line["step"], line["loss"]) for line in map(json.loads, path.read_text().splitlines())] == expected
    events = EventAccumulator(str(next(tmp_path.rglob("events.out.*")).parent))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("train/loss")] == expected
    # A run that begins anew in a folder without a checkpoint has nothing to keep.
    tell(1, 1, 0)
    assert len(path.read_text().splitlines()) == 1


def test_a_tracker_that_is_not_installed_is_one_error(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "wandb" else found(name))
    check_trackers(("tensorboard",))
    with pytest.raises(BackendUnavailable, match=r"wandb is not installed\. Run `pip install wandb`, or take it out"):
        check_trackers(("tensorboard", "wandb"))


def test_wandb_without_a_key_is_one_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in refuses as wandb does, and is given what a run has to say of itself."""

    class Error(Exception):
        pass

    asked: dict[str, object] = {}

    def init_trackers(project: str, init_kwargs: dict[str, dict[str, object]]) -> None:
        asked.update(init_kwargs["wandb"], project=project)
        raise Error("No API key configured.")

    # Before every module seems to be there, for it looks for accelerators by theirs.
    accelerator = Accelerator()
    stand_in = types.ModuleType("wandb")
    stand_in.Error = Error  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "wandb", stand_in)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: stand_in)
    monkeypatch.setattr(accelerator, "init_trackers", init_trackers)
    with pytest.raises(BackendUnavailable, match=r"No API key configured\. Run `wandb login`, set WANDB_MODE=offline"):
        start_trackers(accelerator, ("wandb",), tmp_path, {"seed": 3})
    assert asked == {"project": "lrm-ttt", "dir": str(tmp_path), "name": tmp_path.name, "config": {"seed": 3}}


def test_a_module_is_timed_in_training_alone() -> None:
    layer, stopwatch = torch.nn.Linear(2, 2), Stopwatch()
    measure_module(layer, stopwatch, "layer")
    layer.eval()(torch.ones(1, 2))
    assert not stopwatch.collect()
    layer.train()(torch.ones(1, 2))
    assert stopwatch.collect()["layer"] > 0


def test_the_line_tells_what_matters() -> None:
    means = {"loss": 0.012345, "psnr": 21.456, "gradient_norm": 1.0}
    text = status_line("64px", means, RATES, {"psnr": 22.0}, {"data": 0.01, "step": 0.5}, 0)
    assert text == "64px  loss 0.01235  psnr 21.46  held out 22.00 dB  1.25 scenes/s  38% of peak  1.0 GB"
    text = status_line("64px", {"loss": 1.0}, RATES, {}, {"data": 0.25, "step": 1.0}, 2)
    assert text == "64px  loss 1  1.25 scenes/s  38% of peak  1.0 GB  25% waiting for data  skipped 2"


def test_measures() -> None:
    batch = scenes(2)
    assert batch.targets is not None
    opacities = torch.tensor([[0.0, 1e-4, 2e-3, 1.0], [0.5, 0.5, 0.5, 0.5]])
    flat = torch.zeros(2, 4, 3)
    gaussians = Gaussians(flat, flat, torch.zeros(2, 4, 4), opacities, torch.zeros(2, 4, 1, 3))
    found = step_measures(rendered(batch, 0.1), batch.targets, gaussians, (0.5, 0.5))
    assert abs(float(found["psnr"]) - 20) < 1e-4
    assert found["gaussians_used"] == 0.75
    assert found["gaussians_kept"] == gaussians.prune(0.5, 0.5).num_gaussians == 3
    assert step_measures(rendered(batch, 0.1), batch.targets, gaussians)["gaussians_kept"] == 4
    assert set(step_measures(rendered(batch, 0.1), batch.targets, None)) == {"psnr"}


def test_an_album_shows_scenes_evenly_and_those_of_all_ranks() -> None:
    batches = [scenes(1, seed) for seed in range(8)]
    whole, ranks = Album(8), (Album(8), Album(8))
    for number, batch in enumerate(batches):
        for album in (whole, ranks[number % 2]):
            album.add(number, batch, rendered(batch, 0.1 if number else 0.01))
    assert [page.number for page in whole.pages] == [0, 1, 3, 4, 6, 7]
    assert [round(page.psnr) for page in whole.pages] == [40, 20, 20, 20, 20, 20]
    together = Album(8)
    together.pages = [page for album in ranks for page in album.pages]
    shown = np.asarray(whole.draw("step 7"))
    assert np.array_equal(np.asarray(together.draw("step 7")), shown)
    for batch in batches[:1]:
        assert batch.targets is not None
        for image in (batch.inputs.images[0, 0], batch.targets.images[0, 0]):
            assert holds(shown, (image * 255).round().byte().movedim(0, -1).numpy())
    assert not holds(shown, (batches[2].inputs.images[0, 0] * 255).round().byte().movedim(0, -1).numpy())


def holds(sheet: np.ndarray, image: np.ndarray) -> bool:
    """Return whether a sheet shows an image, whose pixels are enlarged to squares."""
    factor = -(-160 // max(image.shape[:2]))
    reach = tuple((side - 1) * factor + 1 for side in image.shape[:2])
    windows = np.lib.stride_tricks.sliding_window_view(sheet[..., 0], reach)[:, :, ::factor, ::factor]
    # Few places have the row in the middle.
    middle = len(image) // 2
    places = np.argwhere((windows[:, :, middle] == image[middle, :, 0]).all(-1))
    return any((windows[row, column] == image[..., 0]).all() for row, column in places)


def test_a_full_disk_does_not_end_a_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    reporter = Reporter(tmp_path, Accelerator(), 10, False)
    assert reporter.file is not None
    reporter.file.close()
    with Path("/dev/full").open("w") as reporter.file, caplog.at_level(logging.INFO, "lrm_ttt.train"):
        (tmp_path / "pictures").write_text("in the way")
        for step in (1, 2):
            reporter.record("train", step, {"loss": 0.5})
            reporter.picture("held out", step, Image.new("RGB", (4, 4)))
        reporter.close()
    assert [record.getMessage() for record in caplog.records] == [
        "metrics.jsonl could not be written (No space left on device); the run goes on"
    ]


def test_a_run_tells_what_it_did(tmp_path: Path) -> None:
    config = micro(1, 1, trackers=("tensorboard",), validate_every=1)
    train(config, tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert rows[0]["kind"] == "machine" and "TFLOP/s" in rows[0]["peak"]
    peak = float(rows[0]["peak"].split()[0])
    steps = [row for row in rows if row["kind"] == "train"]
    for row, stage in zip(steps, config.stages, strict=True):
        # Seconds are rounded to a tenth of a millisecond in the file.
        seconds, close = row["seconds"]["step"], {"rel": 2e-3}
        assert row["scenes_per_s"] * seconds == pytest.approx(stage.batch_size, **close)
        num_inputs = row["views_per_s"] * seconds / stage.batch_size
        assert num_inputs == pytest.approx(round(num_inputs), **close)
        flops = stage.batch_size * count_flops(config.model, round(num_inputs), stage.image_size).training
        assert row["tflop_per_s"] * 1e12 * seconds == pytest.approx(flops, **close)
        assert row["utilisation"] == pytest.approx(row["tflop_per_s"] / peak, **close)
        assert row["gaussians_kept"] == pytest.approx(round(num_inputs) * stage.image_size[0] * stage.image_size[1])
        assert 0 < row["gaussians_used"] <= 1 and 0 < row["psnr"] < 60
    shown = EventAccumulator(str(next(tmp_path.rglob("events.out.*")).parent))
    shown.Reload()
    assert [event.value for event in shown.Scalars("train/utilisation")] == pytest.approx(
        [row["utilisation"] for row in steps]
    )
    assert [image.step for image in shown.Images("held out")] == [0, 1, 2]
    assert {path.name for path in (tmp_path / "pictures").iterdir()} == {f"step-{step}.png" for step in range(3)}


def test_what_is_missing_is_said_before_a_run_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    config = micro(1, 1)
    last = dataclasses.replace(config.stages[1], losses=LossConfig(perceptual=0.5))
    with pytest.raises(InvalidConfig, match=r"vgg16-397923af\.pth"):
        Trainer(dataclasses.replace(config, stages=(config.stages[0], last)), tmp_path / "run")
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "wandb" else found(name))
    with pytest.raises(BackendUnavailable, match="wandb is not installed"):
        Trainer(dataclasses.replace(config, trackers=("wandb",)), tmp_path / "run")
    assert not (tmp_path / "run").exists()
