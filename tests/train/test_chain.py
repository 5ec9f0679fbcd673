"""Laws of a chain: each run begins where the one before ended, and what is finished is not trained again."""

import dataclasses
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lrm_ttt import cli
from lrm_ttt.config_io import dump_yaml
from lrm_ttt.data.config import DataConfig, DatasetConfig
from lrm_ttt.errors import InvalidConfig, OutputExists
from lrm_ttt.losses.config import LossConfig
from lrm_ttt.model.checkpoint import from_pretrained
from lrm_ttt.train.chain import train_in_turn
from lrm_ttt.train.checkpointing import list_checkpoints
from lrm_ttt.train.config import TrainConfig
from lrm_ttt.train.loop import RunOptions, Trainer
from lrm_ttt.train.recipe import Changes, PlannedRun, plan_runs, read_paths
from tests.helpers.launch import launch
from tests.train.micro import MODEL, micro


def chain_of(folder: Path, *configs: TrainConfig) -> Path:
    """Write a chain of the runs one.yaml, two.yaml, ..."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"{name}.yaml" for name in ("one", "two", "three")[: len(configs)]]
    for name, config in zip(names, configs, strict=True):
        (folder / name).write_text(dump_yaml(config))
    (folder / "chain.yaml").write_text(f"runs: [{', '.join(names)}]\n")
    return folder / "chain.yaml"


def causal() -> TrainConfig:
    backbone = dataclasses.replace(MODEL.backbone, schedule="causal", views_per_update=2)
    return micro(1, 1, model=dataclasses.replace(MODEL, backbone=backbone))


def images() -> TrainConfig:
    stages = tuple(dataclasses.replace(stage, losses=LossConfig()) for stage in micro(1, 1).stages)
    return micro(1, 1, stages=stages, model=dataclasses.replace(MODEL, representation="images"))


def weights(run: PlannedRun) -> dict[str, torch.Tensor]:
    return dict(from_pretrained(run.model).state_dict())


def read_validation(run: PlannedRun) -> dict[str, Any]:
    """Return what a run said of the model that it began with."""
    lines = map(json.loads, (run.folder / "metrics.jsonl").read_text().splitlines())
    return next(line for line in lines if line["kind"] == "validation")


def train(runs: tuple[PlannedRun, ...], **options: Any) -> list[str]:
    """Return the folders of the runs that were trained."""
    return [run.folder.name for run, _ in train_in_turn(runs, RunOptions(**options))]


def test_a_chain_carries_weights_to_another_head_and_schedule(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a run begins with is, head apart, the model that the run before left."""
    runs = plan_runs(chain_of(tmp_path / "yaml", images(), micro(1, 1), causal()), tmp_path / "out", Changes())
    begun: list[dict[str, torch.Tensor]] = []
    run = Trainer.run

    def watched(trainer: Trainer) -> object:
        begun.append({name: tensor.clone() for name, tensor in trainer.learner.model.state_dict().items()})
        return run(trainer)

    monkeypatch.setattr(Trainer, "run", watched)
    assert train(runs) == ["1-one", "2-two", "3-three"]
    for number, (before, after) in enumerate(zip(runs, begun[1:], strict=False)):
        left = {name: tensor for name, tensor in weights(before).items() if number or not name.startswith("head.")}
        assert left and all(torch.equal(after[name], tensor) for name, tensor in left.items())
    assert train(runs, resume=True) == []


def test_two_ranks_train_a_chain_and_its_trackers_end_with_each_run(tmp_path: Path) -> None:
    """The end of a run must leave the ranks connected: the next begins with the same weights on both."""
    followed = [micro(1, 1, trackers=("tensorboard",)) for _ in "12"]
    runs = plan_runs(chain_of(tmp_path / "yaml", *followed), tmp_path / "out", Changes())
    launch(2, train, runs)
    for run in runs:
        events = EventAccumulator(str(next(run.folder.rglob("events.out.*")).parent)).Reload()
        assert run.is_finished() and [event.step for event in events.Scalars("train/loss")] == [1, 2]
    before = json.loads((runs[0].model / "provenance.json").read_text())
    assert read_validation(runs[1])["psnr"] == pytest.approx(before["validation"]["psnr"])


