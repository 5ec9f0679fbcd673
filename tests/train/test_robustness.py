"""Nothing is lost: kills at any moment, full disks, diverging runs, broken scenes, other numbers of processes."""

import dataclasses
import errno
import multiprocessing
import random
import time
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError

from lrm_ttt.data.config import DataConfig, DatasetConfig
from lrm_ttt.errors import IncompatibleCheckpoint, RunFailed
from lrm_ttt.train import checkpointing, run_folder
from lrm_ttt.train.checkpointing import list_checkpoints, load_checkpoint
from lrm_ttt.train.config import OptimiserConfig, TrainConfig
from lrm_ttt.train.loop import RunOptions, Trainer
from tests.train.capture_sets import break_images, write_captures
from tests.train.micro import curve, micro, train

# So many runs are killed, one after the other.
NUM_KILLS = 20


def steps_kept(folder: Path) -> list[int]:
    """Return the steps of a run's checkpoints."""
    return [int(path.name.split("-")[1]) for path in list_checkpoints(folder)]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    parts, _ = load_checkpoint(list_checkpoints(folder)[-1])
    return {f"{part}/{name}": value for part, tensors in parts.items() for name, value in tensors.items()}


def often_saved() -> TrainConfig:
    """Return a run that writes a checkpoint after every step, so that many kills meet a half-written one."""
    return micro(20, 10, checkpoint_every_minutes=1e-9, validate_every=25)


def run_often_saved(folder: Path) -> None:
    torch.set_num_threads(1)
    Trainer(often_saved(), folder, RunOptions(resume=True)).run()


def test_twenty_kills_change_no_bit(tmp_path: Path) -> None:
    # Processes come from one that has imported everything, so that they are at work at once.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.train.test_robustness"])
    undisturbed = context.Process(target=run_often_saved, args=(tmp_path / "whole",))
    undisturbed.start()
    undisturbed.join()
    assert undisturbed.exitcode == 0
    moments, reached = random.Random(0), [0]
    for number in range(NUM_KILLS):
        process = context.Process(target=run_often_saved, args=(tmp_path / "killed",))
        process.start()
        # Every other one lives until it has come further, so that kills meet starts, steps and half-written files.
        while number % 2 and process.is_alive() and max(steps_kept(tmp_path / "killed"), default=0) <= reached[-1]:
            time.sleep(0.01)
        time.sleep(moments.uniform(0.0, 0.5))
        process.kill()
        process.join()
        reached.append(max(steps_kept(tmp_path / "killed"), default=0))
    # Nothing was lost on the way, and most were killed before the end.
    assert reached == sorted(reached) and len(set(reached)) > 5
    last = context.Process(target=run_often_saved, args=(tmp_path / "killed",))
    last.start()
    last.join()
    assert last.exitcode == 0
    ours, theirs = weights(tmp_path / "killed"), weights(tmp_path / "whole")
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert curve(tmp_path / "killed") == curve(tmp_path / "whole") and len(curve(tmp_path / "whole")) == 30
    assert not list((tmp_path / "killed" / "checkpoints").glob(".*"))


def test_the_last_checkpoints_and_the_best_are_kept(tmp_path: Path) -> None:
    config = micro(4, 4, checkpoint_every_minutes=1e-9, validate_every=2, keep_checkpoints=2, decay_fraction=0.5)
    progress = train(config, tmp_path).progress
    assert progress.best_step in (2, 4, 6, 8) and progress.best_psnr >= progress.validation["psnr"]
    assert set(steps_kept(tmp_path)) == {7, 8, progress.best_step, progress.before_decay}


def test_a_full_disk_costs_no_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, full = checkpointing.save_file, iter([False] * 3 + [True] * 2)

    def fill(tensors: object, path: Path) -> None:
        whole(tensors, path)
        if next(full, False):
            path.write_bytes(path.read_bytes()[:100])
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpointing, "save_file", fill)
    config = micro(2, 1, checkpoint_every_minutes=1e-9)
    said: list[str] = []
    trainer = Trainer(config, tmp_path)
    monkeypatch.setattr(trainer.reporter, "say", said.append)
    assert trainer.run().finished
    assert any("No space left on device" in text and "the one before is kept" in text for text in said)
    assert not list((tmp_path / "checkpoints").glob(".*")) and steps_kept(tmp_path)[-1] == 3
    full = iter([True] * 100)
    with pytest.raises(RunFailed, match=r"No space left on device.*--resume"):
        train(micro(4, 1), tmp_path, resume=True)
    load_checkpoint(list_checkpoints(tmp_path)[-1])


def test_a_disk_too_full_for_the_model_beside_the_checkpoint_is_told_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> None:
        raise SafetensorError("Error while serializing: No space left on device")

    monkeypatch.setattr(run_folder, "save_pretrained", fail)
    with pytest.raises(RunFailed, match=r"No space left on device.*--resume"):
        train(micro(1, 1), tmp_path)
    assert steps_kept(tmp_path)[-1] == 2


def test_a_kill_while_a_checkpoint_is_replaced_loses_nothing(tmp_path: Path) -> None:
    train(micro(1, 1), tmp_path)
    last = list_checkpoints(tmp_path)[-1]
    last.replace(last.with_name(f".replaced-{last.name}"))
    assert Trainer(micro(1, 1), tmp_path, RunOptions(resume=True)).progress.step == 2
    assert last.is_dir()


def test_a_changed_state_file_is_refused(tmp_path: Path) -> None:
    train(micro(1, 1), tmp_path)
    path = list_checkpoints(tmp_path)[-1] / "state.json"
    path.write_text(path.read_text().replace('"step": 2', '"step": 3'))
    with pytest.raises(IncompatibleCheckpoint, match=f"{path}.*checksum"):
        Trainer(micro(1, 1), tmp_path, RunOptions(resume=True))


def test_a_run_that_diverges_stops_and_says_so(tmp_path: Path) -> None:
    config = micro(6, 6, optimiser=OptimiserConfig(clip_norm=1e-9, skip_norm=1e-9, max_skips=3))
    trainer = Trainer(config, tmp_path)
    with pytest.raises(RunFailed, match=r"after step 3.*3 steps in a row.*skip_norm"):
        trainer.run()
    assert trainer.progress.skipped == 3


def test_broken_scenes_are_named_and_too_many_end_the_run(tmp_path: Path) -> None:
    captures = write_captures(tmp_path / "data", 6)
    break_images(captures, 2)
    data = DataConfig((DatasetConfig("captures", str(tmp_path / "data"), "scenes"),), num_workers=0, max_broken=0.005)
    config = dataclasses.replace(micro(8, 32), data=data)
    trainer = Trainer(config, tmp_path / "run")
    with pytest.raises(RunFailed, match=r"6 of the first \d+ scenes drawn could not be read"):
        trainer.run()
    told = (tmp_path / "run" / "metrics.jsonl").read_text()
    assert told.count('"kind": "broken"') == trainer.progress.broken == 6 and captures.folders[2].name in told


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    train(micro(1, 1), tmp_path)
    state = list_checkpoints(tmp_path)[-1]
    (tmp_path / "config.yaml").unlink()
    other = micro(1, 1)
    wider = dataclasses.replace(other.model.backbone, width=48, attention_head_dim=16)
    other = dataclasses.replace(other, model=dataclasses.replace(other.model, backbone=wider))
    with pytest.raises(IncompatibleCheckpoint, match=f"{state} is of another model"):
        Trainer(other, tmp_path, RunOptions(resume=True))
