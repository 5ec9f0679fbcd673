"""What a run writes can be read back, and what cannot be written is said before it begins."""

import importlib.util
import json
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
from lrm_ttt.errors import BackendUnavailable
from lrm_ttt.render.sheet import MOST_COMPARED
from lrm_ttt.scene.gaussians import Gaussians
from lrm_ttt.scene.views import Renderings, SceneBatch
from lrm_ttt.train.logging import Reporter, check_trackers, start_trackers, status_line
from lrm_ttt.train.measures import step_measures
from lrm_ttt.train.pictures import Album

RATES = {"scenes_per_s": 1.25, "utilisation": 0.381, "memory_gb": 1.04}


def scenes(num_scenes: int) -> SceneBatch:
    return sample_batch(ProceduralConfig((16, 24), (2, 2), 2, 0.0), num_scenes, torch.Generator().manual_seed(0))


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

    stand_in = types.ModuleType("wandb")
    stand_in.Error = Error  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "wandb", stand_in)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: stand_in)
    accelerator = Accelerator()
    monkeypatch.setattr(accelerator, "init_trackers", init_trackers)
    with pytest.raises(BackendUnavailable, match=r"No API key configured\. Run `wandb login`, set WANDB_MODE=offline"):
        start_trackers(accelerator, ("wandb",), tmp_path, {"seed": 3})
    assert asked == {"project": "lrm-ttt", "dir": str(tmp_path), "name": tmp_path.name, "config": {"seed": 3}}


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
    found = step_measures(rendered(batch, 0.1), batch.targets, gaussians, 3)
    assert abs(float(found["psnr"]) - 20) < 1e-4
    assert found["gaussians_used"] == 0.75 and found["gaussians_kept"] == 3
    assert step_measures(rendered(batch, 0.1), batch.targets, gaussians)["gaussians_kept"] == 4
    assert set(step_measures(rendered(batch, 0.1), batch.targets, None)) == {"psnr"}


def test_an_album_shows_scenes_evenly() -> None:
    album = Album()
    for offset in (0.1, 0.01):
        batch = scenes(4)
        album.add(batch, rendered(batch, offset))
    sheet = album.draw("step 7")
    assert len(album.pages) == 8 > MOST_COMPARED
    few = Album()
    batch = scenes(2)
    few.add(batch, rendered(batch, 0.1))
    # Two rows of comparisons and one of inputs against three of comparisons.
    assert few.draw("step 7").height < sheet.height and sheet.width > few.draw("step 7").width
    shown = np.asarray(few.draw("step 7"))
    assert batch.targets is not None
    truth = (batch.targets.images[0, 0].movedim(0, -1) * 255).round().byte().numpy()
    factor = -(-160 // 24)
    enlarged = truth.repeat(factor, 0).repeat(factor, 1)
    windows = np.lib.stride_tricks.sliding_window_view(shown[..., 0], enlarged.shape[:2])
    assert (windows[:, :, ::factor, ::factor] == truth[..., 0]).all((-1, -2)).any()