def test_a_chain_that_was_stopped_goes_on_and_ends_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = chain_of(tmp_path / "yaml", micro(1, 1), micro(2, 1), causal())
    whole, parts = (plan_runs(path, tmp_path / name, Changes()) for name in ("whole", "parts"))
    train(whole)
    step = Trainer._step

    def interrupted(trainer: Trainer) -> bool:
        if trainer.folder.path == parts[1].folder and trainer.progress.step == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(trainer)

    monkeypatch.setattr(Trainer, "_step", interrupted)
    assert train(parts) == ["1-one", "2-two"]
    assert not parts[1].is_finished() and not list_checkpoints(parts[2].folder)
    monkeypatch.setattr(Trainer, "_step", step)
    assert train(parts, resume=True) == ["2-two", "3-three"]
    for ours, theirs in zip(parts, whole, strict=True):
        assert all(torch.equal(tensor, weights(theirs)[name]) for name, tensor in weights(ours).items())


def test_a_run_that_never_saved_begins_again_from_the_one_before(tmp_path: Path) -> None:
    runs = plan_runs(chain_of(tmp_path / "yaml", micro(1, 1), micro(1, 1)), tmp_path / "out", Changes())
    train(runs[:1])
    runs[1].folder.mkdir()
    assert train(runs, resume=True) == ["2-two"]
    before = json.loads((runs[0].model / "provenance.json").read_text())
    assert read_validation(runs[1])["psnr"] == pytest.approx(before["validation"]["psnr"])


def test_max_steps_are_those_of_all_runs(tmp_path: Path) -> None:
    path = chain_of(tmp_path / "yaml", micro(40, 20), micro(20, 20))
    runs = plan_runs(path, tmp_path / "out", Changes(seed=7, max_steps=10))
    assert [[stage.steps for stage in run.config.stages] for run in runs] == [[4, 2], [2, 2]]
    assert [run.config.seed for run in runs] == [7, 7]
    (single,) = plan_runs(tmp_path / "yaml" / "one.yaml", tmp_path / "out", Changes(steps_scale=0.5))
    assert single.folder == tmp_path / "out" and single.config.total_steps == 30


def test_other_flags_do_not_pass_for_finished(tmp_path: Path) -> None:
    path = chain_of(tmp_path / "yaml", micro(1, 1), micro(1, 1))
    runs = plan_runs(path, tmp_path / "out", Changes())
    train(runs)
    with pytest.raises(OutputExists, match="finished after 2 steps, and 4 are asked for"):
        train(plan_runs(path, tmp_path / "out", Changes(steps_scale=2.0)), resume=True)
    with pytest.raises(OutputExists, match="--resume"):
        train(runs)
    with pytest.raises(InvalidConfig, match="--max-hours is for one run"):
        train(runs, max_hours=1.0)


def reading(name: str, held_out: str | None = None) -> TrainConfig:
    config = micro(1, 1, data=DataConfig((DatasetConfig(name), DatasetConfig("more", layout="procedural"))))
    source = None if held_out is None else DatasetConfig(held_out)
    return dataclasses.replace(config, validation=dataclasses.replace(config.validation, source=source))


def test_paths_of_data_sets_are_given_by_name(tmp_path: Path) -> None:
    path = chain_of(tmp_path, reading("a"), reading("b", held_out="a"))
    runs = plan_runs(path, tmp_path / "out", Changes(data=read_paths(("a=/x", "b=/y=z"))))
    assert [[d.path for d in run.config.data.sources] for run in runs] == [["/x", None], ["/y=z", None]]
    source = runs[1].config.validation.source
    assert source is not None and source.path == "/x"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("a=/x",), r"path of b is not known: add --data b=PATH \(data sets here: a, more, b\)"),
        ((), "path of a and b is not known: add --data a=PATH --data b=PATH"),
        (("a=/x", "b=/y", "c=/z"), "--data c: there is no data set of that name here; there are a, more, b"),
        (("a",), "--data a: give NAME=PATH"),
        (("a=/x", "a=/y"), "--data a is given twice"),
    ],
)
def test_a_path_that_is_wrong_or_missing_is_one_message(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], says: str
) -> None:
    path = chain_of(tmp_path, reading("a"), reading("b", held_out="a"))
    with pytest.raises(InvalidConfig, match=says):
        plan_runs(path, tmp_path / "out", Changes(data=read_paths(words)))
    flags = [part for word in words for part in ("--data", word)]
    assert cli.main(["train", str(path), "-o", str(tmp_path / "out"), *flags]) == 2
    assert capsys.readouterr().err.startswith("lrm-ttt train: ") and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("runs: []", "at least one file"),
        ("runs: [one.yaml]\nstages: []", "Unknown key 'stages'"),
        ("runs: [none.yaml]", "none.yaml cannot be read"),
    ],
)
def test_a_chain_is_checked_before_its_first_run(tmp_path: Path, text: str, says: str) -> None:
    path = chain_of(tmp_path, micro())
    path.write_text(text)
    with pytest.raises(InvalidConfig, match=says):
        plan_runs(path, tmp_path / "out", Changes())
