"""Laws of a run: the same seed gives the same bits, and stopping changes nothing."""

import dataclasses
import itertools
import json
import os
import signal
import time
import types
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lrm_ttt.errors import IncompatibleCheckpoint, InvalidConfig, OutputExists
from lrm_ttt.model.checkpoint import from_pretrained
from lrm_ttt.train import loop
from lrm_ttt.train.checkpointing import list_checkpoints
from lrm_ttt.train.loop import RunOptions, Trainer
from tests.train.micro import curve, micro, train


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    """Return every tensor of a run's last checkpoint."""
    last = list_checkpoints(folder)[-1]
    return {
        f"{path.stem}/{name}": value for path in last.glob("*.safetensors") for name, value in load_file(path).items()
    }


def assert_same(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    assert not [name for name in ours if not torch.equal(ours[name], theirs[name])]


def test_twenty_steps_are_reproducible_to_the_bit(tmp_path: Path) -> None:
    config = micro(12, 8)
    for name in ("a", "b"):
        train(config, tmp_path / name)
    losses = curve(tmp_path / "a")
    assert len(losses) == 20 and losses == curve(tmp_path / "b")
    assert_same(tensors(tmp_path / "a"), tensors(tmp_path / "b"))
    train(micro(2, 1, seed=1), tmp_path / "other")
    assert curve(tmp_path / "other")[0] != losses[0]


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1"])
def test_resuming_is_exact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Two steps, a signal, and two more steps with prefetching equal four steps without either."""
    config = micro(3, 1, accumulation=2)
    train(config, tmp_path / "whole")
    trainer = Trainer(config, tmp_path / "parts")
    step = trainer._step

    def interrupted() -> bool:
        if trainer.progress.step == 1:
            os.kill(os.getpid(), getattr(signal, name))
        return step()

    monkeypatch.setattr(trainer, "_step", interrupted)
    progress = trainer.run()
    assert progress.step == 2 and not progress.finished
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    resumed = train(dataclasses.replace(config, prefetch=True), tmp_path / "parts", resume=True)
    assert resumed.progress.finished and resumed.progress.scenes == 2 * (3 + 2)
    assert_same(tensors(tmp_path / "whole"), tensors(tmp_path / "parts"))
    assert curve(tmp_path / "whole") == curve(tmp_path / "parts")


def test_a_run_is_not_overwritten_or_mixed_up(tmp_path: Path) -> None:
    train(micro(1, 1), tmp_path)
    with pytest.raises(OutputExists, match="--resume"):
        Trainer(micro(1, 1), tmp_path)
    with pytest.raises(InvalidConfig, match="another model or seed"):
        Trainer(micro(1, 1, seed=5), tmp_path, RunOptions(resume=True))


def test_a_corrupt_checkpoint_is_refused_by_name(tmp_path: Path) -> None:
    train(micro(1, 1), tmp_path)
    path = list_checkpoints(tmp_path)[-1] / "average.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(IncompatibleCheckpoint, match=str(path)):
        Trainer(micro(1, 1), tmp_path, RunOptions(resume=True))


def test_export_is_the_average_with_its_provenance(tmp_path: Path) -> None:
    trainer = train(micro(2, 1), tmp_path, command="lrm-ttt train x")
    model = from_pretrained(tmp_path / "model")
    assert_same(
        dict(model.state_dict()), {name: tensor.clone() for name, tensor in trainer.learner.average.weights.items()}
    )
    provenance = json.loads((tmp_path / "model" / "provenance.json").read_text())
    assert provenance["steps"] == 3 and provenance["scenes"] == 4 and provenance["command"] == "lrm-ttt train x"
    assert provenance["finished"] and set(provenance["validation"]) == {
        "psnr",
        "log_depth_error",
        "raw_psnr",
        "raw_log_depth_error",
    }
    begun = Trainer(micro(1, 1, seed=9), tmp_path / "second", RunOptions(init=str(tmp_path / "model")))
    assert_same(dict(begun.learner.model.state_dict()), dict(model.state_dict()))


def test_when_the_time_is_nearly_over_the_rate_decays_and_the_run_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A clock that ticks once a look makes every step last one second.
    ticks = itertools.count()
    clock = types.SimpleNamespace(perf_counter=lambda: float(next(ticks)), monotonic=time.monotonic)
    monkeypatch.setattr(loop, "time", clock)
    progress = train(micro(5, 2000, decay_fraction=0.5), tmp_path, max_hours=12 / 3600).progress
    assert progress.finished and progress.decay.early and 11 <= progress.step <= 13
    rates = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert any(line["kind"] == "decay" for line in rates)
    assert [line["lr"] for line in rates if line["kind"] == "train"][-1] < 0.2e-3
    assert progress.before_decay in [int(path.name.split("-")[1]) for path in list_checkpoints(tmp_path)]
